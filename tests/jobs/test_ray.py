"""Workers on a Ray cluster of two nodes: what a lost one ran goes on elsewhere, and nothing is left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests

from backend.jobs.metrics import Metrics
from backend.jobs.scheduler import Scheduler
from backend.jobs.store import Store
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_pool import WorkerPool
from backend.video import VideoLimits
from backend.worker_settings import RaySettings
from benchmarks.jobs_parts.servers import is_alive, until
from tests.clips import write_clip
from tests.fakes import sleeping_engine
from tests.jobs.test_kills import ROOT
from tests.jobs.test_scheduler import box, left_sides
from tests.needs import need

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

FRAMES = 200


@pytest.fixture(autouse=True)
def ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    need(find_spec("ray") is not None, "Ray (pip install -e '.[ray]')")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 2)  # else Ray writes one into the home folder
    import ray

    return ray


@pytest.fixture
def cluster(ray: Any) -> Iterator[Any]:
    """Two nodes with room for two workers each, beside the head."""
    from ray.cluster_utils import Cluster

    from backend.jobs import ray_link

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    cluster.wait_for_nodes()
    ray_link.connect(RaySettings(address=cluster.address))
    yield cluster
    ray_link.disconnect()
    cluster.shutdown()


def test_what_a_lost_worker_or_node_ran_goes_on_elsewhere(ray: Any, cluster: Any, tmp_path: Path, caplog) -> None:
    from backend.jobs import ray_link

    clips = [write_clip(tmp_path / f"{task}.mp4", frames=FRAMES, size=(64, 48)).path for task in range(2)]
    options = RaySettings(num_gpus=0, num_cpus=1, max=3)
    launch = ray_link.ray_launcher(partial(sleeping_engine, 0.02), "error", options, 2**30)
    pool = WorkerPool([WorkerClient(launch, "stub", "1", 60, device=f"ray #{number}") for number in range(3)])
    store = Store(tmp_path / "jobs.sqlite3", 2**30, 30)
    scheduler = Scheduler(
        pool, store, lambda spec, _: clips[int(spec.task)], print, VideoLimits(), queue=9, metrics=Metrics()
    )
    pool.start()
    try:
        assert until(lambda: all(worker.status == "ready" for worker in pool.workers), 60)
        jobs = [scheduler.submit([str(task)], "1", box(task=str(task))) for task in range(2)]
        assert until(lambda: all(job.progress()[0] >= 40 for job in jobs), 60)
        first = jobs[0].worker
        next(worker for worker in pool.workers if worker.device == first).kill()
        assert until(lambda: jobs[0].worker != first, 10)
        assert until(lambda: jobs[0].progress()[0] >= 70, 60)
        cluster.remove_node(cluster.nodes[0], allow_graceful=False)
        for job in jobs:
            assert job.wait(120), (job.state, job.phase)
            assert job.state == "done", job.error
            assert left_sides(job) == pytest.approx([6.4 + frame for frame in range(100)])
        # On a busy machine the jobs may end before the cluster notices.
        assert until(lambda: "the node of an engine process is lost" in caplog.text, 60)
    finally:
        scheduler.close()


def descendants(process: int) -> set[int]:
    """The processes that it has started, and those that these have."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def test_a_server_that_is_told_to_stop_leaves_no_ray_process_behind(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "from backend.cli import main; main()", "serve", "--engine", "opencv", "--port", "0"]
    chosen = {"SAM3_BACKEND_WORKERS": "ray", "SAM3_BACKEND_RAY_NUM_GPUS": "0", "SAM3_BACKEND_RAY_MAX": "2"}
    environment = {**os.environ, **chosen, "SAM3_BACKEND_DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout
        address = re.search(r"on (127\.0\.0\.1:\d+)$", server.stdout.readline().strip())
        assert address
        try:
            health = requests.get(f"http://{address[1]}/health", timeout=10).json()
            assert [worker["device"] for worker in health["workers"]] == ["ray #1", "ray #2"]
            ready = f"http://{address[1]}/health/ready"
            assert until(lambda: requests.get(ready, timeout=10).status_code == 200, 60)
            left = descendants(server.pid)
            assert len(left) > 2
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) in (0, 130)
            assert until(lambda: not any(map(is_alive, left)), 20)
        finally:
            server.kill()
            time.sleep(0.1)
