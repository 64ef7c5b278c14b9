"""A phrase finds what it finds in the library: the same objects on the same frames, with the same boxes."""

import pytest

from backend.engines.sam.object_tracker import ObjectTracker
from backend.engines.sam3.engine import Sam3Engine
from backend.settings import Settings
from tests.engines.sam import scenes
from tests.engines.sam3 import stock, tiny

pytestmark = pytest.mark.slow

LENGTH, HOTSTART = 12, 5


@pytest.fixture
def plans(monkeypatch):
    """What is planned of frame after frame."""
    seen, obey = [], ObjectTracker._apply_plan

    def spy(self, way, view, frame, reverse, detections, plan):
        seen.append(plan)
        return obey(self, way, view, frame, reverse, detections, plan)

    monkeypatch.setattr(ObjectTracker, "_apply_plan", spy)
    return seen


def test_a_phrase_finds_the_same(tmp_path, plans):
    folder = tiny.save(
        tmp_path / "tiny",
        seed=2,
        assoc_iou_thresh=0.2,
        trk_assoc_iou_thresh=0.1,
        hotstart_delay=HOTSTART,
        hotstart_unmatch_thresh=4,
        hotstart_dup_thresh=5,
        suppress_unmatched_only_within_hotstart=False,
        init_trk_keep_alive=1,
        max_trk_keep_alive=1,
        recondition_every_nth_frame=2,
        high_conf_thresh=0.1,
        high_iou_thresh=0.2,
    )
    settings = Settings(
        model_path=str(folder),
        device="cpu",
        score_threshold=0.3,
        new_object_threshold=0.35,
        hotstart_frames=HOTSTART,
    )
    engine, video = stock.bare(Sam3Engine(settings)), scenes.film(scenes.FIVE, LENGTH)
    with stock.memories_in_float32():
        ours, theirs = stock.both_named(engine, folder, video, "a b")
    assert stock.are_same(ours, theirs)
    assert sum(len(boxes) > HOTSTART for boxes in ours) > 1
    for what in ("removed", "hidden", "reconditioned"):
        assert any(getattr(plan, what) for plan in plans[1:]), what
