"""Encodes pictures as JPEG and PNG."""

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.video.decoder import Picture

_QUALITY = 90
_PNG_LEVEL = 3


def encode_jpeg(picture: Picture, width: int | None = None, quality: int = _QUALITY) -> bytes:
    """Encode an RGB picture as JPEG.

    Args:
        width: see `shrink`; None: its own width.
        quality: 1 to 100.
    """
    shown = shrink(picture, width) if width else picture
    return _encode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, quality])


def shrink(picture: Picture, width: int) -> Picture:
    """A picture of at most so many pixels' width; one that is smaller is returned as it is."""
    own_height, own_width = picture.shape[:2]
    if own_width <= width:
        return picture
    size = (width, max(1, round(own_height * width / own_width)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def encode_rgb_png(picture: Picture) -> bytes:
    """Encode an RGB picture as PNG, without loss."""
    return _encode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])


def encode_mask_png(mask: NDArray[np.bool_]) -> bytes:
    """Encode a mask of shape (height, width) as PNG: grey, white on the object."""
    _, encoded = cv2.imencode(".png", mask.view(np.uint8) * 255, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return encoded.tobytes()


def _encode(suffix: str, picture: Picture, options: list[int]) -> bytes:
    _, encoded = cv2.imencode(suffix, cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR), options)
    return encoded.tobytes()
