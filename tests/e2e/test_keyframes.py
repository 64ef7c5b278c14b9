"""A track with a keyframe on every frame and its twins with few: the page shows the same."""

from pathlib import Path

import numpy as np
import pytest

from backend.demo import clip
from backend.demo.labelstudio import LabelStudio
from backend.labelstudio.keyframe import boxes_to_percent
from backend.labelstudio.keyframes import SampledTrack, choose_keyframes
from backend.labelstudio.region import Region
from backend.labelstudio.region_results import build_region, format_region
from backend.labelstudio.segments import Segment
from backend.settings import KeyframeSettings, Settings
from backend.tracks.geometry import Boxes, box_iou
from tests.e2e.browser import LabelingPage
from tests.e2e.conftest import connected, opened

pytestmark = pytest.mark.slow

SIZE = (clip.WIDTH, clip.HEIGHT)
LEFT, BACK = 41, 61
"""LS frames of a gap: the first one without the object, and the first one with it again."""
RULES = {
    "dense": KeyframeSettings(mode="exact"),
    "default": KeyframeSettings(),
    "pixel": KeyframeSettings(iou=1.0, px=1.0),
    "budget": KeyframeSettings(mode="budget", budget=12, px=0),
}


def tracked() -> Boxes:
    """The circle with half a pixel of jitter on every edge, as it is sent; NaN in the gap."""
    jitter = np.random.default_rng(9).normal(0, 0.5, (clip.FRAMES, 4))
    boxes = boxes_to_percent(clip.truth()["Circle"] + jitter, *SIZE)
    boxes[LEFT - 1 : BACK - 1] = np.nan
    return boxes


def region(name: str, number: int) -> dict:
    seen = SampledTrack(tracked(), np.ones(clip.FRAMES, bool))
    made = choose_keyframes([Segment(None, None)], lambda _: seen, Settings(keyframes=RULES[name]), SIZE)
    blank = Region(name, "box", "video", ("Circle",), (), frames_count=clip.FRAMES)
    (answer,) = format_region(build_region(blank, made, track_id=number, engine=name, score=None), clip.FPS)
    return answer


def pixels(page: LabelingPage, name: str, frame: int) -> list[float] | None:
    box = page.shown(name, frame)
    if box is None:
        return None
    x, y, width, height = (box[key] for key in ("x", "y", "width", "height"))
    return [x * 6.4, y * 3.6, (x + width) * 6.4, (y + height) * 3.6]


def test_few_keyframes_show_what_a_keyframe_on_every_frame_shows(studio: LabelStudio, video: Path) -> None:
    project, sent = connected(studio, video, None), {name: region(name, n) for n, name in enumerate(RULES, 1)}
    task = project.new_task()
    studio.call("POST", f"/api/tasks/{task}/annotations", json={"result": [*sent.values()]})
    counts = {name: len(one["value"]["sequence"]) for name, one in sent.items()}
    assert counts["dense"] == clip.FRAMES - (BACK - LEFT)
    assert counts["budget"] == 12
    assert 5 * counts["default"] < counts["pixel"] + counts["default"] < counts["dense"], counts
    with opened(project, task) as page:
        for frame in range(2, clip.FRAMES + 1, 2):
            boxes = {name: pixels(page, name, frame) for name in sent}
            if LEFT <= frame < BACK:
                assert set(map(str, boxes.values())) == {"None"}, f"frame {frame} is in the gap"
                continue
            dense = np.array(boxes["dense"])
            assert np.abs(np.array(boxes["pixel"]) - dense).max() <= 1.0
            for name in ("default", "budget"):
                off = np.abs(np.array(boxes[name]) - dense).max()
                assert off <= RULES[name].px or box_iou(np.array(boxes[name]), dense) >= sent[name]["meta"]["iou"]
        for frame in (LEFT - 1, LEFT, BACK - 1, BACK):
            page.go(frame)
            page.shot(f"40-twins-{frame}")
