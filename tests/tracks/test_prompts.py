import numpy as np
import pytest

from backend.tracks.geometry import Box
from backend.tracks.prompts import LIKE, Exemplar, Phrase, Point, Prompt


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ({"frame": -1, "box": Box(0, 0, 1, 1)}, "frames start at 0"),
        ({"frame": 0}, "needs a box"),
        ({"frame": 0, "box": Box(5, 5, 5, 9)}, "is empty"),
        ({"frame": 0, "mask": np.ones((2, 2), bool), "box": Box(0, 0, 1, 1)}, "cannot be combined"),
    ],
)
def test_a_prompt_that_says_nothing_is_refused(prompt: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Prompt("a", **prompt)


@pytest.mark.parametrize("box", [Box(0, 0, 9, 9), None])
def test_a_negative_point_refines_a_box_or_a_track(box: Box | None) -> None:
    assert Prompt("a", 0, box=box, points=(Point(1, 1, positive=False),)).points


def test_a_kind_is_named_by_its_words_unless_it_has_a_name():
    like = (Exemplar(Box(0, 0, 9, 9)),)
    phrases = [Phrase("red car"), Phrase("red car", 0, like), Phrase("", 0, like), Phrase("", 0, like, "mine")]
    assert [phrase.name for phrase in phrases] == ["red car", "red car", LIKE, "mine"]


def test_what_not_to_find_says_nothing_alone():
    unlike = (Exemplar(Box(0, 0, 9, 9), positive=False),)
    assert Phrase("car", 0, unlike)
    with pytest.raises(ValueError, match="positive exemplar"):
        Phrase("", 0, unlike)
