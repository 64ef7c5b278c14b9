"""Measures what open tabs of Label Studio cost, in Chromium: their live panels share six connections to the backend.

Keys of the last line: `tabs`, `pictures` in each, and `pictures_s`, the longest time until a picture of the frame strip
was loaded in the last tab that was opened, all other tabs showing their panels; `streams`, panels that the server goes
on updating; `hidden`, tabs of which the browser says that nobody sees them; `hidden_kb_s` and `visible_kb_s`, what one
tab's panel gets while its task is tracked; `idle_core`, the share of a core for 50 panels at which nothing happens.

Label Studio is opened as `localhost` and the backend as `127.0.0.1`: for a browser these are two sites.

.venv/bin/python benchmarks/tabs.py [--tabs 8]
"""

import argparse
import json
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import BrowserContext, Page

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.commands import prepare
from backend.labelstudio.client import LabelStudioClient
from backend.settings import Settings
from demo import clip
from demo.labelstudio import LabelStudio
from demo.processes import Process
from tests.e2e.browser import CHROMIUM, LabelingPage, chromium, login_state, quit_chromium
from tests.e2e.conftest import DEMO, ROOT, SHOTS, Project, connected, start_backend

IDLE_PANELS, SECONDS = 50, 10.0
_LOADED = """() => performance.getEntriesByType('resource').filter(e => e.name.includes('/frames/'))
    .map(e => e.responseEnd - e.startTime)"""


def main() -> None:
    """Measure, and print one line of JSON."""
    if not CHROMIUM.exists():
        sys.exit("this benchmark drives Chromium: apt-get install chromium")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tabs", type=int, default=8)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        studio = stack.enter_context(LabelStudio(ROOT / ".venv-labelstudio", folder / "studio"))
        studio.start(0)
        process = stack.enter_context(Process("the backend", folder / "log.txt"))
        url = start_backend(process, studio, folder / "backend", **DEMO)
        clip.make(folder / "clip.mp4")
        project = connected(studio, folder / "clip.mp4", url, data_dir=folder / "backend")
        tasks = [_new_task(project, url) for _ in range(options.tabs)]
        figures: dict[str, Any] = {"tabs": options.tabs}
        with _person(studio) as context:
            figures |= _measure_tabs(context, project, tasks, url)
        quit_chromium()
        figures["idle_core"] = _measure_idle(project, url, process.pid)
    print(json.dumps(figures))


def _new_task(project: Project, url: str) -> int:
    """A task whose pictures come from the backend, as its panel does."""
    assert project.settings
    task = project.new_task()
    settings = Settings(
        data_dir=project.settings.data_dir,
        public_url=url,
        label_studio_url=project.studio.url,
        label_studio_api_key=project.studio.token,
        frames_per_strip=60,
    )
    client = LabelStudioClient(project.studio.url, project.studio.token)
    data = {key: value for key, value in client.task(task)["data"].items() if key not in ("frames", "frame_numbers")}
    client.set_data(task, data)
    assert prepare.run(settings, project.id, [], say=lambda _: None) == 0
    return task


@contextmanager
def _person(studio: LabelStudio) -> Iterator[BrowserContext]:
    with chromium() as browser:
        url = studio.url.replace("127.0.0.1", "localhost")
        state = login_state(browser, url, studio.email, studio.password)
        yield browser.new_context(viewport={"width": 1400, "height": 1500}, storage_state=state)


def _measure_tabs(context: BrowserContext, project: Project, tasks: list[int], url: str) -> dict[str, Any]:
    pages, received = [], list[dict[str, int]]()
    for task in tasks:
        page = LabelingPage(context.new_page(), project.studio.url.replace("127.0.0.1", "localhost"), SHOTS)
        received.append(_count_bytes(page.page))
        page.open(project.id, task)
        page.wait_for_panel("idle")
        pages.append(page)
    times = pages[-1].page.evaluate(_LOADED)
    pages[-1].page.bring_to_front()
    hidden = [page.page.evaluate("document.hidden") for page in pages]
    return {
        "pictures": len(times),
        "pictures_s": round(max(times) / 1000, 3),
        "streams": _count_streams(url),
        "hidden": sum(hidden),
        "visible_kb_s": _measure_traffic(pages[-1], received[-1], pages[-1], url),
        "hidden_kb_s": _measure_traffic(pages[-2], received[-2], pages[-1], url),
    }


def _count_bytes(page: Page) -> dict[str, int]:
    """Bytes of live panels that a tab has received, counted as they come."""
    session, counts = page.context.new_cdp_session(page), {"bytes": 0}
    panels: set[str] = set()
    session.send("Network.enable")

    def note_request(event: dict[str, Any]) -> None:
        if "/panel/" in event["request"]["url"]:
            panels.add(event["requestId"])

    def note_data(event: dict[str, Any]) -> None:
        if event["requestId"] in panels:
            counts["bytes"] += event["dataLength"]

    session.on("Network.requestWillBeSent", note_request)
    session.on("Network.dataReceived", note_data)
    return counts


def _measure_traffic(page: LabelingPage, counts: dict[str, int], front: LabelingPage, url: str) -> float:
    """KB/s of a tab's panel while its task is tracked, with another tab in front or itself."""
    page.page.bring_to_front()
    x0, y0, x1, y1 = 20.0, 20.0, 40.0, 60.0
    page.draw(x0, y0, x1 - x0, y1 - y0)
    page.click((x0 + x1) / 2, (y0 + y1) / 2)
    page.page.keyboard.press("t")
    front.page.bring_to_front()
    start, before = time.monotonic(), counts["bytes"]
    front.page.wait_for_timeout(500)
    while requests.get(f"{url}/health", timeout=10).json()["jobs"]["running"]:
        front.page.wait_for_timeout(100)
    return round((counts["bytes"] - before) / 1000 / (time.monotonic() - start), 1)


def _count_streams(url: str) -> int:
    """Connections that the server holds, without those of this request."""
    port = int(url.rpartition(":")[2])
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    local = f"0100007F:{port:04X}"
    return sum(1 for line in lines if line.split()[1] == local and line.split()[3] == "01")


def _measure_idle(project: Project, url: str, pid: int) -> float:
    """Share of a core that the server's processes take for panels at which nothing happens."""
    assert project.settings
    client = LabelStudioClient(project.studio.url, project.studio.token)
    panel = str(client.task(project.new_task())["data"]["panel"]).partition('src="')[2].partition('"')[0]
    path, port = panel.removeprefix(url), int(url.rpartition(":")[2])
    with ExitStack() as stack:
        for _ in range(IDLE_PANELS):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            stream.recv(100)
        time.sleep(2)
        start, before = time.monotonic(), _cpu_seconds(pid)
        time.sleep(SECONDS)
        return round((_cpu_seconds(pid) - before) / (time.monotonic() - start), 4)


def _cpu_seconds(group: int) -> float:
    """CPU time of the server's processes, its engine's included."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parts = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(parts[2]) == group:
            ticks += int(parts[11]) + int(parts[12])
    return ticks / 100


if __name__ == "__main__":
    main()
