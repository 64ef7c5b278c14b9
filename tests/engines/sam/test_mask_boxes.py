"""Each function against a plain one in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch.nn import functional

from backend.engines.sam import mask_boxes
from backend.engines.sam.mask_boxes import mask_in_box, masks_at_size, masks_to_boxes

# Few values, so that parts, ties and exact zeros are common.
levels = st.sampled_from([-3.0, -1.0, -0.25, 0.0, 0.25, 1.0, 3.0])
logits = arrays(np.float32, array_shapes(min_dims=3, max_dims=3, max_side=7), elements=levels).map(torch.from_numpy)
sizes = st.integers(1, 30)


@given(logits, sizes, sizes)
def test_enlarge_is_the_librarys_interpolation(logits, height, width) -> None:
    expected = functional.interpolate(logits[:, None], (height, width), mode="bilinear")[:, 0]
    decided = expected.abs() > 1e-5
    result = masks_at_size(logits, height, width)
    assert result.shape == expected.shape
    assert torch.equal(result[decided], (expected > 0)[decided])


def box(mask: np.ndarray) -> list[float]:
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [np.nan] * 4


@given(logits, sizes, sizes)
@example(torch.tensor([[[0.25, -3, -3]]]), 1, 1)
def test_boxes_are_those_of_the_enlarged_masks(logits, height, width) -> None:
    expected = np.array([box(mask) for mask in masks_at_size(logits, height, width).numpy()], np.float32)
    result = masks_to_boxes(logits, height, width)
    assert result.dtype == np.float32
    assert np.array_equal(result, expected, equal_nan=True)


@pytest.mark.parametrize("smoothness", [0, 3])
def test_boxes_at_the_models_size_and_the_videos(smoothness) -> None:
    noise = torch.randn(4, 1, 72, 72, generator=torch.Generator().manual_seed(0)) - 2
    wave = functional.avg_pool2d(noise, 2 * smoothness + 1, 1, smoothness)[:, 0] + 2 - 2 / (1 + smoothness)
    wave[:, :20] -= 3
    wave[3] = -1
    for height, width in ((270, 480), (480, 270), (40, 50), (73, 71)):
        expected = np.array([box(mask) for mask in masks_at_size(wave, height, width).numpy()], np.float32)
        assert np.array_equal(masks_to_boxes(wave, height, width), expected, equal_nan=True)
        assert np.isnan(expected).any(1).tolist() == [False, False, False, True]


def test_many_boxes_are_made_in_parts(monkeypatch) -> None:
    wave = torch.randn(7, 9, 9, generator=torch.Generator().manual_seed(0)) - 1
    whole, look, seen = masks_to_boxes(wave, 40, 60), mask_boxes._sample, []

    def spy(logits, *arguments):
        seen.append(len(logits))
        return look(logits, *arguments)

    monkeypatch.setattr(mask_boxes, "_sample", spy)
    monkeypatch.setattr(mask_boxes, "BATCH_PIXELS", 3 * 22 * 60)
    assert np.array_equal(masks_to_boxes(wave, 40, 60), whole, equal_nan=True)
    assert {*seen} == {3, 1}


def test_a_spike_between_the_pixels_of_a_small_picture_has_no_box() -> None:
    logits = torch.full((2, 16, 16), -9.0)
    logits[0, 8, 8] = 1
    logits[1, 4:12, 6:9] = 5
    assert np.array_equal(
        masks_to_boxes(logits, 4, 4), [[np.nan] * 4, box(masks_at_size(logits, 4, 4)[1].numpy())], equal_nan=True
    )


def test_no_masks_have_no_boxes() -> None:
    assert masks_to_boxes(torch.empty(0, 8, 8), 30, 40).shape == (0, 4)
    assert masks_at_size(torch.empty(0, 8, 8), 30, 40).shape == (0, 30, 40)


@pytest.mark.parametrize("size", [(720, 1280), (61, 97), (40, 40)])
def test_a_mask_in_its_box_is_the_whole_mask(size):
    generator = torch.Generator().manual_seed(3)
    logits = torch.nn.functional.interpolate(torch.randn(1, 6, 5, 5, generator=generator), (36, 36), mode="bilinear")[0]
    for mask, box, whole in zip(logits, masks_to_boxes(logits, *size), masks_at_size(logits, *size), strict=True):
        assert np.array_equal(mask_in_box(mask, box, *size), whole.numpy())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_makes_the_same_boxes() -> None:
    noise = torch.randn(3, 36, 36, generator=torch.Generator().manual_seed(0)) - 1.5
    there = noise.cuda()
    assert torch.equal(masks_at_size(there, 135, 240).cpu(), masks_at_size(noise, 135, 240))
    assert np.array_equal(masks_to_boxes(there, 135, 240), masks_to_boxes(noise, 135, 240))
