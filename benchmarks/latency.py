"""Measures how soon an annotator sees something in Label Studio, in Chromium, with the shapes model.

Keys of the last line: `first_sign_s`, from the key `t` until the live panel changes; `whole_s`, from `t` until the
whole track of a clip of 100 frames is on the page, and `whole_over_compute_s`, the same without the seconds that its
job took; of a long clip, `first_answer_s`, from `t` until boxes beyond the prompted frame are on the page, and
`presses_3000`, how often an annotator who follows the panel presses `t` until the whole track is there.

.venv/bin/python benchmarks/latency.py [--frames 3000] [--quick]
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.demo import clip as demo_clip
from backend.demo.labelstudio import LabelStudio
from backend.shapes import APART, HELD_OUT, Clip
from tests.e2e.browser import CHROMIUM, LabelingPage, quit_chromium
from tests.e2e.conftest import DEMO, ROOT, Project, connected, opened, serving

SIZE = 640, 360


def main() -> None:
    """Measure both clips, and print one line of JSON."""
    if not CHROMIUM.exists():
        sys.exit("this benchmark drives Chromium: apt-get install chromium")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3000, help="of the long clip")
    parser.add_argument("--quick", action="store_true", help="clips of 30 and 60 frames")
    options = parser.parse_args()
    short, frames = (30, 60) if options.quick else (100, options.frames)
    figures: dict[str, Any] = {"frames": frames}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        studio = stack.enter_context(LabelStudio(ROOT / ".venv-labelstudio", folder / "studio"))
        studio.start(0)
        url = stack.enter_context(serving(studio, folder / "backend", **DEMO))
        with _selected_box(studio, folder, url, short) as page:
            figures |= _measure_short(page, url)
        with _selected_box(studio, folder, url, frames) as page:
            figures |= _measure_long(page)
        quit_chromium()
    print(json.dumps(figures))


@contextmanager
def _selected_box(studio: LabelStudio, folder: Path, url: str, frames: int) -> Iterator[LabelingPage]:
    """A page of a clip of one shape, which has a selected box that is not tracked yet."""
    recipe = replace(APART, size=SIZE, frames=frames, things=(1, 1))
    shapes, video = Clip(HELD_OUT + 142, recipe), folder / f"clip{frames}.mp4"
    shapes.save(video, demo_clip.FPS)
    label = shapes.things[0].shape.capitalize()
    project: Project = connected(studio, video, url, [label], folder / "backend")
    x0, y0, x1, y1 = shapes[0].boxes[0] / (SIZE * 2) * 100
    with opened(project) as page:
        page.draw(x0, y0, x1 - x0, y1 - y0)
        page.click((x0 + x1) / 2, (y0 + y1) / 2)
        page.wait_for_panel("idle")
        yield page


def _measure_short(page: LabelingPage, url: str) -> dict[str, Any]:
    start = time.monotonic()
    page.page.keyboard.press("t")
    while page.panel_tone() == "idle":
        pass
    first_sign = time.monotonic() - start
    _wait_for_answer(page, 0)
    while not _is_whole(page):
        page.wait_for_panel("done")
        _press(page)
    whole = time.monotonic() - start
    job = requests.get(f"{url}/jobs", timeout=10).json()["jobs"][0]
    computed = job["ended"] - job["asked"]
    return {
        "first_sign_s": round(first_sign, 2),
        "whole_s": round(whole, 2),
        "whole_over_compute_s": round(whole - computed, 2),
    }


def _measure_long(page: LabelingPage) -> dict[str, Any]:
    start, presses = time.monotonic(), 1
    page.page.keyboard.press("t")
    _wait_for_answer(page, 0)
    while len(page.regions()[0]["value"]["sequence"]) < 2:
        page.page.wait_for_timeout(20)
    first_answer = time.monotonic() - start
    while not _is_whole(page):
        page.wait_for_panel("done", 1200)
        _press(page)
        presses += 1
    return {"first_answer_s": round(first_answer, 2), "presses_3000": presses}


def _press(page: LabelingPage) -> None:
    count = len(page.answers)
    region = page.regions()[0]
    page.select(region["id"], region["value"]["sequence"][0]["frame"])
    page.page.keyboard.press("t")
    _wait_for_answer(page, count)


def _wait_for_answer(page: LabelingPage, count: int) -> None:
    while len(page.answers) <= count:
        page.page.wait_for_timeout(20)


def _is_whole(page: LabelingPage) -> bool:
    return "partial" not in page.regions()[0].get("meta", {})


if __name__ == "__main__":
    main()
