"""Measures the page to click on the video, in Chromium, with the shapes model: `python benchmarks/prompting.py`.

The last line printed is one JSON object. There is no Label Studio: the page's task is made up. A pass is one run of
the vision model.

click_mask_p50_ms, click_mask_p99_ms  from a click until its mask is drawn, with the frame encoded, at 1280 x 720.
passes_second_click  passes for further clicks on a frame.
step_p95_ms          from a key until the next frame is drawn, eight frames a second, at 1920 x 1080.
open_s               from the page's address until its first picture is drawn, at 1920 x 1080.
page_mb              how much the memory of server and decoder grows by an open page, in MB.

.venv/bin/python benchmarks/prompting.py [--frames 3000] [--clicks 200] [--quick]
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from playwright.sync_api import Page
from waitress.server import create_server

from backend.engines import identify_engine
from backend.http.app import create_app
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_launcher import process_launcher
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.frame_strip import SignedPage
from backend.labelstudio.media import MediaCache
from backend.service import Service
from backend.settings import Settings
from backend.shapes import APART, HELD_OUT, Clip
from backend.video import write_video
from tests.e2e.browser import CHROMIUM, chromium, quit_chromium

CONFIG = (
    '<View><Video name="v" value="$video" framerate="25"/><VideoRectangle name="b" toName="v"/>'
    '<Labels name="l" toName="v"><Label value="a"/></Labels></View>'
)
CLICKED, LARGE = (1280, 720), (1920, 1080)
STEP_MS = 125
_MASKS = """() => {
  window.times = [];
  let clicked = 0;
  document.addEventListener("pointerup", () => (clicked = performance.now()), true);
  const drawn = () => window.times.push(performance.now() - clicked);
  new MutationObserver(drawn).observe(document.body, { attributes: true, attributeFilter: ["data-masks"] });
}"""
_STEP = """async ([steps, pause]) => {
  const [times, canvas] = [[], document.querySelector("#picture")];
  for (let step = 0; step < steps; step++) {
    const wanted = String(Number(document.body.dataset.shown) + 1);
    const began = performance.now();
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
    while (document.body.dataset.shown !== wanted) await new Promise((resolve) => setTimeout(resolve));
    times.push(performance.now() - began);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  return times;
}"""


class _Studio:
    """A Label Studio whose tasks have one video each: `/N.mp4`."""

    url = "http://studio.example"

    def task(self, number: int) -> Mapping[str, Any]:
        return {"id": number, "project": 1, "data": {"video": f"/{number}.mp4"}}

    def project(self, number: int) -> Mapping[str, Any]:
        return {"label_config": CONFIG}


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[tuple[Service, str]]:
    """A server in this process whose engine writes a byte into `log` for each pass; videos lie in `folder`."""
    settings = Settings(engine="sam3", model_path="shapes", device="cpu", data_dir=folder / "data")
    log.write_bytes(b"")
    make = import_module("benchmarks.together").counting_engine
    launch = process_launcher(partial(make, str(log)), "warning")
    # There is no Label Studio here.
    MediaCache.fetch = lambda self, url, *_: folder / Path(url).name  # type: ignore[method-assign]
    service = Service(settings, WorkerPool([WorkerClient(launch, *identify_engine(settings), timeout=600.0)]))
    service.prompting._client = lambda project: _Studio()  # type: ignore[assignment, return-value]
    server: Any = create_server(create_app(service), host="127.0.0.1", port=0, threads=8)
    threading.Thread(target=server.run, daemon=True).start()
    while service.status != "ready":
        time.sleep(0.05)
    try:
        yield service, f"http://127.0.0.1:{server.effective_port}"
    finally:
        server.task_dispatcher.shutdown()
        server.close()
        service.close()


def address(service: Service, url: str, task: int) -> str:
    """Where the page of a task is."""
    return f"{url}/prompt/{service.signer.key(SignedPage('1', str(task)))}/"


def measure_clicks(page: Page, log: Path, truth: NDArray[np.float64], clicks: int) -> dict[str, float]:
    """Clicks on the middle of the object, each on its own, after the first one."""
    page.wait_for_selector("body[data-shown='1']")
    box = page.locator("#picture").bounding_box()
    assert box
    x, y = (truth[:2] + truth[2:]) / 2 / CLICKED

    def click(number: int) -> None:
        page.keyboard.press("c")
        masks = page.evaluate("() => document.body.dataset.masks ?? '0'")
        places = x + number % 7 / 1000, y + number % 5 / 1000
        page.mouse.click(box["x"] + box["width"] * places[0], box["y"] + box["height"] * places[1])
        page.wait_for_function(
            "masks => Number(document.body.dataset.masks) > Number(masks)", arg=masks, timeout=60_000
        )

    click(0)
    page.wait_for_timeout(1000)  # until the frames beside it are encoded
    passes = log.stat().st_size
    page.evaluate(_MASKS)
    for number in range(clicks):
        click(number)
    times = page.evaluate("() => window.times")
    return {
        "click_mask_p50_ms": round(float(np.percentile(times, 50)), 1),
        "click_mask_p99_ms": round(float(np.percentile(times, 99)), 1),
        "passes_second_click": log.stat().st_size - passes,
    }


def measure_steps(page: Page, url: str, steps: int) -> dict[str, float]:
    """Opening a page of a large file, and steps through it."""
    before = resident()
    began = time.monotonic()
    page.goto(url)
    page.wait_for_selector("body[data-shown='1']")
    opened = time.monotonic() - began
    page.wait_for_timeout(1000)
    times = page.evaluate(_STEP, [steps, STEP_MS])
    page.keyboard.press("End")
    page.wait_for_timeout(2000)
    return {
        "open_s": round(opened, 2),
        "step_p95_ms": round(float(np.percentile(times, 95)), 1),
        "page_mb": round((resident() - before) / 2**20, 1),
    }


def resident() -> int:
    """Memory of this process and of its decoders in bytes: proportional, since they share pages."""
    own = os.getpid()
    decoders = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if _is_decoder(path)]
    return sum(_proportional(folder) for folder in (Path(f"/proc/{own}"), *decoders))


def _is_decoder(cmdline: Path) -> bool:
    try:
        return b"decoder_process" in cmdline.read_bytes()
    except OSError:  # it has ended
        return False


def _proportional(folder: Path) -> int:
    try:
        line = next(line for line in (folder / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0
    return int(line.split()[1]) * 1024


def write_clips(folder: Path, frames: int) -> NDArray[np.float64]:
    """The clip to click on, and the large one; returns the box of the first one's object on its first frame."""
    small = Clip(HELD_OUT + 142, replace(APART, size=CLICKED, frames=50, things=(1, 1)))
    small.save(folder / "1.mp4")
    drawn = Clip(HELD_OUT + 142, replace(APART, size=(480, 270), frames=100, things=(2, 2)))
    pictures = [np.asarray(cv2.resize(frame.picture, LARGE), np.uint8) for frame in drawn]
    write_video(folder / "2.mp4", (pictures[abs(number % 198 - 99)] for number in range(frames)), 25)
    return np.asarray(small[0].boxes[0])


def main() -> None:
    """Measure both clips, and print one line of JSON."""
    if not CHROMIUM.exists():
        sys.exit("this benchmark drives Chromium: apt-get install chromium")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3000, help="of the large clip")
    parser.add_argument("--clicks", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="200 frames and 20 clicks")
    options = parser.parse_args()
    if options.quick:
        options.frames, options.clicks = 200, 20
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth, log = write_clips(folder, options.frames), folder / "passes"
        with serving(folder, log) as (service, url), chromium() as browser:
            page = browser.new_context(viewport={"width": 1366, "height": 768}).new_page()
            page.goto(address(service, url, 1))
            figures = measure_clicks(page, log, truth, options.clicks)
            figures |= measure_steps(page, address(service, url, 2), options.clicks)
        quit_chromium()
    print(json.dumps({"frames": options.frames, "clicks": options.clicks, **figures}))


if __name__ == "__main__":
    main()
