"""Decisions equal the library's frame by frame; then what is ours, rule by rule."""

import json
import logging
from collections import Counter
from dataclasses import dataclass, replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Sam3VideoConfig, Sam3VideoModel
from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoInferenceSession

from backend.engines.sam.association import Association, TrackUpdatePlan
from backend.engines.sam.detections import Detections
from backend.engines.sam.postprocess import ABSENT_LOGIT
from backend.engines.sam.thresholds import Thresholds
from tests.engines.sam3.tiny import build

SIDE = 24
TUNED = {
    "hotstart_delay": 12,
    "hotstart_unmatch_thresh": 5,
    "hotstart_dup_thresh": 4,
    "recondition_every_nth_frame": 3,
    "init_trk_keep_alive": 4,
    "max_trk_keep_alive": 6,
    "suppress_unmatched_only_within_hotstart": False,
}
"""Every rule gets its turn within a few frames."""
EVENTS = {
    "born",
    "removed",
    "hidden",
    "reconditioned",
    "behind",
    "shrunk",
    "duplicates",
    "unmatched",
    "nothing found",
    "no tracks",
}
VARIANTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "tuned": ({}, set()),
    "corrected by detections": ({"recondition_on_trk_masks": False}, set()),
    "impatient": (
        {"decrease_trk_keep_alive_for_empty_masklets": True, "init_trk_keep_alive": 0, "min_trk_keep_alive": -3},
        set(),
    ),
    "no hot start": ({"hotstart_delay": 0}, {"removed"}),
    "mostly off": (
        {
            "recondition_every_nth_frame": 0,
            "suppress_overlapping_based_on_recent_occlusion_threshold": 0.0,
            "suppress_unmatched_only_within_hotstart": True,
        },
        {"hidden", "reconditioned", "behind"},
    ),
}
"""What is set otherwise, and what then does not happen."""


@pytest.fixture(scope="module")
def model() -> Sam3VideoModel:
    return build()


# --- The library, its networks replaced by what a world of discs says


@dataclass
class Frame:
    """What the networks answer on one frame."""

    number: int
    detections: Detections
    ids: list[str]
    logits: Tensor
    scores: Tensor


class World:
    """Discs on their ways, seen by a careless detector and followed by careless tracks."""

    def __init__(self, seed: int, phrases: int, discs: int = 5) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.phrases = phrases
        self.place = 4 + self.uniform(discs, 2) * (SIDE - 8)
        self.speed = (self.uniform(discs, 2) - 0.5) * 1.5
        self.radius = 3 + self.uniform(discs) * 3
        self.phrase = torch.arange(discs) % phrases
        self.looks = (0.45, 0.45, 0.2, 0.05)[seed % 4]
        self.followed: dict[str, int] = {}
        self.detected: list[int] = []

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.random)

    def disc(self, index: int, blur: float) -> Tensor:
        place = self.place[index] + (self.uniform(2) - 0.5) * blur
        grid = torch.arange(SIDE).float()
        away = ((grid[:, None] - place[0]) ** 2 + (grid[None] - place[1]) ** 2).sqrt()
        return 2 * (self.radius[index] - away) + (self.uniform(SIDE, SIDE) - 0.5)

    def frame(self, number: int, ids: list[str]) -> Frame:
        self.place = self.place + self.speed
        self.speed = torch.where((self.place < 3) | (self.place > SIDE - 3), -self.speed, self.speed)
        seen = [index for index in range(len(self.place)) for _ in range(2) if self.uniform(1) < self.looks]
        self.detected = sorted(seen, key=lambda index: int(self.phrase[index]))
        masks = [self.disc(index, 2.0) for index in self.detected]
        logits = torch.stack(masks) if masks else torch.zeros(0, SIDE, SIDE)
        scores = 0.5 + 0.5 * self.uniform(len(masks))
        tracks, object_scores = self.tracked(ids)
        detections = Detections.select(logits, scores, self.phrase[self.detected], tracks)
        return Frame(number, detections, ids, tracks, object_scores)

    def tracked(self, ids: list[str]) -> tuple[Tensor, Tensor]:
        masks = []
        for track in ids:
            if self.uniform(1) < 0.06:  # it drifts to another disc
                self.followed[track] = int(self.uniform(1) * len(self.place))
            is_lost = self.uniform(1) < 0.15
            masks.append(torch.full((SIDE, SIDE), -3.0) if is_lost else self.disc(self.followed[track], 1.5))
        return torch.stack(masks) if masks else torch.zeros(0, SIDE, SIDE), 4 * self.uniform(len(ids)) - 1


class Library:
    """`Sam3VideoModel.forward`, which hears a `Frame` instead of its networks."""

    def __init__(self, model: Sam3VideoModel, patch: pytest.MonkeyPatch, config: dict[str, Any], phrases: int) -> None:
        self.model = model
        for name, value in {**TUNED, **config}.items():
            patch.setattr(model, name, value)
        self.session = Sam3VideoInferenceSession(dtype=torch.float32)
        self.session.prompts = {index: str(index) for index in range(phrases)}
        self.session.get_frame = lambda frame_idx: torch.zeros(1)
        self.frame: Frame
        self.memory: Tensor | None = None
        self.plan: dict[str, Any] = {}
        planning = model.run_tracker_update_planning_phase
        mended = model._get_objects_to_suppress_based_on_most_recently_occluded

        def plan(**arguments: Any) -> Any:
            self.plan, metadata = planning(**arguments)
            return self.plan, metadata

        def suppressed(masks: Tensor, last: Tensor, ids: list[int], reverse: bool) -> Tensor:
            # Going backward, the library takes its "never" (-1) for a frame that lies ahead.
            return mended(masks, torch.where(last < 0, last, 1000 - last) if reverse else last, ids, False)

        preparing: Any = model._prepare_recondition_masks

        def recondition(**arguments: Any) -> Any:
            """With detections thresholded at 0, where their logits are, and as logits again."""
            found = arguments["det_out"]
            masks, ids = preparing(**{**arguments, "det_out": {**found, "mask": (found["mask"] > 0).float()}})
            as_logits = {row: torch.where(mask, 10.0, -10.0) for row, mask in masks.items() if mask.dtype == torch.bool}
            return masks | as_logits, ids

        patch.setattr(model, "_prepare_recondition_masks", recondition)
        patch.setattr(model.detector_model, "get_vision_features", lambda pixel_values: None)
        patch.setattr(model, "get_vision_features_for_tracker", lambda vision_embeds: ([], []))
        patch.setattr(model, "run_detection", lambda **_: self._detections())
        patch.setattr(model, "run_tracker_propagation", lambda **_: (self.frame.logits.clone(), self.frame.scores))
        patch.setattr(model, "run_memory_encoder", self._encode)
        patch.setattr(model, "run_tracker_update_planning_phase", plan)
        patch.setattr(model, "_tracker_add_new_objects", self._add)
        patch.setattr(model, "_get_objects_to_suppress_based_on_most_recently_occluded", suppressed)

    def _detections(self) -> dict[int, dict[str, Tensor]]:
        found = self.frame.detections
        rows = {index: found.phrases == index for index in self.session.prompts}
        return {
            index: {"bbox": torch.zeros(int(row.sum()), 4), "mask": found.logits[row], "scores": found.scores[row]}
            for index, row in rows.items()
        }

    def _encode(self, session: Any, frame: int, masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        self.memory = masks[:, 0].clone()
        return torch.zeros(1, len(masks)), torch.zeros(1, len(masks))

    def _add(self, inference_session: Any, new_obj_ids: list[int], **_: Any) -> None:
        for number in new_obj_ids:
            inference_session.obj_id_to_idx(number)

    def step(self, frame: Frame, reverse: bool) -> Any:
        self.frame, self.memory = frame, None
        return self.model(inference_session=self.session, frame_idx=frame.number, reverse=reverse)


def numbered() -> Any:
    numbers = count()
    return lambda phrase, number: str(next(numbers))


def numbers(tracks: Any) -> set[int]:
    return {int(track) for track in tracks}


def compare(plan: TrackUpdatePlan, frame: Frame, library: Library, output: Any, seen: Counter[str]) -> None:
    theirs = library.plan
    removed = theirs["obj_ids_newly_removed"]
    assert [row for _, row in plan.new_tracks] == theirs["new_det_out_inds"]
    assert [int(track) for track, _ in plan.new_tracks] == theirs["new_det_obj_ids"]
    assert numbers(plan.removed) == removed
    assert numbers(plan.hidden) == output.suppressed_obj_ids - removed
    assert numbers(plan.reconditioned) == theirs["reconditioned_obj_ids"] - removed
    for track, row in plan.reconditioned.items():
        assert theirs["trk_id_to_max_iou_high_conf_det"][int(track)] == row
    if frame.ids:
        assert library.memory is not None
        assert torch.equal(plan.memory_logits, library.memory)
    if not removed:  # else the library gives each object behind a removed one the mask of another
        shown = dict(zip(frame.ids, plan.logits, strict=True))
        shown |= {track: frame.detections.logits[row] for track, row in [*plan.new_tracks, *plan.reconditioned.items()]}
        for track, mask in shown.items():
            assert torch.equal(mask, output.obj_id_to_mask[int(track)][0])
    happened = {
        "born": plan.new_tracks,
        "removed": plan.removed,
        "hidden": plan.hidden,
        "reconditioned": plan.reconditioned,
        "behind": (plan.logits == ABSENT_LOGIT).all((1, 2)).any(),
        "shrunk": (plan.memory_logits != plan.logits).any(),
        "duplicates": any(len(tracks) > 1 for tracks in theirs["det_to_matched_trk_obj_ids"].values()),
        "unmatched": theirs["unmatched_trk_obj_ids"],
        "nothing found": not len(frame.detections),
        "no tracks": not frame.ids,
    }
    seen.update(what for what, any_of_it in happened.items() if any_of_it)


def walk(library: Library, seed: int, phrases: int, frames: range, seen: Counter[str], **changes: Any) -> None:
    world = World(seed, phrases)
    config = SimpleNamespace(**{**Sam3VideoConfig().__dict__, **TUNED, **changes})
    thresholds = Thresholds.from_config(config)
    if phrases > 1:  # the rule across phrases is ours alone
        thresholds = replace(thresholds, duplicate_iou=2.0)
    association = Association(thresholds, numbered())
    ids: list[str] = []
    for number in frames:
        frame = world.frame(number, ids)
        output = library.step(frame, frames.step < 0)
        plan = association.step(number, frame.detections, ids, frame.logits, frame.scores)
        compare(plan, frame, library, output, seen)
        world.followed |= {track: world.detected[row] for track, row in plan.new_tracks}
        ids = [track for track in [*ids, *(track for track, _ in plan.new_tracks)] if track not in plan.removed]
        assert numbers(association.tracks) == numbers(ids) == set(library.session.obj_ids)
        if number % 7 == 0:
            association = Association(thresholds, association._new_id, json.loads(json.dumps(association.state())))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "frames"),
    [*((variant, range(32)) for variant in VARIANTS), ("tuned", range(60, 28, -1))],
    ids=[*VARIANTS, "tuned, in reverse"],
)
def test_decides_as_the_library(
    variant: str, frames: range, model: Sam3VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Counter[str] = Counter()
    changes, never = VARIANTS[variant]
    for seed in range(4):
        phrases = (1, 3)[seed % 2]
        with monkeypatch.context() as patch:
            walk(Library(model, patch, changes, phrases), seed, phrases, frames, seen, **changes)
    assert set(seen) == EVENTS - never


@pytest.mark.slow
def test_one_way_is_as_good_as_the_other() -> None:
    ways = []
    for frames in (range(0, 48), range(48, 0, -1)):
        world, ids, plans = World(1, 2), list[int](), []
        association = Association(
            replace(Thresholds(), hotstart_frames=10, hotstart_unmatched=4, hotstart_duplicates=4), numbered()
        )
        for number in frames:
            frame = world.frame(number, ids)
            plan = association.step(number, frame.detections, ids, frame.logits, frame.scores)
            world.followed |= {track: world.detected[row] for track, row in plan.new_tracks}
            ids = [track for track in [*ids, *(track for track, _ in plan.new_tracks)] if track not in plan.removed]
            plans.append((plan.new_tracks, plan.removed, plan.logits.tolist()))
        ways.append(plans)
    assert ways[0] == ways[1]
    assert any(removed for _, removed, _ in ways[0])


# --- What is ours


def square(left: int, width: int = 8) -> Tensor:
    logits = torch.full((SIDE, SIDE), -5.0)
    logits[4:12, left : left + width] = 5.0
    return logits


def found(*objects: tuple[Tensor, float, int]) -> Detections:
    masks = [mask for mask, _, _ in objects]
    return Detections.select(
        torch.stack(masks) if masks else torch.zeros(0, SIDE, SIDE),
        torch.tensor([score for _, score, _ in objects]),
        torch.tensor([phrase for _, _, phrase in objects]).long(),
        torch.zeros(0, SIDE, SIDE),
    )


def stepped(association: Association, frame: int, detections: Detections, tracks: dict[str, Tensor]) -> TrackUpdatePlan:
    logits = torch.stack(list(tracks.values())) if tracks else torch.zeros(0, SIDE, SIDE)
    detections = Detections.select(detections.logits, detections.scores, detections.phrases, logits)
    return association.step(frame, detections, list(tracks), logits, torch.full((len(tracks),), 5.0))


def begun(detections: Detections, thresholds: Thresholds | None = None) -> Association:
    association = Association(thresholds or Thresholds(), numbered())
    stepped(association, 0, detections, {})
    return association


def test_thresholds_are_the_models() -> None:
    config = Sam3VideoConfig()
    assert Thresholds.from_config(config) == Thresholds()
    names = [name for name in TUNED if name in config.to_dict()]
    assert names == list(TUNED)
    tuned = Thresholds.from_config(SimpleNamespace(**{**config.__dict__, **TUNED}))
    assert (tuned.hotstart_frames, tuned.hotstart_unmatched, tuned.hotstart_duplicates, tuned.recondition_every) == (
        12,
        5,
        4,
        3,
    )
    assert (tuned.keep_alive, tuned.max_keep_alive, tuned.hide_unmatched) == (4, 6, True)


@pytest.mark.parametrize(("frames", "counts"), [(100, (15, 8)), (15, (15, 8)), (8, (8, 4)), (5, (5, 3)), (2, (2, 1))])
def test_a_short_hot_start_asks_for_its_share(frames: int, counts: tuple[int, int]) -> None:
    short = Thresholds().limit_hotstart(frames)
    assert (
        (short.hotstart_frames, short.hotstart_unmatched)
        == (short.hotstart_frames, short.hotstart_duplicates)
        == counts
    )


@pytest.mark.parametrize("frames", range(16))
def test_every_hot_start_can_be_failed_but_not_by_half_a_chance(frames: int) -> None:
    short, occasions = Thresholds().limit_hotstart(frames), frames - 1
    assert short.hotstart_unmatched == short.hotstart_duplicates >= 1
    assert occasions < 1 or occasions / 2 < short.hotstart_unmatched <= occasions
    for least in (0, 1):
        assert Thresholds(hotstart_frames=least).limit_hotstart(frames).hotstart_frames == min(least, frames)


@pytest.mark.parametrize("frames", [2, 3, 4, 7, 15])
def test_a_track_that_nothing_confirms_ends_within_a_short_span(frames: int) -> None:
    true, false = square(0), square(12)
    association = begun(found((true, 0.9, 0), (false, 0.6, 0)), Thresholds().limit_hotstart(frames))
    removed = [
        stepped(association, frame, found((true, 0.9, 0)), {"0": true, "1": false}).removed
        for frame in range(1, frames)
    ]
    assert {"1"} in removed
    assert "0" in association.tracks
    assert {"0"} not in removed


def test_an_object_found_by_two_phrases_is_born_once_by_the_better() -> None:
    association = Association(Thresholds(), numbered())
    detections = found((square(0), 0.8, 0), (square(0), 0.9, 1), (square(12), 0.95, 0), (square(2), 0.7, 0))
    plan = stepped(association, 0, detections, {})
    assert [row for _, row in plan.new_tracks] == [1, 2, 3]
    assert {track: known.phrase for track, known in association.tracks.items()} == {"0": 1, "1": 0, "2": 0}


def test_objects_of_one_phrase_are_all_born_as_in_the_library() -> None:
    plan = stepped(Association(Thresholds(), numbered()), 0, found((square(0), 0.8, 0), (square(0), 0.9, 0)), {})
    assert plan.new_tracks == [("0", 0), ("1", 1)]


@pytest.mark.parametrize(("score", "frame", "phrase"), [(0.95, 1, 1), (0.95, 14, 1), (0.95, 15, 0), (0.8, 1, 0)])
def test_a_young_track_changes_over_to_a_phrase_that_fits_it_better(score: float, frame: int, phrase: int) -> None:
    association = begun(found((square(0), 0.9, 0), (square(12), 0.9, 0)))
    plan = stepped(association, frame, found((square(0), score, 1)), {"1": square(12), "0": square(0)})
    assert plan.new_tracks == []
    assert association.tracks["1"].phrase == 0
    assert association.tracks["0"].phrase == phrase
    assert association.tracks["0"].score == pytest.approx(max(score, 0.9) if phrase else 0.9)
    assert association.tracks["0"].unmatched_frames == (0 if phrase else 1)


def test_an_object_of_another_phrase_beside_a_track_is_born() -> None:
    association = begun(found((square(0), 0.9, 0)))
    plan = stepped(association, 1, found((square(0), 0.9, 0), (square(4), 0.95, 1)), {"0": square(0)})
    assert plan.new_tracks == [("1", 1)]
    assert association.tracks["0"].phrase == 0


def test_a_second_phrase_neither_shrinks_nor_hides_the_first() -> None:
    association = Association(Thresholds(), numbered())
    for track, phrase in (("a", 0), ("b", 1)):
        association.add(track, phrase, 0.9, 0)
    tracks = {"a": square(0), "b": square(0) + 1}
    plan = stepped(association, 1, found(), tracks)
    assert torch.equal(plan.memory_logits, torch.stack(list(tracks.values())))


def test_persons_tracks_are_left_alone_and_not_doubled() -> None:
    association = begun(found((square(0), 0.9, 0), (square(12), 0.6, 0)), Thresholds(hide_unmatched=True, keep_alive=1))
    association.forget("0")
    tracks = {"0": square(0), "1": square(0) + 1, "another": square(0) + 2}
    for frame in range(1, 20):
        detections = found((square(0), 0.95, 0), (square(1), 0.9, 1)) if frame % 2 else found()
        plan = stepped(association, frame, detections, tracks)
        assert plan.new_tracks == []
        assert not {"0", "another"} & (plan.removed | plan.hidden | set(plan.reconditioned) | set(association.tracks))
        assert torch.equal(plan.logits, torch.stack(list(tracks.values())))
        assert torch.equal(plan.memory_logits, plan.logits)


def test_beside_persons_tracks_alone_every_detection_is_new_as_in_the_library() -> None:
    association = Association(Thresholds(), numbered())
    detections = found((square(12), 0.55, 0), (square(6), 0.9, 0))
    plan = stepped(association, 0, detections, {"mine": square(0)})
    assert plan.new_tracks == [("0", 0)]
    plan = stepped(association, 1, found((square(12), 0.9, 0), (square(0), 0.6, 1)), {"0": square(12)})
    assert plan.new_tracks == []


def test_a_track_that_ends_is_not_refreshed() -> None:
    thresholds = Thresholds(recondition_every=1, hotstart_duplicates=1)
    association = begun(found((square(1), 0.9, 0), (square(0), 0.9, 0)), thresholds)
    plan = stepped(association, 1, found((square(0), 0.9, 0)), {"0": square(1), "1": square(0)})
    assert plan.removed == {"1"}
    assert plan.reconditioned == {}


def test_a_track_that_was_found_elsewhere_is_not_found_again() -> None:
    association = Association(Thresholds(), numbered())
    association.add("there", 0, 0.9, 10)
    plan = stepped(association, 9, found((square(0), 0.9, 0)), {"there": square(0)})
    assert plan.new_tracks == []
    assert association.tracks["there"].unmatched_frames == 0


@pytest.mark.parametrize(("most", "rows"), [(4, [0, 2]), (3, [2]), (2, []), (1, [])])
def test_the_surest_newcomers_find_room(most: int, rows: list[int], caplog: pytest.LogCaptureFixture) -> None:
    association = begun(found((square(0), 0.9, 0), (square(0), 0.9, 0)), Thresholds(max_objects=2))
    association.thresholds = replace(association.thresholds, max_objects=most)
    newcomers = found((square(8), 0.8, 0), (square(16), 0.75, 0), (square(12, 4), 0.85, 0))
    with caplog.at_level(logging.WARNING, "backend"):
        plan = stepped(association, 1, newcomers, {"0": square(0), "1": square(0)})
        again = Association(association.thresholds, numbered(), association.state())
        stepped(again, 2, newcomers, {"0": square(0), "1": square(0)})
    assert [row for _, row in plan.new_tracks] == rows
    assert [record.name for record in caplog.records] == ["backend.engines.sam.association"]


def test_a_track_is_judged_from_its_second_frame_on() -> None:
    association = Association(Thresholds(), numbered())
    association.add("a", 0, 0.9, 4)
    association.add("b", 0, 0.9, 4)
    tracks = {"a": square(0), "b": square(1)}
    for frame, unmatched, overlaps in ((4, 0, {}), (5, 0, {"a": 1}), (6, 1, {"a": 1})):
        stepped(association, frame, found() if frame == 6 else found((square(0), 0.9, 0)), tracks)
        assert association.tracks["a"].unmatched_frames == unmatched
        assert association.tracks["b"].overlaps == overlaps


def test_a_track_that_has_been_gone_for_long_ends_and_makes_room() -> None:
    association = begun(
        found((square(0), 0.9, 0), (square(12), 0.9, 0)), Thresholds(max_absent_frames=3, max_objects=2)
    )
    nothing = torch.full_like(square(0), -3)
    there, ended = [True, False, False, True, False, False, False], []
    for frame, is_there in enumerate(there, 1):
        tracks = {"0": square(0), "1": square(12) if is_there else nothing}
        plan = stepped(association, frame, found((square(0), 0.9, 0), (square(6), 0.9, 0)), tracks)
        assert plan.new_tracks == []
        ended.append(plan.ended)
    assert ended == [set()] * 6 + [{"1"}]
    assert association.tracks.keys() == {"0"}
    plan = stepped(association, 8, found((square(12), 0.9, 0)), {"0": square(0)})
    assert plan.new_tracks == [("2", 0)]


@pytest.mark.slow
def test_what_is_remembered_does_not_grow_with_time() -> None:
    association = begun(
        found((square(0), 0.9, 0), (square(1), 0.9, 0), (square(12), 0.9, 0)), Thresholds(hotstart_frames=4)
    )
    tracks = {"0": square(0), "1": square(1), "2": square(12)}
    sizes = []
    for frame in range(1, 300):
        detections = found() if frame % 3 else found((square(0), 0.9, 0), (square(11), 0.9, 0))
        stepped(association, frame, detections, tracks)
        sizes.append(len(json.dumps(association.state())))
    assert max(sizes[150:]) <= max(sizes[:10]) + 10  # some numbers have more digits
    assert association.tracks.keys() == tracks.keys()
    assert not any(track.overlaps for track in association.tracks.values())


def test_nothing_that_is_given_is_changed() -> None:
    world = World(3, 1)
    association = Association(replace(Thresholds(recondition_on_track_mask=False), recondition_every=1), numbered())
    ids: list[str] = []
    for number in range(10):
        frame = world.frame(number, ids)
        given = [tensor.clone() for tensor in (frame.detections.logits, frame.logits, frame.scores)]
        plan = association.step(number, frame.detections, ids, frame.logits, frame.scores)
        assert all(map(torch.equal, given, (frame.detections.logits, frame.logits, frame.scores)))
        world.followed |= {track: world.detected[row] for track, row in plan.new_tracks}
        ids = [*ids, *(track for track, _ in plan.new_tracks)]
