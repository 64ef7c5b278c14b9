"""The live panel inside Label Studio's page: it changes by itself while the page stays as it is."""

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator

from demo.labelstudio import LabelStudio
from demo.processes import Process
from tests.e2e.browser import LabelingPage
from tests.e2e.conftest import DEMO, Project, connected, opened, start_backend
from tests.e2e.test_boxes import percent

pytestmark = pytest.mark.slow

GREY, BLUE, GREEN, ORANGE = (128, 128, 128), (0, 114, 178), (0, 158, 115), (213, 94, 0)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Process]:
    with Process("the backend", tmp_path / "log.txt") as process:
        yield process


@pytest.fixture
def panel_project(studio: LabelStudio, video: Path, tmp_path: Path, backend: Process) -> Project:
    """A project whose backend answers after a second with what is there."""
    url = start_backend(backend, studio, tmp_path, **DEMO, SAM3_BACKEND_RESPONSE_TIMEOUT="1")
    return connected(studio, video, url, data_dir=tmp_path)


def panel(page: LabelingPage) -> Locator:
    return page.page.locator("img[src*='/panel/']")


def dot(page: LabelingPage) -> tuple[int, ...]:
    """The colour of the dot before the text."""
    picture = Image.open(BytesIO(panel(page).screenshot())).convert("RGB")
    return picture.getpixel((5, 11))  # type: ignore[return-value]


def wait_for(page: LabelingPage, colour: tuple[int, int, int]) -> None:
    give_up = time.monotonic() + 120
    while not np.allclose(dot(page), colour, atol=12):
        assert time.monotonic() < give_up, f"the dot is {dot(page)}"
        page.page.wait_for_timeout(50)


def test_the_panel_follows_a_track_and_says_when_the_backend_is_gone(panel_project: Project, backend: Process) -> None:
    task = panel_project.new_task()
    with opened(panel_project, task) as page:
        wait_for(page, GREY)
        page.shot("panel-idle")
        x, y, width, height = percent("Circle", 1)
        page.draw(x, y, width, height)
        page.click(x + width / 2, y + height / 2)
        page.press("t")
        wait_for(page, BLUE)
        page.shot("panel-tracking")
        wait_for(page, GREEN)
        page.shot("panel-done")
        assert panel(page).locator("xpath=..").get_attribute("href").endswith(f"/tasks/{task}")
        backend.stop()
        wait_for(page, ORANGE)
        page.shot("panel-stopped")


@pytest.mark.parametrize("panel_data", [{}, {"panel": ""}])
def test_a_task_without_a_panel_works_as_before(project: Project, panel_data: dict[str, str]) -> None:
    data = {key: value for key, value in project.data.items() if key != "panel"}
    with opened(project, project.studio.create_task(project.id, data | panel_data)) as page:
        assert panel(page).count() == 0
        x, y, width, height = percent("Circle", 1)
        page.draw(x, y, width, height)
        page.click(x + width / 2, y + height / 2)
        assert page.track()["data"]["result"]
        page.shot(f"panel-{'empty' if panel_data else 'missing'}")
