"""The live panel inside Label Studio's page: it changes by itself while the page stays as it is."""

import os
import signal
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.demo.labelstudio import LabelStudio
from backend.demo.processes import Process
from tests.e2e.conftest import DEMO, STAND_IN, Project, connected, opened, start_backend
from tests.e2e.test_boxes import percent

pytestmark = pytest.mark.slow


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Process]:
    with Process("the backend", tmp_path / "log.txt") as process:
        yield process


@pytest.fixture
def panel_project(studio: LabelStudio, video: Path, tmp_path: Path, backend: Process) -> Project:
    """A project whose backend answers after a second with what is there."""
    return panel_of(studio, video, tmp_path, backend, **DEMO, SAM3_BACKEND_RESPONSE_TIMEOUT="1")


def panel_of(studio: LabelStudio, video: Path, folder: Path, backend: Process, **settings: str) -> Project:
    """A project with live panels, whose backend is started with these settings."""
    return connected(studio, video, start_backend(backend, studio, folder, **settings), data_dir=folder)


def test_the_panel_follows_a_track_and_says_when_the_backend_is_gone(panel_project: Project, backend: Process) -> None:
    task = panel_project.new_task()
    with opened(panel_project, task) as page:
        page.wait_for_panel("idle")
        page.shot("panel-idle")
        x, y, width, height = percent("Circle", 1)
        page.draw(x, y, width, height)
        page.click(x + width / 2, y + height / 2)
        page.press("t")
        page.wait_for_panel("busy")
        frame = page.page.locator("img[src$='/frame']")
        assert not frame.evaluate("image => image.currentSrc"), "what is folded away is not loaded"
        page.page.get_by_text("Newest frame").click()
        page.page.wait_for_function("image => image.naturalWidth > 0", arg=frame.element_handle())
        page.shot("panel-tracking")
        page.wait_for_panel("done")
        page.shot("panel-done")
        with page.page.context.expect_page() as shown:
            page.panel.click()
        assert shown.value.url.endswith(f"/tasks/{task}?")
        picture = np.asarray(Image.open(BytesIO(frame.screenshot())).convert("RGB")).astype(int)
        assert (np.ptp(picture, axis=2) > 60).mean() > 0.02, "it shows the shapes, which are colourful"
        link = page.page.locator("button", has_text="Export").last
        with page.page.context.expect_page() as shown:
            link.click()
        assert shown.value.url.endswith(f"/export?project={panel_project.id}")
        assert link.bounding_box()["y"] < page.panel.bounding_box()["y"] + 44, "it takes no line of its own"
        backend.stop()
        page.wait_for_panel("failed")
        page.shot("panel-stopped")


def test_a_killed_backend_leaves_a_picture_that_says_so(
    studio: LabelStudio, video: Path, tmp_path: Path, backend: Process
) -> None:
    project = panel_of(studio, video, tmp_path, backend, **STAND_IN)
    with opened(project, project.new_task()) as page:
        page.wait_for_panel("idle")
        os.killpg(backend.pid, signal.SIGKILL)
        page.wait_for_panel("failed")
        page.shot("panel-killed")


@pytest.mark.parametrize("panel_data", [{}, {"panel": ""}])
def test_a_task_without_a_panel_works_as_before(project: Project, panel_data: dict[str, str]) -> None:
    data = {key: value for key, value in project.data.items() if key != "panel"}
    with opened(project, project.studio.create_task(project.id, data | panel_data)) as page:
        assert page.panel.count() == 0
        x, y, width, height = percent("Circle", 1)
        page.draw(x, y, width, height)
        page.click(x + width / 2, y + height / 2)
        assert page.track()["data"]["result"]
        page.shot(f"panel-{'empty' if panel_data else 'missing'}")
