"""The status of one worker's engine, from one worker to the next, and when another start makes sense."""

import logging
import time

from backend.engines.base import DOWNLOADING_PREFIX, FAILED_PREFIX, WAITING_PREFIX
from backend.errors import SettingsError

log = logging.getLogger(__name__)

_MAX_FAILED_STARTS = 3
"""After so many workers that died before their engine was ready, the next start waits for `_RETRY_SECONDS`."""
_RETRY_SECONDS = 60.0


class EngineStatus:
    """What `WorkerClient` knows of its engine; call its methods with the client's lock held, or from its reader.

    Attributes:
        text: as `backend.engines.base.Engine.status` defines it.
    """

    def __init__(self) -> None:
        self.text = "loading"
        self._failed_starts = 0
        self._retry_at = 0.0

    @property
    def is_loading(self) -> bool:
        """Whether it is on its way to be ready."""
        return self.text != "ready" and not self.text.startswith(FAILED_PREFIX)

    @property
    def is_limited(self) -> bool:
        """Whether it has to get ready in time: it does not depend on a download."""
        return self.is_loading and not self.text.startswith((DOWNLOADING_PREFIX, WAITING_PREFIX))

    def begin(self) -> None:
        """A worker is started.

        Raises:
            SettingsError: it would fail as those before.
        """
        if self.text.startswith(FAILED_PREFIX) and time.monotonic() < self._retry_at:
            raise SettingsError(self.text.removeprefix(FAILED_PREFIX))
        self.text = "loading"

    def update(self, text: str) -> None:
        """The worker has told its status."""
        self.text = text
        self._failed_starts = 0 if text == "ready" else self._failed_starts

    def record_loss(self) -> None:
        """The worker has ended with the machine that it ran on; the next one runs on another."""
        log.error("the node of an engine process is lost")
        if not self.text.startswith(FAILED_PREFIX):
            self.text = "loading"

    def record_death(self, is_late: bool, loading_timeout: float) -> None:
        """The worker has ended by itself, or was killed because it hung.

        Args:
            is_late: it had the whole `loading_timeout`, in seconds, to get ready.
        """
        if self.text.startswith(FAILED_PREFIX):
            self._retry_at = float("inf")  # another worker would fail the same way
            return
        if is_late:
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            self.text = (
                f"{FAILED_PREFIX}the model was not ready {loading_timeout:g} s after its start (it was "
                f"{self.text}): see the server log, or raise limits.loading_timeout. The next attempt is in "
                f"{_RETRY_SECONDS:.0f} s"
            )
            log.error("the engine process was ended: %s", self.text.removeprefix(FAILED_PREFIX))
            return
        log.error("the engine process ended unexpectedly")
        self._failed_starts += self.text != "ready"
        self.text = "loading"
        if self._failed_starts >= _MAX_FAILED_STARTS:
            self._retry_at, self._failed_starts = time.monotonic() + _RETRY_SECONDS, 0
            self.text = (
                f"{FAILED_PREFIX}the engine process ends before its model is loaded, possibly because memory runs out; "
                f"see the server log. The next attempt is in {_RETRY_SECONDS:.0f} s"
            )
