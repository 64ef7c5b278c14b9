"""Starts worker processes, which end with the server."""

import os
import pickle
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection

from backend.child_process import python_command
from backend.jobs import worker
from backend.jobs.worker import EngineFactory
from backend.jobs.worker_link import ConnectionLink, WorkerLauncher
from backend.settings_loader import worker_environment

_KILL_SECONDS = 5.0
"""How long to wait for the end of a killed worker."""
_MAIN = f"from {worker.__name__} import main; main()"
"""Not `-m`, which would load the module as `__main__`: messages are pickled by the name of their module."""


_starter = ThreadPoolExecutor(1, "worker-starter")
"""A thread that lives as long as this process."""


class ProcessLink(ConnectionLink):
    """A worker process.

    Attributes:
        pid: its number.
    """

    def __init__(self, connection: Connection, process: "_ChildProcess") -> None:
        super().__init__(connection, process.kill)
        self.pid = process.pid


def process_launcher(make_engine: EngineFactory, log_level: str) -> WorkerLauncher:
    """Launch workers as processes; `make_engine` is pickled, so it must be importable by name."""

    def launch() -> ProcessLink:
        ours, theirs = socket.socketpair()
        with theirs:
            # In this thread, because the kernel ends a worker with the thread that started it.
            process = _starter.submit(
                _ChildProcess,
                python_command(_MAIN, str(theirs.fileno()), str(os.getpid())),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=worker_environment(),
                # Ctrl+C in a terminal reaches the whole process group, but the server decides when a worker ends.
                start_new_session=True,
            ).result()
        connection = Connection(ours.detach())
        connection.send_bytes(pickle.dumps((log_level.upper(), make_engine)))
        return ProcessLink(connection, process)

    return launch


class _ChildProcess(subprocess.Popen[bytes]):
    """A process that leaves no zombie behind."""

    def kill(self) -> None:
        super().kill()
        with suppress(subprocess.TimeoutExpired):  # a driver may hold the process for a while
            self.wait(_KILL_SECONDS)
