"""The accuracy benchmark's own judgement, on tracks that are known."""

from dataclasses import replace

import numpy as np
import pytest

from backend.shapes import CROSSING, CROWDED, HELD_OUT, WORDS, Clip
from backend.tracks.geometry import Box
from backend.tracks.masks import Rle
from backend.tracks.track import ABSENT, FrameResult, Observation
from benchmarks import shapes_accuracy as accuracy

SMALL = {"size": (320, 180)}


@pytest.fixture(scope="module")
def film():
    return accuracy.Film(Clip(HELD_OUT, replace(CROWDED, **SMALL, frames=16)))


def observed(mask):
    if not mask.any():
        return ABSENT
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return Observation(Box(xs[0], ys[0], xs[-1] + 1, ys[-1] + 1), 1.0, Rle.from_mask(mask))


def truth(film, rows, names=str):
    return [
        FrameResult(frame, {names(row): observed(film.truth(frame, row)) for row in rows}) for frame in range(len(film))
    ]


def test_the_truth_has_an_iou_of_one_and_another_object_hardly_any(film):
    tracks = [result.tracks for result in truth(film, range(2))]
    for row, start in film.starts().items():
        if row < 2:
            assert set(accuracy.ious(film, tracks, str(row), row, start).values()) == {1.0}
            assert max(accuracy.ious(film, tracks, str(1 - row), row, start).values()) < 0.1


def test_the_truth_of_words_is_perfect_and_less_is_less(film):
    rows = list(range(len(film.clip.things)))
    whole, data = accuracy.judged(film, rows, truth(film, rows))
    assert whole["wrong"] == whole["missed"] == 0
    assert accuracy.combined_hota([accuracy.hota_parts(data)]) == pytest.approx(1)
    fewer, data = accuracy.judged(film, rows, truth(film, rows[1:]))
    assert fewer["missed"] == film.seen[:, 0].sum()
    assert accuracy.combined_hota([accuracy.hota_parts(data)]) < 1
    more, _ = accuracy.judged(film, rows[1:], truth(film, rows))
    assert more["wrong"] == film.seen[:, 0].sum()


def test_a_name_that_changes_costs_hota_and_no_recall(film):
    rows = list(range(len(film.clip.things)))
    results = truth(film, rows, lambda row: f"a{row}")[:8] + truth(film, rows, lambda row: f"b{row}")[8:]
    counts, data = accuracy.judged(film, rows, results)
    assert counts["missed"] == counts["wrong"] == 0
    assert accuracy.combined_hota([accuracy.hota_parts(data)]) < 0.8


def test_passes_are_where_boxes_meet_and_part():
    still = np.tile([40.0, 40, 60, 60], (30, 1))
    moving = still + np.arange(-15, 15)[:, None] * [3, 0, 3, 0]
    assert accuracy.passes(still, moving) == [(8, 22)]
    aside = moving + np.array([0, 15, 0, 15])
    assert accuracy.passes(still, aside) == []


def test_kept_is_each_on_its_own_and_swapped_is_not():
    film = accuracy.Film(Clip(HELD_OUT + 1, replace(CROSSING, **SMALL, frames=4)))
    (own, *_), swapped = truth(film, (0, 1)), truth(film, (1, 0), lambda row: str(1 - row))[0]
    assert accuracy.right(film, own.tracks, 0, 0, 1)
    assert not accuracy.right(film, swapped.tracks, 0, 0, 1)
    assert not accuracy.right(film, {}, 0, 0, 1)


def test_a_correction_is_clicked_on_what_is_missing_or_too_much():
    truth = np.zeros((50, 50), bool)
    truth[10:20, 10:20] = True
    (missing,) = accuracy.correction("a", 3, truth, np.roll(truth, 20, 1)).points
    assert missing.positive
    assert truth[int(missing.y), int(missing.x)]
    large = truth.copy()
    large[10:40, 10:40] = True
    (surplus,) = accuracy.correction("a", 3, truth, large).points
    assert not surplus.positive
    assert (large & ~truth)[int(surplus.y), int(surplus.x)]


def test_phrases_name_some_and_none():
    for seed in range(HELD_OUT, HELD_OUT + 30):
        clip = Clip(seed, replace(WORDS, **SMALL))
        chosen = accuracy.phrase_of(clip)
        if chosen:
            some, none = (len(clip.named(phrase)) for phrase in chosen)
            assert 1 <= some <= 6
            assert len(clip.things) - some <= 6
            assert none == 0
