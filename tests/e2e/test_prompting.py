"""Clicks on the video itself, on the page that the live panel links to; the tracks come into the annotation."""

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import SHOTS, Project, opened
from tests.e2e.test_boxes import percent
from tests.e2e.test_prompts import follows, middle

pytestmark = pytest.mark.slow


def click(page: Page, x: float, y: float) -> None:
    """Click on the picture, in percent of it."""
    box = page.locator("#picture").bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] * x / 100, box["y"] + box["height"] * y / 100)


def test_two_clicked_objects_come_into_the_annotation(project: Project) -> None:
    with opened(project, project.new_task()) as labeling:
        labeling.press("Escape")
        with labeling.page.context.expect_page() as shown:
            labeling.page.get_by_text("Click on the video").click()
        page = shown.value
        page.set_viewport_size({"width": 1366, "height": 768})
        page.wait_for_selector("body[data-shown='1']")
        page.keyboard.press("1")
        click(page, *middle("Circle", 1))
        page.keyboard.press("Enter")
        page.keyboard.press("f")
        x, y, width, height = percent("Star", 1)
        page.keyboard.press("3")
        click(page, *middle("Star", 1))
        page.keyboard.press("e")
        click(page, x - width / 3, y + height)
        page.keyboard.press("Enter")
        page.keyboard.press("f")
        expect(page.locator("#tracks li")).to_have_count(2)
        expect(page.locator("#tracks .state", has_text="done")).to_have_count(2, timeout=120_000)
        page.screenshot(path=SHOTS / "prompting-tracks.png")
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
        labeling.submit()
