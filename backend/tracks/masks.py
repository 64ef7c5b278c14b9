"""Masks as run lengths. Tensors and logits stay inside the engines."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Rle:
    """One mask as COCO's uncompressed run lengths: about a hundred numbers for a picture of two million pixels.

    The format is that of the COCO API, https://github.com/cocodataset/cocoapi, before compression to text.

    Attributes:
        height: rows of the picture.
        width: columns of the picture.
        counts: shape (n,), lengths of runs of equal pixels down the columns, from left to right. The first, which may
            be 0, counts pixels outside the object, the next pixels of it, and so on in turn.

    Raises:
        ValueError: the counts do not add up to height * width pixels.
    """

    height: int
    width: int
    counts: NDArray[np.uint32]

    def __post_init__(self) -> None:
        if self.counts.ndim != 1 or self.counts.sum() != self.height * self.width:
            raise ValueError(
                f"counts of shape {self.counts.shape} for {self.counts.sum()} pixels: expected shape (n,) and "
                f"{self.height} x {self.width} = {self.height * self.width} pixels"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rle):
            return NotImplemented
        size, others = (self.height, self.width), (other.height, other.width)
        return size == others and np.array_equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash((self.height, self.width, tuple(self.counts.tolist())))

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_]) -> Self:
        """Encode a mask of shape (height, width)."""
        height, width = mask.shape
        pixels = mask.ravel(order="F")
        starts = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
        counts = np.diff(starts, prepend=0, append=pixels.size)
        if pixels[:1].any():
            counts = np.insert(counts, 0, 0)
        return cls(height, width, counts.astype(np.uint32))

    def to_mask(self) -> NDArray[np.bool_]:
        """Decode to shape (height, width)."""
        inside = np.arange(len(self.counts)) % 2 == 1
        columns = np.repeat(inside, self.counts).reshape(self.width, self.height)
        return np.ascontiguousarray(columns.T)

    @property
    def area(self) -> int:
        """Pixels of the object."""
        return int(self.counts[1::2].sum())
