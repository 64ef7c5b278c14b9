"""The film of `selftest`: discs that drift over a textured ground, whose boxes are known."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.tracks.geometry import Boxes
from backend.tracks.prompts import Point
from backend.video import Picture

_COLOURS = np.array([(205, 45, 40), (45, 80, 205), (45, 160, 60), (225, 195, 45)], np.uint8)
_RADIUS, _DRIFT = 0.12, 0.12
"""Of a disc, and how far it moves during the film, as shares of the picture's height."""


@dataclass(frozen=True, slots=True)
class DiscFilm:
    """Four discs, one in each quarter of the picture; they move a little and stay apart.

    Attributes:
        width: pixels, even.
        height: pixels, even.
        length: frames.
    """

    width: int = 1920
    height: int = 1080
    length: int = 40

    def boxes(self, frame: int) -> Boxes:
        """The discs' boxes on a frame, shape (4, 4)."""
        centres, radius = self._centres(frame), _RADIUS * self.height
        return np.concatenate([centres - radius, centres + radius], 1)

    def points(self, count: int) -> list[Point]:
        """Where to click on frame 0 for so many objects: on the discs, then in a grid over the whole picture."""
        side = int(np.ceil(np.sqrt(count)))
        rows, columns = np.divmod(np.arange(count), side)
        grid = np.stack([(columns + 0.5) * self.width / side, (rows + 0.5) * self.height / side], 1)
        return [Point(float(x), float(y)) for x, y in [*self._centres(0), *grid][:count]]

    def pictures(self) -> Iterator[Picture]:
        """All frames. Their ground is textured and moves, so that decoding costs what a real video's does."""
        random = np.random.default_rng(0)
        ground = np.linspace(100, 150, self.width) + random.integers(-6, 7, (self.height, self.width))
        rows, columns = np.ogrid[: self.height, : self.width]
        for frame in range(self.length):
            picture = np.repeat(np.roll(ground, frame * 3, axis=1).astype(np.uint8)[:, :, None], 3, axis=2)
            for (x, y), colour in zip(self._centres(frame), _COLOURS, strict=True):
                inside = (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 < (_RADIUS * self.height) ** 2
                picture[inside] = colour
            yield picture

    def _centres(self, frame: int) -> NDArray[np.float64]:
        """Centres of the discs in pixels, shape (4, 2)."""
        starts = np.array([(0.27, 0.3), (0.73, 0.3), (0.27, 0.7), (0.73, 0.7)]) * (self.width, self.height)
        ways = np.array([(1, 0.5), (-0.5, 1), (0.5, -1), (-1, -0.5)]) * _DRIFT * self.height
        return starts + ways * (frame / self.length - 0.5)
