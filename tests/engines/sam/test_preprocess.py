import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from backend.engines.sam.preprocess import masks_to_logits, preprocess_image, threshold_detections

CPU = torch.device("cpu")
GREY = 1 / 127.5
"""One grey level."""
pictures = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda sides: arrays(np.uint8, (*sides, 3)))


def weights(length: int, size: int) -> np.ndarray:
    """What each of `length` pixels gives to each of `size`: a triangle as wide as two of the larger ones; (size, n)."""
    scale = length / size
    centres = (np.arange(size) + 0.5) * scale
    reach = max(scale, 1)
    shares = np.clip(1 - abs(np.arange(length) + 0.5 - centres[:, None]) / reach, 0, None)
    return shares / shares.sum(1, keepdims=True)


def reference(picture: np.ndarray, size: int) -> np.ndarray:
    """Shape (1, 3, size, size), -1..1, without rounding."""
    height, width, _ = picture.shape
    square = np.einsum("yh,xw,hwc->cyx", weights(height, size), weights(width, size), picture.astype(float))
    return square[None] / 127.5 - 1


def pattern(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([(37 * x + 11 * y) % 256, (x * x * 7 + 29 * y) % 256, (255 - 20 * x - y * y) % 256], -1).astype(
        np.uint8
    )


@given(pictures, st.sampled_from([1, 7, 14, 28]))
def test_pixels_are_the_picture_through_a_triangle_filter(picture, size) -> None:
    result = preprocess_image(picture, size, CPU)
    assert result.shape == (1, 3, size, size)
    assert result.dtype == torch.float32
    assert np.abs(result.numpy() - reference(picture, size)).max() <= 1.01 * GREY


def test_a_large_picture_is_averaged_not_sampled() -> None:
    picture = np.zeros((280, 280, 3), np.uint8)
    picture[::2] = 200
    inner = preprocess_image(picture, 28, CPU)[..., 1:-1, :]
    assert (inner - (100 * GREY - 1)).abs().max() <= 1.01 * GREY


# What Sam3ImageProcessor of transformers 5.23 with torchvision 0.28 makes of `pattern`, in grey levels.
SMALLER = [
    [
        [40, 121, 168, 64, 123],
        [57, 138, 185, 81, 140],
        [78, 159, 140, 85, 161],
        [99, 176, 124, 101, 182],
        [116, 176, 77, 118, 199],
    ],
    [
        [27, 91, 150, 146, 139],
        [72, 129, 124, 144, 148],
        [126, 154, 109, 121, 125],
        [179, 140, 104, 120, 153],
        [193, 82, 136, 103, 92],
    ],
    [
        [236, 192, 144, 96, 52],
        [232, 188, 140, 92, 48],
        [221, 177, 129, 81, 37],
        [202, 158, 110, 62, 78],
        [181, 137, 89, 48, 138],
    ],
]
LARGER_GREEN = [
    [0, 5, 21, 46, 80, 126, 175],
    [17, 22, 38, 63, 97, 143, 192],
    [37, 42, 58, 83, 117, 163, 212],
    [58, 63, 79, 104, 138, 184, 233],
    [79, 84, 100, 125, 159, 165, 71],
    [99, 104, 120, 145, 179, 170, 18],
    [116, 121, 137, 162, 196, 187, 35],
]


def test_pixels_are_those_of_the_released_processor() -> None:
    # Without AVX2 torch rounds otherwise, by one grey level.
    apart = 0 if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else 1
    smaller = preprocess_image(pattern(9, 12), 5, CPU)[0] * 127.5 + 127.5
    larger = preprocess_image(pattern(5, 6), 7, CPU)[0, 1] * 127.5 + 127.5
    assert (smaller.round() - torch.tensor(SMALLER)).abs().max() <= apart
    assert (larger.round() - torch.tensor(LARGER_GREEN)).abs().max() <= apart
    assert torch.allclose(smaller, smaller.round(), atol=1e-4), "not whole grey levels"


def test_a_picture_of_the_models_size_keeps_its_values() -> None:
    picture = pattern(14, 14)
    assert torch.equal(preprocess_image(picture, 14, CPU)[0].permute(1, 2, 0), (torch.tensor(picture) - 127.5) / 127.5)


def test_pictures_may_be_read_only_or_views_and_stay_as_they_are() -> None:
    picture = pattern(20, 30)
    before = picture.copy()
    picture.flags.writeable = False
    straight = preprocess_image(picture, 14, CPU)
    assert torch.equal(preprocess_image(picture[:, ::-1].copy()[:, ::-1], 14, CPU), straight)
    assert torch.equal(preprocess_image(np.asfortranarray(picture), 14, CPU), straight)
    assert np.array_equal(picture, before)


@given(pictures, st.sampled_from([7, 14, 28]))
def test_pictures_as_published_are_bicubic_without_antialiasing(picture, size) -> None:
    result = preprocess_image(picture, size, CPU, published=True)
    inner = torch.tensor(picture).permute(2, 0, 1)[None].float()
    cubic = torch.nn.functional.interpolate(inner, (size, size), mode="bicubic", align_corners=False)
    # OpenCV computes in fixed point.
    assert (result - (cubic.clamp(0, 255) / 127.5 - 1)).abs().max() <= 1.6 * GREY


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=20)), st.sampled_from([1, 7, 14]))
def test_a_given_mask_is_inside_where_it_covers_more_of_a_pixel_than_not(mask, size) -> None:
    cover = weights(mask.shape[0], size) @ mask.astype(float) @ weights(mask.shape[1], size).T
    logits = masks_to_logits(torch.tensor(mask)[None], mask.shape, (size, size))
    assert logits.shape == (1, size, size)
    assert np.abs(logits.numpy()[0] - (2 * cover - 1) * 1024).max() < 0.1


def test_a_given_mask_is_thresholded_at_the_pictures_size() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[0, :, :4] = 1
    assert masks_to_logits(mask, (4, 4), (4, 4))[0, 0].sign().tolist() == [1, 1, -1, -1]
    assert masks_to_logits(mask, (4, 4), (4, 4)).abs().min() == 1024


@given(st.integers(0, 2**32 - 1))
def test_detections_are_enlarged_before_they_are_thresholded(seed) -> None:
    logits = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(seed))
    masks = threshold_detections(logits, (24, 24))
    assert masks.shape == (2, 24, 24)
    whole = torch.nn.functional.interpolate(logits[:, None], (24, 24), mode="bilinear")[:, 0]
    assert torch.equal(masks, whole > 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_makes_the_same_pixels_within_a_grey_level() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (270, 480, 3), np.uint8)
    there = preprocess_image(picture, 252, torch.device("cuda"))
    assert there.is_cuda
    levels = there * 127.5
    assert torch.allclose(levels - 0.5, (levels - 0.5).round(), atol=1e-3), "not whole grey levels"
    assert (there.cpu() - preprocess_image(picture, 252, CPU)).abs().max() <= 1.01 * GREY
