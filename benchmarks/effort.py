"""Measures an annotator's work in Label Studio: gestures and seconds until every frame of a clip has the right boxes.

A scripted annotator who knows the correct boxes uses mouse and keys in Chromium: by hand, with keyframes and Label
Studio's interpolation; with a box, a click or a phrase per track, corrected on the worst frame until all are good; or
with a click per track on the page to click on the video, corrected there, and sent. A drawn or dragged box, a click, a
key, a turn to another frame and a typed line are one gesture each.

Keys of the last line: `gestures_hand`, `_box`, `_click`, `_phrase`, `_page`, the gestures on each held-out clip of two
shapes; `effort_box`, `effort_click`, `effort_phrase`, `effort_page`, how many times fewer than by hand, on the worst
clip, and `mean_effort_` of the same, on all; `given_up`, where not every frame became right.

.venv/bin/python benchmarks/effort.py [--frames 300] [--clips 5] [--ways hand box click phrase page] [--quick]
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from playwright.sync_api import Page

from backend.demo import clip as demo_clip
from backend.demo.labelstudio import LabelStudio
from backend.shapes import APART, HELD_OUT, Clip
from backend.tracks.geometry import Boxes, box_iou
from tests.e2e.browser import CHROMIUM, REGION_OF, LabelingPage, chromium, login_state, quit_chromium
from tests.e2e.conftest import DEMO, ROOT, Project, connected, serving

GOOD = 0.85
SIZE = (640, 360)
MOST = 80
"""Maximum number of corrections of one object."""
WAYS = ("hand", "box", "click", "phrase", "page")
_SHOWN = f"""([id, frames]) => {{
  const r = ({REGION_OF})(id);
  return Array.from({{length: frames}}, (_, i) => {{
    const b = r.isInLifespan(i + 1) ? r.getShape(i + 1) : null;
    return b ? [b.x, b.y, b.x + b.width, b.y + b.height] : [NaN, NaN, NaN, NaN];
  }});
}}"""


_SHOWN_THERE = """async (frames) => {
  const { tracks, chosen } = await import(new URL("../../web/prompting.js", location));
  return Array.from({ length: frames }, (_, at) => tracks.get(chosen()).at(at + 1));
}"""


_TRACKED = """async (before) => {
  const { tracks, chosen } = await import(new URL("../../web/prompting.js", location));
  const job = () => tracks.get(chosen())?.job ?? null;
  const isThere = () => job() !== before[0] && tracks.get(chosen()).isComplete;
  while (before && !isThere()) await new Promise((go) => setTimeout(go, 20));
  return job();
}"""


class Annotator:
    """Works on one task, and counts.

    Args:
        truth: by class, shape (frames, 4), percent x0 y0 x1 y1.
    """

    def __init__(self, page: LabelingPage, truth: dict[str, Boxes]) -> None:
        self.page, self.truth = page, truth
        self.gestures = 0
        self.reached = True

    # each of these is what the count says it is

    def draw(self, label: str) -> str:
        """A box on the first frame, and a click on it."""
        x0, y0, x1, y1 = self.truth[label][0]
        known = {region["id"] for region in self.page.regions()}
        self.page.page.keyboard.press("Escape")
        self.page.go(1)
        self.page.draw(x0, y0, x1 - x0, y1 - y0)
        self.page.click((x0 + x1) / 2, (y0 + y1) / 2)
        self.gestures += 2
        return str(next(region["id"] for region in self.page.regions() if region["id"] not in known))

    def key(self, key: str) -> None:
        """A key that asks, and `t` until the whole track is there."""
        count = len(self.page.answers)
        self.page.press(key)
        self.page.answer(count)
        self.gestures += 1

    def finish(self, name: str) -> None:
        """`t` when the live panel says that the rest is there."""
        while "partial" in self.page.region(name).get("meta", {}):
            self.page.wait_for_panel("done")
            self.select(name)
            self.key("t")

    def select(self, name: str) -> None:
        """A click on the box, where it is not selected."""
        before = self.page.is_selected(name)
        self.page.select(name, self.page.region(name)["value"]["sequence"][0]["frame"])
        self.gestures += not before

    def fix(self, name: str, label: str, frame: int) -> None:
        """Turn to a frame, drag the box to its place there, and a corner where the size is wrong.

        Other boxes are hidden meanwhile if they cover it: Label Studio moves the one on top.
        """
        x0, y0, x1, y1 = self.truth[label][frame - 1]
        if not self.page.shown(name, frame):
            self._show(name, frame)
        covering = [] if self.page.free_place(name, frame) else [*self.page.visible_at(frame).keys() - {name}]
        for other in covering:
            self.page.toggle_visibility(other)
        box = self.page.shown(name, frame)
        assert box
        self.page.move(name, frame, x0 - box["x"], y0 - box["y"])
        self.gestures += 2
        box = self.page.shown(name, frame)
        assert box
        wrong = max(abs(x1 - x0 - box["width"]) / (x1 - x0), abs(y1 - y0 - box["height"]) / (y1 - y0))
        if wrong > 0.05:
            self.page.resize(name, frame, x1 - x0 - box["width"], y1 - y0 - box["height"])
            self.gestures += 1
        for other in covering:
            self.page.toggle_visibility(other)
            self.gestures += 2

    def _show(self, name: str, frame: int) -> None:
        """The switch of the timeline: the box is shown again from its last keyframe on."""
        self.page.go(frame)
        self.page.page.evaluate(f"id => Htx.annotationStore.selected.selectArea(({REGION_OF})(id))", name)
        self.page.switch()
        self.gestures += 2

    def worst(self, name: str, label: str) -> tuple[int, float]:
        """The LS frame with the least overlap, and that."""
        overlaps = self.overlaps(name, label)
        return int(overlaps.argmin()) + 1, float(overlaps.min())

    def correct(self, name: str, label: str, *, asks: bool) -> None:
        """The worst frame, until all are good."""
        for _ in range(MOST):
            frame, overlap = self.worst(name, label)
            if overlap >= GOOD:
                return
            self.fix(name, label, frame)
            if asks:
                self.key("t")
                self.finish(name)
        self.reached = False

    # the ways

    def hand(self) -> None:
        for number, label in enumerate(self.truth, start=1):
            name = self.draw(label)
            self.page.press(str(number))
            self.gestures += 1
            self.correct(name, label, asks=False)

    def box(self) -> None:
        for number, label in enumerate(self.truth, start=1):
            name = self.draw(label)
            self.key(str(number))
            self.finish(name)
            self.correct(name, label, asks=True)

    def click(self) -> None:
        self.page.prepare_clicks()
        self.gestures += 2
        for number, label in enumerate(self.truth, start=1):
            known = {region["id"] for region in self.page.regions()}
            x0, y0, x1, y1 = self.truth[label][0]
            self.page.turn_to(0)
            self.page.click_picture((x0 + x1) / 2, (y0 + y1) / 2, key=f"Shift+{number}")
            self.gestures += 2
            (name,) = {region["id"] for region in self.page.regions()} - known
            self.finish(name)
            self.correct(name, label, asks=True)

    def phrase(self) -> None:
        line = ", ".join(label.lower() for label in self.truth)
        self.page.words(line)
        self.gestures += 1
        while "ask again" in self.page.told:
            self.page.page.wait_for_timeout(5500)  # until the page has saved itself
            self.page.words(line)
            self.gestures += 1
        for number, label in enumerate(self.truth, start=1):
            found = [region["id"] for region in self.page.regions() if region["value"].get("labels") == [label]]
            scored = {name: self.overlaps(name, label).mean() for name in found}
            if not scored or max(scored.values()) < 0.3:
                name = self.draw(label)
                self.key(str(number))
                self.finish(name)
            else:
                name = max(scored, key=lambda one: scored[one])
            self.correct(name, label, asks=True)

    def prompting(self) -> None:
        """The page to click on the video: opened, used, and its tracks brought into the annotation."""
        page = self.page.page
        page.keyboard.press("Escape")
        with page.context.expect_page() as opened:
            page.get_by_text("Click on the video").click()
        self.gestures += 1
        shown = PromptingAnnotator(opened.value, self.truth)
        shown.work()
        self.page.words("sent")
        self.gestures += shown.gestures + 1
        self.reached = shown.reached
        found = {region["value"]["labels"][0]: region["id"] for region in self.page.regions()}
        for label in self.truth:
            self.correct(found[label], label, asks=True)

    def overlaps(self, name: str, label: str) -> NDArray[np.float64]:
        """IoU with the truth on every frame, 0 where nothing is shown."""
        rows = self.page.page.evaluate(_SHOWN, [name, len(self.truth[label])])
        boxes = np.array([[np.nan if value is None else value for value in row] for row in rows], float)
        return np.asarray(np.nan_to_num(box_iou(boxes, self.truth[label])))


class PromptingAnnotator:
    """Works on the page to click on the video, and counts; the arguments are those of `Annotator`."""

    def __init__(self, page: Page, truth: dict[str, Boxes]) -> None:
        self.page, self.truth = page, truth
        self.gestures = 0
        self.reached = True
        page.set_viewport_size({"width": 1366, "height": 768})
        page.wait_for_selector("body[data-shown='1']")

    def work(self) -> None:
        """Click on each object, track it, correct it, and send all."""
        for number, label in enumerate(self.truth, start=1):
            if self.page.get_attribute("body", "data-shown") != "1":
                self.press("Home")
                self.page.wait_for_selector("body[data-shown='1']")
            x0, y0, x1, y1 = self.truth[label][0]
            self.press(str(number))
            self.page.mouse.click(*self.place((x0 + x1) / 2, (y0 + y1) / 2))
            self.gestures += 1
            self.track()
            self.correct(label)
            if number < len(self.truth):
                self.press("f")
        self.page.get_by_role("button", name="Send to the task").click()
        self.page.get_by_text("Sent.").wait_for()
        self.gestures += 1

    def correct(self, label: str) -> None:
        """A box on the worst frame, until all are good."""
        for _ in range(MOST):
            overlaps = self.overlaps(label)
            if overlaps.min() >= GOOD:
                return
            frame = int(overlaps.argmin()) + 1
            self.turn_to(frame)
            x0, y0, x1, y1 = self.truth[label][frame - 1]
            self.page.mouse.move(*self.place(x0, y0))
            self.page.mouse.down()
            self.page.mouse.move(*self.place(x1, y1), steps=4)
            self.page.mouse.up()
            self.gestures += 1
            self.track()
        self.reached = False

    def press(self, key: str) -> None:
        """A key."""
        self.page.keyboard.press(key)
        self.gestures += 1

    def track(self) -> None:
        """Enter, and the wait until the track is there."""
        before = self.page.evaluate(_TRACKED, None)
        self.press("Enter")
        self.page.evaluate(_TRACKED, [before])

    def turn_to(self, frame: int) -> None:
        """A click on the timeline."""
        box = self.page.locator("#timeline").bounding_box()
        assert box
        share = (frame - 0.5) / len(next(iter(self.truth.values())))
        self.page.mouse.click(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
        self.page.wait_for_selector(f"body[data-shown='{frame}']")
        self.gestures += 1

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A place on the screen, from percent of the picture."""
        box = self.page.locator("#picture").bounding_box()
        assert box
        return box["x"] + box["width"] * x / 100, box["y"] + box["height"] * y / 100

    def overlaps(self, label: str) -> NDArray[np.float64]:
        """IoU of the chosen track with the truth on every frame, 0 where nothing is shown."""
        truth = self.truth[label]
        rows = self.page.evaluate(_SHOWN_THERE, len(truth))
        boxes = np.array([[np.nan] * 4 if row is None else row[:4] for row in rows], float)
        boxes[:, 2:] += boxes[:, :2]
        return np.asarray(np.nan_to_num(box_iou(boxes, truth)))


def main() -> None:
    """Run every way on a task of its own for each clip, and print one line of JSON."""
    if not CHROMIUM.exists():
        sys.exit("this benchmark drives Chromium: apt-get install chromium")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--clips", type=int, default=5, help="number of clips")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--quick", action="store_true", help="one clip of 30 frames, by hand and by box")
    options = parser.parse_args()
    if options.quick:
        options.frames, options.clips, options.ways = 30, 1, ["hand", "box"]
    clips = list(islice(_find_clips(options.frames), options.clips))
    gestures: dict[str, list[int]] = {way: [] for way in options.ways}
    given_up: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        studio = stack.enter_context(LabelStudio(ROOT / ".venv-labelstudio", folder / "studio"))
        studio.start(0)
        url = stack.enter_context(serving(studio, folder / "backend", **DEMO))
        for shapes, truth in clips:
            video = folder / f"clip{shapes.seed}.mp4"
            shapes.save(video, demo_clip.FPS)
            for way in options.ways:
                address = None if way == "hand" else url
                project = connected(studio, video, address, list(truth), folder / "backend")
                annotator, seconds = _measure(project, way, truth)
                gestures[way].append(annotator.gestures)
                given_up += [] if annotator.reached else [f"{way} {shapes.seed}"]
                print(
                    f"seed {shapes.seed - HELD_OUT}, {way}: {gestures[way][-1]} gestures, {seconds:.0f} s", flush=True
                )
        quit_chromium()
    found = {"frames": options.frames, "clips": len(clips), "given_up": given_up}
    found |= {f"gestures_{way}": counts for way, counts in gestures.items()}
    for way, counts in gestures.items():
        if way != "hand" and "hand" in gestures:
            ratios = [hand / count for hand, count in zip(gestures["hand"], counts, strict=True)]
            found |= {f"effort_{way}": round(min(ratios), 2), f"mean_effort_{way}": round(sum(ratios) / len(ratios), 2)}
    print(json.dumps(found))


def _find_clips(frames: int) -> Iterator[tuple[Clip, dict[str, Boxes]]]:
    """Clips of two unlike shapes that keep apart and never hide, and their boxes by class in percent."""
    for seed in count(HELD_OUT + 142):
        shapes = Clip(seed, replace(APART, size=SIZE, frames=frames))
        boxes = np.array([frame.boxes for frame in shapes]) / np.tile(SIZE, 2) * 100
        truth = {thing.shape.capitalize(): boxes[:, row] for row, thing in enumerate(shapes.things)}
        if len(truth) == 2 and not np.isnan(boxes).any():
            yield shapes, truth


def _measure(project: Project, way: str, truth: dict[str, Boxes]) -> tuple[Annotator, float]:
    """The annotator who did all in this way, and how many seconds that took."""
    with chromium() as browser:
        studio = project.studio
        state = login_state(browser, studio.url, studio.email, studio.password)
        context = browser.new_context(viewport={"width": 1400, "height": 1500}, storage_state=state)
        page = LabelingPage(context.new_page(), studio.url, ROOT / "screenshots")
        page.open(project.id, project.new_task())
        if way == "page":
            page.wait_for_panel("idle")
        annotator = Annotator(page, truth)
        began = time.monotonic()
        do: Callable[[], None] = annotator.prompting if way == "page" else getattr(annotator, way)
        do()
        seconds = time.monotonic() - began
        page.shot(f"effort-{way}")
    return annotator, seconds


if __name__ == "__main__":
    main()
