"""A tracked clip, exported, scores in trackeval what the track itself scored against the truth.

The engine's boxes of every frame are scored as arrays, apart from files, clocks and keyframes; the truth's file is
written here, not by what is tested.
"""

import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trackeval.metrics import HOTA

from backend import engines
from backend.commands import export, track
from backend.commands.export_tracks import ExportOptions
from backend.formats.mot_reader import read_mot
from backend.settings import KeyframeSettings, Settings
from backend.shapes import HELD_OUT, Clip, Recipe
from backend.tracks.geometry import Boxes
from backend.tracks.prompts import Phrase, Prompt, Target, TextSearch
from backend.tracks.track import FrameResult
from benchmarks.shapes_accuracy import Film, box_iou, click
from tests.formats.judged import as_tracker, scores

pytestmark = pytest.mark.slow
RECIPE = Recipe(size=(320, 180), frames=48, things=(3, 4), speed=(0.012, 0.02), strays=0.4, blinks=0.5, twins=0)
CLIP = Clip(HELD_OUT + 5, RECIPE)
"""Two stars, a triangle and a circle, each gone for a while."""
NAME = "1-clip"
"""Of the sequence that the clip becomes."""
METRICS = ("HOTA", "DetA", "AssA")
BOUND = 0.95
"""Of keyframes, as it is set where nobody sets it."""

Tracks = Mapping[str, Mapping[int, Boxes]]
"""Boxes, shape (4,), by track and frame."""
Rows = Any
"""Lines of a MOT file, shape (n, 9)."""
Curves = Mapping[str, Any]
"""METRICS at every IoU, shape (19,)."""


class Heard:
    """An engine that goes through a video once, and then says the same again."""

    name, version, status = "sam3", "1", "ready"

    def __init__(self, settings: Settings) -> None:
        self._engine = engines.load_engine(settings)
        self._answers: dict[str, FrameResult] = {}
        self.results: list[FrameResult] = []

    @contextmanager
    def open(self, video: Any, state: bytes | None = None) -> Iterator["Heard"]:
        with nullcontext() if self.results else self._engine.open(video) as self._session:
            yield self

    def prompt(self, prompts: Sequence[Prompt | Phrase]) -> FrameResult:
        if repr(prompts) not in self._answers:
            self._answers[repr(prompts)] = self._session.prompt(prompts)
        return self._answers[repr(prompts)]

    def propagate(self, span: range, reverse: bool = False) -> Generator[FrameResult]:
        if not self.results:
            self.results = list(self._session.propagate(span, reverse))
        yield from self.results


@dataclass(frozen=True)
class Case:
    """The clip, followed: where its things are, what the engine said, and what was exported, by `keyframes.iou`."""

    truth: Tracks
    dense: Tracks
    exports: Mapping[float, Path]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("truth")
    film, video = Film(CLIP), folder / "clip.mp4"
    CLIP.save(video)
    engine = Heard(Settings(engine="sam3", model_path="shapes", device="cpu"))
    clicked = {name: Target("Shape", {0: click(name, 0, film.truth(0, int(name)))}) for name in ("2", "3")}
    exports = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "load_engine", lambda _: engine)
        for bound in (BOUND, 1.0):
            keyframes, tasks = KeyframeSettings(iou=bound, px=0), folder / f"{bound}.json"
            settings = Settings(
                keyframes=keyframes, bridge_frames=0, min_track_frames=0
            )  # what the engine said, as it is
            words = [TextSearch("Shape", "star")]
            track.run(video, clicked, words, settings, span=None, url=None, output=tasks, overlay=None)
            exports[bound] = folder / f"{bound}"
            export.run(settings, tasks, ExportOptions("mot", exports[bound], predictions=True))
    drawn = [dict(enumerate(frame.boxes)) for frame in film.frames_drawn]
    heard = [{name: np.array(seen.box) for name, seen in one.tracks.items() if seen.box} for one in engine.results]
    return Case(by_track(drawn), by_track(heard), exports)


def by_track(frames: Sequence[Mapping[Any, Boxes]]) -> Tracks:
    """Without those that are not there."""
    found: dict[str, dict[int, Boxes]] = {}
    for frame, boxes in enumerate(frames):
        for name, box in boxes.items():
            if not np.isnan(box).any():
                found.setdefault(str(name), {})[frame] = box
    return found


def scored(truth: Tracks, tracks: Tracks) -> Curves:
    """By trackeval, from arrays."""
    data: dict[str, Any] = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    for frame in range(len(CLIP)):
        real = {place: one[frame] for place, one in enumerate(truth.values()) if frame in one}
        found = {place: one[frame] for place, one in enumerate(tracks.values()) if frame in one}
        data["gt_ids"].append(np.array([*real], int))
        data["tracker_ids"].append(np.array([*found], int))
        overlaps = [[box_iou(one, other) for other in found.values()] for one in real.values()]
        data["similarity_scores"].append(np.array(overlaps).reshape(len(real), len(found)))
    data |= {"num_gt_ids": len(truth), "num_gt_dets": sum(map(len, truth.values()))}
    data |= {"num_tracker_ids": len(tracks), "num_tracker_dets": sum(map(len, tracks.values()))}
    return HOTA({"PRINT_CONFIG": False}).eval_sequence(data)


def judged(truth: Tracks, exported: Path, folder: Path) -> Curves:
    """By trackeval, from what was exported and a plain file of the truth."""
    rows = [
        (frame + 1, number, *box[:2], *(box[2:] - box[:2]), 1, 1, 1)
        for number, boxes in enumerate(truth.values(), start=1)
        for frame, box in boxes.items()
    ]
    (folder / "truth" / NAME / "gt").mkdir(parents=True)
    np.savetxt(folder / "truth" / NAME / "gt" / "gt.txt", rows, "%.10g", ",")
    as_tracker(exported, folder / "trackers")
    sequences = {"SKIP_SPLIT_FOL": True, "SEQ_INFO": {NAME: len(CLIP)}}
    return scores("mot", folder / "truth", folder / "trackers", **sequences)["pedestrian"]


@pytest.mark.parametrize(("bound", "within"), [(BOUND, 0.005), (1.0, 1e-9)])
def test_an_export_scores_what_the_track_scored(case: Case, tmp_path: Path, bound: float, within: float) -> None:
    # A box whose IoU with the engine's is 0.95 has an IoU with the truth that differs by 0.05 at most (1 - IoU is a
    # metric): one of the 19 steps, so all boxes at their worst would move a score by 1/19. They lie to both sides, and
    # a tenth of that is allowed. With a keyframe on every frame the boxes are the engine's, in whole pixels.
    dense, exported = scored(case.truth, case.dense), judged(case.truth, case.exports[bound], tmp_path)
    for metric in METRICS:
        assert 0.5 < dense[metric].mean() < 0.9, "neither perfect nor lost: there is something to get wrong"
        assert exported[metric].mean() == pytest.approx(dense[metric].mean(), abs=within)


@pytest.mark.parametrize("bound", [BOUND, 1.0])
def test_an_export_is_the_track_up_to_the_bound(case: Case, tmp_path: Path, bound: float) -> None:
    found = judged(case.dense, case.exports[bound], tmp_path)
    # At an IoU of 0.95 itself rounding decides.
    assert all(found[metric][:-1] == pytest.approx(1) for metric in METRICS)


def test_an_export_has_the_frames_on_which_the_engine_saw_each(case: Case) -> None:
    seen = sorted(sorted(boxes) for boxes in case.dense.values())
    assert any(frames[-1] - frames[0] >= len(frames) for frames in seen), "one goes and comes back"
    for folder in case.exports.values():
        (recording,) = read_mot(folder)
        assert sorted(one.frames.tolist() for one in recording.tracks) == seen
        assert recording.length == len(CLIP)


def shifted(rows: Rows) -> Rows:
    """A frame late."""
    return (rows + np.eye(9)[0])[rows[:, 0] < len(CLIP)]


def swapped(rows: Rows) -> Rows:
    """Two tracks change ids half-way."""
    rows, (one, other) = rows.copy(), np.unique(rows[:, 1])[:2]
    late, ids = rows[:, 0] > len(CLIP) / 2, rows[:, 1].copy()
    rows[late & (ids == one), 1], rows[late & (ids == other), 1] = other, one
    return rows


def filled(rows: Rows) -> Rows:
    """Tracks stay where they were last until they come back, or to the end."""
    whole = [rows]
    for track_id in np.unique(rows[:, 1]):
        own = rows[rows[:, 1] == track_id]
        gone = np.setdiff1d(np.arange(own[0, 0], len(CLIP) + 1), own[:, 0])
        more = own[np.searchsorted(own[:, 0], gone) - 1]
        more[:, 0] = gone
        whole.append(more)
    return np.concatenate(whole)


@pytest.mark.parametrize(
    ("spoil", "metric"),
    [(shifted, "DetA"), (swapped, "AssA"), (filled, "DetA")],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_an_export_that_is_wrong_scores_less(
    case: Case, tmp_path: Path, spoil: Callable[[Rows], Rows], metric: str
) -> None:
    shutil.copytree(case.exports[BOUND], tmp_path / "wrong")
    file = tmp_path / "wrong" / NAME / "gt" / "gt.txt"
    np.savetxt(file, spoil(np.loadtxt(file, delimiter=",")), "%.10g", ",")
    dense, wrong = scored(case.truth, case.dense), judged(case.truth, tmp_path / "wrong", tmp_path)
    for lower in ("HOTA", metric):
        assert wrong[lower].mean() < dense[lower].mean() - 0.02
