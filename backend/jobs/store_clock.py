"""The clock by which ages in the store are counted: it never jumps, whatever the machine's clock does."""

import time
from collections.abc import Callable

_MAX_OFF = 86400.0
"""For so long a server counts as off at most: more may be a wrong clock, which would delete what is new."""


def _uptime() -> float:
    """Seconds that the machine has run, asleep or not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class StoreClock:
    """Seconds since 1970 as long as the machine's clock can be trusted.

    Args:
        last: the time when it was last saved; None: never.
    """

    def __init__(
        self, last: float | None, wall: Callable[[], float] = time.time, uptime: Callable[[], float] = _uptime
    ) -> None:
        now = wall()
        self._start = now if last is None else min(max(now, last), last + _MAX_OFF)
        self._uptime, self._started_at = uptime, uptime()

    def now(self) -> float:
        """The time."""
        return self._start + self._uptime() - self._started_at
