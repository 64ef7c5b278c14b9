"""Times of a frame, with the device awaited."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch


def wait() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def frame_time(results: Iterator[Any], warm: int) -> float:
    """Seconds of a frame after so many."""
    for _ in range(warm):
        next(results)
    wait()
    begin = time.perf_counter()
    timed = sum(1 for _ in results)
    wait()
    return (time.perf_counter() - begin) / timed


class Stopwatch:
    """Adds up the time that functions take, each with the device awaited before and after."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: set[str] = set()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed under a name; what it calls under the same name is part of it."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if name in self._running:
                return function(*args, **kwargs)
            self._running.add(name)
            wait()
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                wait()
                self._running.remove(name)
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

        return timed

    def per_frame(self, frames: int) -> dict[str, float]:
        """Milliseconds."""
        return {name: round(seconds / frames * 1e3, 2) for name, seconds in self.seconds.items()}
