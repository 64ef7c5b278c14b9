"""What clips are made of: plain values, no randomness."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ranges that a clip's seed draws from. Lengths are in units of sqrt(width * height).

    Attributes:
        size: width and height in pixels.
        frames: how many.
        things: fewest and most objects.
        radius: of an object.
        speed: length per frame.
        twins: share of the objects that have shape and colour of the one before.
        equal: twins also have its very shade and size, and their ways cross.
        strays: share of the objects that leave the picture and come back.
        blinks: share of the objects that vanish for a while where they are, and come back.
        post: how likely a post stands before the objects, and hides what passes behind it.
        post_width: of the post, as a share of the picture.
        plain: no noise, blur, flicker or compression: for tests that look at single pixels.
    """

    size: tuple[int, int] = (640, 360)
    frames: int = 64
    things: tuple[int, int] = (1, 3)
    radius: tuple[float, float] = (0.075, 0.15)
    speed: tuple[float, float] = (0.002, 0.018)
    twins: float = 0.35
    equal: bool = False
    strays: float = 0.2
    blinks: float = 0.0
    post: float = 0.0
    post_width: tuple[float, float] = (0.1, 0.22)
    plain: bool = False


EASY = Recipe()
CROWDED = Recipe(things=(4, 7), post=1.0)
CROSSING = Recipe(things=(2, 3), twins=1.0, equal=True, strays=0.0, speed=(0.006, 0.018))
WORDS = Recipe(things=(1, 12), radius=(0.06, 0.12), post=0.35)
