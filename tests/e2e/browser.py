"""A person at Label Studio's page, in Debian's Chromium: what they see and the gestures that they make.

Gestures are real mouse and key events. What is asked of the page's own store (`Htx`) is only what a person reads off
the screen: which regions there are, and which box the page shows on a frame.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ctypes.util import find_library
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Error, Locator, Page, Playwright, Response, sync_playwright

from backend.http.panel_image import COLOURS
from tests.needs import missing, need

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Region = dict[str, Any]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; the test is skipped without it, or without a library that Playwright's Node.js needs.

    All tests share one process. What a test opens in it is closed at the end of the `with`.
    """
    missing(CHROMIUM, "Chromium (apt-get install chromium)")
    browser = _start()
    earlier = list(browser.contexts)
    try:
        yield browser
    finally:
        for context in browser.contexts:
            if context not in earlier and context not in _profiles.values():
                context.close()


@contextmanager
def profile(browser: Browser, state: Any) -> Iterator[BrowserContext]:
    """A browser profile with these cookies and nothing else, but for scripts: Label Studio's are compiled only once.

    All tests share one. Its tabs are closed at the end of the `with`.
    """
    if browser not in _profiles:
        _profiles[browser] = browser.new_context(viewport={"width": 1400, "height": 1500})
    context = _profiles[browser]
    context.set_storage_state(state)
    try:
        yield context
    finally:
        for page in context.pages:
            page.close()


_profiles: dict[Browser, BrowserContext] = {}


@cache
def start_playwright() -> Playwright:
    """The one that a process can have; `quit_chromium` stops it."""
    need(find_library("atomic") is not None, "libatomic (apt-get install libatomic1)")
    playwright = sync_playwright().start()
    _running.callback(playwright.stop)
    return playwright


@cache
def _start() -> Browser:
    browser = start_playwright().chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
    _running.callback(browser.close)
    return browser


_running = ExitStack()


def quit_chromium() -> None:
    """Close the shared Chromium; the next test that needs one starts another."""
    _running.close()
    _profiles.clear()
    _start.cache_clear()
    start_playwright.cache_clear()


def login_state(browser: Browser, url: str, email: str, password: str) -> Any:
    """The cookies of a person who is logged in to Label Studio; each account logs in once."""
    if (url, email) not in _logins:
        page = browser.new_page()
        page.goto(f"{url}/user/login/")
        page.fill("input[name=email]", email)
        page.fill("input[name=password]", password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "login" not in url)
        _logins[url, email] = page.context.storage_state()
        page.context.close()
    return _logins[url, email]


_logins: dict[tuple[str, str], Any] = {}


class LabelingPage:
    """One tab. Places on the video are percent of the picture, frames are Label Studio's."""

    def __init__(self, page: Page, url: str, shots: Path) -> None:
        self.page, self.url, self.shots = page, url, shots
        self.answers: list[dict[str, Any]] = []
        self.errors: list[str] = []
        page.on("response", self._note)
        page.on("pageerror", self._note_error)

    def open(self, project: int, task: int) -> None:
        """Open a task and wait until its video can be drawn on."""
        self.page.goto(f"{self.url}/projects/{project}/data?task={task}")
        self._wait_until_loaded(0)

    def reload(self) -> None:
        """Load the page again and wait until the video can be drawn on and its regions are there."""
        count = self.page.evaluate("() => Htx.annotationStore.selected.areas.size")
        self.page.reload()
        self._wait_until_loaded(count)

    def _wait_until_loaded(self, count: int) -> None:
        self.page.wait_for_function(
            "count => [...document.querySelectorAll('video')].some(v => v.readyState >= 2)"
            " && document.querySelector('.konvajs-content')"
            " && window.Htx?.annotationStore?.selected?.objects.find(o => o.type === 'video')?.length > 1"
            " && Htx.annotationStore.selected.areas.size >= count",
            arg=count,
            timeout=60_000,
        )
        self._settle(0.8)

    # --- gestures ---

    def draw(self, x: float, y: float, width: float, height: float) -> None:
        """Drag out a new box."""
        count = len(self.regions())
        self.drag((x, y), (x + width, y + height))
        self.page.wait_for_function(f"() => Htx.annotationStore.selected.areas.size > {count}")
        self._settle()

    def drag(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Press the mouse on one place of the video, move it in steps, let go on another."""
        mouse, (x0, y0), (x1, y1) = self.page.mouse, self._at(*start), self._at(*stop)
        mouse.move(x0, y0)
        mouse.down()
        for step in range(1, 7):
            mouse.move(x0 + (x1 - x0) * step / 6, y0 + (y1 - y0) * step / 6)
        mouse.up()
        self._settle()

    def click(self, x: float, y: float) -> None:
        """Click a place of the video."""
        self.page.mouse.click(*self._at(x, y))
        self._settle()

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self._settle(0.2)

    def track(self) -> dict[str, Any]:
        """Press `t` and wait for the answer to arrive and be shown."""
        count = len(self.answers)
        self.press("t")
        return self.answer(count)

    def words(self, line: str) -> dict[str, Any]:
        """Type into the line for words, and wait for the answer."""
        count = len(self.answers)
        self.send(line)
        return self.answer(count)

    def send(self, line: str) -> None:
        """Type into the line for words."""
        self._type(self.words_field, line)

    @property
    def words_field(self) -> Locator:
        """The line for words."""
        return self._field("words")

    def command(self, line: str) -> dict[str, Any]:
        """Type into the selected region's own line, and wait for the answer."""
        count = len(self.answers)
        self._type(self._field("line"), line)
        return self.answer(count)

    def prepare_clicks(self) -> None:
        """What a person does once in a browser: the toggle, and the pink tool."""
        if not self.page.evaluate("() => Htx.autoAnnotation"):
            self.page.locator("label:has-text('Auto-Annotation')").first.click()
            self._settle()
        self.page.locator(".lsf-tool_smart").first.click(force=True)
        self._settle()

    def turn_to(self, picture: int) -> None:
        """Show a picture of the strip, by its number from 0."""
        self.page.evaluate(f"() => {_STRIP}.setCurrentImage({picture})")
        self.page.wait_for_function(f"() => {_STRIP}.currentImage === {picture} && {_STRIP}.stageWidth > 1")
        self._settle(0.8)

    def click_picture(self, x: float, y: float, key: str = "Shift+1", negative: bool = False) -> dict[str, Any]:
        """Press an object's key, click on the strip's picture, and wait for the answer; places in percent."""
        count = len(self.answers)
        self.press(key)
        box = self._strip()
        if negative:
            self.page.keyboard.down("Alt")
        self.page.mouse.click(box["x"] + box["width"] * x / 100, box["y"] + box["height"] * y / 100)
        if negative:
            self.page.keyboard.up("Alt")
        return self.answer(count)

    def _field(self, name: str) -> Locator:
        return self.page.locator(f".{name} input, .{name} textarea").first

    def _type(self, field: Locator, line: str) -> None:
        field.press("Control+a")
        field.press_sequentially(line)  # Label Studio does not see what `fill` writes in Firefox
        field.press("Enter")
        self.page.evaluate("() => document.activeElement.blur()")

    def answer(self, count: int) -> dict[str, Any]:
        """The interactive answer number `count` (from 0) on this page."""
        deadline = time.monotonic() + 60
        while len(self.answers) <= count:
            assert time.monotonic() < deadline, "no answer came"
            self.page.wait_for_timeout(50)
        self._settle(0.6)
        return self.answers[count]

    def go(self, frame: int) -> None:
        """Seek to an LS frame."""
        self.page.evaluate(f"() => {_VIDEO}.setFrame({frame})")
        self.page.wait_for_function(f"() => {_VIDEO}.frame === {frame}")
        self._settle(0.5)

    def diamond(self) -> None:
        """Add a keyframe on this frame to the selected box, or take the one that is there."""
        self.page.locator(_KEYFRAME_BUTTONS).nth(0).click()
        self._settle()

    def switch(self) -> None:
        """Show or hide the selected box from its last keyframe up to this frame on."""
        self.page.locator(_KEYFRAME_BUTTONS).nth(1).click()
        self._settle()

    def select(self, identity: str, frame: int) -> None:
        """Go to a frame and click a box there, where no other one is if it can be, unless it is selected already."""
        self.go(frame)
        if not self.is_selected(identity):
            self.click(*self._place(identity, frame))

    def move(self, identity: str, frame: int, right: float, down: float) -> None:
        """Drag a selected box on a frame."""
        self.select(identity, frame)
        x, y = self._place(identity, frame)
        self.drag((x, y), (x + right, y + down))

    def _place(self, identity: str, frame: int) -> tuple[float, float]:
        box = self.shown(identity, frame)
        assert box, f"nothing of {identity} is shown on frame {frame}"
        return self.free_place(identity, frame) or (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def resize(self, identity: str, frame: int, right: float, down: float) -> None:
        """Drag a selected box's lower right corner on a frame."""
        self.select(identity, frame)
        box = self.shown(identity, frame)
        assert box
        x, y = box["x"] + box["width"], box["y"] + box["height"]
        self.drag((x, y), (x + right, y + down))

    def submit(self) -> None:
        """Submit the annotation, or update it, and wait until it is stored."""
        with self.page.expect_response(
            lambda answer: "/annotations" in answer.url and answer.request.method in ("POST", "PATCH")
        ):
            self.page.get_by_role("button", name=re.compile("^(Submit|Update)( current annotation)?$")).first.click()
        self._settle(1)

    def toggle_visibility(self, identity: str) -> None:
        """Press the eye of a region in the outliner."""
        self.page.evaluate(f"id => ({REGION_OF})(id).toggleHidden()", identity)
        self._settle()

    # --- what a person sees ---

    def visible_at(self, frame: int) -> dict[str, dict[str, float]]:
        """The boxes that are drawn on a frame, in percent."""
        shown = {region["id"]: self.shown(region["id"], frame) for region in self.regions()}
        hidden = self.page.evaluate(f"ids => ids.filter(id => ({REGION_OF})(id).hidden)", list(shown))
        return {name: box for name, box in shown.items() if box and name not in hidden}

    def free_place(self, identity: str, frame: int) -> tuple[float, float] | None:
        """The place in a box on a frame that is nearest to its middle and in no other box; None: others cover it."""
        others = self.visible_at(frame)
        box = others.pop(identity)

        def is_free(x: float, y: float) -> bool:
            return not any(
                -_MARGIN < x - other["x"] < other["width"] + _MARGIN
                and -_MARGIN < y - other["y"] < other["height"] + _MARGIN
                for other in others.values()
            )

        steps = range(-9, 10)
        shares = sorted(((right, down) for right in steps for down in steps), key=lambda share: max(map(abs, share)))
        places = [
            (box["x"] + box["width"] * (0.5 + right / 20), box["y"] + box["height"] * (0.5 + down / 20))
            for right, down in shares
        ]
        return next((place for place in places if is_free(*place)), None)

    def regions(self) -> list[Region]:
        """The regions, as the page would save them."""
        text = self.page.evaluate("() => JSON.stringify(Htx.annotationStore.selected.serializeAnnotation())")
        return [region for region in json.loads(text) if region["type"] == "videorectangle"]

    def region(self, identity: str) -> Region:
        return next(region for region in self.regions() if region["id"] == identity)

    def is_selected(self, identity: str) -> bool:
        return bool(self.page.evaluate(f"id => ({REGION_OF})(id).selected", identity))

    def shown(self, identity: str, frame: int) -> dict[str, float] | None:
        """The box in percent that Label Studio's own code shows on a frame; None where it shows none."""
        box: dict[str, float] | None = self.page.evaluate(
            f"([id, frame]) => {{ const r = ({REGION_OF})(id);"
            " return r.isInLifespan(frame) ? r.getShape(frame) : null }",
            [identity, frame],
        )
        return box

    def video_picture(self) -> bytes:
        """What the video shows, as PNG."""
        (x0, y0), (x1, y1) = self._at(0, 0), self._at(100, 100)
        return self.page.screenshot(clip={"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0})

    def strip_picture(self) -> bytes:
        """What the strip shows, as PNG."""
        return self.page.screenshot(clip=self._strip())

    @property
    def told(self) -> str:
        """What stands behind the marker in the line for words."""
        lines = self.page.locator(".words").inner_text().split("\n")
        return next((line.removeprefix("▶ ") for line in lines if line.startswith("▶ ")), "")

    @property
    def panel(self) -> Locator:
        """The live panel."""
        return self.page.locator("button img[src*='/panel/']")

    def panel_tone(self) -> str:
        """What the dot of the live panel says: idle, busy, done or failed; empty: there is none."""
        picture = Image.open(BytesIO(self.panel.screenshot())).convert("RGB")
        dot = np.array(picture.getpixel((5, 11)))
        return next((tone for tone, colour in COLOURS.items() if np.abs(dot - colour[:3]).max() < 12), "")

    def wait_for_panel(self, tone: str, seconds: float = 120) -> None:
        """Wait until the live panel's dot says this."""
        give_up = time.monotonic() + seconds
        while self.panel_tone() != tone:
            assert time.monotonic() < give_up, f"the panel is {self.panel_tone()}, not {tone}"
            self.page.wait_for_timeout(200)  # each look is a screenshot

    def shot(self, name: str) -> None:
        """A picture for people to look at."""
        self.shots.mkdir(exist_ok=True)
        self.page.screenshot(path=self.shots / f"{name}.png")

    # --- how it is done ---

    def _settle(self, seconds: float = 0.4) -> None:
        self.page.wait_for_timeout(seconds * 1000)

    def _note_error(self, error: Error) -> None:
        # Firefox also tells what Label Studio's policy of contents would refuse if it were in force.
        if not str(error).startswith("(Report-Only policy)"):
            self.errors.append(str(error))

    def _note(self, response: Response) -> None:
        if "interactive-annotating" in response.url:
            self.answers.append(response.json())

    def _strip(self) -> Any:
        """Where the strip's picture is on the screen; its stage may be higher for a while."""
        stage = self.page.locator(".konvajs-content").nth(1)
        stage.scroll_into_view_if_needed()
        box = stage.bounding_box()
        assert box
        width, height = self._size()
        return box | {"height": box["width"] * height / width}

    def _size(self) -> tuple[int, int]:
        width, height = self.page.evaluate(
            "() => { const v = [...document.querySelectorAll('video')].find(v => v.videoWidth);"
            " return [v.videoWidth, v.videoHeight] }"
        )
        return width, height

    def _at(self, x: float, y: float) -> tuple[float, float]:
        """Screen pixels of a place on the video, which is fitted into its stage."""
        stage = self.page.locator(".konvajs-content").first.bounding_box()
        assert stage
        width, height = self._size()
        scale = min(1, stage["width"] / width, stage["height"] / height)
        left = stage["x"] + (stage["width"] - width * scale) / 2
        top = stage["y"] + (stage["height"] - height * scale) / 2
        return left + width * scale * x / 100, top + height * scale * y / 100


_KEYFRAME_BUTTONS = "xpath=//button[@aria-label='Hop backward']/../preceding-sibling::*[1]//button"
REGION_OF = "id => [...Htx.annotationStore.selected.areas.values()].find(r => r.cleanId === id)"
_MARGIN = 1.0
"""Percent of the picture around a box where its line and handles are."""
_STRIP = "Htx.annotationStore.selected.names.get('frames')"
_VIDEO = "Htx.annotationStore.selected.objects.find(o => o.type === 'video')"


def during(page: LabelingPage, gesture: Callable[[], None], ask: Callable[[], None] | None = None) -> dict[str, Any]:
    """Press `t`, or ask otherwise, make another gesture before the answer comes, and wait for the answer."""
    count = len(page.answers)
    ask() if ask else page.press("t")
    assert len(page.answers) == count, "the answer was there before the gesture"
    gesture()
    return page.answer(count)
