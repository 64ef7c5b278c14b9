"""Encodes pictures as JPEG and PNG."""

import cv2
import numpy as np

from backend.video.decoder import Picture

_QUALITY = 90
_PNG_LEVEL = 3


def encode_jpeg(picture: Picture, width: int | None = None, quality: int = _QUALITY) -> bytes:
    """Encode an RGB picture as JPEG.

    Args:
        width: subsample the picture to at most so many pixels; None: its own width.
        quality: 1 to 100.
    """
    step = -(-picture.shape[1] // width) if width else 1
    return _encode(".jpg", picture[::step, ::step], [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_rgb_png(picture: Picture) -> bytes:
    """Encode an RGB picture as PNG, without loss."""
    return _encode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])


def _encode(suffix: str, picture: Picture, options: list[int]) -> bytes:
    _, encoded = cv2.imencode(suffix, cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR), options)
    return encoded.tobytes()
