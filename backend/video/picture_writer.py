"""Writes a series of picture files as a video, without loss and without decoding them where that is possible."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

from backend.errors import BadRequest

PICTURE_RATE = 25
"""Pictures a second of such a video; a series has no times of its own."""
_SIGNATURES = {".jpg": b"\xff\xd8\xff", ".png": b"\x89PNG"}
_HEAD = 4096
"""Bytes in which a file says how it is turned."""
_TYPES = {"mjpeg": (".jpg", "yuvj420p"), "png": (".png", "rgb24")}
"""File type and pixels, by codec."""


class PictureWriter:
    """A context manager; JPEG files are stored as they are, others as PNG.

    Args:
        path: overwritten; deleted if writing fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._container = av.open(str(path.absolute()), "w", format="mov")
        self._stream: VideoStream | None = None
        self._size = (0, 0)
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._container.close()
        if kind is not None:
            self._path.unlink(missing_ok=True)

    def add(self, file: bytes) -> None:
        """Add the next picture.

        Raises:
            BadRequest: it is no picture, or of another size than those before.
        """
        picture = _decode(file, cv2.IMREAD_COLOR)
        if picture is None:
            raise BadRequest(f"picture {self.count} cannot be read: send JPEG, PNG, BMP or WebP")
        # Video files know nothing of a picture's orientation.
        is_turned = b"Exif" in file[:_HEAD] and not np.array_equal(
            picture, _decode(file, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        )
        size = picture.shape[1], picture.shape[0]
        stream = self._stream or self._add_stream("png" if _is_other(file, ".jpg") else "mjpeg", size)
        if size != self._size:
            raise BadRequest(
                f"picture {self.count} has {size[0]} x {size[1]} pixels, the first one {self._size[0]} x "
                f"{self._size[1]}: put pictures of one size into the folder"
            )
        suffix, _ = _TYPES[stream.codec_context.name]
        if is_turned or _is_other(file, suffix):
            options = [cv2.IMWRITE_JPEG_QUALITY, 98] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
            file = cv2.imencode(suffix, picture, options)[1].tobytes()
        packet = av.Packet(file)
        packet.stream, packet.time_base = stream, Fraction(1, PICTURE_RATE)
        packet.pts = packet.dts = self.count
        packet.duration = 1
        packet.is_keyframe = True
        self._container.mux(packet)
        self.count += 1

    def _add_stream(self, name: Literal["mjpeg", "png"], size: tuple[int, int]) -> VideoStream:
        stream = self._container.add_stream(name, rate=PICTURE_RATE)
        stream.width, stream.height = size
        stream.pix_fmt = _TYPES[name][1]
        self._stream, self._size = stream, size
        return stream


def _decode(file: bytes, flags: int) -> Any:
    """The picture as BGR, shape (height, width, 3); None if it is none."""
    try:
        return cv2.imdecode(np.frombuffer(file, np.uint8), flags)
    except cv2.error:
        return None


def _is_other(file: bytes, suffix: str) -> bool:
    """Whether a file is not of a type."""
    return not file.startswith(_SIGNATURES[suffix])
