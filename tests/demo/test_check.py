"""The demo's judgement of a track, and its clip."""

import re
from pathlib import Path

import numpy as np
import pytest

from backend.demo import check, clip
from backend.tracks.geometry import Box, box_iou

ROOT = Path(__file__).parents[2]
SIZE = (clip.WIDTH, clip.HEIGHT)


def keyframe(frame, x, enabled=True):
    return {"frame": frame, "enabled": enabled, "x": x, "y": 20.0, "width": 10.0, "height": 10.0, "rotation": 0}


def track(boxes, frames):
    """The region that has a keyframe on each of the 0-based `frames`, for boxes in pixels."""
    sequence = []
    for frame in frames:
        region = check.drawn_region("a", "Circle", Box(*boxes[frame]), SIZE, clip.FRAMES, clip.FPS)
        sequence.append(region["value"]["sequence"][0] | {"frame": frame + 1})
    region["value"]["sequence"] = sequence
    return region


def test_the_check_accepts_the_truth():
    boxes = clip.truth()["Circle"]
    assert check.faults(track(boxes, range(clip.FRAMES)), boxes, SIZE) == []


def test_the_check_accepts_the_truth_thinned():
    boxes = clip.truth()["Circle"]
    assert check.faults(track(boxes, [*range(0, clip.FRAMES, 5), clip.FRAMES - 1]), boxes, SIZE) == []


@pytest.mark.parametrize("direction", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_the_check_refuses_the_truth_half_a_box_aside(direction):
    boxes = clip.truth()["Circle"]
    half = (boxes[0, 2:] - boxes[0, :2]) / 2 * direction
    assert len(check.faults(track(boxes, range(clip.FRAMES)), boxes + np.tile(half, 2), SIZE)) == check.CHECKED_FRAMES


def test_the_check_refuses_a_track_that_stands_still():
    boxes = clip.truth()["Circle"]
    assert check.faults(track(boxes, [0]), boxes, SIZE)


def test_the_check_refuses_a_track_that_ends_early():
    boxes = clip.truth()["Circle"]
    region = track(boxes, range(60))
    region["value"]["sequence"][-1]["enabled"] = False
    assert [fault.partition(":")[2] for fault in check.faults(region, boxes, SIZE)] == [" no box"] * 4


@pytest.mark.parametrize(
    ("frame", "x"),
    [(4, None), (5, 10), (10, 20), (15, 30), (16, None), (19, None), (20, 50), (30, 50)],
)
def test_shown_is_what_label_studio_shows(frame, x):
    sequence = [keyframe(20, 50.0), keyframe(5, 10.0), keyframe(15, 30.0, enabled=False)]
    box = check.shown(sequence, frame)
    assert box == (None if x is None else Box(x, 20, x + 10, 30))


def test_the_clips_objects_keep_apart_and_inside():
    boxes = list(clip.truth().values())
    for number, one in enumerate(boxes):
        assert all(box_iou(one, other).max() == 0 for other in boxes[:number])
        assert one.min() > 0
        assert (one[:, 2:] < SIZE).all()


def test_the_demo_has_a_class_for_every_object_of_its_clip():
    config = clip.label_config((ROOT / "label_config.xml").read_text())
    assert set(re.findall('Label value="([A-Z][a-z]+)"', config)) == set(clip.truth())
