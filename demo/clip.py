"""The sample clip: one of the shapes clips that the model of the demo is measured on, so that every box is known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backend.tracks.geometry import Boxes
from shapes import HELD_OUT, Clip, Recipe

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
"""Three shapes that never touch and never leave. The light stays: so the stand-in engine can follow the circle, too."""
CLASSES = ("Circle", "Square", "Star")
"""What the classes of the shipped label config are called for this clip."""
_SHIPPED = ("Car", "Person", "Ball")


def truth() -> dict[str, Boxes]:
    """The boxes in pixels by class, shape (FRAMES, 4); row n belongs to source frame n."""
    boxes = np.array([frame.boxes for frame in CLIP])
    return {thing.shape.capitalize(): boxes[:, row] for row, thing in enumerate(CLIP.things)}


def make(path: Path) -> None:
    """Write the clip; an unfinished file never stands under its name."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    CLIP.save(unfinished, FPS)
    unfinished.replace(path)


def label_config(shipped: str, classes: Sequence[str] = CLASSES) -> str:
    """The shipped label config with other classes, three at most."""
    for before, after in zip(_SHIPPED, classes, strict=False):
        shipped = shipped.replace(f'value="{before}"', f'value="{after}"')
    return shipped
