"""What masks are compared with along their outlines."""

import numpy as np
import pytest
import torch
from torch import Tensor

from training.model import FINE
from training.outlines import SHARP, Outlines, enlarge, outline_loss

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 2 * SHARP, 3 * SHARP


def picture(tip: int) -> np.ndarray:
    """A square with a thin tip above, this many of its rows long; shape (1, HEIGHT, WIDTH)."""
    mask = np.zeros((1, HEIGHT, WIDTH), bool)
    mask[:, 200:300, 200:300] = True
    mask[:, 200 - tip : 200, 248:252] = True
    return mask


def drawn(mask: np.ndarray) -> Tensor:
    """Logits that draw a mask as well as cells of an enlarged one can; shape (1, 1, SHARP, SHARP)."""
    return (Outlines.from_masks(mask).masks[:, None] - 0.5) * 20


def test_ends_say_which_columns_and_rows_an_object_reaches() -> None:
    outlines = Outlines.from_masks(picture(tip=20))
    columns, rows = outlines.ends[0].numpy()
    assert np.flatnonzero(columns > 0.5).tolist() == list(range(67, 100))
    assert np.flatnonzero(rows > 0.5).tolist() == list(range(90, 150))
    assert outlines.near_ends[0, 1, 90] == outlines.near_ends[0, 1, 149] == 1
    assert outlines.near_ends[0, 1, 120] == 0


def test_a_lost_tip_costs_more_than_it_covers() -> None:
    """Twice as much as by area alone, where it is one in 75 of the object."""
    truth = Outlines.from_masks(picture(tip=40))
    whole, cut = (float(outline_loss(drawn(picture(tip)), truth)) for tip in (40, 0))
    assert cut > 2 * whole
    assert float(outline_loss(drawn(picture(20)), truth)) < cut


def test_the_loss_teaches_the_tip() -> None:
    truth = Outlines.from_masks(picture(tip=40))
    logits = enlarge(torch.full((1, 1, FINE, FINE), -2.0)).requires_grad_(True)
    outline_loss(logits, truth).sum().backward()
    assert logits.grad is not None
    tip, ground = logits.grad[0, 0, 82:100, 83], logits.grad[0, 0, 82:100, 20]
    assert bool((tip < 0).all())  # more of it
    assert bool((tip < 3 * ground.abs().neg()).all())


def test_objects_are_chosen_by_row() -> None:
    both = Outlines.from_masks(np.concatenate([picture(0), picture(40)]))
    assert torch.equal(both.of([1]).ends, Outlines.from_masks(picture(40)).ends)
