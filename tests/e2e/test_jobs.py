"""A long clip, as an annotator lives through it: answered in part, looked at, cancelled, asked again, and complete."""

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect

from backend.demo.labelstudio import LabelStudio
from backend.video import write_video
from tests.e2e.browser import LabelingPage
from tests.e2e.conftest import SHOTS, STAND_IN, Project, connected, opened, serving
from tests.e2e.test_boxes import finished

pytestmark = pytest.mark.slow

FRAMES, RATE, SIZE, SIDE = 1000, 25, (320, 180), 44


def place(frame: int) -> tuple[float, float]:
    """Upper left corner of the thing on a source frame, in pixels."""
    return 130 + 100 * np.sin(frame / 90), 65 + 50 * np.sin(frame / 61)


def pictures() -> Iterator[NDArray[np.uint8]]:
    """A chequered square that goes to and fro before a mottled ground."""
    ground = np.random.default_rng(1).integers(60, 110, (*SIZE[::-1], 3), np.uint8)
    thing = np.zeros((SIDE, SIDE, 3), np.uint8)
    thing[::2], thing[:, ::4], thing[10:-10, 10:-10] = (230, 60, 30), (30, 200, 60), (250, 240, 60)
    for frame in range(FRAMES):
        x, y = (round(edge) for edge in place(frame))
        canvas = cv2.GaussianBlur(ground, (5, 5), 0)
        canvas[y : y + SIDE, x : x + SIDE] = thing
        yield canvas


@pytest.fixture
def backend(studio: LabelStudio, tmp_path: Path) -> Iterator[str]:
    with serving(studio, tmp_path / "backend", **STAND_IN, SAM3_BACKEND_RESPONSE_TIMEOUT="4") as url:
        yield url


@pytest.fixture
def long_project(studio: LabelStudio, backend: str, tmp_path: Path) -> Project:
    clip = tmp_path / "long.mp4"
    write_video(clip, pictures(), RATE)
    return connected(studio, clip, backend, ["Thing"])


def partial(page: LabelingPage, name: str) -> int:
    """Frames that are done; all of them where nothing is missing."""
    return page.region(name)["meta"].get("partial", {}).get("done", FRAMES)


def shots(page: Page, name: str) -> None:
    for width in (1400, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)
        page.screenshot(path=SHOTS / f"{name}-{width}.png")


def test_a_long_video(long_project: Project, backend: str) -> None:
    with opened(long_project) as page:
        x, y = (100 * edge / side for edge, side in zip(place(0), SIZE, strict=True))
        width, height = 100 * SIDE / SIZE[0], 100 * SIDE / SIZE[1]
        page.draw(x, y, width, height)
        page.click(x + width / 2, y + height / 2)
        page.press("1")
        page.answer(0)
        (region,) = page.regions()
        name = region["id"]
        done = partial(page, name)
        assert 0 < done < FRAMES, "answered in part"
        page.shot("19-in-part")
        # Beside it, the status page: it runs, is cancelled, and goes on.
        beside = page.page.context.new_page()
        beside.goto(backend)
        expect(beside.get_by_role("progressbar").first).to_be_visible()
        beside.wait_for_timeout(500)
        shots(beside, "20-running")
        beside.get_by_role("button", name=re.compile("cancel", re.IGNORECASE)).first.click()
        on = beside.get_by_role("button", name=re.compile("go on", re.IGNORECASE)).first
        expect(on).to_be_visible()
        shots(beside, "21-cancelled")
        on.click()
        expect(beside.get_by_role("progressbar").first).to_be_visible()
        # Asked again: what was computed meanwhile is there, and then all of it.
        page.page.bring_to_front()
        page.select(name, 1)
        page.track()
        assert partial(page, name) > done
        region = finished(page, name)
        assert len(page.regions()) == 1
        assert page.shown(name, FRAMES), "seen to the end"
        for frame in range(1, FRAMES + 1, 125):
            shown = page.shown(name, frame)
            want = place(frame - 1)
            assert shown
            assert abs(shown["x"] * SIZE[0] / 100 - want[0]) < SIDE / 2
            assert abs(shown["y"] * SIZE[1] / 100 - want[1]) < SIDE / 2
        page.shot("22-complete")
        beside.bring_to_front()
        expect(beside.get_by_text(re.compile("done", re.IGNORECASE)).first).to_be_visible()
        shots(beside, "23-done")
