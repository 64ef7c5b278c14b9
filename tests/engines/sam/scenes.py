"""Coloured shapes on their ways over a grey ground, for models that have learned shapes: pictures and true boxes."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from backend.engines.sam3.engine import Sam3Engine
from backend.settings import Settings
from backend.tracks.geometry import Box
from tests.engines import contract
from tests.engines.contract import FakeVideo
from tests.engines.sam3 import tiny

COLOURS = {"red": (215, 45, 40), "green": (45, 170, 60), "blue": (45, 80, 215), "yellow": (235, 205, 45)}
CORNERS = {"circle": 40, "square": 4, "triangle": 3}


@dataclass(frozen=True)
class Shape:
    """One object: what it is, where its centre is on frame 0 and how far it goes each frame, all in pixels."""

    colour: str
    kind: str
    x: float
    y: float
    dx: float
    dy: float
    radius: float = 18

    def outline(self, frame: int) -> NDArray[np.float64]:
        """Its corners, shape (n, 2)."""
        turns = np.arange(CORNERS[self.kind]) * 2 * np.pi / CORNERS[self.kind] + np.pi / 4 + 0.02 * frame
        centre = np.array([self.x + self.dx * frame, self.y + self.dy * frame])
        return centre + self.radius * np.stack([np.cos(turns), np.sin(turns)], 1)

    def centre(self, frame: int) -> tuple[float, float]:
        """Where to click on it."""
        return self.x + self.dx * frame, self.y + self.dy * frame

    def box(self, frame: int) -> Box:
        """Around it."""
        corners = self.outline(frame)
        return Box(*corners.min(0), *corners.max(0))


FIVE = (
    Shape("red", "circle", 40, 45, 0.9, 0.4),
    Shape("blue", "square", 130, 40, -0.4, 0.9),
    Shape("green", "triangle", 45, 125, 0.5, -0.3, 22),
    Shape("yellow", "circle", 125, 130, -0.7, -0.4, 16),
    Shape("blue", "circle", 85, 85, 0.3, 0.1, 15),
)
LATER = (
    Shape("red", "circle", 45, 50, 0.7, 0.5),
    Shape("blue", "square", -40, 120, 3, -0.2),
    Shape("green", "circle", 215, 60, -2.5, 0.3),
    Shape("yellow", "triangle", 90, -60, 0.2, 3.5, 20),
)
"""One is there from the start; the others come in, one after the other."""


def film(shapes: tuple[Shape, ...], length: int, side: int = 168) -> FakeVideo:
    """A film of shapes, the later ones before the earlier ones."""
    rng = np.random.default_rng(0)
    columns = np.linspace(110, 160, side)[None, :, None]
    pictures = []
    for frame in range(length):
        picture = np.broadcast_to(columns, (side, side, 3)) + rng.normal(0, 4, (side, side, 3))
        picture = picture.clip(0, 255).astype(np.uint8)
        for shape in shapes:
            corners = np.round(shape.outline(frame) * 16).astype(np.int32)
            cv2.fillPoly(picture, [corners], COLOURS[shape.colour], cv2.LINE_AA, shift=4)
        pictures.append(picture)
    return FakeVideo(pictures)


class Endless(Sequence[np.ndarray]):
    """A film there and back, over and over, to any length, in the memory of the film alone."""

    def __init__(self, pictures: Sequence[np.ndarray], length: int) -> None:
        self._pictures = [*pictures, *pictures[-2:0:-1]]
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._pictures[index % len(self._pictures)]


def endless(shapes: tuple[Shape, ...], length: int, side: int = 168) -> FakeVideo:
    """A film of any length, in little memory."""
    return FakeVideo(Endless(film(shapes, 40, side).pictures, length))


def short(length: int) -> FakeVideo:
    """The first frames of the contract's video, which is not square."""
    return FakeVideo(contract.video().pictures[:length])


@cache
def engine() -> Sam3Engine:
    """An engine on the random weights of `tiny.save`, loaded once for all tests: what they change they put back.

    Its detector finds a few objects of any phrase; some come through the hot start, some do not.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.save(
            Path(folder) / "tiny",
            det_nms_thresh=0.3,
            assoc_iou_thresh=0.05,
            trk_assoc_iou_thresh=0.05,
            hotstart_unmatch_thresh=4,
            hotstart_dup_thresh=4,
        )
        settings = Settings(
            model_path=str(model),
            device="cpu",
            reference="transformers",
            score_threshold=0.3,
            new_object_threshold=0.35,
            hotstart_frames=6,
        )
        loaded = Sam3Engine(settings)
        assert loaded.model
    return loaded
