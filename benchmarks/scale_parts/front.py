"""What the server's own process takes: requests, and pages that stay open."""

import os
import selectors
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend.labelstudio.frame_strip import SignedTask, Signer
from benchmarks.jobs_parts.requests import Asked, ask, ask_all, box, is_accepted, milliseconds
from benchmarks.jobs_parts.servers import Server, place_clip, until
from tests.labelstudio.bodies import body

FRAMES = 600
JOB_FRAMES = 4
WAVE = 48
"""Fewer than the jobs that may wait."""
PAGES = 500
"""As many as the server lets be open."""
ACTIVE = 8
"""Pages whose task has a job."""


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Requests a second, and what open pages cost."""
    return measure_requests(folder / "requests", quick) | measure_pages(folder / "pages", quick)


def measure_requests(folder: Path, quick: bool) -> dict[str, Any]:
    """/health, and /predict with a box that nobody has drawn before, whose answer does not wait for frames.

    The boxes come in waves, each when the jobs of the last one have ended, so that no more wait than usually may.
    """
    server = _start(folder, 0.01, JOB_FRAMES)
    count = 200 if quick else 20_000
    health_per_s = count / _seconds(server, [("/health", None)] * count)
    waves = 1 if quick else 10
    seconds = 0.0
    for wave in range(waves):
        numbers = range(wave * WAVE, wave * WAVE + WAVE)
        seconds += _seconds(server, [box(f"box{number}", number, x=1.0 + number % 80) for number in numbers])
        server.idle()
    predict_per_s = waves * WAVE / seconds
    server.close()
    print(f"/health: {health_per_s:.0f} a second, new /predict: {predict_per_s:.0f} a second", flush=True)
    return {"health_per_s": round(health_per_s), "predict_per_s": round(predict_per_s)}


def _seconds(server: Server, requests: Sequence[Asked]) -> float:
    """How long 16 clients take for these requests."""
    begin = time.monotonic()
    if not all(map(is_accepted, ask_all(server.port, requests))):
        raise RuntimeError("a request was refused")
    return time.monotonic() - begin


def measure_pages(folder: Path, quick: bool) -> dict[str, Any]:
    """Live panels, each of a task of its own."""
    server = _start(folder, 0.05, FRAMES)
    for task in range(ACTIVE):
        if not is_accepted(ask(server.port, box("box", task))):
            raise RuntimeError("a request was refused")
    pages = _Pages(server.port, folder, 50 if quick else PAGES)
    latencies, spent, begin = list[float](), _cpu_seconds(server.process.pid), time.monotonic()
    while (passed := time.monotonic() - begin) < (1 if quick else 20):
        latencies.append(ask(server.port, ("/health", None))[1])
        pages.read(0.05)
    spent = _cpu_seconds(server.process.pid) - spent
    figures = {
        "pages": pages.open,
        "pages_core": round(spent / passed, 2),
        "pages_health_p99_ms": milliseconds(latencies),
    }
    pages.close()
    server.close()
    print(f"{figures['pages']} pages open, {ACTIVE} of them change: {figures['pages_core']} of a core", flush=True)
    return figures


def _start(folder: Path, seconds: float, frames: int) -> Server:
    folder.mkdir()
    place_clip(folder, FRAMES)
    server = Server.stub(folder, seconds=seconds, frames=frames)
    until(lambda: b'"model":"ready"' in ask(server.port, ("/health", None))[3].replace(b" ", b""), 60)
    return server


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Pages:
    """Connections that read what comes, as browsers do.

    Attributes:
        open: how many the server has not ended.
    """

    def __init__(self, port: int, folder: Path, count: int) -> None:
        signer, project = Signer(folder / "secret"), str(body({}, id=1)["project"]).partition(".")[0]
        self._selector, self.open = selectors.DefaultSelector(), count
        for task in range(count):
            page = socket.create_connection(("127.0.0.1", port))
            key = signer.key(SignedTask(project, str(task)))
            page.sendall(f"GET /panel/{key} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            if b" 200 OK" not in page.recv(1 << 16):
                raise RuntimeError("a page does not open")
            self._selector.register(page, selectors.EVENT_READ)

    def read(self, seconds: float) -> None:
        """Read for so long."""
        until_ = time.monotonic() + seconds
        while (left := until_ - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                page: Any = key.fileobj
                if not page.recv(1 << 20):
                    self._selector.unregister(page)
                    self.open -= 1

    def close(self) -> None:
        """End all."""
        for key in [*self._selector.get_map().values()]:
            page: Any = key.fileobj
            page.close()
        self._selector.close()
