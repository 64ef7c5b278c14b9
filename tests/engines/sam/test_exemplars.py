"""A session that searches by exemplars: on their frames alone, and what is found there is tracked."""

from unittest.mock import patch

import pytest
import torch

from backend.engines.sam.association import Association
from backend.engines.sam.detections import Detections
from backend.engines.sam.thresholds import Thresholds
from backend.engines.sam3.detector import WORDLESS, Sam3Detector
from backend.errors import BadRequest
from backend.tracks.geometry import Box
from backend.tracks.prompts import LIKE, Exemplar, Phrase
from tests.engines.sam.sessions import LENGTH, A, run, values

pytestmark = pytest.mark.slow

DISC, BRICK = Exemplar(Box(20, 30, 44, 54)), Exemplar(Box(110, 78, 134, 98))
NOT_BRICK = Exemplar(BRICK.box, positive=False)


class Searches:
    """Records what the detector is asked."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, int]]] = []
        self._detect = Sam3Detector.detect_queries

    def __enter__(self) -> list[list[tuple[str, int]]]:
        asked, detect = self.asked, self._detect

        def spy(self, image, queries, tracks):
            asked.append([(query.text, len(query.exemplars)) for query in queries])
            return detect(self, image, queries, tracks)

        self._patch = patch.object(Sam3Detector, "detect_queries", spy)
        self._patch.start()
        return asked

    def __exit__(self, *_: object) -> None:
        self._patch.stop()


def test_exemplars_are_searched_for_on_their_frames_and_words_from_theirs_on(opened):
    prompts = [Phrase("", 2, (DISC, NOT_BRICK)), Phrase("", 5, (BRICK,), "brick"), Phrase("ball", 4)]
    session = opened(*prompts)
    with Searches() as asked:
        run(session, 2, 8)
    assert asked == [[("", 2)], [("ball", 0)], [("ball", 0), ("", 1)], [("ball", 0)], [("ball", 0)]]


def test_words_beside_exemplars_are_searched_for_there_and_elsewhere_if_they_are_prompted_alone(opened):
    session = opened(Phrase("ball", 3, (DISC,)))
    with Searches() as asked:
        run(session, 0, 6)
    assert asked == [[("ball", 1)]]
    session = opened(Phrase("ball", 0), Phrase("ball", 3, (DISC,)))
    with Searches() as asked:
        run(session, 0, 5)
    assert asked == [[("ball", 0)]] * 3 + [[("ball", 1)], [("ball", 0)]]


def test_without_words_the_detector_reads_those_of_the_published_driver(opened):
    read, encode = [], Sam3Detector.encode_phrases

    def spy(self, phrases):
        read.extend(phrases)
        return encode(self, phrases)

    with patch.object(Sam3Detector, "encode_phrases", spy):
        opened(Phrase("", 2, (DISC,)))
    assert {*read} == {WORDLESS}


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_what_is_found_is_tracked_while_nobody_searches(opened, reverse):
    frame = LENGTH - 1 if reverse else 0
    session = opened(Phrase("", frame, (DISC,)), hotstart_frames=15, hotstart_unmatched=2, hotstart_duplicates=99)
    results = run(session, 0, LENGTH, reverse)
    first = results[0].tracks.keys()
    assert any(seen.box for seen in results[0].tracks.values())
    assert all(name.startswith(f"{LIKE} ") for name in first)
    assert all(result.tracks.keys() == first and {*result.phrases.values()} == {LIKE} for result in results)


def test_a_saved_state_searches_on(opened):
    prompts = [A, Phrase("", 1, (DISC, NOT_BRICK)), Phrase("ball", 6, (BRICK,), "mine"), Phrase("circle", 3)]
    whole = run(opened(*prompts), 0, LENGTH)
    session = opened(*prompts)
    part = run(session, 0, 5)
    restored = opened(state=bytes(session.state()))
    assert values([*part, *run(restored, 5, LENGTH)]) == values(whole)


def test_an_exemplar_outside_the_picture_is_refused_and_changes_nothing(opened):
    session = opened(Phrase("ball", 0))
    before = bytes(session.state())
    with pytest.raises(BadRequest, match="draw it around the object"):
        session.prompt([Phrase("", 0, (Exemplar(Box(900, 900, 950, 950)),))])
    assert bytes(session.state()) == before


def planned(frames, unsearched):
    """Plans for two tracks of phrase 0 on one place, nothing detected after the first frame."""
    mask = torch.full((1, 4, 8), -5.0)
    mask[:, :, :4] = 5
    names = (f"track {number}" for number in range(9))
    thresholds = Thresholds(hotstart_frames=9, hotstart_unmatched=99, hotstart_duplicates=3, match_iou=0.1)
    association = Association(thresholds, lambda phrase, number: next(names))
    association.add("old", 0, 0.9, 0)
    association.add("new", 0, 0.9, 1)
    ids = ["old", "new"]
    for frame in range(2, 2 + frames):
        tracks = mask.repeat(len(ids), 1, 1)
        none = Detections.none(tracks)
        plan = association.step(frame, none, ids, tracks, torch.ones(len(ids)), 0, unsearched)
        if plan.removed:
            return frame, plan.removed
    return None


def test_of_two_tracks_in_one_place_the_older_stays_though_nobody_searches():
    assert planned(6, {0}) == (4, {"new"})
    assert planned(6, {1}) is None
