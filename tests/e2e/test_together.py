"""Five boxes asked one after another run together, the status page says so, and one is corrected meanwhile."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from playwright.sync_api import expect

from backend import shapes
from backend.demo import clip
from backend.demo.labelstudio import LabelStudio
from tests.e2e.browser import LabelingPage
from tests.e2e.conftest import DEMO, SHOTS, connected, opened, serving
from tests.e2e.test_boxes import box_of, finished, humans, keyframe

pytestmark = pytest.mark.slow

FRAMES, CORRECTED = 160, 8
RECIPE = replace(clip.CLIP.recipe, size=(480, 270), frames=FRAMES, things=(5, 5), radius=(0.07, 0.1))
CLIP = shapes.Clip(shapes.HELD_OUT + 3001, RECIPE)
"""Five shapes that are apart from each other on the first frame."""


@pytest.fixture
def backend(studio: LabelStudio, tmp_path: Path) -> Iterator[str]:
    with serving(studio, tmp_path / "backend", **DEMO, SAM3_BACKEND_RESPONSE_TIMEOUT="0.5") as url:
        yield url


def draw_all(page: LabelingPage) -> list[tuple[float, float]]:
    """Draw a box around each shape on the first frame; returns their centres, in percent."""
    centres = []
    for corners in CLIP[0].boxes / np.tile(RECIPE.size, 2) * 100:
        x0, y0, x1, y1 = corners.tolist()
        page.page.keyboard.press("Escape")
        page.draw(x0, y0, x1 - x0, y1 - y0)
        centres.append(((x0 + x1) / 2, (y0 + y1) / 2))
    return centres


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_five_boxes_take_one_pass_and_one_is_corrected_meanwhile(
    studio: LabelStudio, backend: str, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    CLIP.save(path)

    def get(name: str) -> Any:
        return requests.get(f"{backend}/{name}", timeout=10).json()

    with opened(connected(studio, path, backend, ["Thing"])) as page:
        pressed = []
        for x, y in draw_all(page):
            page.page.keyboard.press("Escape")
            page.click(x, y)
            page.press("t")  # nobody waits for one answer before asking for the next
            pressed.append(time.monotonic())
        print(f"five boxes asked within {pressed[-1] - pressed[0]:.1f} s")
        page.answer(4)
        regions = page.regions()
        assert len(regions) == 5
        assert all("partial" in region["meta"] for region in regions), "all of them run"
        until(lambda: any(len(job["together"]) == 4 for job in get("jobs")["jobs"]))
        page.shot("20-five-together")
        status = page.page.context.new_page()
        status.goto(backend)
        expect(status.locator(".together", has_text="together with 4 x Thing")).to_have_count(5)
        status.screenshot(path=SHOTS / "20-five-together-status.png")
        status.close()
        first = regions[0]["id"]
        while page.shown(first, CORRECTED) is None:
            page.select(first, 1)
            page.track()
        page.move(first, CORRECTED, 2, 2)
        corrected = box_of(keyframe(page.region(first), CORRECTED))
        page.track()
        whole = [finished(page, region["id"]) for region in regions]
        assert len(page.regions()) == 5
        assert humans(whole[0]) == {1, CORRECTED}
        assert box_of(keyframe(whole[0], CORRECTED)) == corrected
        assert all(humans(region) == {1} for region in whole[1:])
        for region in whole[1:]:
            assert page.shown(region["id"], FRAMES) is not None, "followed to the end"
        page.shot("20-five-tracks")
    until(lambda: not get("health")["jobs"]["running"])
    until(lambda: get("health")["workers"][0]["cache"]["frames"] == FRAMES)
    assert get("health")["workers"][0]["cache"]["misses"] == FRAMES, "each frame went through the vision model once"
