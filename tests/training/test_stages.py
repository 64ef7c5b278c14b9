"""How a model is put together from the checkpoints of its stages."""

from pathlib import Path

import pytest
import torch

from training import stages, tracker
from training.model import load, save, start

pytestmark = pytest.mark.slow

DRAWS = ("conv_s", "upscale_", "output_hypernetworks_mlps", "mask_tokens", "fpn_layers.0", "fpn_layers.1")
"""Parts of the names of what draws the tracker's masks."""


@pytest.mark.slow
def test_outlines_change_what_draws_masks_and_nothing_else(tmp_path: Path) -> None:
    before = start(0)
    save(before, tmp_path / "trained")
    parts = {"tracker": before.tracker_model, "neck": before.tracker_neck}
    moved = {name: {key: value + 1 for key, value in part.state_dict().items()} for name, part in parts.items()}
    torch.save({"parts": moved}, tmp_path / f"{tracker.OUTLINES}.pt")
    after = stages.with_outlines(tmp_path, tmp_path / "trained").state_dict()
    kept = load(tmp_path / "trained").state_dict()
    changed = {name for name, value in kept.items() if not torch.equal(value, after[name])}
    expected = {name for name in kept if "tracker_" in name and any(part in name for part in DRAWS)}
    assert changed == expected
