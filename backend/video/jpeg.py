"""Encodes pictures as JPEG."""

import cv2
import numpy as np

from backend.video.decoder import Picture

_QUALITY = 90


def encode_jpeg(picture: Picture, width: int | None = None) -> bytes:
    """Encode an RGB picture as JPEG, subsampled to at most `width` pixels."""
    step = -(-picture.shape[1] // width) if width else 1
    picture = np.ascontiguousarray(picture[::step, ::step])
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return encoded.tobytes()
