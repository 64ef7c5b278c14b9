"""The sample clip: one of the shapes clips on which the demo's model is measured, so all boxes are known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backend.shapes import HELD_OUT, Clip, Recipe
from backend.tracks.geometry import Boxes

WIDTH, HEIGHT, FPS, FRAMES = 640, 360, 25, 100
CLIP = Clip(
    HELD_OUT + 2313,
    Recipe(
        size=(WIDTH, HEIGHT),
        frames=FRAMES,
        things=(3, 3),
        radius=(0.08, 0.12),
        speed=(0.004, 0.009),
        twins=0.0,
        strays=0.0,
        plain=True,
    ),
)
"""Three shapes that never touch or leave, in constant light, so that the OpenCV engine can follow them too."""
CLASSES = ("Circle", "Square", "Star")
"""Names for this clip of the classes in the shipped label config."""
_SHIPPED = ("Car", "Person", "Ball")


def truth() -> dict[str, Boxes]:
    """The boxes in pixels by class, shape (FRAMES, 4); row n belongs to source frame n."""
    boxes = np.array([frame.boxes for frame in CLIP])
    return {thing.shape.capitalize(): boxes[:, row] for row, thing in enumerate(CLIP.things)}


def make(path: Path) -> None:
    """Write the clip; an unfinished file has another name."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    CLIP.save(unfinished, FPS)
    unfinished.replace(path)


def label_config(shipped: str, classes: Sequence[str] = CLASSES) -> str:
    """The shipped label config with other classes, at most three."""
    for before, after in zip(_SHIPPED, classes, strict=False):
        shipped = shipped.replace(f'value="{before}"', f'value="{after}"')
    return shipped
