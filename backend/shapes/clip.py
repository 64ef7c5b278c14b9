"""A clip: a seed determines its objects and background; frames are drawn on demand."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.shapes.phrases import ShapePhrase
from backend.shapes.recipe import Recipe
from backend.shapes.things import COLOURS, SHADES, SHAPES, Thing, Vector
from backend.video import write_video

HELD_OUT = 1_000_000_000
"""Seeds from here on are reserved for measuring."""
FPS = 25
OCTAVES = (4, 9, 20, 45)
"""Cells along a picture's longer side of each layer of noise in the background."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        picture: shape (height, width, 3), RGB.
        masks: shape (objects, height, width): the visible pixels of each object.
    """

    picture: Picture
    masks: NDArray[np.bool_]

    @property
    def boxes(self) -> Vector:
        """Boxes around the visible part of each object: shape (objects, 4), pixels x0 y0 x1 y1; NaN if not visible."""
        return np.array([bounds(mask) for mask in self.masks]).reshape(-1, 4)

    @property
    def areas(self) -> NDArray[np.int64]:
        """Number of visible pixels of each object, shape (objects,)."""
        areas: NDArray[np.int64] = self.masks.sum((1, 2))
        return areas


class Clip:
    """One clip per seed.

    Attributes:
        things: its objects, from back to front.
        post: the window of the picture that the post hides; None: no post.
    """

    def __init__(self, seed: int, recipe: Recipe) -> None:
        self.seed, self.recipe = seed, recipe
        random = np.random.default_rng(seed)
        self._unit = float(np.sqrt(recipe.size[0] * recipe.size[1]))
        self.things = self._things(random)
        self.post, self._post_grey = self._post(random)
        self._camera = _Camera.from_random(random, self._unit, recipe.plain)

    def __len__(self) -> int:
        return self.recipe.frames

    def __iter__(self) -> Iterator[Frame]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Frame:
        """Draw a frame.

        Raises:
            IndexError: the clip has no such frame.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        width, height = self.recipe.size
        picture = self._background.copy()
        masks = np.zeros((len(self.things), height, width), bool)
        for row, thing in enumerate(self.things):
            if number in thing.away:
                continue
            window, cover = thing.draw(number, self.recipe.size)
            under = picture[window]
            under += (cover / np.float32(255))[..., None] * (np.array(thing.rgb, np.float32) - under)
            solid = cover > 127
            masks[(slice(0, row), *window)] &= ~solid
            masks[(row, *window)] = solid
        if self.post is not None:
            picture[self.post] = self._post_grey
            masks[(slice(None), *self.post)] = False
        return Frame(self._camera.apply(picture, np.random.default_rng((self.seed, number)), number), masks)

    def named(self, phrase: ShapePhrase) -> list[int]:
        """The objects that a phrase matches, visible or not."""
        return [row for row, thing in enumerate(self.things) if phrase.names(thing)]

    def save(self, path: Path, fps: float = FPS) -> None:
        """Write the clip as a video."""
        write_video(path, (frame.picture for frame in self), fps)

    def _things(self, random: np.random.Generator) -> list[Thing]:
        things: list[Thing] = []
        for _ in range(random.integers(self.recipe.things[0], self.recipe.things[1] + 1)):
            for _ in range(20):  # Retry until it is clear of the others.
                thing = self._thing(random, things[-1] if things else None)
                if all(_far(thing, other) for other in things) or (self.recipe.equal and len(things) == 1):
                    things.append(thing)
                    break
        return things

    def _thing(self, random: np.random.Generator, before: Thing | None) -> Thing:
        recipe, unit, size = self.recipe, self._unit, np.array(self.recipe.size, float)
        shape, colour = str(random.choice(SHAPES)), str(random.choice(list(COLOURS)))
        radius = unit * random.uniform(*recipe.radius)
        rgb = np.clip(np.array(COLOURS[colour]) + random.uniform(-SHADES, SHADES, 3), 0, 255)
        if before is not None and random.random() < recipe.twins:
            shape, colour = before.shape, before.colour
            rgb = np.clip(np.array(COLOURS[colour]) + random.uniform(-SHADES, SHADES, 3), 0, 255)
            if recipe.equal:
                radius, rgb = before.radius, np.array(before.rgb)
        direction = random.uniform(0, 2 * np.pi)
        velocity = unit * random.uniform(*recipe.speed) * np.array([np.cos(direction), np.sin(direction)])
        lows, highs = np.full(2, 0.9 * radius), size - 0.9 * radius
        start = random.uniform(lows, highs)
        if random.random() < recipe.strays:
            axis = int(np.argmax(np.abs(velocity)))
            lows[axis], highs[axis] = -2 * radius, size[axis] + 2 * radius
        if before is not None and recipe.equal:
            # The two meet at one place and time, coming from different directions.
            when = random.uniform(0.25, 0.75) * recipe.frames
            turn = random.uniform(0.5, 1.5) * np.pi
            spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            velocity = spin @ before.velocity * random.uniform(0.7, 1.3)
            meeting = before.centre(round(when)) + random.uniform(-0.4, 0.4, 2) * radius
            start = np.clip(meeting, lows, highs) - velocity * round(when)
        rgb_ = (float(rgb[0]), float(rgb[1]), float(rgb[2]))
        turns, phase = random.uniform(0, 2 * np.pi, 2)
        spinning = random.uniform(-0.09, 0.09)
        away = range(0)
        if recipe.blinks and random.random() < recipe.blinks:
            first = int(random.integers(1, recipe.frames))
            away = range(first, first + int(random.integers(4, 30)))
        return Thing(shape, colour, rgb_, radius, start, velocity, lows, highs, turns, spinning, phase, away)

    def _post(self, random: np.random.Generator) -> tuple[tuple[slice, slice] | None, float]:
        across, share, at = random.integers(2), random.uniform(*self.recipe.post_width), random.uniform(0.15, 0.85)
        grey, is_there = float(random.uniform(40, 210)), random.random() < self.recipe.post
        side = self.recipe.size[across]
        hidden = slice(max(0, round((at - share / 2) * side)), round((at + share / 2) * side))
        window = (slice(None), hidden) if across == 0 else (hidden, slice(None))
        return (window if is_there else None), grey

    @cached_property
    def _background(self) -> NDArray[np.float32]:
        """The background: plain, a gradient or a texture, with some lines."""
        random = np.random.default_rng((self.seed, HELD_OUT))
        width, height = self.recipe.size

        def shade() -> Vector:
            return random.uniform(60, 200) + random.uniform(-20, 20, 3)

        kind = random.integers(3)
        ground = np.tile(shade().astype(np.float32), (height, width, 1))
        if kind:
            turn = random.uniform(0, 2 * np.pi)
            across, down = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)[:, None]
            share = np.clip(0.5 + np.cos(turn) * across + np.sin(turn) * down, 0, 1)[..., None]
            ground = (ground + share * (shade() - ground[0, 0])).astype(np.float32)
        if kind == 2:
            strength = random.uniform(5, 22)
            for cells in OCTAVES:
                grid = (
                    max(2, round(cells * height / max(width, height))),
                    max(2, round(cells * width / max(width, height))),
                )
                noise = random.normal(0, strength * random.uniform(0.3, 1), (*grid, 3))
                noise = 0.7 * noise.mean(2, keepdims=True) + 0.3 * noise
                ground += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        for _ in range(random.integers(0, 4)):
            ends = random.integers(0, self.recipe.size, (2, 2))
            grey = float(random.uniform(60, 200))
            thickness = max(1, round(self._unit * random.uniform(0.004, 0.025)))
            cv2.line(ground, ends[0].tolist(), ends[1].tolist(), (grey, grey, grey), thickness, cv2.LINE_AA)
        return ground


@dataclass(frozen=True, slots=True)
class _Camera:
    """The effects of a camera on a clip.

    Attributes:
        grain: standard deviation of the noise in grey levels.
        blur: standard deviation in pixels; 0: sharp.
        flicker: change of brightness, as a share.
        pace: of the flicker, radians per frame.
        quality: of JPEG compression; 0: none.
    """

    grain: float = 0.0
    blur: float = 0.0
    flicker: float = 0.0
    pace: float = 0.0
    quality: int = 0

    @classmethod
    def from_random(cls, random: np.random.Generator, unit: float, plain: bool) -> "_Camera":
        grain, sigma, flicker = random.uniform(1, 9), unit * random.uniform(0.001, 0.004), random.uniform(0.05, 0.25)
        pace, quality = random.uniform(0.05, 0.5), int(random.integers(35, 90))
        blurred, flickers, pressed = random.random(3) < (0.3, 0.4, 0.4)
        if plain:
            return cls()
        return cls(grain, sigma * blurred, flicker * flickers, pace, quality * pressed)

    def apply(self, picture: NDArray[np.float32], random: np.random.Generator, number: int) -> Picture:
        if self.blur:
            picture = cv2.GaussianBlur(picture, (0, 0), self.blur).astype(np.float32)
        if self.flicker:
            picture = picture * np.float32(1 + self.flicker * np.sin(self.pace * number))
        if self.grain:
            grain = _grain()
            first = random.integers(grain.size - picture.size)
            picture = picture + self.grain * grain[first : first + picture.size].reshape(picture.shape)
        seen = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        if self.quality:
            _, encoded = cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            seen = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), np.uint8)
        return seen


def bounds(mask: NDArray[np.bool_]) -> Vector:
    """The box around a mask, shape (4,), pixels x0 y0 x1 y1; NaN if the mask is empty."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], float) if len(xs) else np.full(4, np.nan)


def _far(one: Thing, other: Thing) -> bool:
    return bool(np.linalg.norm(one.start - other.start) > 0.75 * (one.radius + other.radius))


@cache
def _grain() -> NDArray[np.float32]:
    """Noise that is drawn once: drawing it for each frame would take longer than everything else."""
    return np.random.default_rng(0).standard_normal(4_000_000, dtype=np.float32)
