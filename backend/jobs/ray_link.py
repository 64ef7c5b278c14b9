"""Workers as actors of a Ray cluster: Ray places them, and tells when one is lost, or its node."""

import logging
import threading
from collections import deque
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, NodeDiedError, ObjectLostError, RayError

from backend.errors import SettingsError
from backend.jobs.carried import CarriedReply, ServerFiles, VideoFile, VideoPart, WantVideo, send_video
from backend.jobs.messages import Reply, Request
from backend.jobs.node_worker import NodeWorker
from backend.jobs.worker import EngineFactory
from backend.jobs.worker_link import NodeDied, WorkerLauncher
from backend.settings_loader import hidden_variables
from backend.worker_settings import RaySettings

log = logging.getLogger(__name__)

_GROUPS = {"requests": 1, "replies": 1, "parts": 1}
"""Threads of an actor, by what they do: the calls of each are done in order."""
_MAX_PARTS = 4
"""How many parts of a video are on their way at once."""


class RayWorker(NodeWorker):
    """A worker in an actor."""

    def node_id(self) -> str:
        """The id of its node."""
        return str(ray.get_runtime_context().get_node_id())


class RayLink:
    """A worker in an actor; see `WorkerLink`."""

    def __init__(self, actor: Any) -> None:
        self._actor, self._files, self._nodes = actor, ServerFiles(), _alive_nodes()
        self._node_id = actor.node_id.remote()
        self._replies = actor.replies.options(num_returns="streaming", concurrency_group="replies").remote()

    def send(self, request: Request) -> None:
        """See `WorkerLink.send`."""
        if ray.is_initialized():
            self._actor.handle.options(concurrency_group="requests").remote(self._files.pack(request))

    def receive(self, seconds: float | None = None) -> Reply | None:
        """See `WorkerLink.receive`."""
        try:
            while ray.is_initialized():  # else Ray would start a cluster here
                ready, _ = ray.wait([self._replies], timeout=None if seconds is None else max(seconds, 0.0))
                if not ready:
                    return None
                reply: CarriedReply | WantVideo = ray.get(next(self._replies))
                if isinstance(reply, CarriedReply):
                    return self._files.unpack(reply)
                threading.Thread(target=self._send_video, args=(reply.video,), daemon=True).start()
        except StopIteration as error:
            raise EOFError from error
        except RayError as error:
            raise (NodeDied if self._has_lost_node(error) else EOFError) from error
        raise EOFError

    def node_id(self) -> str | None:
        """The id of the node that it runs on; None: it has not started there."""
        try:
            return str(ray.get(self._node_id, timeout=0))
        except RayError:
            return None

    def _has_lost_node(self, error: RayError) -> bool:
        """Whether the actor has died with its node, which may be one on which it never came to run."""
        if isinstance(error, ActorUnavailableError | NodeDiedError | ObjectLostError):
            return True
        node = self.node_id()
        return bool(({node} if node else self._nodes) - _alive_nodes())

    def kill(self) -> None:
        """See `WorkerLink.kill`."""
        if ray.is_initialized():
            with suppress(RayError):
                ray.kill(self._actor)

    def _send_video(self, video: VideoFile) -> None:
        add = self._actor.add_part.options(concurrency_group="parts")
        sent: deque[Any] = deque()

        def send(part: VideoPart) -> None:
            sent.append(add.remote(part))
            if len(sent) > _MAX_PARTS:
                ray.get(sent.popleft())

        with suppress(RayError):  # the worker has ended
            send_video(video, send)


def _alive_nodes() -> set[str]:
    """The ids of the cluster's nodes, those included that are lost until Ray notices it."""
    return {str(node["NodeID"]) for node in ray.nodes() if node["Alive"]}


def ray_launcher(make_engine: EngineFactory, log_level: str, options: RaySettings, max_bytes: int) -> WorkerLauncher:
    """Launch workers as actors; `make_engine` is pickled, so it must be importable by name on the nodes.

    Args:
        max_bytes: of videos that are kept on each node.
    """
    resources = {"num_gpus": options.num_gpus, "num_cpus": options.num_cpus}
    actor_class: Any = ray.remote(concurrency_groups=_GROUPS, max_restarts=0, **resources)(RayWorker)
    return lambda: RayLink(actor_class.remote(make_engine, log_level, max_bytes))


def connect(options: RaySettings) -> None:
    """Join the cluster, or start one on this machine alone.

    Raises:
        SettingsError: there is no cluster at that address.
    """
    hidden = dict.fromkeys(hidden_variables(), "")
    environment = options.runtime_env | {"env_vars": dict(options.runtime_env.get("env_vars", {})) | hidden}
    try:
        ray.init(
            address=options.address or "local",
            runtime_env=environment,
            log_to_driver=False,
            configure_logging=False,
            **({} if options.address else {"include_dashboard": False}),
        )
        if ray.cluster_resources().get("GPU", 0.0) < options.num_gpus:
            log.warning(
                "no node of the Ray cluster has %g GPUs now: workers start when one has, or set ray.num_gpus: 0",
                options.num_gpus,
            )
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"Ray cannot be reached with ray.address {options.address!r} ({type(error).__name__}): run the server on a "
            "node of the cluster with auto, give the head's address, such as 10.0.0.5:6379, or leave it empty"
        ) from error


def disconnect() -> None:
    """Leave the cluster; one that `connect` has started ends."""
    ray.shutdown()
