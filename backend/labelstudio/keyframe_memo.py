"""Choices of keyframes that were made before, so that a long track is thought through once, not at every request."""

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct("<16sIId")
_DIGITS = 8
"""Of a keyframe's fingerprint."""


class Choice(NamedTuple):
    """The keyframes of a piece of a track.

    Attributes:
        rows: rows of the piece.
        fingerprints: of those keyframes that are the backend's.
        iou: minimum IoU of the boxes between them.
    """

    rows: Sequence[int]
    fingerprints: Sequence[str]
    iou: float


class KeyframeMemo:
    """The choices for one job, by a digest of all that they depend on; they never become wrong.

    Attributes:
        is_changed: it has choices that are not stored yet.
    """

    def __init__(self) -> None:
        self._choices: dict[bytes, Choice] = {}
        self.is_changed = False

    def load(self, packed: bytes) -> None:
        """Add what `to_bytes` returned; of damaged bytes nothing."""
        with suppress(zlib.error, struct.error, ValueError):
            self._choices |= dict(_unpack(zlib.decompress(packed)))

    def to_bytes(self) -> bytes:
        """All choices, to be stored."""
        parts = [
            _HEADER.pack(key, len(rows), len(fingerprints), iou)
            + np.array(rows, np.uint16).tobytes()
            + "".join(fingerprints).encode()
            for key, (rows, fingerprints, iou) in list(self._choices.items())  # a copy: others may add some meanwhile
        ]
        return zlib.compress(b"".join(parts), 1)

    def get(self, key: bytes) -> Choice | None:
        """An earlier choice."""
        return self._choices.get(key)

    def put(self, key: bytes, choice: Choice) -> None:
        """Keep a choice."""
        self._choices[key] = choice
        self.is_changed = True

    @staticmethod
    def key(arrays: Sequence[NDArray[np.float64]], *rest: object) -> bytes:
        """The digest of a piece's boxes, and of what else its keyframes depend on."""
        digest = hashlib.blake2b(repr(rest).encode(), digest_size=16)
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
        return digest.digest()


def _unpack(data: bytes) -> Iterator[tuple[bytes, Choice]]:
    place = 0
    while place < len(data):
        key, rows, count, iou = _HEADER.unpack_from(data, place)
        place += _HEADER.size
        chosen = np.frombuffer(data, np.uint16, rows, place).tolist()
        place += 2 * rows
        text = data[place : place + _DIGITS * count].decode("ascii")
        place += _DIGITS * count
        yield key, Choice(chosen, [text[start : start + _DIGITS] for start in range(0, len(text), _DIGITS)], iou)
