"""Convert masks to and from COCO's compressed run lengths: https://github.com/cocodataset/cocoapi, `maskApi.c`.

Each number is written in groups of five bits, lowest first. From the fourth number on, the difference to the number two
before it is written.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from backend.tracks.masks import Rle

_ZERO, _MORE, _BITS = 48, 32, 5
"""A letter is "0" plus five bits of data and a sixth bit, set if more groups follow."""


def encode_rle(mask: Rle) -> str:
    """Encode a mask as compressed run lengths."""
    from pycocotools import mask as coco

    lengths = {"size": [mask.height, mask.width], "counts": mask.counts.tolist()}
    text: bytes = coco.frPyObjects(lengths, mask.height, mask.width)["counts"]
    return text.decode("ascii")


def decode_rle(text: str, height: int, width: int) -> Rle:
    """Decode compressed run lengths. pycocotools decodes them only into pixels.

    Raises:
        ValueError: the run lengths do not add up to `height` x `width`.
    """
    letters = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _ZERO
    last = np.flatnonzero(letters & _MORE == 0)
    starts = np.append(0, last + 1)[:-1]
    sizes = last - starts + 1
    shifts = _BITS * (np.arange(len(letters)) - np.repeat(starts, sizes))
    numbers = np.add.reduceat((letters & (_MORE - 1)) << shifts, starts)
    # The highest bit of the last group is the sign.
    numbers -= np.where(letters[last] & (_MORE >> 1), 1 << (_BITS * sizes), 0)
    counts = numbers.copy()
    counts[1::2], counts[2::2] = np.cumsum(numbers[1::2]), np.cumsum(numbers[2::2])
    return Rle(height, width, counts.astype(np.uint32))


def rle_to_json(mask: Rle) -> dict[str, Any]:
    """COCO's JSON of a mask: `size`, and `counts` as text."""
    return {"size": [mask.height, mask.width], "counts": encode_rle(mask)}


def parse_rle(value: Mapping[str, Any]) -> Rle:
    """Parse COCO's JSON of a mask.

    Raises:
        ValueError: it is malformed.
    """
    try:
        height, width = map(int, value["size"])
        return decode_rle(value["counts"], height, width)
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError("a mask must be an object with size and counts") from error
