"""`sam3-backend serve`: the ML backend over HTTP, until it is told to stop."""

import logging
import signal
import threading
from types import FrameType

from waitress.server import create_server

from backend import __version__
from backend.engines.base import FAILED_PREFIX, watch_status
from backend.http.app import create_app
from backend.jobs.worker_client import WorkerClient
from backend.service import Service
from backend.settings import Settings

_THREADS = 96
"""A waiting request holds a thread; /health must always find one."""
_CONNECTIONS = 1000
_LOOK = 0.5
"""Seconds between two looks at a model that is loading."""

log = logging.getLogger(__name__)


def run(settings: Settings, device: WorkerClient | None = None) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        device: what jobs run on; None: what the settings name.

    Raises:
        SettingsError: the settings' engine cannot run here.
    """
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    service = Service(settings, device)
    threading.Thread(target=tell_status, args=(service,), name="status", daemon=True).start()
    server = create_server(
        create_app(service),
        host=settings.host,
        port=settings.port,
        threads=_THREADS,
        max_request_body_size=settings.limits.body,
        ident=None,
        # Idle connections count too, and at the limit nobody gets in, /health included.
        connection_limit=_CONNECTIONS,
        asyncore_use_poll=True,
        channel_timeout=30,
    )
    # SIGINT too: Python leaves it ignored where a shell started us in the background.
    closing = threading.Thread(target=service.close, name="closing")

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if not closing.ident:
            closing.start()  # at once: the server takes some seconds to see off those who wait for an answer
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    # A host name with several addresses has several sockets, all on the port that was asked for.
    port = getattr(server, "effective_port", settings.port)
    print(f"sam3-backend {__version__}: {service.model_version} on {settings.host}:{port}", flush=True)
    try:
        server.run()
    finally:
        if not closing.ident:
            closing.start()
        closing.join()


def tell_status(service: Service, seconds: float = _LOOK) -> None:
    """Log every change of the model's status until it is ready or has failed."""
    for status in watch_status(service, seconds):
        level = logging.ERROR if status.startswith(FAILED_PREFIX) else logging.INFO
        log.log(level, "%s: %s", service.model_version, status)
