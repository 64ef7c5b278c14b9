"""`like` and `unlike` as an annotator uses them, in real Label Studio: a box, all its like, and a wrong one gone."""

from pathlib import Path

import numpy as np
import pytest

from backend.shapes import HELD_OUT, Clip, Recipe
from backend.tracks.geometry import box_iou
from tests.e2e.browser import LabelingPage
from tests.e2e.conftest import Project, connected, opened
from tests.e2e.test_boxes import finished

pytestmark = pytest.mark.slow

RECIPE = Recipe(
    size=(640, 360),
    frames=40,
    things=(5, 6),
    radius=(0.07, 0.11),
    speed=(0.002, 0.005),
    twins=0.7,
    strays=0,
    plain=True,
)
CLIP, EXAMPLE, LIKE, WRONG = Clip(HELD_OUT + 5, RECIPE), 1, {1, 2, 3}, 0
"""The clip, the object whose box is drawn, all of its kind, and another that is taken for one of them."""


@pytest.fixture
def like_project(project: Project, tmp_path: Path) -> Project:
    """A project of the clip, with the demo's backend."""
    CLIP.save(video := tmp_path / "shapes.mp4")
    assert project.settings
    url = f"http://127.0.0.1:{project.settings.port}"
    return connected(project.studio, video, url, data_dir=project.settings.data_dir)


def percent(row: int, frame: int) -> tuple[float, float, float, float]:
    """Where an object is on an LS frame: x, y, width, height in percent."""
    x0, y0, x1, y1 = CLIP[frame - 1].boxes[row] / np.tile(RECIPE.size, 2) * 100
    return x0, y0, x1 - x0, y1 - y0


def objects(page: LabelingPage, frame: int) -> dict[int, str]:
    """The region of each object, on a frame where both show it."""
    found: dict[int, str] = {}
    for region in page.regions():
        box = page.shown(region["id"], frame)
        if box and box["width"] > 0.1:
            corners = np.array([box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]])
            truth = np.array([percent(row, frame) for row in range(len(CLIP.things))])
            truth[:, 2:] += truth[:, :2]
            ious = box_iou(corners, truth)
            assert ious.max() > 0.4, "what is found is an object"
            row = int(ious.argmax())
            assert row not in found, "none is doubled"
            found[row] = region["id"]
    return found


def test_all_like_a_box_are_tracked_and_a_wrong_one_is_taken_away(like_project: Project) -> None:
    with opened(like_project) as page:
        x, y, width, height = percent(EXAMPLE, 1)
        page.draw(x, y, width, height)
        page.click(x + width / 2, y + height / 2)
        count = len(page.answers)
        page.press("3")
        page.answer(count)
        page.command("like")
        for region in page.regions():
            finished(page, region["id"])
        page.shot("1-like")
        assert objects(page, 1).keys() == LIKE | {WRONG}
        assert objects(page, 30).keys() >= LIKE, "they are tracked"
        assert {*(label for region in page.regions() for label in region["value"]["labels"])} == {"Star"}
        page.select(objects(page, 1)[WRONG], 1)
        page.command("unlike")
        for region in page.regions():
            finished(page, region["id"])
        page.shot("2-unlike")
        assert objects(page, 1).keys() == LIKE
        page.go(30)
        page.shot("3-later")
        assert objects(page, 30).keys() == LIKE
