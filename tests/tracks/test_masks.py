import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from backend.tracks.masks import Rle

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9))


@given(masks)
def test_a_mask_comes_back_from_its_run_lengths(mask) -> None:
    rle = Rle.from_mask(mask)
    assert rle.counts.dtype == np.uint32
    assert np.all(rle.counts[1:] > 0) or mask.size == 0
    back = rle.to_mask()
    assert back.dtype == bool
    assert back.flags.c_contiguous
    assert np.array_equal(back, mask)
    assert rle.area == mask.sum()


@given(masks, masks)
def test_run_lengths_are_equal_where_their_masks_are(a, b) -> None:
    assert Rle.from_mask(a) == Rle.from_mask(a.copy())
    assert hash(Rle.from_mask(a)) == hash(Rle.from_mask(a.copy()))
    assert (Rle.from_mask(a) == Rle.from_mask(b)) == np.array_equal(a, b)


def test_run_lengths_go_down_the_columns_and_begin_outside_as_in_coco() -> None:
    mask = np.array([[0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 1, 0]], bool)
    assert Rle.from_mask(mask).counts.tolist() == [4, 1, 1, 4, 2]
    assert Rle.from_mask(~mask).counts.tolist() == [0, 4, 1, 1, 4, 2]
    assert Rle.from_mask(np.asfortranarray(mask)) == Rle.from_mask(mask)
    assert Rle(3, 4, np.array([4, 1, 1, 4, 2], np.uint32)).to_mask().tolist() == mask.tolist()


def test_run_lengths_are_not_equal_to_something_else() -> None:
    assert Rle.from_mask(np.ones((2, 3), bool)) != [0, 6]


@pytest.mark.parametrize("counts", [[5], [3, 4], [[6]]])
def test_counts_that_are_not_of_the_picture_are_refused(counts) -> None:
    with pytest.raises(ValueError, match="2 x 3 = 6 pixels"):
        Rle(2, 3, np.array(counts, np.uint32))
