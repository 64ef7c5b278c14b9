"""Pictures as JPEG."""

import cv2

from backend.video.decoder import Picture

_QUALITY = 90


def jpeg(picture: Picture) -> bytes:
    """A picture, RGB, as a JPEG file."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return encoded.tobytes()
