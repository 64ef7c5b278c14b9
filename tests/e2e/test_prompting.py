"""Clicks on the video itself, on the page that the live panel links to; the tracks come into the annotation."""

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser import LabelingPage
from tests.e2e.conftest import SHOTS, Project, opened
from tests.e2e.test_boxes import percent
from tests.e2e.test_prompts import follows, middle

pytestmark = pytest.mark.slow

SAVED = 5500
"""Milliseconds after which Label Studio's page has saved its draft."""


def prompting_page(labeling: LabelingPage) -> Page:
    """The page that the live panel links to."""
    labeling.press("Escape")
    with labeling.page.context.expect_page() as shown:
        labeling.page.get_by_text("Click on the video").click()
    page = shown.value
    page.set_viewport_size({"width": 1366, "height": 768})
    page.wait_for_selector("body[data-shown='1']")
    return page


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """A place on the screen, from percent of the picture."""
    box = page.locator("#picture").bounding_box()
    assert box
    return box["x"] + box["width"] * x / 100, box["y"] + box["height"] * y / 100


def click(page: Page, x: float, y: float, *, is_choice: bool = False) -> None:
    """Click on the picture; with Alt, to choose the track there."""
    if is_choice:
        page.keyboard.down("Alt")
    page.mouse.click(*place(page, x, y))
    if is_choice:
        page.keyboard.up("Alt")


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw a box on the picture."""
    page.mouse.move(*place(page, *start))
    page.mouse.down()
    page.mouse.move(*place(page, *end), steps=4)
    page.mouse.up()


def enter(page: Page) -> None:
    """Track what is prompted."""
    with page.expect_response("**/track"):
        page.keyboard.press("Enter")


def go(page: Page, frame: int) -> None:
    """Click on the timeline."""
    box = page.locator("#timeline").bounding_box()
    assert box
    frames = int(page.locator("#timeline").get_attribute("aria-valuemax") or 0)
    page.mouse.click(box["x"] + box["width"] * (frame - 0.5) / frames, box["y"] + 20)
    page.wait_for_selector(f"body[data-shown='{frame}']")


def test_two_clicked_objects_come_into_the_annotation(project: Project) -> None:
    with opened(project, project.new_task()) as labeling:
        page = prompting_page(labeling)
        page.keyboard.press("1")
        click(page, *middle("Circle", 1))
        enter(page)
        page.keyboard.press("f")
        x, y, width, height = percent("Star", 1)
        page.keyboard.press("3")
        click(page, *middle("Star", 1))
        page.keyboard.press("e")
        click(page, x - width / 3, y + height)
        enter(page)
        page.keyboard.press("f")
        expect(page.locator("#tracks li")).to_have_count(2)
        expect(page.locator("#tracks .state", has_text="done")).to_have_count(2, timeout=120_000)
        page.screenshot(path=SHOTS / "prompting-tracks.png")
        go(page, 40)
        click(page, *middle("Circle", 40), is_choice=True)
        page.keyboard.press("q")
        click(page, *middle("Circle", 40))
        enter(page)
        expect(page.locator("#tracks .state", has_text="done")).to_have_count(2, timeout=120_000)
        page.get_by_role("button", name="Send to the task").click()
        expect(page.locator("#sent")).to_contain_text("Sent")
        page.screenshot(path=SHOTS / "prompting-sent.png")
        labeling.words("sent")
        assert labeling.told.startswith("sent: 2")
        labeling.go(60)
        labeling.shot("prompting-arrived")
        regions = {region["value"]["labels"][0]: region for region in labeling.regions()}
        assert {*regions} == {"Circle", "Star"}
        for label, region in regions.items():
            follows(labeling, region, label)
        labeling.page.wait_for_timeout(SAVED)
        page.reload()
        page.locator("#regions .choose", has_text="Star").click()
        go(page, 60)
        page.keyboard.press("b")
        x, y, width, height = percent("Star", 60)
        drag(page, (x, y), (x + width, y + height))
        enter(page)
        expect(page.locator("#tracks .state")).to_have_text("done", timeout=120_000)
        page.screenshot(path=SHOTS / "prompting-corrected.png")
        page.get_by_role("button", name="Send to the task").click()
        expect(page.locator("#sent")).to_contain_text("Sent")
        labeling.select(regions["Star"]["id"], 60)
        labeling.track()
        star = labeling.region(regions["Star"]["id"])
        assert [item["frame"] for item in star["value"]["sequence"] if item.get("human")] == [60]
        there = labeling.shown(star["id"], 60) or {}
        assert [there.get(side) for side in ("x", "y", "width", "height")] == pytest.approx(
            [x, y, width, height], abs=1
        )
        follows(labeling, star, "Star")
        assert len(labeling.regions()) == 2
        labeling.shot("prompting-corrected-arrived")
        labeling.submit()
