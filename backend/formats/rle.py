"""Run lengths as COCO's compressed text, there and back: https://github.com/cocodataset/cocoapi, `maskApi.c`.

Each number is written in pieces of five bits, the lowest first; from the fourth number on it is the difference to the
number two before it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from backend.tracks.masks import Rle

_ZERO, _MORE, _BITS = 48, 32, 5
"""A piece's letter is its five bits, and a sixth where more follow, from the letter "0" on."""


def encode_rle(mask: Rle) -> str:
    """The text of a mask's run lengths."""
    from pycocotools import mask as coco

    lengths = {"size": [mask.height, mask.width], "counts": mask.counts.tolist()}
    text: bytes = coco.frPyObjects(lengths, mask.height, mask.width)["counts"]
    return text.decode("ascii")


def decode_rle(text: str, height: int, width: int) -> Rle:
    """The mask of a picture of `height` x `width` whose text this is; the library reads it only pixel by pixel.

    Raises:
        ValueError: it is none: what is read of other letters does not add up to the picture.
    """
    letters = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _ZERO
    last = np.flatnonzero(letters & _MORE == 0)
    starts = np.append(0, last + 1)[:-1]
    sizes = last - starts + 1
    shifts = _BITS * (np.arange(len(letters)) - np.repeat(starts, sizes))
    numbers = np.add.reduceat((letters & (_MORE - 1)) << shifts, starts)
    # The highest bit of the last piece says that the number is negative.
    numbers -= np.where(letters[last] & (_MORE >> 1), 1 << (_BITS * sizes), 0)
    counts = numbers.copy()
    counts[1::2], counts[2::2] = np.cumsum(numbers[1::2]), np.cumsum(numbers[2::2])
    return Rle(height, width, counts.astype(np.uint32))


def rle_to_json(mask: Rle) -> dict[str, Any]:
    """A mask as COCO's files have it: `size`, and `counts` as text."""
    return {"size": [mask.height, mask.width], "counts": encode_rle(mask)}


def parse_rle(value: Mapping[str, Any]) -> Rle:
    """Read what `written` wrote.

    Raises:
        ValueError: it is none of that.
    """
    try:
        height, width = map(int, value["size"])
        return decode_rle(value["counts"], height, width)
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError("this is no mask") from error
