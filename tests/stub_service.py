"""A whole service over a stub engine. Not in `fakes`, which worker processes import too and have to start fast."""

from backend.jobs.worker_pool import WorkerPool
from backend.service import Service
from backend.settings import Settings
from tests.fakes import StubEngine, thread_worker


class StubService(Service):
    """Its engine can be inspected; the service itself knows only the worker."""

    def __init__(self, settings: Settings, engine: StubEngine) -> None:
        super().__init__(settings, WorkerPool([thread_worker(engine)]))
        self.engine = engine
