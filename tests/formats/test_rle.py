import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as pycoco

from backend.formats.rle import decode_rle, encode_rle, parse_rle, rle_to_json
from backend.tracks.masks import Rle

# pycocotools 2.0.11 decodes with what numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_a_mask_comes_back_from_its_text(pixels: np.ndarray) -> None:
    mask = Rle.from_mask(pixels)
    assert parse_rle(rle_to_json(mask)) == mask


@given(st.lists(st.integers(1, 3_000_000), min_size=1, max_size=12))
def test_the_text_is_cocos(counts: list[int]) -> None:
    """Also where runs are long, and differ much."""
    mask = Rle(sum(counts), 1, np.array(counts, np.uint32))
    assert decode_rle(encode_rle(mask), mask.height, 1) == mask


def test_the_library_reads_what_is_written() -> None:
    pixels = np.random.default_rng(1).random((90, 160)) > 0.7
    written = rle_to_json(Rle.from_mask(pixels))
    assert (pycoco.decode({**written, "counts": written["counts"].encode()}) == pixels).all()


@pytest.mark.parametrize(
    "value",
    [
        {"size": [2, 2], "counts": ""},
        {"size": [2, 2], "counts": "3"},
        {"size": [2, 2], "counts": "O"},
        {"size": [2, 2], "counts": "ä"},
        {"size": [2, 2], "counts": "`" * 9 + "0"},
        {"size": [2, 2], "counts": " 4"},
        {"size": [2], "counts": "4"},
        {"size": [2, 2], "counts": [4]},
        {"counts": "4"},
        None,
    ],
)
def test_what_is_no_mask_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_rle(value)
