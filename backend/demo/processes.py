"""Child processes that always end with the demo."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Self

from backend.errors import BackendError

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 10.0  # seconds between asking a child to end and killing it
_PORTS = range(20_000, 32_000)
"""Below those that systems give to outgoing connections."""


class DemoError(BackendError):
    """Something in the demo failed; the message may name files of this machine."""


class Process:
    """A child process in its own process group, with its output in a log file."""

    def __init__(self, name: str, log: Path) -> None:
        self.name, self.log = name, log
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Start it with exactly the variables of `environment`."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with uninterrupted(), self.log.open("wb") as log:
            self._child = subprocess.Popen(
                [str(word) for word in command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The id of the process, and of its group."""
        if self._child is None:
            raise DemoError(f"{self.name} does not run")
        return self._child.pid

    def check(self) -> None:
        """Check that it is still running.

        Raises:
            DemoError: it has ended; the message contains the end of its log.
        """
        if self._child is not None and (code := self._child.poll()) is not None:
            end = self.log.read_text(errors="replace").strip().splitlines()[-5:]
            raise DemoError("\n  ".join([f"{self.name} ended with exit code {code}; its log is {self.log}:", *end]))

    def wait(self, timeout: float) -> None:
        """Wait until it exits.

        Raises:
            DemoError: it failed or takes longer than `timeout` seconds.
        """
        self.wait_until(lambda: self._child is None or self._child.poll() == 0, timeout)

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Wait until `ready` returns true.

        Raises:
            DemoError: it ended, or is not ready after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while not ready():
            self.check()
            if time.monotonic() > end:
                raise DemoError(f"{self.name} was not ready within {timeout:.0f} s; its log is {self.log}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop it and everything that it started."""
        if self._child is None:
            return
        with uninterrupted():
            _signal_group(self._child.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(PATIENCE)
            _signal_group(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._child = None


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """All signals of `ENDS` raise KeyboardInterrupt, even in a shell's background; nohup still works."""
    with _handled(_interrupt):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals of `ENDS` wait for the end of the block, so that no child is left running."""
    asked: list[int] = []
    with _handled(lambda number, _frame: asked.append(number)):
        yield
    if asked:
        raise KeyboardInterrupt


def free_port(wanted: int) -> int:
    """`wanted` if it is free on 127.0.0.1, otherwise another one, which no outgoing connection takes meanwhile."""
    for port in filter(None, (wanted, *random.sample(_PORTS, 100))):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise DemoError("no port of 127.0.0.1 is free: stop a server that you do not need")


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    nohup = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {number: signal.signal(number, handler) for number in ENDS if number not in nohup}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
