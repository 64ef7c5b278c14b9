"""The results of engines and the tracks made of them: plain values in pixels and source frames."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from backend.tracks.geometry import Box, Boxes, box_iou
from backend.tracks.masks import Rle


class Observation(NamedTuple):
    """One object on one frame. `box` None: it was tracked and is absent."""

    box: Box | None
    score: float
    mask: Rle | None = None


ABSENT = Observation(None, 0.0)


@dataclass(frozen=True, slots=True)
class FrameResult:
    """An engine's result for one source frame.

    Attributes:
        tracks: by track id.
        phrases: text of the phrase by track id, for tracks that a phrase found.
    """

    frame: int
    tracks: Mapping[str, Observation]
    phrases: Mapping[str, str] = field(default_factory=dict)


Rows = NDArray[np.float32]
"""Shape (…, 5): x0 y0 x1 y1 score, NaN where an object is absent. Single precision halves the memory and is exact to a
ten-thousandth of a percent even at 8192 pixels."""


@dataclass(frozen=True, slots=True)
class ResultBlock:
    """An engine's results for consecutive frames with the same tracks.

    Attributes:
        frames: source frames, in ascending order.
        reverse: they were processed in descending order.
        rows: shape (tracks, frames, 5), by source frame.
        phrases: as in `FrameResult`.
        masks: by track and source frame.
    """

    frames: range
    reverse: bool
    tracks: tuple[str, ...]
    rows: Rows
    phrases: Mapping[str, str] = field(default_factory=dict)
    masks: Mapping[str, Mapping[int, Rle]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows.shape != (len(self.tracks), len(self.frames), 5):
            expected = (len(self.tracks), len(self.frames), 5)
            raise ValueError(f"rows of shape {self.rows.shape}: expected {expected}")

    @classmethod
    def from_results(cls, results: Iterable[FrameResult], reverse: bool, masks: bool = False) -> list[Self]:
        """Group consecutive results into as few blocks as possible, in order; `masks`: include masks."""
        same = groupby(results, key=lambda result: (tuple(result.tracks), dict(result.phrases)))
        return [cls._from_same_tracks(tracks, phrases, list(part), reverse, masks) for (tracks, phrases), part in same]

    @classmethod
    def _from_same_tracks(
        cls,
        tracks: tuple[str, ...],
        phrases: Mapping[str, str],
        results: list[FrameResult],
        reverse: bool,
        masks: bool,
    ) -> Self:
        results = results[::-1] if reverse else results
        rows = np.full((len(tracks), len(results), 5), np.nan, np.float32)
        for column, result in enumerate(results):
            for row, seen in enumerate(result.tracks.values()):
                if seen.box is not None:
                    rows[row, column] = *seen.box, seen.score
        kept = {
            name: {one.frame: mask for one in results if (mask := one.tracks[name].mask)}
            for name in (tracks if masks else ())
        }
        frames = range(results[0].frame, results[-1].frame + 1)
        return cls(frames, reverse, tracks, rows, phrases, {name: some for name, some in kept.items() if some})

    def crop(self, frames: range) -> Self | None:
        """The part on these frames; None: there is none."""
        start, stop = max(self.frames.start, frames.start), min(self.frames.stop, frames.stop)
        if start >= stop:
            return None
        if (start, stop) == (self.frames.start, self.frames.stop):
            return self
        rows = self.rows[:, start - self.frames.start : stop - self.frames.start]
        masks = {
            name: inside
            for name, some in self.masks.items()
            if (inside := {frame: mask for frame, mask in some.items() if start <= frame < stop})
        }
        return replace(self, frames=range(start, stop), rows=rows, masks=masks)

    def is_followed_by(self, other: "ResultBlock") -> bool:
        """Whether the next block has the same tracks, on the frames that follow."""
        first, last = (other, self) if self.reverse else (self, other)
        alike = (self.tracks, self.phrases, self.reverse) == (other.tracks, other.phrases, other.reverse)
        return alike and first.frames.stop == last.frames.start

    @classmethod
    def concatenate(cls, blocks: Sequence[Self]) -> Self:
        """Join consecutive blocks, in the order in which they were processed."""
        if len(blocks) == 1:
            return blocks[0]
        one, ordered = blocks[0], blocks[::-1] if blocks[0].reverse else blocks
        masks: dict[str, dict[int, Rle]] = {}
        for name, some in (item for block in blocks for item in block.masks.items()):
            masks.setdefault(name, {}).update(some)
        frames = range(ordered[0].frames.start, ordered[-1].frames.stop)
        rows = np.concatenate([block.rows for block in ordered], axis=1)
        return cls(frames, one.reverse, one.tracks, rows, one.phrases, masks)


Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Track:
    """One object through a video, from the first frame on which it is present to the last.

    Attributes:
        start: source frame of the first row.
        boxes: shape (n, 4), one row per frame from `start` on; NaN where it is absent or not tracked yet.
        scores: shape (n,), 0..1; NaN in the same rows.
        masks: by source frame, if enabled.
    """

    start: int
    boxes: Boxes
    scores: Scores
    masks: Mapping[int, Rle] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.boxes.shape != (len(self.scores), 4):
            raise ValueError(
                f"boxes of shape {self.boxes.shape} for {len(self.scores)} scores: expected (n, 4) and (n,)"
            )

    @classmethod
    def from_rows(cls, boxes: Boxes, scores: Scores, masks: Mapping[int, Rle]) -> Self:
        """Make a track from rows for all frames of a video; absent rows before and after it are dropped."""
        seen = np.flatnonzero(~np.isnan(scores))
        start, stop = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 0)
        return cls(start, boxes[start:stop].copy(), scores[start:stop].copy(), masks)

    def at(self, frames: NDArray[np.int64]) -> tuple[Boxes, Scores]:
        """On k source frames: boxes of shape (k, 4) and scores of shape (k,), NaN where the object is absent."""
        rows = frames - self.start
        known = (rows >= 0) & (rows < len(self.scores))
        boxes, scores = np.full((len(rows), 4), np.nan), np.full(len(rows), np.nan)
        boxes[known], scores[known] = self.boxes[rows[known]], self.scores[rows[known]]
        return boxes, scores


def fuse_directions(forward: tuple[Boxes, Scores], backward: tuple[Boxes, Scores]) -> tuple[Boxes, Scores]:
    """Merge two tracks over the same frames, one tracked from each end.

    Where both have a box, they are blended, weighted by the distance to their starts. Where they disagree (IoU < 0.5),
    the box of the nearer start is used. Where only one has a box, it is used.

    Args:
        forward: boxes (n, 4) and scores (n,), started at row 0.
        backward: the same, started at row n - 1.
    """
    (ahead, ahead_scores), (back, back_scores) = forward, backward
    share = np.linspace(0.0, 1.0, len(ahead))
    agree = box_iou(ahead, back) >= 0.5
    lone = np.isnan(ahead[:, 0]) | np.isnan(back[:, 0])
    share = np.where(lone, np.isnan(ahead[:, 0]), np.where(agree, share, share > 0.5))[:, None]
    boxes = np.where(share == 0, ahead, np.where(share == 1, back, ahead + (back - ahead) * share))
    share = share[:, 0]
    scores = np.where(
        share == 0, ahead_scores, np.where(share == 1, back_scores, ahead_scores + (back_scores - ahead_scores) * share)
    )
    return boxes, scores
