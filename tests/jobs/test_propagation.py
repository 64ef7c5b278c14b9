import numpy as np
import pytest

from backend.geometry import Box
from backend.jobs.propagation import Propagation, Stretch, stretches_between
from backend.prompts import Prompt
from tests.fakes import FakeVideo, StubEngine


def run(stretches, frames, length=50, engine=None, cancelled=lambda: False, **limits) -> Propagation:
    propagation = Propagation(length, stretches, **limits)
    prompts = [Prompt("a", frame, box=Box(10, 10, 20, 20)) for frame in frames]
    propagation.run(engine or StubEngine(step=0), FakeVideo(length), prompts, cancelled)
    return propagation


def present(propagation: Propagation) -> list[int]:
    return np.flatnonzero(~np.isnan(propagation.track().scores)).tolist()


@pytest.mark.parametrize(
    ("direction", "stretches"),
    [
        ("forward", [Stretch(5, 9), Stretch(9, None)]),
        ("backward", [Stretch(None, 5), Stretch(5, 9)]),
        ("both", [Stretch(None, 5), Stretch(5, 9), Stretch(9, None)]),
    ],
)
def test_the_stretches_between_prompts(direction: str, stretches: list[Stretch]) -> None:
    assert stretches_between([5, 9], direction) == stretches


@pytest.mark.parametrize(
    ("stretch", "limits", "frames"),
    [
        (Stretch(10, None), {}, range(10, 50)),
        (Stretch(None, 10), {}, range(0, 11)),
        (Stretch(10, 20), {}, range(10, 21)),
        (Stretch(10, None), {"max_frames": 5}, range(10, 16)),
        (Stretch(None, 10), {"max_frames": 5}, range(5, 11)),
        (Stretch(10, 20), {"max_frames": 5}, range(10, 21)),
        (Stretch(10, None), {"span": range(5, 30)}, range(10, 30)),
        (Stretch(None, 10), {"span": range(5, 30)}, range(5, 11)),
        (Stretch(49, None), {}, range(49, 50)),
    ],
)
def test_a_stretch_reaches_as_far_as_it_may(stretch: Stretch, limits: dict, frames: range) -> None:
    propagation = run([stretch], [at for at in (stretch.first, stretch.last) if at is not None], **limits)
    assert present(propagation) == list(frames)
    ways = 2 if None not in (stretch.first, stretch.last) else 1
    assert propagation.done == propagation.total == ways * len(frames)


def test_between_two_prompts_both_ways_are_fused() -> None:
    # Forward the box drifts to the right of where it is, backward to the left of it: together they stay.
    track = run([Stretch(0, 4)], [0, 4], engine=StubEngine(step=0.5)).track()
    assert np.allclose(track.boxes[:5, 0], 10)


def test_what_nobody_saw_is_absent() -> None:
    assert present(run([Stretch(0, None)], [0], engine=StubEngine(seen=lambda frame: frame % 10 < 3), length=12)) == [
        0,
        1,
        2,
        10,
        11,
    ]


def test_cancelling_keeps_what_is_done() -> None:
    engine = StubEngine(step=0)
    propagation = run([Stretch(0, None)], [0], engine=engine, cancelled=lambda: len(engine.frames) > 7)
    assert present(propagation) == list(range(7))
    assert (propagation.done, propagation.total) == (7, 50)
