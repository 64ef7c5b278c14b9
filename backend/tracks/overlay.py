"""Draws tracks into pictures."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from backend.tracks.fonts import choose_font
from backend.tracks.track import Track

# Okabe and Ito's colours (RGB), which colour-blind people can distinguish.
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_DARK = 110
"""Lightness of a colour, 0 to 255, below which text on it is white."""


@dataclass(frozen=True, slots=True)
class CaptionedTrack:
    """A track to draw.

    Attributes:
        number: from 1; determines the colour.
        caption: text at its box.
    """

    number: int
    caption: str
    track: Track


def draw_tracks(
    frames: Iterable[tuple[int, NDArray[np.uint8]]], tracks: Sequence[CaptionedTrack]
) -> Iterator[NDArray[np.uint8]]:
    """Draw the boxes, captions, scores and masks of tracks into pictures; RGB, the size of the video.

    Args:
        frames: source frames, each with its picture.
    """
    for index, picture in frames:
        yield draw_frame(picture, index, tracks)


def draw_frame(picture: NDArray[np.uint8], index: int, tracks: Sequence[CaptionedTrack]) -> NDArray[np.uint8]:
    """Draw tracks into a copy of a picture, source frame `index`."""
    canvas = picture.copy()
    boxes = []
    for entry in tracks:
        colour = _COLOURS[(entry.number - 1) % len(_COLOURS)]
        if mask := entry.track.masks.get(index):
            inside = mask.to_mask()
            canvas[inside] = (canvas[inside] + np.array(colour)) // 2
        (box,), (score,) = entry.track.at(np.array([index]))
        if not np.isnan(score):
            boxes.append((box.round(), f"{entry.caption} {score:.2f}".lstrip(), colour))
    image = Image.fromarray(canvas)
    pen, thickness = ImageDraw.Draw(image), max(1, round(min(image.size) / 240))
    for box, _, colour in boxes:
        pen.rectangle(tuple(box.tolist()), outline=colour, width=thickness)
    for box, caption, colour in boxes:  # above all boxes
        _draw_caption(pen, image.size, box[:2].tolist(), caption, colour)
    return np.array(image)


def _draw_caption(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corner: Sequence[float],
    caption: str,
    colour: tuple[int, int, int],
) -> None:
    """Draw a caption above the corner of a box, within the picture."""
    font, text = choose_font(caption, max(11, round(min(size) / 36)))
    left, _, right, bottom = pen.textbbox((0, 0), text, font, anchor="la")
    width, height = right - left + 6, bottom + 4
    x, y = max(0, min(corner[0], size[0] - width)), max(0, corner[1] - height)
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    is_dark = sum(part * share for part, share in zip(colour, (0.299, 0.587, 0.114), strict=True)) < _DARK
    pen.text((x + 3 - left, y + 1), text, "white" if is_dark else "black", font, anchor="la")
