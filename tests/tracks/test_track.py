import numpy as np
import pytest

from backend.tracks.track import FrameResult, Track, fuse_directions

NAN = [np.nan] * 4


def ways(ahead: list, back: list) -> tuple[np.ndarray, np.ndarray]:
    scores = [np.where(np.isnan(np.array(w, float)[:, 0]), np.nan, s) for w, s in ((ahead, 0.8), (back, 0.4))]
    return fuse_directions((np.array(ahead, float), scores[0]), (np.array(back, float), scores[1]))


def test_two_ways_that_agree_fade_into_each_other() -> None:
    boxes, scores = ways([[0, 0, 10, 10]] * 5, [[2, 0, 12, 10]] * 5)
    assert np.allclose(boxes[:, 0], [0, 0.5, 1, 1.5, 2])
    assert np.allclose(scores, [0.8, 0.7, 0.6, 0.5, 0.4])


def test_where_they_disagree_the_nearer_start_is_believed() -> None:
    boxes, _ = ways([[0, 0, 10, 10]] * 4, [[50, 0, 60, 10]] * 4)
    assert boxes[:, 0].tolist() == [0, 0, 50, 50]


def test_the_one_that_sees_the_object_is_believed_and_neither_means_absent() -> None:
    boxes, scores = ways([[0, 0, 10, 10], NAN, NAN, NAN], [NAN, NAN, [50, 0, 60, 10], [51, 0, 61, 10]])
    assert np.allclose(boxes[:, 0], [0, np.nan, 50, 51], equal_nan=True)
    assert np.allclose(scores, [0.8, np.nan, 0.4, 0.4], equal_nan=True)


def test_one_frame_is_both_starts_at_once() -> None:
    boxes, _ = ways([[0, 0, 10, 10]], [[0, 0, 10, 10]])
    assert boxes.tolist() == [[0, 0, 10, 10]]


def test_tracks_of_prompts_have_no_phrases() -> None:
    assert FrameResult(0, {}).phrases == {}


def test_a_track_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) for 2 scores"):
        Track(0, np.zeros((3, 4)), np.zeros(2))


def test_a_track_takes_room_from_where_it_is_first_seen_to_where_it_is_last() -> None:
    scores = np.array([np.nan, np.nan, 0.5, np.nan, 0.7, np.nan])
    boxes = np.where(np.isnan(scores)[:, None], np.nan, np.arange(24.0).reshape(6, 4))
    track = Track.from_rows(boxes, scores, {})
    assert (track.start, len(track.scores)) == (2, 3)
    for frames in ([0, 1, 2, 3, 4, 5], [4, 2, 2], [5], []):
        at = np.array(frames, int)
        for ours, expected in zip(track.at(at), (boxes[at], scores[at]), strict=True):
            assert np.array_equal(ours, expected, equal_nan=True)


def test_a_track_that_was_never_seen_has_no_rows() -> None:
    track = Track.from_rows(np.full((3, 4), np.nan), np.full(3, np.nan), {})
    assert len(track.scores) == 0
    assert np.isnan(track.at(np.arange(3))[1]).all()
