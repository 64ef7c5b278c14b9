"""The README's pictures: cut out of screenshots, in few colours so that they stay small, and how unlike two are."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

DOCS = Path(__file__).parent.parent.parent / "docs"
NAMES = ("box", "clicks", "words", "prompting-page", "tracks-page", "status")
WIDEST = 1200
"""Pixels: what a page of GitHub shows without a scroll bar."""
HEAVIEST = 150_000
"""Bytes of a file."""
_CELLS = 12
"""A picture is compared in so many cells along each side."""


def reduced(screenshot: bytes) -> bytes:
    """A screenshot in as many colours as fit into `HEAVIEST` bytes, as PNG."""
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS)
    for colours in (256, 128, 64, 32):
        out = io.BytesIO()
        few = picture.quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
        few.save(out, "PNG", optimize=True)
        if out.tell() < HEAVIEST:
            return out.getvalue()
    raise ValueError("not even 32 colours make it small: cut less out")


def moving(screenshots: Sequence[bytes], seconds: Sequence[float]) -> bytes:
    """Screenshots of one size, one after another for so many seconds each, as a WebP that begins again at its end."""
    pictures = [Image.open(io.BytesIO(png)).convert("RGB") for png in screenshots]
    out, milliseconds = io.BytesIO(), [round(1000 * one) for one in seconds]
    pictures[0].save(
        out, "WEBP", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, quality=60, method=6
    )
    return out.getvalue()


def last_frame(webp: bytes) -> bytes:
    """The last picture of a moving one, as PNG."""
    picture, out = Image.open(io.BytesIO(webp)), io.BytesIO()
    picture.seek(getattr(picture, "n_frames", 1) - 1)
    picture.convert("RGB").save(out, "PNG")
    return out.getvalue()


def unlike(one: bytes, other: bytes) -> float:
    """How much two pictures differ where they differ most: the worst of 12 x 12 cells, in grey levels from 0 to 255.

    Both are made as small as a thumbnail first, in which letters of one font or another are grey lines alike.
    """
    small = [
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB").resize((_CELLS * 8,) * 2, Image.Resampling.BOX), float)
        for png in (one, other)
    ]
    apart = np.abs(small[0] - small[1]).reshape(_CELLS, 8, _CELLS, 8, 3)
    return float(apart.mean(axis=(1, 3, 4)).max())
