"""Each function against a plain one in numpy."""

from collections import deque
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from transformers.models.sam3_video.processing_sam3_video import Sam3VideoProcessor

from backend.engines.sam import postprocess
from backend.engines.sam.detections import Detections
from backend.engines.sam.postprocess import (
    clean_masks,
    mask_iou,
    resolve_overlaps,
    suppress_rivals,
)

CPU = torch.device("cpu")
# Few values, so that parts, ties and exact zeros are common.
levels = st.sampled_from([-3.0, -1.0, -0.25, 0.0, 0.25, 1.0, 3.0])
logits = arrays(np.float32, array_shapes(min_dims=3, max_dims=3, max_side=7), elements=levels).map(torch.from_numpy)
stacks = arrays(bool, st.tuples(st.integers(0, 5), st.just(3), st.just(4))).map(torch.from_numpy)


def ratio(a: torch.Tensor, b: torch.Tensor) -> float:
    """IoU of two masks, by counting."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


@given(stacks, stacks)
def test_iou_is_the_share_of_common_pixels(a, b) -> None:
    expected = torch.tensor([[ratio(one, other) for other in b] for one in a]).reshape(len(a), len(b))
    assert mask_iou(a, b).dtype == torch.float32
    assert torch.equal(mask_iou(a, b), expected)


def test_iou_counts_exactly_even_under_autocast() -> None:
    a = torch.ones(1, 1008, 1008, dtype=torch.bool)
    b = a.clone()
    b[0, 0, :3] = False
    with torch.autocast("cpu", torch.bfloat16):
        assert mask_iou(a, b).item() == np.float32((1008 * 1008 - 3) / (1008 * 1008))


@given(stacks, st.data())
def test_suppress_keeps_the_best_of_those_that_cover_each_other(stack, data) -> None:
    scores = data.draw(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=len(stack), max_size=len(stack)))
    threshold = data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    kept: list[int] = []
    for index in sorted(range(len(stack)), key=lambda index: (-scores[index], index)):
        if all(ratio(stack[index], stack[other]) <= threshold for other in kept):
            kept.append(index)
    keep = suppress_rivals(mask_iou(stack, stack) > threshold, torch.tensor(scores))
    assert keep.dtype == torch.bool
    assert keep.nonzero().flatten().tolist() == sorted(kept)


def small_parts(mask: np.ndarray, area: int) -> np.ndarray:
    """The parts of at most `area` pixels that hang together by edges or corners, by a walk from each pixel."""
    small, seen = np.zeros_like(mask), np.zeros_like(mask)
    for start in zip(*np.nonzero(mask), strict=True):
        part, queue = set(), deque([start])
        while queue:
            y, x = queue.popleft()
            if not (0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]) or seen[y, x] or not mask[y, x]:
                continue
            seen[y, x] = True
            part.add((y, x))
            queue.extend((y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1))
        for place in part if len(part) <= area else ():
            small[place] = True
    return small


by_windows_or_whole = st.sampled_from([0, 2**30])
"""Of `_PIXELS_PER_WINDOW`: each component has a window, or all have one."""


@given(logits, st.integers(0, 9), by_windows_or_whole)
def test_tidy_fills_small_holes_and_removes_small_specks(logits, area, pixels) -> None:
    expected = logits.numpy().copy()
    for mask in expected:
        mask[small_parts(mask <= 0, area)] = 0.1
        mask[small_parts(mask > 0, min(area, int((mask > 0).sum()) // 2))] = -0.1
    before = logits.clone()
    with patch.object(postprocess, "_PIXELS_PER_WINDOW", pixels):
        result = clean_masks(logits, area)
    assert np.array_equal(result.numpy(), expected)
    assert torch.equal(logits, before)
    if np.array_equal(before.numpy(), expected):
        assert result is logits


@given(st.integers(0, 2**32 - 1), st.floats(-1, 3), st.integers(1, 16), by_windows_or_whole)
def test_tidy_of_objects_anywhere_in_a_larger_picture(seed, threshold, area, pixels) -> None:
    random = np.random.default_rng(seed)
    blobs = cv2.blur(random.normal(0, 3, (25, 30)), (3, 3)) + random.normal(0, 0.5, (25, 30)) - threshold
    blobs[:, random.integers(0, 30) :], blobs[random.integers(0, 25) :] = -1, -1
    expected = blobs.astype(np.float32)
    with patch.object(postprocess, "_PIXELS_PER_WINDOW", pixels):
        result = clean_masks(torch.tensor(expected)[None], area)
    expected[small_parts(expected <= 0, area)] = 0.1
    expected[small_parts(expected > 0, min(area, int((expected > 0).sum()) // 2))] = -0.1
    assert np.array_equal(result.numpy()[0], expected)


def test_tidy_leaves_the_type_and_takes_no_masks() -> None:
    hole = torch.ones(1, 5, 5, dtype=torch.bfloat16)
    hole[0, 2, 2] = -1
    assert clean_masks(hole, 1).dtype == torch.bfloat16
    assert bool((clean_masks(hole, 1) > 0).all())
    assert clean_masks(torch.empty(0, 4, 4), 3).shape == (0, 4, 4)


@pytest.mark.parametrize("seed", range(5))
def test_claims_as_the_library(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    stack = torch.rand(6, 5, 7, generator=random) < 0.6
    scores = torch.rand(6, generator=random).mul(4).ceil() / 4  # some are equal
    phrases = [0, 1, 0, 0, 1, 2]
    library = object.__new__(Sam3VideoProcessor)
    expected = library._apply_object_wise_non_overlapping_constraints(
        stack[:, None], scores[:, None], background_value=0, prompt_ids=phrases
    )
    given = stack.clone()
    assert torch.equal(resolve_overlaps(stack, scores, phrases), expected[:, 0] > 0)
    assert torch.equal(stack, given)


def test_a_persons_object_neither_gives_nor_takes_pixels() -> None:
    stack = torch.ones(3, 2, 2, dtype=torch.bool)
    claimed = resolve_overlaps(stack, torch.tensor([0.9, 0.5, 0.0]), [None, 0, 0])
    assert claimed.flatten(1).all(1).tolist() == [True, True, False]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_makes_the_same_masks() -> None:
    noise = torch.randn(3, 36, 36, generator=torch.Generator().manual_seed(0)) - 1.5
    there, scores = noise.cuda(), torch.tensor([0.1, 0.9, 0.5])
    assert torch.equal(clean_masks(there, 4).cpu(), clean_masks(noise, 4))
    assert torch.equal(mask_iou(there > 0, there > -1).cpu(), mask_iou(noise > 0, noise > -1))
    kinds, tracks = torch.zeros(3, dtype=torch.int64), torch.zeros(0, 36, 36)
    on_device = Detections.select(there, scores.cuda(), kinds.cuda(), tracks.cuda(), 0.1)
    assert torch.equal(on_device.scores, Detections.select(noise, scores, kinds, tracks, 0.1).scores)
