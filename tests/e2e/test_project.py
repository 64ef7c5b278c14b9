"""Tracks before anybody asks: a task is opened, found ahead, and the next annotation starts from what was found."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.demo.labelstudio import LabelStudio
from tests.e2e.conftest import DEMO, Project, connected, opened, serving
from tests.e2e.test_prompts import follows, labels

pytestmark = pytest.mark.slow


@pytest.fixture
def ahead(studio: LabelStudio, video: Path, tmp_path: Path) -> Iterator[Project]:
    """A project whose backend looks for its labels in every task that is opened."""
    with serving(studio, tmp_path, **DEMO, SAM3_BACKEND_PRE_ANNOTATE="labels") as url:
        project = connected(studio, video, url)
        # As a project is made in Label Studio: whoever opens a task asks for its prediction.
        studio.call("PATCH", f"/api/projects/{project.id}", json={"show_collab_predictions": True})
        yield project


def test_a_new_annotation_starts_from_what_was_found_ahead(ahead: Project) -> None:
    task = ahead.new_task()
    with opened(ahead, task) as page:
        assert page.regions() == [], "nobody waits for it"
        deadline = time.monotonic() + 200
        while not ahead.studio.task(task)["predictions"]:
            assert time.monotonic() < deadline
            time.sleep(1)
        page.open(ahead.id, task)
        page.page.wait_for_function("() => Htx.annotationStore.selected.areas.size > 2", timeout=30_000)
        assert labels(page.regions()) == ["Circle", "Square", "Star"]
        for region in page.regions():
            follows(page, region, region["value"]["labels"][0])
        page.go(40)
        page.shot("24-found-ahead")
    assert len(ahead.studio.task(task)["predictions"]) == 1
