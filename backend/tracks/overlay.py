"""Draws tracks into pictures."""

from collections.abc import Iterable, Iterator, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.tracks.track import Track

# Okabe and Ito's colours (RGB), which colour-blind people can distinguish.
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def draw_tracks(
    frames: Iterable[tuple[int, NDArray[np.uint8]]], tracks: Mapping[str, Track]
) -> Iterator[NDArray[np.uint8]]:
    """Draw the boxes, names, scores and masks of tracks into pictures; RGB, the size of the video.

    Args:
        frames: source frames, each with its picture.
    """
    for index, picture in frames:
        yield draw_frame(picture, index, tracks)


def draw_frame(
    picture: NDArray[np.uint8], index: int, tracks: Mapping[str, Track], *, numbered: bool = False
) -> NDArray[np.uint8]:
    """Draw tracks into a copy of a picture, source frame `index`.

    Args:
        numbered: names are numbers that determine the colour; scores are omitted.
    """
    canvas = picture.copy()
    thickness = max(1, round(min(canvas.shape[:2]) / 240))
    for place, (name, track) in enumerate(tracks.items()):
        colour = _COLOURS[(int(name) - 1 if numbered else place) % len(_COLOURS)]
        if mask := track.masks.get(index):
            inside = mask.to_mask()
            canvas[inside] = (canvas[inside] + np.array(colour)) // 2
        (box,), (score,) = track.at(np.array([index]))
        if not np.isnan(score):
            x0, y0, x1, y1 = (int(edge) for edge in box.round())
            cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, thickness)
            text, corner = name if numbered else f"{name} {score:.2f}", (x0, max(y0 - 2 * thickness, 12 * thickness))
            cv2.putText(canvas, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * thickness, colour, thickness)
    return canvas
