import numpy as np
import pytest

from backend.tracks.geometry import Box
from backend.tracks.prompts import Point, Prompt


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
