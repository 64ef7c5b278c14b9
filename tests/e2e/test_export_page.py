"""The export page in a browser: choose, see what it contains, download the zip, see that it is complete."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import SHOTS
from tests.e2e.test_status import visited
from tests.http.test_export_page import add_tasks, make_app
from tests.labelstudio.bodies import CONFIG
from tests.labelstudio.studio import PROJECT, Studio

pytestmark = pytest.mark.slow


@pytest.fixture
def studio() -> Iterator[Studio]:
    with Studio(CONFIG) as studio:
        yield studio


def test_a_dataset_is_chosen_planned_and_downloaded(studio: Studio, tmp_path: Path) -> None:
    add_tasks(studio, tmp_path, "constant", "ntsc", "variable")
    studio.add_task({"video": "/gone.mp4", "fps": 25}, annotations=studio.tasks[1]["annotations"])
    app = make_app(studio, tmp_path / "data")
    with visited(app, f"export?project={PROJECT}", 1200, 860, accept_downloads=True) as page:
        expect(page.get_by_label("Project")).to_have_value(str(PROJECT))
        expect(page.locator("#task").locator("option")).to_have_count(3)
        page.get_by_label("Format").select_option("voc")
        expect(page.locator("#task").locator("option")).to_have_text(["upright boxes"])
        page.get_by_label("Format").select_option("yolo")
        page.get_by_label("frames a second").fill("5")
        expect(page.get_by_label("Every")).to_be_disabled()
        page.get_by_label("frames a second").fill("")
        page.get_by_label("Every").fill("2")
        page.get_by_label("Classes").fill("Car, Person")
        page.get_by_label("Val").fill("40")
        page.get_by_role("button", name="See what it contains").click()
        result = page.locator("#result")
        expect(result.locator(".size")).to_contain_text("pictures of 3 videos, about")
        expect(result.locator(".splits li")).to_have_count(2)
        expect(result.locator(".remarks li").nth(1)).to_contain_text("task 5: ")
        words = f"--project {PROJECT} --format yolo --every 2 --labels Car,Person --split 80,40,0 -o dataset"
        expect(result.locator(".command")).to_contain_text(f"sam3-backend project export {words}")
        page.screenshot(path=SHOTS / "export-planned.png", full_page=True)
        with page.expect_download() as download:
            result.get_by_role("link", name="Download the zip").click()
        expect(result.locator(".state")).to_contain_text("The zip is complete. 3 videos, ")
        expect(result.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "100")
        page.screenshot(path=SHOTS / "export-done.png", full_page=True)
        assert download.value.suggested_filename == f"project-{PROJECT}-yolo.zip"
        with zipfile.ZipFile(download.value.path()) as read:
            assert read.testzip() is None
            assert {"data.yaml", "tracks.csv", "export.json"} <= set(read.namelist())
        # Other options are another dataset.
        page.get_by_label("Every").fill("3")
        expect(result.get_by_role("link", name="Download the zip")).to_be_hidden()
        # Tracks of whole videos have neither split nor classes.
        page.get_by_label("Format").select_option("cvat")
        expect(page.get_by_label("Val")).to_be_hidden()
        expect(page.locator("#pictures option")).to_have_text(["none, labels alone"])
        page.get_by_role("button", name="See what it contains").click()
        expect(result.locator(".command")).to_contain_text(f"--project {PROJECT} --format cvat -o dataset")
        expect(result.locator(".size")).to_have_text("Labels of 180 frames of 3 videos")
        page.screenshot(path=SHOTS / "export-tracks.png", full_page=True)
        page.get_by_label("Format").select_option("coco roboflow")
        page.get_by_role("button", name="See what it contains").click()
        expect(result.locator(".command")).to_contain_text(
            "--format coco --every 3 --labels Car,Person --split 80,40,0"
        )
        expect(result.locator(".command")).to_contain_text("--layout roboflow")


def test_an_error_is_told(studio: Studio, tmp_path: Path) -> None:
    with visited(make_app(studio, tmp_path), "export") as page:
        page.get_by_label("Project").fill("99")
        page.get_by_role("button", name="See what it contains").click()
        expect(page.get_by_role("alert")).not_to_be_empty()
        expect(page.get_by_role("button", name="See what it contains")).to_be_enabled()
