"""The parameters of clips: plain values, no randomness."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ranges from which a clip's seed draws. Lengths are in units of sqrt(width * height).

    Attributes:
        size: width and height in pixels.
        frames: number of frames.
        things: minimum and maximum number of objects.
        radius: of the objects.
        speed: length per frame.
        twins: share of the objects with the shape and colour of the previous one.
        equal: twins also have the same shade and size, and their paths cross.
        strays: share of the objects that leave the picture and return.
        blinks: share of the objects that disappear for a while inside the picture.
        post: probability of a post in front of the objects, which hides what passes behind it.
        post_width: width of the post as a share of the picture.
        plain: no noise, blur, flicker or compression, for tests that check single pixels.
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
APART = Recipe(things=(2, 2), radius=(0.08, 0.12), twins=0.0, strays=0.0, plain=True)
WORDS = Recipe(things=(1, 12), radius=(0.06, 0.12), post=0.35)
