"""Rows of the job database as values, and back."""

import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from backend.jobs.schedule import Progress
from backend.jobs.spec import JobSpec
from backend.tracks.masks import Rle
from backend.tracks.track import ResultBlock

log = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]
UNFINISHED = ("queued", "running")

JOB_COLUMNS = (
    "number, key, digest, recipe, model, batch, post, posted, state, error, way, done, frames, total, tracks, names, "
    "asked, ended, fetched"
)
BLOCK_COLUMNS = "way, start, stop, reverse, tracks, phrases, rows, masks"
_MAX_JOINED = 128
"""How many blocks are joined into one at most."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it is on disk.

    Attributes:
        key, digest: of the prompt that the job answers.
        model: engine and version.
        batch: nobody waits for it.
        post: what is needed to post its result to Label Studio, as JSON; None: it is not posted.
        frames: done and total.
        initial_tracks: names of the tracks that phrases found on their first frame; None: the job was not started.
        created_at, ended_at: seconds since 1970.
        is_fetched: its whole result has been sent to somebody.
    """

    number: int
    key: str
    digest: str
    spec: JobSpec
    model: str
    batch: bool
    post: str | None
    posted: bool
    state: State
    error: str | None
    progress: Progress
    frames: tuple[int, int]
    track_count: int
    initial_tracks: tuple[str, ...] | None
    created_at: float
    ended_at: float | None
    is_fetched: bool = False


def parse_job(row: Sequence[Any]) -> JobRow:
    """Read a row of `jobs` with the columns `JOB_COLUMNS`."""
    number, key, digest, spec, model, batch, post, posted, state, error = row[:10]
    pass_index, pass_done, done, total, track_count, names, created_at, ended_at, is_fetched = row[10:]
    return JobRow(
        number=number,
        key=key,
        digest=digest,
        spec=JobSpec.from_json(spec),
        model=model,
        batch=bool(batch),
        post=post,
        posted=bool(posted),
        state=state,
        error=error,
        progress=Progress(pass_index, pass_done),
        frames=(done, total),
        track_count=track_count,
        initial_tracks=None if names is None else tuple(json.loads(names)),
        created_at=created_at,
        ended_at=ended_at,
        is_fetched=bool(is_fetched),
    )


def block_row(pass_index: int, block: ResultBlock) -> tuple[Any, ...]:
    """A row of `blocks` with the columns `BLOCK_COLUMNS`."""
    return (
        pass_index,
        block.frames.start,
        block.frames.stop,
        block.reverse,
        json.dumps(block.tracks),
        json.dumps(block.phrases),
        block.rows.tobytes(),
        _pack_masks(block.masks),
    )


def parse_block(row: Sequence[Any]) -> tuple[int, ResultBlock]:
    """Read a row of `blocks` with the columns `BLOCK_COLUMNS`; returns the index of its pass and the block."""
    pass_index, start, stop, reverse, tracks, phrases, values, masks = row
    names = tuple(json.loads(tracks))
    rows = np.frombuffer(values, np.float32).reshape(len(names), stop - start, 5)
    block = ResultBlock(range(start, stop), bool(reverse), names, rows, json.loads(phrases), _unpack_masks(masks))
    return pass_index, block


def parse_blocks(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[int, ResultBlock]]:
    """As `parse_block`, up to the first row that is damaged."""
    for row in rows:
        try:
            yield parse_block(row)
        except (ValueError, TypeError, AttributeError, LookupError, zlib.error) as error:
            log.error("results are damaged, and computed once more: %s", type(error).__name__)
            return


def join_blocks(blocks: Iterable[tuple[int, ResultBlock]]) -> Iterator[tuple[int, ResultBlock]]:
    """Join consecutive blocks of a pass that fit together: large blocks are faster to read and to add up."""
    pass_index, fitting = 0, list[ResultBlock]()
    for index, block in blocks:
        if fitting and not (index == pass_index and fitting[-1].is_followed_by(block) and len(fitting) < _MAX_JOINED):
            yield pass_index, ResultBlock.concatenate(fitting)
            fitting = []
        pass_index = index
        fitting.append(block)
    if fitting:
        yield pass_index, ResultBlock.concatenate(fitting)


def _pack_masks(masks: Mapping[str, Mapping[int, Rle]]) -> bytes | None:
    if not masks:
        return None
    plain = {
        name: {frame: [mask.height, mask.width, mask.counts.tolist()] for frame, mask in by_frame.items()}
        for name, by_frame in masks.items()
    }
    return zlib.compress(json.dumps(plain, separators=(",", ":")).encode())


def _unpack_masks(packed: bytes | None) -> dict[str, dict[int, Rle]]:
    if packed is None:
        return {}
    return {
        name: {
            int(frame): Rle(height, width, np.array(counts, np.uint32))
            for frame, (height, width, counts) in by_frame.items()
        }
        for name, by_frame in json.loads(zlib.decompress(packed)).items()
    }
