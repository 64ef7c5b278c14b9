"""The live panel inside Label Studio's page: it changes by itself while the page stays as it is."""

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator

from backend.commands import prepare
from backend.labelstudio.client import LabelStudioClient
from backend.settings import Settings
from demo import clip
from demo.labelstudio import LabelStudio
from demo.processes import Process
from tests.e2e.browser import LabelingPage
from tests.e2e.conftest import DEMO, ROOT, Project, opened, start_backend
from tests.e2e.test_boxes import percent

pytestmark = pytest.mark.slow

GREY, BLUE, GREEN, ORANGE = (128, 128, 128), (0, 114, 178), (0, 158, 115), (213, 94, 0)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Process]:
    with Process("the backend", tmp_path / "log.txt") as process:
        yield process


@pytest.fixture
def task(studio: LabelStudio, video: Path, tmp_path: Path, backend: Process) -> tuple[Project, int]:
    """A prepared task whose backend answers after a second with what is there."""
    url = start_backend(backend, studio, tmp_path, **DEMO, SAM3_BACKEND_RESPONSE_TIMEOUT="1")
    number = studio.create_project("live panel", clip.label_config((ROOT / "label_config.xml").read_text()))
    studio.connect_backend(number, url)
    settings = Settings(
        label_studio_url=studio.url,
        label_studio_api_key=studio.token,
        data_dir=tmp_path,
        port=int(url.rpartition(":")[2]),
    )
    assert prepare.run(settings, number, [str(video)], say=lambda _: None) == 0
    (task,) = LabelStudioClient(studio.url, studio.token).tasks(number)
    return Project(studio, number, task["data"]), task["id"]


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


def test_the_panel_follows_a_track_and_says_when_the_backend_is_gone(
    task: tuple[Project, int], backend: Process
) -> None:
    project, number = task
    with opened(project, number) as page:
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
        assert panel(page).locator("xpath=..").get_attribute("href").endswith(f"/tasks/{number}")
        backend.stop()
        wait_for(page, ORANGE)
        page.shot("panel-stopped")
