"""A Ray cluster on this machine whose nodes can be lost."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from backend.worker_settings import RaySettings
from benchmarks.jobs_parts.servers import children, until

HAS_RAY = find_spec("ray") is not None
_HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 2,
}
"""How soon the cluster notices a lost node: in some 2 s. With Ray's own settings it takes 15."""


class RayNodes:
    """Nodes with room for some workers each, beside a head without any; this process joins the cluster.

    Every node has a folder for temporary files, in place of the one that they would share.

    Args:
        rooms: for how many workers each node has room.
    """

    def __init__(self, folder: Path, rooms: tuple[int, ...]) -> None:
        os.environ.setdefault("RAY_AUTH_TOKEN", "0123456789abcdef" * 2)  # else Ray writes one into the home folder
        from ray.cluster_utils import Cluster

        from backend.jobs import ray_link

        self._folder, self._link = folder, ray_link
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": _HEALTH}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: dict[str, Any] = {}
        try:
            for room in rooms:
                self.add(room)
            ray_link.connect(RaySettings(address=self._cluster.address, num_gpus=0))
        except BaseException:
            self._cluster.shutdown()
            raise

    def close(self) -> None:
        """End them."""
        self._link.disconnect()
        self._cluster.shutdown()

    def add(self, room: int) -> None:
        """Another node."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        node = self._cluster.add_node(num_cpus=room, env_vars={"TMPDIR": str(folder)})
        self._nodes[node.node_id] = node

    def kill(self, node_id: str) -> tuple[float, float]:
        """Lose a node with all that runs there.

        Returns:
            When it was killed, and when the cluster has noticed.
        """
        node = self._nodes.pop(node_id)
        (raylet,) = node.all_processes["raylet"]
        # Its own process first, which would else tell the cluster of the others' end.
        for process in [raylet.process.pid, *_descendants(raylet.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        killed_at = time.monotonic()
        if not until(lambda: node_id not in alive_nodes(), 120):
            raise RuntimeError("the cluster does not notice a lost node")
        noticed_at = time.monotonic()
        self._cluster.remove_node(node, allow_graceful=False)
        return killed_at, noticed_at

    def videos(self) -> list[Path]:
        """The videos that all nodes have, those included that were lost."""
        return [*self._folder.glob("*/sam3-backend-*/videos/*.mp4")]


def alive_nodes() -> set[str]:
    """The nodes that the cluster knows."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _descendants(process: int) -> Iterator[int]:
    for child in [*children(process)]:
        yield child
        yield from _descendants(child)
