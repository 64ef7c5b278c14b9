"""Masks equal the library's, pixel by pixel: each object by itself there, all of them at once here."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import Tensor
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import Sam3TrackerVideoInferenceCache

from backend.engines.edgetam.engine import EdgeTamEngine
from backend.engines.sam.engine import SamEngine
from backend.engines.sam.session import SamSession
from backend.engines.sam.tracker import Tracker
from backend.engines.sam2.engine import Sam2Engine
from backend.engines.sam3.engine import Sam3Engine
from backend.settings import Settings
from backend.tracks.geometry import Box
from backend.tracks.prompts import Point, Prompt
from backend.tracks.track import ABSENT
from tests.engines.contract import FakeVideo
from tests.engines.edgetam import tiny as tiny_edgetam
from tests.engines.sam import scenes
from tests.engines.sam2 import tiny as tiny_sam2
from tests.engines.sam3 import stock

pytestmark = pytest.mark.slow

SHAPES = Path(__file__).parents[4] / "shared" / "shapes-kit" / "model"
"""A model that has learned, which not everybody has."""
LENGTH = 12
OPEN: dict[str, tuple[type[Sam2Engine] | type[EdgeTamEngine], Any]] = {
    "sam2": (Sam2Engine, tiny_sam2),
    "edgetam": (EdgeTamEngine, tiny_edgetam),
}
"""Engines that know no words, each with its random weights."""
BOTH_WAYS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


@pytest.fixture(scope="module", params=["random", "shapes", "sam2", "edgetam"])
def both(request, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The engine and the library's tracker on the same weights, neither rounding its memories, and a film."""
    engine: SamEngine
    if request.param == "random":
        engine, video = scenes.engine(), scenes.short(LENGTH)
    elif request.param in OPEN:
        kind, tiny = OPEN[request.param]
        folder = tiny.save(tmp_path_factory.mktemp(request.param))
        engine, video = kind(Settings(engine=request.param, model_path=str(folder), device="cpu")), scenes.short(LENGTH)
    elif SHAPES.exists():
        engine = Sam3Engine(Settings(model_path=str(SHAPES), device="cpu", reference="transformers"))
        video = scenes.film(scenes.FIVE, LENGTH)
    else:
        pytest.skip("the model that has learned is not here")
    seen = Sam3TrackerVideoInferenceCache(max_vision_features_cache_size=LENGTH)
    # What is rounded to bfloat16 may jump by a whole step where the sums differ in their last bit.
    with stock.memories_in_float32(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "min_eff_iou", None)
        patch.setattr(Tracker, "restarts_at_prompts", False)
        model = engine.model.image_encoder._model
        tracker = model if request.param in OPEN else stock.alone(model)
        yield SimpleNamespace(sam3=engine.model, video=video, alone=lambda: stock.Alone(tracker, video, seen))


def masks(session: SamSession, frame: int) -> dict[tuple[str, int], Tensor]:
    """What the tracker has just said of the objects on a frame, as logits by object and frame."""
    known = {name: one.memory_bank.get(frame) for name, one in session._object_tracker.objects.items()}
    return {(name, frame): memory.logits.clone() for name, memory in known.items() if memory is not None}


def run(session: SamSession, span: range, reverse: bool = False) -> dict[tuple[str, int], Tensor]:
    return {
        key: mask
        for result in session.propagate(span, reverse)
        for key, mask in masks(session, result.frame).items()
        if result.tracks[key[0]] is not ABSENT or not (mask > 0).any()
    }


def opened(both: SimpleNamespace, prompts: Sequence[Prompt]) -> SamSession:
    session = SamSession(both.sam3, both.video)
    for frame in sorted({prompt.frame for prompt in prompts}):
        session.prompt([prompt for prompt in prompts if prompt.frame == frame])
    return session


def followed(both: SimpleNamespace, prompts: Sequence[Prompt], reverse: bool) -> dict[tuple[str, int], Tensor]:
    """Ours, through the whole video."""
    with opened(both, prompts) as session:
        return run(session, range(LENGTH), reverse)


def expected(both: SimpleNamespace, prompts: Sequence[Prompt], reverse: bool) -> dict[tuple[str, int], Tensor]:
    """The same from the library, object by object, each from its first prompt on."""
    seen: dict[tuple[str, int], Tensor] = {}
    for name in dict.fromkeys(prompt.track for prompt in prompts):
        one, mine = both.alone(), [prompt for prompt in prompts if prompt.track == name]
        for prompt in mine:
            one.show(prompt)
        frames = [prompt.frame for prompt in mine]
        there = range(max(frames) + 1) if reverse else range(min(frames), LENGTH)
        seen |= {(name, frame): mask for frame, mask in one.propagate(there, reverse).items()}
    return seen


def assert_equal(ours: Mapping[Any, Tensor], theirs: Mapping[Any, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    differing = {
        key: difference
        for key, mask in theirs.items()
        if (difference := float((ours[key].sigmoid() - mask.sigmoid()).abs().max())) > 1e-3
    }
    assert not differing


def paper(video: FakeVideo, box: Box) -> np.ndarray:
    """A mask of a box's shape."""
    mask = np.zeros((video.height, video.width), bool)
    mask[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)] = True
    return mask


def prompts_on(frame: int, video: FakeVideo) -> dict[str, Prompt]:
    """One object for each kind of prompt, named after it."""
    w, h = video.width, video.height
    prompts = [
        Prompt("click", frame, points=(Point(0.24 * w, 0.35 * h),)),
        Prompt("clicks", frame, points=(Point(0.75 * w, 0.7 * h), Point(0.5 * w, 0.5 * h, positive=False))),
        Prompt("box", frame, box=Box(0.6 * w, 0.1 * h, 0.9 * w, 0.4 * h)),
        Prompt("box and click", frame, box=Box(0.1 * w, 0.5 * h, 0.4 * w, 0.9 * h), points=(Point(0.3 * w, 0.7 * h),)),
        Prompt("mask", frame, mask=paper(video, Box(0.4 * w, 0.4 * h, 0.62 * w, 0.7 * h))),
    ]
    return {prompt.track: prompt for prompt in prompts}


@pytest.mark.parametrize(
    ("both", "reverse"),
    [
        ("random", False),
        pytest.param("random", True, marks=pytest.mark.slow),
        ("shapes", False),
        ("sam2", False),
        ("edgetam", False),
    ],
    indirect=["both"],
)
def test_every_kind_of_prompt(both, reverse):
    prompts = list(prompts_on(LENGTH - 1 if reverse else 0, both.video).values())
    ours = followed(both, prompts, reverse)
    assert len(ours) == 5 * LENGTH
    assert_equal(ours, expected(both, prompts, reverse))


def staggered(video: FakeVideo, reverse: bool) -> list[Prompt]:
    """Objects that start on different frames, one of them shown on two frames and one on three."""
    shown = {"click": [0], "box": [3, 9], "clicks": [5], "mask": [8], "box and click": [1, 2, 11]}
    return [
        prompts_on(LENGTH - 1 - frame if reverse else frame, video)[name]
        for name, frames in shown.items()
        for frame in frames
    ]


@pytest.mark.parametrize(
    ("both", "reverse"),
    [
        pytest.param("random", False, marks=pytest.mark.slow),
        ("random", True),
        ("shapes", True),
        ("sam2", True),
        ("edgetam", True),
    ],
    indirect=["both"],
)
def test_objects_that_start_on_different_frames_and_are_shown_on_several(both, reverse):
    prompts = staggered(both.video, reverse)
    assert_equal(followed(both, prompts, reverse), expected(both, prompts, reverse))


@pytest.mark.parametrize("both", ["random"], indirect=True)
def test_the_order_of_objects_does_not_matter(both):
    prompts = staggered(both.video, False)
    assert_equal(followed(both, prompts, False), followed(both, prompts[::-1], False))


@pytest.mark.parametrize("both", ["random"], indirect=True)
def test_objects_together_equal_objects_one_by_one(both):
    prompts = staggered(both.video, False)
    apart: dict[tuple[str, int], Tensor] = {}
    for name in {prompt.track for prompt in prompts}:
        apart |= followed(both, [prompt for prompt in prompts if prompt.track == name], False)
    assert_equal(followed(both, prompts, False), apart)


def test_a_second_click_on_the_prompted_frame(both):
    first, second = prompts_on(0, both.video)["click"], Prompt("click", 0, points=(Point(60, 60), Point(9, 9, False)))
    one = both.alone()
    theirs = {("click", 0): one.show(first), ("click", -1): one.show(second)}
    with opened(both, [first]) as session:
        ours = masks(session, 0)
        session.prompt([second])
        ours["click", -1] = masks(session, 0)["click", 0]
    assert_equal(ours, theirs)
    assert float((ours["click", 0].sigmoid() - ours["click", -1].sigmoid()).abs().max()) > 0.1


@BOTH_WAYS
@pytest.mark.parametrize("both", ["random", "sam2", "edgetam"], indirect=True)
@pytest.mark.parametrize(
    "points",
    [(Point(90, 50), Point(20, 30, False)), (Point(60, 60, False),)],
    ids=["clicks", "negative"],
)
def test_a_correction_on_a_tracked_frame(both, reverse, points):
    start, back = (LENGTH - 1, -1) if reverse else (0, 1)
    frame = start + 9 * back
    tracked = range(frame, LENGTH) if reverse else range(frame + 1)
    rest = range(frame) if reverse else range(frame + 1, LENGTH)
    first, correction = prompts_on(start, both.video)["box"], Prompt("box", frame, points=points)
    one = both.alone()
    one.show(first)
    theirs = {("box", at): mask for at, mask in one.propagate(tracked, reverse).items()}
    theirs["box", frame] = one.show(correction, reverse)
    theirs |= {("box", at): mask for at, mask in one.propagate(rest, reverse).items()}
    with opened(both, [first]) as session:
        ours = run(session, tracked, reverse)
        before = ours["box", frame]
        session.prompt([correction])
        ours |= masks(session, frame)
        ours |= run(session, rest, reverse)
    assert_equal(ours, theirs)
    assert float((before.sigmoid() - ours["box", frame].sigmoid()).abs().max()) > 0.01
