"""Tracks managed beside a real Label Studio: what was submitted is changed, shown changed there, and taken back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from backend.demo.labelstudio import LabelStudio
from tests.e2e.conftest import SHOTS, STAND_IN, Project, connected, opened, serving
from tests.labelstudio.bodies import drawn, keyframe

pytestmark = pytest.mark.slow


@pytest.fixture
def beside(studio: LabelStudio, video: Path, tmp_path: Path) -> Iterator[tuple[Project, str]]:
    """A project, and its backend's address."""
    with serving(studio, tmp_path, **STAND_IN) as url:
        yield connected(studio, video, url), url


def annotated(project: Project, task: int) -> list[dict]:
    (annotation,) = project.studio.task(task)["annotations"]
    return [one for one in annotation["result"] if one["type"] == "videorectangle"]


def submit(project: Project, task: int) -> None:
    """Two boxes that stand still, as if drawn and submitted."""
    drawings = [
        drawn(keyframe(1, x, y, 14, 14), keyframe(60, x + 20, y, 14, 14, enabled=False), id=name, labels=(label,))
        for name, label, x, y in (("a", "Circle", 15, 20), ("b", "Star", 50, 55))
    ]
    project.studio.call("POST", f"/api/tasks/{task}/annotations/", json={"result": drawings})


def apply(page: Page) -> None:
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()


def test_tracks_are_changed_beside_label_studio_and_shown_there(beside: tuple[Project, str]) -> None:
    project, url = beside
    task = project.new_task()
    submit(project, task)
    before = annotated(project, task)
    first, second = "Circle", "Star"
    with opened(project, task) as labelling:
        page = labelling.page.context.new_page()
        page.goto(f"{url}/tasks/{task}?project={project.id}")
        page.locator("#track-1").check()
        page.get_by_label("New label").select_option(second)
        page.get_by_role("button", name="Rename").click()
        expect(page.get_by_text(f"track 1: {first} → {second}")).to_be_visible()
        assert annotated(project, task) == before, "a preview changes nothing"
        apply(page)
        page.screenshot(path=SHOTS / "30-renamed-beside-label-studio.png")
        labelling.open(project.id, task)
        assert [one["value"]["labels"] for one in labelling.regions()] == [[second], [second]]
        labelling.shot("31-renamed-in-label-studio")
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_role("button", name="Undo")).to_be_hidden()
        assert annotated(project, task) == before
        # Somebody works on it in Label Studio, and has not submitted that.
        (annotation,) = project.studio.task(task)["annotations"]
        drafts = f"/api/tasks/{task}/annotations/{annotation['id']}/drafts"
        project.studio.call("POST", drafts, json={"result": before[:1], "lead_time": 1})
        page.locator("#track-2").check()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("button", name="Apply").click()
        expect(page.get_by_text("has changes that nobody has submitted")).to_be_visible()
        assert annotated(project, task) == before
