"""Tracks that may be one: by place, by motion, and by how they look."""

import numpy as np
import pytest

from backend.errors import MediaError
from backend.track_editor.merge_suggestions import suggest_merges
from tests.track_editor.rosters import drawn, keyframe, roster

HEIGHT, WIDTH = 200, 300


def moving(name: str, frames: tuple[int, int], x: tuple[float, float], y: float = 20, label: str = "Car") -> dict:
    """A track that goes from one x to another."""
    first, last = frames
    ends = keyframe(first, x=x[0], y=y), keyframe(last, x=x[1], y=y, enabled=False)
    return drawn(*ends, id=name, labels=(label,))


def painted(*colours: tuple[int, tuple[int, int, int]]):
    """Pictures with a striped patch of a colour around where things of these tests are, from a frame on."""

    def read(frame: int) -> np.ndarray:
        colour = next(colour for start, colour in reversed(colours) if frame >= start)
        picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
        picture[30:80] = colour
        picture[30:80:4] = 20
        return picture

    return read


def test_one_that_begins_where_another_would_be_is_proposed() -> None:
    found = suggest_merges(roster(moving("a", (1, 30), (10, 39)), moving("b", (41, 60), (50, 69))))
    assert [(one.tracks, one.gap) for one in found] == [((1, 2), 10)]
    assert found[0].overlap > 0.9
    assert str(found[0]).startswith("2 begins 10 frames after 1 ends, where that would be")


@pytest.mark.parametrize("ways", [((10, 39), (50, 50)), ((39, 39), (49, 68))], ids=["it stops", "it starts"])
def test_motion_on_either_side_tells_where_it_would_be(ways: tuple) -> None:
    before, after = ways
    assert len(suggest_merges(roster(moving("a", (1, 30), before), moving("b", (41, 60), after)))) == 1


@pytest.mark.parametrize(
    "other",
    [
        moving("b", (41, 60), (50, 69), y=60),  # elsewhere
        moving("b", (41, 60), (50, 69), label="Person"),
        moving("b", (25, 60), (34, 69)),  # they share frames
        moving("b", (1, 3), (50, 69)),
    ],
)
def test_others_are_not(other: dict) -> None:
    assert suggest_merges(roster(moving("a", (1, 30), (10, 39)), other)) == []


def test_a_long_gap_says_nothing() -> None:
    far = drawn(keyframe(400, x=39), id="b")
    assert suggest_merges(roster(moving("a", (1, 30), (39, 39)), far)) == []


def test_looks_decide() -> None:
    tracks = roster(moving("a", (1, 30), (10, 39)), moving("b", (41, 60), (50, 69)))
    (same,) = suggest_merges(tracks, painted((1, (250, 60, 30))))
    assert same.likeness is not None
    assert same.likeness > 0.9
    assert "looks alike" in str(same)
    assert suggest_merges(tracks, painted((1, (250, 60, 30)), (35, (20, 60, 240)))) == []


def test_looks_find_what_place_alone_would_not() -> None:
    tracks = roster(moving("a", (1, 30), (10, 10)), moving("b", (34, 60), (17, 17)))
    assert suggest_merges(tracks) == []
    assert len(suggest_merges(tracks, painted((1, (250, 60, 30))))) == 1


def test_without_the_video_places_tell_alone() -> None:
    def read(frame: int) -> np.ndarray:
        raise MediaError("gone")

    (one,) = suggest_merges(roster(moving("a", (1, 30), (10, 39)), moving("b", (41, 60), (50, 69))), read)
    assert one.likeness is None


def test_an_end_has_one_beginning() -> None:
    tracks = roster(moving("a", (1, 30), (10, 39)), moving("b", (32, 60), (41, 69)), moving("c", (36, 60), (44, 60)))
    assert [one.tracks for one in suggest_merges(tracks)] == [(1, 2)]
