"""Clicks on the video itself, on the page that the live panel links to; the tracks come into the annotation."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser import LabelingPage
from tests.e2e.conftest import SHOTS, Project, opened
from tests.e2e.test_boxes import finished, percent
from tests.e2e.test_prompts import follows, middle

pytestmark = pytest.mark.slow

SAVED = 5500
"""Milliseconds after which Label Studio's page has saved its draft."""
COMPARED = range(5, 101, 5)
"""LS frames on which boxes are compared."""


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
    """Track what is prompted, and wait until the page shows that it is asked for."""
    answers = page.evaluate("() => Number(document.body.dataset.answers ?? 0)")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"body[data-answers='{answers + 1}']")


def go(page: Page, frame: int) -> None:
    """Click on the timeline."""
    box = page.locator("#timeline").bounding_box()
    assert box
    frames = int(page.locator("#timeline").get_attribute("aria-valuemax") or 0)
    page.mouse.click(box["x"] + box["width"] * (frame - 0.5) / frames, box["y"] + 20)
    page.wait_for_selector(f"body[data-shown='{frame}']")


def boxes_here(page: Page) -> dict[str, list[Any]]:
    """The boxes that the page of the task shows of each track and region: x, y, width, height in percent, or None."""
    script = """async (frames) => {
        const { tracks } = await import(new URL("../../web/prompting.js", location));
        while (tracks.ofPage.some((track) => !track.isComplete)) await new Promise((go) => setTimeout(go, 20));
        const boxes = ([id, track]) => [id, frames.map((frame) => track.at(frame)?.slice(0, 4) ?? null)];
        return Object.fromEntries([...tracks.all].map(boxes));
    }"""
    found: dict[str, list[Any]] = page.evaluate(script, [*COMPARED])
    return found


def boxes_there(labeling: LabelingPage, identity: str) -> list[Any]:
    """The same, as the labelling page shows them."""
    boxes = [labeling.shown(identity, frame) for frame in COMPARED]
    return [box and [box[side] for side in ("x", "y", "width", "height")] for box in boxes]


def are_same(one: list[Any], other: list[Any]) -> None:
    for a, b, frame in zip(one, other, COMPARED, strict=True):
        assert (a is None) == (b is None), frame
        assert a is None or a == pytest.approx(b, abs=0.01), frame


def done(page: Page, count: int) -> None:
    """Wait until so many tracks of the page are whole."""
    expect(page.locator("#tracks .state", has_text="done")).to_have_count(count, timeout=120_000)


def correct(page: Page, name: str, frame: int) -> tuple[float, ...]:
    """Correct a region with the star's true box; that box."""
    page.locator("#regions .choose", has_text=name).click()
    go(page, frame)
    page.keyboard.press("b")
    x, y, width, height = percent("Star", frame)
    drag(page, (x, y), (x + width, y + height))
    enter(page)
    done(page, 1)
    return x, y, width, height


def send(page: Page) -> None:
    with page.expect_response("**/send") as answered:
        page.get_by_role("button", name="Send to the task").click()
    assert answered.value.status == 200, answered.value.text()


def test_two_clicked_objects_come_into_the_annotation(project: Project) -> None:
    """With t: it brings those of the class of the box that it is pressed on, which is the config's first one here."""
    task = project.new_task()
    with opened(project, task) as labeling:
        page = prompting_page(labeling)
        page.keyboard.press("1")
        click(page, *middle("Circle", 1))
        enter(page)
        page.keyboard.press("f")
        x, y, width, height = percent("Star", 1)
        click(page, *middle("Star", 1))
        page.keyboard.press("e")
        click(page, x - width / 3, y + height)
        enter(page)
        page.keyboard.press("f")
        expect(page.locator("#tracks li")).to_have_count(2)
        done(page, 2)
        page.screenshot(path=SHOTS / "prompting-tracks.png")
        go(page, 40)
        click(page, *middle("Circle", 40), is_choice=True)
        page.keyboard.press("q")
        click(page, *middle("Circle", 40))
        enter(page)
        done(page, 2)
        here = boxes_here(page)
        send(page)
        expect(page.locator("#sent")).to_contain_text("Sent")
        page.screenshot(path=SHOTS / "prompting-sent.png")
        labeling.page.bring_to_front()
        labeling.press("Escape")
        labeling.draw(*percent("Square", 1))
        labeling.click(*middle("Square", 1))
        labeling.track()
        (square,) = [region["id"] for region in labeling.regions() if region["id"] not in here]
        assert {region["id"] for region in labeling.regions()} == {square, *here}
        finished(labeling, square)
        labeling.go(60)
        labeling.shot("prompting-arrived")
        circle, star = (labeling.region(name) for name in here)
        follows(labeling, circle, "Circle")
        follows(labeling, star, "Star")
        for name, boxes in here.items():
            are_same(boxes_there(labeling, name), boxes)
        labeling.page.wait_for_timeout(SAVED)
        # A correction of what is not submitted yet: the page offers it, and `sent` brings it.
        page.bring_to_front()
        page.reload()
        expect(page.locator("#regions li")).to_have_count(3)
        number = labeling.region(star["id"])["meta"]["track_id"]
        corrected = correct(page, f"{number} Circle", 60)
        page.screenshot(path=SHOTS / "prompting-corrected.png")
        send(page)
        expect(page.locator("#sent")).to_contain_text("Sent")
        labeling.page.bring_to_front()
        labeling.words("sent")
        star = labeling.region(star["id"])
        assert [item["frame"] for item in star["value"]["sequence"] if item.get("human")] == [60]
        assert boxes_there(labeling, star["id"])[COMPARED.index(60)] == pytest.approx(corrected, abs=1)
        follows(labeling, star, "Star")
        labeling.shot("prompting-corrected-arrived")
        shown = {region["id"]: boxes_there(labeling, region["id"]) for region in labeling.regions()}
        labeling.submit()
        labeling.open(project.id, task)
        assert {region["id"]: boxes_there(labeling, region["id"]) for region in labeling.regions()} == shown
        labeling.go(60)
        labeling.shot("prompting-submitted")
        # What is submitted is corrected there.
        page.bring_to_front()
        page.reload()
        corrected = correct(page, f"{number} Circle", 30)
        boxes = boxes_here(page)[star["id"]]
        send(page)
        expect(page.locator("#sent")).to_contain_text(f"Track {number}: the correction is in the annotation")
        expect(page.locator("#regions li")).to_have_count(3)
        page.screenshot(path=SHOTS / "prompting-written.png")
        labeling.page.bring_to_front()
        labeling.open(project.id, task)
        are_same(boxes_there(labeling, star["id"]), boxes)
        sequence = labeling.region(star["id"])["value"]["sequence"]
        assert [item["frame"] for item in sequence if item.get("human")] == [30, 60]
        assert boxes_there(labeling, star["id"])[COMPARED.index(30)] == pytest.approx(corrected, abs=1)
        for name in (circle["id"], square):
            assert boxes_there(labeling, name) == shown[name]
        labeling.shot("prompting-written-there")
