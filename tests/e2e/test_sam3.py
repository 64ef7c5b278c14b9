"""SAM3 beside Label Studio: the same gestures, and what is random about it is only where its boxes are."""

import pytest

from tests.e2e.conftest import Project, opened
from tests.e2e.test_boxes import draw_and_track, humans, keyframe

pytestmark = pytest.mark.slow


def test_drawn_clicked_and_t_sam3_answers(sam3_project: Project) -> None:
    with opened(sam3_project) as page:
        region = draw_and_track(page, "Car", "1")
        drawn = {name: keyframe(region, 1)[name] for name in ("x", "y", "width", "height")}
        assert region["meta"]["text"][0].startswith("track 1 · sam3 · ")
        assert region["origin"] == "prediction"
        assert humans(region) == {1}
        page.shot("sam3-1-tracked")
        page.move(region["id"], 30, 4, 3)
        moved = page.region(region["id"])
        page.track()
        region = page.region(region["id"])
        assert humans(region) == {1, 30}
        assert {name: keyframe(region, 1)[name] for name in drawn} == drawn
        assert keyframe(region, 30)["x"] == keyframe(moved, 30)["x"]
        page.shot("sam3-2-corrected")
