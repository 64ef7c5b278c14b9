"""`engine: sam2` in a real Label Studio, on random weights: that it runs and answers, not how well it tracks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.demo import clip
from backend.demo.labelstudio import LabelStudio
from tests.e2e.conftest import Project, connected, opened, serving
from tests.e2e.test_boxes import draw_and_track, finished
from tests.e2e.test_prompts import middle
from tests.engines.sam2 import tiny

pytestmark = pytest.mark.slow


@pytest.fixture
def sam2_project(studio: LabelStudio, video: Path, tmp_path: Path) -> Iterator[Project]:
    settings = {"ENGINE": "sam2", "MODEL_PATH": str(tiny.save(tmp_path / "model")), "DEVICE": "cpu"}
    with serving(studio, tmp_path, **{f"SAM3_BACKEND_{name}": value for name, value in settings.items()}) as url:
        yield connected(studio, video, url, data_dir=tmp_path)


def test_a_box_and_a_click_are_tracked_and_words_say_which_engine_knows_them(sam2_project: Project) -> None:
    with opened(sam2_project) as page:
        region = draw_and_track(page, "Circle")
        assert region["meta"]["text"][0].startswith("track 1 · sam2 · ")
        assert region["value"]["sequence"][0]["frame"] == 1
        assert region["value"]["framesCount"] == clip.FRAMES
        page.words("star")
        assert "engine: sam3" in page.told
        page.prepare_clicks()
        page.click_picture(*middle("Star", 1))
        (clicked,) = [one for one in page.regions() if one["id"] != region["id"]]
        assert finished(page, clicked["id"])["meta"]["text"][0].startswith("track 2 · sam2 · ")
        page.shot("1-box-words-and-click")
