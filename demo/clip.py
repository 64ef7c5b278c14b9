"""The sample clip: a striped car on a winding road and a ball that hops past it, drawn so that every box is known."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.geometry import Boxes
from backend.video import write_video

WIDTH, HEIGHT, FPS, FRAMES = 640, 360, 25, 100
FINE = 4  # sprites are drawn this much larger and then reduced: smooth edges
UNIT = 5  # pixels of that larger drawing in a unit of the sprites' coordinates
CAR, BALL = (104, 56), (48, 48)  # units

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]


def truth() -> dict[str, Boxes]:
    """The boxes in pixels by label, shape (FRAMES, 4); row n belongs to source frame n."""
    return {label: _boxes(path, size) for label, (path, size) in _OBJECTS.items()}


def make(path: Path) -> None:
    """Write the clip; an unfinished file never stands under its name."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    write_video(unfinished, frames(), FPS)
    unfinished.replace(path)


def frames() -> Iterator[Picture]:
    """The clip's pictures, shape (HEIGHT, WIDTH, 3), RGB."""
    ground, car, ball = _ground(), _car(), _ball()
    boxes = truth()
    for n in range(FRAMES):
        picture = ground.copy()
        _shade(picture, boxes["Ball"][n], _hop(n))
        _shade(picture, boxes["Car"][n], 0.0)
        _paste(picture, car, boxes["Car"][n])
        _paste(picture, _turned(ball, -1.0 * n), boxes["Ball"][n])
        yield picture


def _boxes(path: Boxes, size: tuple[int, int]) -> Boxes:
    half = np.array(size) * UNIT / FINE / 2
    return np.hstack([path - half, path + half])


def _road(along: NDArray[np.float64]) -> Boxes:
    """Centres of the car (n, 2) for 0..1 along its way."""
    return np.stack([80 + 470 * along, 138 - 60 * np.sin(2.1 * np.pi * along + 0.5)], axis=1)


def _hop(n: int) -> float:
    """How many pixels the ball is above the ground."""
    return 32 * abs(float(np.sin(n * np.pi / 25)))


_TIME = np.arange(FRAMES) / (FRAMES - 1)
_HOPS = np.array([_hop(n) for n in range(FRAMES)])
_OBJECTS: dict[str, tuple[Boxes, tuple[int, int]]] = {
    "Car": (_road(_TIME), CAR),
    "Ball": (np.stack([590 - 460 * _TIME, 308 - _HOPS], axis=1), BALL),
}


def _ground() -> Picture:
    """A meadow with flowers and the road that the car follows."""
    random = np.random.default_rng(3)
    meadow = np.zeros((HEIGHT, WIDTH, 3))
    for cell, strength in ((3, 10), (12, 12), (60, 16)):
        noise = random.normal(0, strength, (HEIGHT // cell + 2, WIDTH // cell + 2))
        meadow += cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]
    picture: Picture = np.clip(meadow + np.array((104, 158, 78)), 0, 255).astype(np.uint8)
    middle = _road(np.linspace(-0.25, 1.25, 200)) + np.array((0, 31))
    for width, colour in ((74, (150, 128, 92)), (66, (206, 186, 146))):
        _line(picture, middle, width, colour)
    grain = random.normal(0, 6, (HEIGHT, WIDTH, 1))
    picture = (picture + grain).clip(0, 255).astype(np.uint8)
    for x, y in random.uniform((0, 0), (WIDTH, HEIGHT), (130, 2)):
        if np.abs(middle - (x, y)).max(axis=1).min() > 42:
            petals = ((250, 246, 235), (250, 214, 86), (228, 130, 160))[int(random.integers(3))]
            _disc(picture, (x, y), 2.4, petals)
            _disc(picture, (x, y), 0.9, (120, 90, 30))
    return picture


def _car() -> Picture:
    """RGBA, FINE times its size, touching all four edges."""
    sprite = np.zeros((CAR[1] * UNIT, CAR[0] * UNIT, 4), np.uint8)
    body, glass, dark, light = (214, 52, 44, 255), (176, 222, 240, 255), (40, 40, 48, 255), (250, 242, 225, 255)
    cabin = [(22, 24), (32, 0), (70, 0), (86, 24)]
    _polygon(sprite, cabin, body)
    _polygon(sprite, [(29, 23), (36, 5), (49, 5), (49, 23)], glass)
    _polygon(sprite, [(54, 23), (54, 5), (67, 5), (78, 23)], glass)
    _polygon(sprite, [(0, 31), (4, 22), (92, 22), (104, 30), (104, 44), (100, 46), (4, 46), (0, 42)], body)
    for x in (12, 46, 58):
        _polygon(sprite, [(x, 22), (x + 6, 22), (x + 2, 46), (x - 4, 46)], light)
    _polygon(sprite, [(98, 28), (104, 30), (104, 35), (98, 34)], (255, 224, 110, 255))
    for x in (24, 80):
        _disc(sprite, (x, 45), 11, dark)
        _disc(sprite, (x, 45), 6, (205, 205, 210, 255))
        _disc(sprite, (x, 45), 2, dark)
    return sprite


def _ball() -> Picture:
    """RGBA, FINE times its size: a beach ball of eight wedges."""
    size = BALL[0] * UNIT
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    wedge = np.floor((np.arctan2(y, x) + np.pi) / (np.pi / 4)).astype(int) % 4
    colours = np.array([(250, 250, 245), (40, 110, 210), (250, 200, 50), (225, 60, 60)])
    sprite = np.zeros((size, size, 4), np.uint8)
    sprite[..., :3] = colours[wedge]
    sprite[np.hypot(x, y) < size / 10, :3] = 250
    sprite[..., 3] = np.where(np.hypot(x, y) <= size / 2, 255, 0)
    return sprite


def _turned(sprite: Picture, degrees: float) -> Picture:
    """The ball's wedges turned under an outline that stays."""
    size = sprite.shape[0]
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), -degrees, 1)
    turned = sprite.copy()
    turned[..., :3] = cv2.warpAffine(sprite[..., :3], matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return turned


def _paste(picture: Picture, sprite: Picture, box: NDArray[np.float64]) -> None:
    """Draw `sprite` into `box`, to an eighth of a pixel."""
    left, top = np.floor(box[:2]).astype(int)
    x, y = np.rint((box[:2] - (left, top)) * FINE).astype(int)
    height, width = sprite.shape[0] // FINE + 1, sprite.shape[1] // FINE + 1
    large = np.zeros((height * FINE, width * FINE, 4))
    large[y : y + sprite.shape[0], x : x + sprite.shape[1]] = sprite
    large[..., :3] *= large[..., 3:] / 255
    layer = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
    under = picture[top : top + height, left : left + width]
    under[:] = np.clip(under * (1 - layer[..., 3:] / 255) + layer[..., :3], 0, 255).astype(np.uint8)


def _shade(picture: Picture, box: NDArray[np.float64], above: float) -> None:
    """A soft shadow on the ground below an object."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    middle, width = (box[0] + box[2]) / 2, (box[2] - box[0]) / 2
    far = ((x - middle) / width) ** 2 + ((y - box[3] - above + 2) / (width / 5)) ** 2
    picture[:] = (picture * (1 - 0.4 * np.exp(-far * 1.5))[..., None]).astype(np.uint8)


def _line(picture: Picture, points: Boxes, width: int, colour: Colour) -> None:
    fixed = np.rint(points * 16).astype(np.int32)
    cv2.polylines(picture, [fixed.reshape(-1, 1, 2)], False, colour, width, cv2.LINE_AA, 4)


def _polygon(sprite: Picture, corners: list[tuple[int, int]], colour: tuple[int, int, int, int]) -> None:
    fixed = np.minimum(np.array(corners) * UNIT, (sprite.shape[1] - 1, sprite.shape[0] - 1)).astype(np.int32)
    cv2.fillPoly(sprite, [fixed], colour)


def _disc(picture: Picture, middle: tuple[float, float], radius: float, colour: tuple[int, ...]) -> None:
    fine = UNIT if picture.shape[2] == 4 else 1
    x, y, r = (round(value * fine * 16) for value in (*middle, radius))
    cv2.circle(picture, (x, y), r, colour, -1, cv2.LINE_AA, 4)
