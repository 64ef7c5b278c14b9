"""What the contract test runs on: every engine, and a small video in memory on which each must be able to do its work.

`python -m tests.engines.contract` goes on from saved states in another process. Each line of its input is a JSON array:
an engine's name, the path of a state, the first frame and the one after the last; it answers with a line of results.
"""

import itertools
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from backend.engines import load_engine
from backend.engines.base import Engine
from backend.engines.opencv.engine import OpenCVEngine
from backend.settings import Settings
from backend.tracks.geometry import Box
from backend.tracks.track import FrameResult
from backend.video import Pictures, Video
from tests.engines.edgetam import tiny as tiny_edgetam
from tests.engines.sam2 import tiny as tiny2
from tests.engines.sam3 import tiny as tiny3


def tiny_sam3() -> Engine:
    """SAM3's engine on random weights, which follow nothing, but the same nothing every time."""
    return _loaded("sam3", tiny3.save, score_threshold=0.1, new_object_threshold=0.15, max_objects=8)


def tiny_sam2() -> Engine:
    """SAM 2's engine on random weights."""
    return _loaded("sam2", tiny2.save)


def tiny_of_edgetam() -> Engine:
    """EdgeTAM's engine on random weights."""
    return _loaded("edgetam", tiny_edgetam.save)


def _loaded(name: Literal["edgetam", "sam2", "sam3"], save: Callable[[Path], Path], **changes: Any) -> Engine:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        engine = load_engine(
            Settings(engine=name, model_path=str(save(Path(folder) / "tiny")), device="cpu", **changes)
        )
        while not engine.status.startswith(("ready", "failed")):
            time.sleep(0.01)
    return engine


def documented() -> Engine:
    """The engine of docs/add-an-engine.md."""
    page = (Path(__file__).parents[2] / "docs" / "add-an-engine.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict[str, Any] = {"__name__": "patch"}
    exec(compile(code, "add-an-engine.md", "exec"), names)
    engine: Engine = names["PatchEngine"]()
    return engine


ENGINES: dict[str, Callable[[], Engine]] = {
    "opencv": OpenCVEngine,
    "sam3": tiny_sam3,
    "sam2": tiny_sam2,
    "edgetam": tiny_of_edgetam,
    "patch": documented,
}
"""How each engine is made; a new one is a line here."""

UNTRAINED = {"sam3", "sam2", "edgetam"}
"""Engines whose weights here are random, of which nobody can ask that they find the objects."""

LENGTH, WIDTH, HEIGHT = 80, 160, 120
_NUMBERS = itertools.count()
"""Of the fake videos: each has a key of its own. An id would be given again while an engine still knows its frames."""


class FakeVideo(Video):
    """Pictures in memory behind the part of `backend.video.Video` that engines use."""

    def __init__(self, pictures: Sequence[np.ndarray]) -> None:
        self.pictures = pictures
        self.height, self.width = pictures[0].shape[:2]
        self.open_generators = 0
        self.key = ("", next(_NUMBERS), 0)

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, index: int) -> np.ndarray:
        return self.pictures[index]

    def frames(self, span: range, reverse: bool = False) -> Pictures:
        self.open_generators += 1
        try:
            for index in reversed(span) if reverse else span:
                yield index, self.pictures[index]
        finally:
            self.open_generators -= 1


def ball(frame: int) -> Box:
    """Where the red ball of the contract's video is."""
    return Box(20 + frame, 30, 44 + frame, 54)


def brick(frame: int) -> Box:
    """Where its blue brick is."""
    return Box(110 - frame, 78, 134 - frame, 98)


def video() -> FakeVideo:
    """A red ball going right and a blue brick going left over a grey slope, 80 frames of 160 x 120 pixels."""
    return FakeVideo(_draw())


@cache
def _draw() -> list[np.ndarray]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    ground = np.repeat((80 + columns // 3 + rows // 4)[..., None], 3, axis=2).astype(np.uint8)
    pictures = []
    for frame in range(LENGTH):
        picture = ground.copy()
        box = ball(frame)
        picture[np.hypot(columns + 0.5 - box.x0 - 12, rows + 0.5 - box.y0 - 12) <= 12] = (210, 40, 30)
        box = brick(frame)
        picture[box.y0 : box.y1, box.x0 : box.x1] = (30, 50, 200)
        pictures.append(picture)
    return pictures


def plain(result: FrameResult) -> list:
    """A result as JSON values, masks as their set pixels, so that two can be compared to the digit."""
    return [
        result.frame,
        {
            track: [
                seen.box and [*seen.box],
                seen.score,
                None if seen.mask is None else np.flatnonzero(seen.mask.to_mask()).tolist(),
            ]
            for track, seen in result.tracks.items()
        },
    ]


if __name__ == "__main__":
    for line in sys.stdin:
        name, state, start, stop = json.loads(line)
        with ENGINES[name]().open(video(), Path(state).read_bytes()) as session:
            print(json.dumps([plain(result) for result in session.propagate(range(start, stop))]), flush=True)
