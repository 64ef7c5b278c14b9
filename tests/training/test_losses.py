"""Losses at points where they are known."""

import pytest
import torch

from training.losses import balanced, dice, focal, generalised_iou, overlap

TRUTH = torch.zeros(1, 8, 8)
TRUTH[:, 2:4, 2:6] = 1
RIGHT = (TRUTH * 2 - 1) * 50


def test_what_is_right_costs_nothing():
    for loss in (balanced, dice):
        assert loss(RIGHT, TRUTH).item() == pytest.approx(0, abs=1e-6)
        assert loss(-RIGHT, TRUTH).item() > 0.8
    assert focal(RIGHT, TRUTH).max() == 0
    assert overlap(RIGHT, TRUTH).item() == 1
    assert overlap(-RIGHT, TRUTH).item() == 0


def test_balanced_counts_object_and_ground_alike():
    on, off = RIGHT.clone(), RIGHT.clone()
    on[TRUTH > 0], off[TRUTH == 0] = -1, 1
    assert balanced(on, TRUTH).item() == pytest.approx(balanced(off, TRUTH).item())


def test_focal_hardly_counts_what_is_nearly_right():
    truth = torch.ones(2)
    nearly, hardly = focal(torch.tensor([3.0, 0.0]), truth)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor([3.0, 0.0]), truth, reduction="none")
    assert nearly / hardly < 0.1 * plain[0] / plain[1]


def test_half_an_overlap():
    found = torch.full((1, 8, 8), -1.0)
    found[:, 2:4, 4:8] = 1
    assert overlap(found, TRUTH).item() == pytest.approx(4 / 12)


@pytest.mark.parametrize(
    ("other", "value"),
    [
        ((0, 0, 2, 2), 1.0),
        ((1, 0, 3, 2), 1 / 3),
        ((2, 0, 4, 2), 0.0),
        ((4, 0, 6, 2), -1 / 3),
        ((0.5, 0.5, 1, 1), 1 / 16),
    ],
)
def test_generalised_iou(other, value):
    boxes = torch.tensor([[0.0, 0, 2, 2], other])
    assert generalised_iou(boxes[0], boxes[1]).item() == pytest.approx(value, abs=1e-5)
