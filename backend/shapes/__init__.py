"""Generates labelled clips of moving shapes for training, benchmarks, tests and demos.

    clip = shapes.Clip(seed=7, recipe=shapes.CROWDED)
    for frame in clip:
        frame.picture            # (height, width, 3), RGB
        frame.masks              # (objects, height, width): the visible part of each
        frame.boxes              # (objects, 4), pixels x0 y0 x1 y1; NaN if not visible
    clip.things                  # the object of each row: its shape and colour
    clip.named(shapes.ShapePhrase("red", None))    # the rows that match "red shape"
    clip.save(Path("clip.mp4"))

A seed and a recipe always produce the same clip. Any frame can be drawn without the previous ones. Row n is the same
object on every frame. Seeds from `HELD_OUT` on are reserved for measuring: never train or tune on them.
"""

from backend.shapes.clip import HELD_OUT, Clip, Frame, bounds
from backend.shapes.phrases import ShapePhrase
from backend.shapes.recipe import APART, CROSSING, CROWDED, EASY, WORDS, Recipe
from backend.shapes.things import COLOURS, SHAPES, Thing

__all__ = [
    "APART",
    "COLOURS",
    "CROSSING",
    "CROWDED",
    "EASY",
    "HELD_OUT",
    "SHAPES",
    "WORDS",
    "Clip",
    "Frame",
    "Recipe",
    "ShapePhrase",
    "Thing",
    "bounds",
]
