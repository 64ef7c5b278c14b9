"""What the server needs of a worker, wherever that runs: a process of this machine, or another kind."""

import pickle
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Protocol

from backend.jobs.messages import Reply, Request


class NodeDied(EOFError):
    """The worker has ended because the machine that it ran on is lost."""


class WorkerLink(Protocol):
    """One running worker, which serves `messages` as `backend.jobs.worker.serve` does.

    It is sent `OpenVideo`, `StartRun` and `StopRun` and answers with `VideoInfo`, `Chunk` and `RunEnd`; it tells its
    `WorkerStatus` by itself. All that differs between kinds of workers is behind this; `WorkerClient` does the rest.
    """

    def send(self, request: Request) -> None:
        """Send a request; requests arrive in order. It never waits, and what is sent to an ended worker is dropped."""
        ...

    def receive(self, seconds: float | None = None) -> Reply | None:
        """The next reply; None: none came in so many seconds. Only one thread calls it.

        Raises:
            EOFError: the worker has ended, and all that it sent was received. NodeDied if it is its machine's fault.
        """
        ...

    def kill(self) -> None:
        """End the worker at once, also while it hangs, and release what is left of one that has ended."""
        ...


WorkerLauncher = Callable[[], WorkerLink]
"""Starts a worker."""


class ConnectionLink:
    """A worker at the other end of a connection.

    Args:
        kill: ends it, which closes its end.
    """

    def __init__(self, connection: Connection, kill: Callable[[], None]) -> None:
        self._connection, self._kill = connection, kill
        self._outbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        threading.Thread(target=self._send_loop, name="worker-sender", daemon=True).start()

    def send(self, request: Request) -> None:
        """See `WorkerLink.send`."""
        self._outbox.put(request)

    def receive(self, seconds: float | None = None) -> Reply | None:
        """See `WorkerLink.receive`."""
        try:
            if seconds is not None and not self._connection.poll(max(seconds, 0.0)):
                return None
            reply: Reply = self._connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            self._outbox.put(None)
            raise EOFError from None
        return reply

    def kill(self) -> None:
        """See `WorkerLink.kill`."""
        self._kill()
        self._outbox.put(None)

    def _send_loop(self) -> None:
        """Only this thread waits for a worker that hangs, and reads nothing."""
        with suppress(OSError, ValueError):
            while (request := self._outbox.get()) is not None:
                self._connection.send(request)
