"""A session that looks for words: what is found, what is held back, and two ways that know of each other."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import count
from unittest.mock import patch

import numpy as np
import pytest
import torch

from backend.engines.sam.association import Association
from backend.engines.sam.mask_boxes import masks_to_boxes
from backend.engines.sam.object_tracker import ObjectTracker
from backend.engines.sam.thresholds import Thresholds
from backend.engines.sam.tracker import Tracker
from backend.engines.sam3.detector import Sam3Detector
from backend.errors import Unsupported
from backend.tracks.prompts import Phrase, Prompt
from tests.engines.sam.sessions import BALL, CIRCLE, LENGTH, A, click, heard, kept, run, values

pytestmark = pytest.mark.slow

BOTH_WAYS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def also(*values):
    """A further case of a test whose first one is in the fast part."""
    return pytest.param(*values, marks=pytest.mark.slow)


# Words


def test_phrases_are_found_and_named(opened):
    session = opened()
    found = session.prompt([CIRCLE, BALL])
    assert {found.phrases[name] for name in found.tracks} == {"circle", "red ball"}
    assert all(name.startswith(found.phrases[name]) for name in found.tracks)
    results = run(session, 0, LENGTH)
    assert all(result.tracks.keys() == result.phrases.keys() >= found.tracks.keys() for result in results)
    assert sum(seen.box is not None for seen in results[-1].tracks.values()) >= 2


OPEN = {"hotstart_unmatched": 99, "hotstart_duplicates": 99}
"""No track proves false."""


def nothing(detect: Callable, times: int) -> Callable:
    """A detector that finds nothing so many times."""

    def empty(self, vision, words, part):
        nonlocal times
        times -= 1
        found = detect(self, vision, words, part)
        return found if times < 0 else tuple(one[:0] for one in found)

    return empty


def test_a_phrase_that_names_nothing_here_finds_nothing_and_may_later(opened):
    session = opened(new_track_score=0.9)
    with patch.object(Sam3Detector, "_detect_batch", nothing(Sam3Detector._detect_batch, 3)):
        found = session.prompt([CIRCLE])
        assert (found.tracks, found.phrases) == ({}, {})
        results = run(session, 0, 6)
    assert [len(result.tracks) for result in results[:2]] == [0, 0]
    assert results[-1].tracks


def test_a_phrase_is_looked_for_from_its_frame_on(opened):
    session = opened(A, Phrase("circle", 5))
    results = run(session, 0, 9)
    assert [result.frame for result in results if result.tracks["circle 1"].box] == [5, 6, 7, 8]
    assert all(list(result.tracks)[:2] == ["a", "circle 1"] for result in results)


@pytest.mark.parametrize("length", [1, 3, 9])
@BOTH_WAYS
def test_held_back_results_are_all_there_at_the_end_of_the_span(opened, reverse, length):
    session = opened(Phrase("circle", LENGTH - 1 if reverse else 0))
    span = range(LENGTH - length, LENGTH) if reverse else range(length)
    frames = [result.frame for result in session.propagate(span, reverse)]
    assert frames == list(span)[:: -1 if reverse else 1]


def test_a_track_that_proves_false_is_seen_in_no_result(opened):
    ended: list[tuple[int, str]] = []
    step = Association.step

    def spy(self, frame, *arguments):
        plan = step(self, frame, *arguments)
        ended.extend((frame, name) for name in plan.removed)
        return plan

    with patch.object(Association, "step", spy):
        results = run(opened(CIRCLE, BALL), 0, LENGTH)
    assert len(ended) > 3
    seen = {name for result in results for name, one in result.tracks.items() if one.box}
    assert not seen & {name for _, name in ended}
    assert "circle 1" in seen


@pytest.mark.parametrize(("reverse", "frames"), [(False, 12 - 5), (True, 9 - 1)])
def test_words_that_were_prompted_twice_are_looked_for_from_the_first_of_their_frames_on(opened, reverse, frames):
    session, looks, detect = opened(Phrase("circle", 5), Phrase("circle", 9)), [], Sam3Detector.detect

    def spy(self, vision, words, *exemplars):
        looks.append(len(words))
        return detect(self, vision, words, *exemplars)

    with patch.object(Sam3Detector, "detect", spy):
        run(session, 2, 12, reverse)
    assert looks == [1] * frames


def test_the_score_of_what_words_find_is_the_detectors_and_stays_with_its_track(opened):
    session, scores, detect = opened(), [], Sam3Detector.detect

    def spy(self, vision, words, *exemplars):
        found = detect(self, vision, words, *exemplars)
        scores.extend(found.scores.tolist())
        return found

    with patch.object(Sam3Detector, "detect", spy):
        result = session.prompt([CIRCLE])
    found = {name: seen for name, seen in result.tracks.items() if seen.box}
    assert found
    assert all(min(abs(seen.score - score) for score in scores) < 1e-4 for seen in found.values())
    run(session, 0, 1)
    known = session._directions[False].association.tracks
    assert all(known[name].score == pytest.approx(seen.score, abs=1e-4) for name, seen in found.items())


def test_what_the_association_hides_is_absent_on_that_frame(opened):
    plans, step = {}, Association.step

    def spy(self, frame, *arguments):
        plans[frame] = step(self, frame, *arguments)
        return plans[frame]

    session = opened(CIRCLE, **OPEN, hide_unmatched=True, keep_alive=1, confirm_iou=0.9, match_iou=0.9)
    with patch.object(Association, "step", spy):
        results = run(session, 0, LENGTH)
    hidden = [(result, name) for result in results for name in plans[result.frame].hidden]
    assert hidden
    assert all(result.tracks[name].box is None for result, name in hidden)


def test_a_track_that_changes_over_to_another_phrase_is_told_under_it(opened):
    session, step = opened(CIRCLE, BALL), Association.step

    def change(self, frame, *arguments):
        plan = step(self, frame, *arguments)
        if frame == 3:
            self.tracks["circle 1"].phrase = 1
        return plan

    with patch.object(Association, "step", change):
        results = run(session, 0, 8)
    assert results[-1].phrases["circle 1"] == "red ball"


def test_a_found_object_that_a_person_corrects_is_the_associations_no_more(opened):
    session = opened(CIRCLE)
    run(session, 0, 4)
    tracks = session._directions[False].association.tracks
    assert "circle 1" in tracks
    session.prompt([click("circle 1", 2, 100, 90)])
    assert "circle 1" not in session._directions[False].association.tracks
    for span in (4, 6), (0, 4):
        run(session, *span)
        assert "circle 1" not in session._directions[False].association.tracks


def test_a_found_object_that_a_person_corrects_neither_gives_nor_takes_pixels(opened):
    session = opened(CIRCLE, masks=True)
    before = run(session, 0, 1)[0].tracks
    everything = np.ones(next(one.mask.to_mask().shape for one in before.values() if one.mask), bool)
    session.prompt([Prompt("circle 1", 0, mask=everything)])
    after = run(session, 0, 1)[0].tracks
    others = [name for name in before if name != "circle 1" and before[name].mask]
    assert others
    assert after["circle 1"].mask.to_mask().all()
    assert all(after[name].mask.area >= before[name].mask.area for name in others)


def test_a_detection_that_refreshes_a_track_is_what_is_shown_of_it(opened):
    steps, step = {}, Association.step

    def spy(self, frame, detections, *arguments):
        plan = step(self, frame, detections, *arguments)
        steps[frame] = plan, detections
        return plan

    session = opened(CIRCLE, **OPEN, recondition_every=1, recondition_score=0.0, recondition_iou=0.0)
    with patch.object(Association, "step", spy):
        results = run(session, 0, 8)
    shown = [
        (tuple(result.tracks[name].box), tuple(masks_to_boxes(detections.logits[row : row + 1], 120, 160)[0]))
        for result in results
        for plan, detections in (steps[result.frame],)
        for name, row in plan.reconditioned.items()
    ]
    assert shown
    assert all(ours == expected for ours, expected in shown)


def test_held_back_results_are_as_many_as_the_hot_start(opened, sam3):
    session = opened(CIRCLE)
    heard(session, 1, 0, LENGTH)
    assert len(session._directions[False].pending_results) == sam3.thresholds.hotstart_frames - 1
    session = opened(A)
    heard(session, 1, 0, LENGTH)
    assert not session._directions[False].pending_results


CORRECTIONS = {
    "another object, far ahead": [click("p", 9, 100, 90)],
    "a correction of one shown": [click("a", 3, 100, 90)],
    "a correction of one found": [click("circle 1", 3, 100, 90)],
    "another phrase": [Phrase("dog", 3)],
}


@pytest.mark.parametrize(
    "name",
    [
        "another object, far ahead",
        also("a correction of one shown"),
        "a correction of one found",
        also("another phrase"),
    ],
)
def test_a_prompt_while_results_are_held_back_is_as_if_none_had_been_computed(opened, name):
    ahead, never = opened(CIRCLE, A), opened(CIRCLE, A)
    heard(ahead, 4, 0, 12)
    # A span that ends here computes nothing beyond, under the thresholds of the whole.
    with patch.object(Thresholds, "limit_hotstart", lambda self, frames: self):
        run(never, 0, 4)
    assert values([ahead.prompt(CORRECTIONS[name])]) == values([never.prompt(CORRECTIONS[name])])
    assert values(run(ahead, 4, 12)) == values(run(never, 4, 12))


def test_a_prompt_between_the_results_of_one_span_equals_one_between_two_spans(opened):
    one, two = opened(CIRCLE, A), opened(CIRCLE, A)
    shown = click("p", 3, 100, 90)
    first = heard(two, 4, 0, 12)
    two.prompt([shown])
    with closing(one.propagate(range(12))) as results:
        assert values([next(results) for _ in range(4)]) == values(first)
        one.prompt([shown])
        assert values(list(results)) == values(run(two, 4, 12))


def test_an_object_that_words_found_keeps_its_name_when_it_is_corrected(opened):
    session = opened(CIRCLE)
    run(session, 0, 6)
    corrected = session.prompt([click("circle 1", 3, 100, 90)])
    assert corrected.phrases["circle 1"] == "circle"
    results = run(session, 0, 10)
    assert all(result.phrases["circle 1"] == "circle" for result in results)
    assert results[3].tracks["circle 1"] == corrected.tracks["circle 1"]
    assert results[-1].tracks["circle 1"].box


def gone(track: Callable, first: int) -> Callable:
    """A tracker that sees nothing from the call with this number on."""
    calls = count()

    def blind(self, view, histories, reach):
        found = track(self, view, histories, reach)
        if next(calls) < first:
            return found
        return found._replace(
            logits=torch.full_like(found.logits, -1024), object_scores=torch.full_like(found.object_scores, -9)
        )

    return blind


FEW = {"max_absent_frames": 4, "hotstart_unmatched": 99, "hotstart_duplicates": 99, "max_objects": 5}


@BOTH_WAYS
def test_what_has_been_gone_for_long_makes_room_for_others(opened, reverse):
    at = LENGTH - 1 if reverse else 0
    session = opened(Phrase("circle", at), click("a", at, 30, 40), **FEW)
    with patch.object(Tracker, "track", gone(Tracker.track, 2)):
        results = run(session, 0, LENGTH, reverse)
    told = Counter(name for result in results for name in result.tracks)
    assert told.pop("a") == LENGTH
    assert len(told) > 2 * 5
    assert max(told.values()) <= 4 + 3  # until nothing is seen any more, and what is born meanwhile
    assert max(len(result.tracks) for result in results) == 5
    assert {*session._object_tracker.objects} <= {*results[-1].tracks}


def test_a_state_goes_on_equally_where_tracks_are_given_up(opened):
    session = opened(CIRCLE, A, **FEW)
    with patch.object(Tracker, "track", gone(Tracker.track, 0)):
        heard(session, 6, 0, LENGTH)
        restored = opened(state=bytes(session.state()), **FEW)
        assert values(run(restored, 6, LENGTH)) == values(run(session, 6, LENGTH))


def test_what_one_way_has_given_up_the_other_one_knows_and_a_person_brings_back(opened):
    session = opened(**{**FEW, "max_objects": 64})
    found = {*session.prompt([Phrase("circle", 8), Phrase("red ball", 8)]).tracks}
    with patch.object(Tracker, "track", gone(Tracker.track, 0)):
        forward = run(session, 8, LENGTH)
    assert all(result.tracks.keys() >= found for result in forward)
    assert {kept(session, name).directions[False].ended_at for name in found} == {12}
    backward = run(session, 4, 9, reverse=True)
    assert any(backward[-1].tracks[name].box for name in found)
    back = min(found)
    session.prompt([click(back, LENGTH - 3, 30, 40)])
    assert run(session, LENGTH - 2, LENGTH)[-1].tracks[back].box


def test_no_name_is_given_to_two_objects_on_two_ways(opened):
    session = opened(max_absent_frames=2, hotstart_unmatched=99, hotstart_duplicates=99)
    found = {*session.prompt([Phrase("circle", 8)]).tracks}
    with patch.object(Tracker, "track", gone(Tracker.track, 0)):
        seen = [
            {name for result in results for name, one in result.tracks.items() if one.box} - found
            for results in (run(session, 8, LENGTH), run(session, 0, 9, reverse=True))
        ]
    assert all(seen)
    assert not seen[0] & seen[1]


@pytest.mark.parametrize("following", [(10, 11), also((10, 13)), also((10, LENGTH)), also((0, 9, True)), (4, 9, True)])
def test_a_state_goes_on_equally_whatever_is_asked_next(opened, following):
    strict = {"hotstart_unmatched": 1, "hotstart_duplicates": 1}
    session = opened(Phrase("circle", 8), Phrase("red ball", 8), **strict)
    heard(session, 2, 8, LENGTH)
    restored = opened(state=bytes(session.state()), **strict)
    assert values(run(session, *following)) == values(run(restored, *following))


def test_what_is_found_ahead_takes_no_place_from_a_person(opened):
    session = opened(Phrase("tree"), max_objects=2, hotstart_unmatched=99, hotstart_duplicates=99)
    heard(session, 1, 0, LENGTH)
    yielded = len(opened(state=bytes(session.state()))._object_tracker.objects)
    assert yielded < len(session._object_tracker.objects) == 2
    assert "p" in session.prompt([click("p", 9, 60, 60)]).tracks


def test_names_of_found_objects_are_no_person_s(opened):
    found = opened(click("circle 1", 9, 30, 40)).prompt([CIRCLE])
    assert found.phrases
    assert "circle 1" not in found.phrases


@pytest.mark.parametrize(("count", "reverse"), [(4, True), also(9, False)])
def test_words_go_on_after_closing_half_way_as_if_in_one_run(opened, count, reverse):
    at = LENGTH - 1 if reverse else 0
    one, other = (opened(Phrase("circle", at), Phrase("red ball", at)) for _ in range(2))
    first = heard(one, count, 0, LENGTH, reverse)
    rest = run(one, *((0, LENGTH - count) if reverse else (count, LENGTH)), reverse=reverse)
    assert values(first + rest) == values(run(other, 0, LENGTH, reverse))


@pytest.mark.parametrize(("count", "reverse"), [also(2, False), (9, True)])
def test_a_state_with_results_held_back_goes_on_equally(opened, count, reverse):
    at = LENGTH - 1 if reverse else 0
    session = opened(Phrase("red ball", at), click("a", at, 30, 40))
    heard(session, count, 0, LENGTH, reverse)
    restored = opened(state=bytes(session.state()))
    rest = (0, LENGTH - count) if reverse else (count, LENGTH)
    assert values(run(restored, *rest, reverse=reverse)) == values(run(session, *rest, reverse=reverse))


def test_a_state_goes_on_equally_in_another_process(opened, tmp_path):
    session = opened(CIRCLE, A)
    heard(session, 2, 0, 8)
    (tmp_path / "state").write_bytes(bytes(session.state()))
    script = (
        "import sys; from pathlib import Path; from tests.engines.sam.sessions import *\n"
        "session = SamSession(scenes.engine().model, VIDEO, Path(sys.argv[1]).read_bytes())\n"
        "print(repr(values(run(session, 2, 8))))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "state")]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    assert answer.strip() == repr(values(run(session, 2, 8)))


def test_both_ways_share_the_objects_of_the_prompted_frame(opened):
    session = opened()
    found = {*session.prompt([Phrase("circle", 8), Phrase("red ball", 8)]).tracks}
    assert found
    backward, forward = run(session, 0, 9, reverse=True), run(session, 8, LENGTH)
    assert forward[0].tracks.keys() >= found <= backward[0].tracks.keys()
    assert {forward[0].tracks[name].box for name in found} == {backward[0].tracks[name].box for name in found}
    seen = [{name for one in results for name in one.tracks if one.tracks[name].box} for results in (forward, backward)]
    assert seen[0] - found
    assert seen[1] - found
    assert not seen[0] & seen[1] - found


def test_two_runs_from_the_start_are_equal_for_words_too(opened):
    session = opened(CIRCLE, BALL)
    first = values(run(session, 0, 10))
    assert values(run(session, 0, 10)) == first


def test_ways_may_begin_anew_in_any_order(opened):
    session = opened(Phrase("red ball", 10))
    heard(session, 9, 0, 10, reverse=True)
    born = [name for name, one in session._object_tracker.objects.items() if one.found_reverse]
    assert born
    heard(session, 9, 0, LENGTH)
    assert {*born} & {*session._directions[False].association.tracks}
    heard(session, 2, 0, LENGTH, reverse=True)
    assert len(run(session, 9, LENGTH)) == LENGTH - 9


# Two ways that know of each other


def test_a_way_knows_nothing_of_what_the_other_one_has_found_ahead(opened):
    session = opened(CIRCLE, hotstart_frames=6, recondition_every=0, hotstart_unmatched=99, hotstart_duplicates=99)
    session.prompt([Phrase("red ball", 15)])
    heard(session, 1, 0, LENGTH, reverse=True)
    ahead = {name for name, one in session._object_tracker.objects.items() if not one.is_yielded}
    assert ahead
    first = run(session, 0, 12)
    assert not ahead & {name for result in first for name in result.tracks}
    restored = opened(
        state=bytes(session.state()),
        hotstart_frames=6,
        recondition_every=0,
        hotstart_unmatched=99,
        hotstart_duplicates=99,
    )
    session.prompt([click("p", 0, 60, 60)])
    restored.prompt([click("p", 0, 60, 60)])
    assert values(run(session, 12, LENGTH)) == values(run(restored, 12, LENGTH))


@pytest.mark.parametrize("cut", [also(8), also(9), 10, also(11)])
def test_a_track_that_proves_false_one_way_is_forgotten_the_other_way_too(opened, cut):
    session = opened(Phrase("red ball", 2), Phrase("circle", 2), recondition_every=0)
    run(session, 2, cut)
    run(session, 3, cut, reverse=True)
    run(session, cut, LENGTH)
    for way in session._directions.values():
        assert way.association.tracks.keys() <= session._object_tracker.objects.keys()
    assert len(run(session, 0, 3, reverse=True)) == 3


def test_an_error_after_the_decisions_of_a_frame_undoes_them(opened):
    session, other = opened(CIRCLE), opened(CIRCLE)
    heard(session, 2, 0, LENGTH), heard(other, 2, 0, LENGTH)
    session.prompt([A]), other.prompt([A])
    with patch.object(ObjectTracker, "_apply_plan", side_effect=Unsupported("no room")), pytest.raises(Unsupported):
        run(session, 2, LENGTH)
    assert values(run(session, 2, LENGTH)) == values(run(other, 2, LENGTH))


def test_a_second_propagation_in_one_direction_ends_the_first_with_an_error(opened):
    session = opened(A)
    first = session.propagate(range(8))
    next(first)
    next(session.propagate(range(10, LENGTH)))
    with pytest.raises(RuntimeError, match="run one at a time"):
        next(first)


def test_words_prompted_on_a_tracked_frame_tell_what_is_there(opened):
    session = opened(CIRCLE, A)
    last = run(session, 0, 4)[-1]
    found = session.prompt([Phrase("circle", 3)])
    assert "a" not in found.tracks
    for name, seen in found.tracks.items():
        assert seen.box is not None
        assert name not in last.tracks or seen.box == last.tracks[name].box
    assert found.tracks.keys() >= {name for name, seen in last.tracks.items() if name != "a" and seen.box}


def test_the_same_words_on_another_frame_are_the_same_phrase(opened):
    session, twice = opened(CIRCLE), opened(CIRCLE)
    twice.prompt([Phrase("circle", 0)])
    assert values(run(session, 0, LENGTH)) == values(run(twice, 0, LENGTH))


def test_what_is_kept_for_long_is_kept_alone(opened):
    session = opened(
        CIRCLE,
        recondition_every=1,
        recondition_score=0.0,
        recondition_iou=0.0,
        hotstart_unmatched=99,
        hotstart_duplicates=99,
    )
    run(session, 0, 6)
    long_kept = [
        memory
        for one in session._object_tracker.objects.values()
        for memories in (
            one.memory_bank.cond_frames if one.phrase is not None else {},
            one.memory_bank.directions[False].recond_frames,
        )
        for memory in memories.values()
    ]
    assert len(long_kept) > 6
    for memory in long_kept:
        assert memory.features.untyped_storage().nbytes() == memory.features.nbytes


@pytest.mark.parametrize("count", [also(3), 6, also(9), also(12)])
def test_a_state_goes_on_equally_where_there_is_little_room(opened, count):
    few = {"max_objects": 5, "hotstart_frames": 8, "hotstart_unmatched": 3}
    session = opened(BALL, CIRCLE, **few)
    heard(session, count, 0, LENGTH)
    restored = opened(state=bytes(session.state()), **few)
    assert values(run(restored, count, LENGTH)) == values(run(session, count, LENGTH))
