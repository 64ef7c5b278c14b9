"""Endless labelled clips of moving shapes: for training, measuring, testing and trying out.

    clip = shapes.Clip(seed=7, recipe=shapes.CROWDED)
    for frame in clip:
        frame.picture            # (height, width, 3), RGB
        frame.masks              # (objects, height, width): what is seen of each
        frame.boxes              # (objects, 4), pixels x0 y0 x1 y1; NaN where nothing is seen
    clip.things                  # what each row is: its shape and colour
    clip.named(shapes.Phrase("red", None))    # the rows that "red shape" names
    clip.save(Path("clip.mp4"))

A seed and a recipe always give the same clip; any frame can be drawn without those before it. Row n is the same object
on every frame. Seeds from `HELD_OUT` on are for measuring: nothing may be trained or tuned on them.
"""

from shapes.clip import HELD_OUT, Clip, Frame, bounds
from shapes.phrases import Phrase
from shapes.recipe import CROSSING, CROWDED, EASY, WORDS, Recipe
from shapes.things import COLOURS, SHAPES, Thing

__all__ = [
    "COLOURS",
    "CROSSING",
    "CROWDED",
    "EASY",
    "HELD_OUT",
    "SHAPES",
    "WORDS",
    "Clip",
    "Frame",
    "Phrase",
    "Recipe",
    "Thing",
    "bounds",
]
