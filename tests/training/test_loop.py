"""A stage that is stopped goes on as if it had not been."""

import contextlib
import json

import pytest
import torch
from torch import nn

from training import loop
from training.curves import draw
from training.loop import Stage

pytestmark = pytest.mark.slow


def stage(folder, steps, stop=None):
    torch.manual_seed(0)
    part = nn.Linear(3, 1)

    def loss(step):
        if step == stop:
            raise KeyboardInterrupt
        given = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        wrong = (part(given) - given.sum(1, keepdim=True)).square().mean()
        return wrong, {"right": step / steps}

    return part, Stage("one", folder, {"part": part}, [(part.parameters(), 0.05)], steps, loss)


def test_stopped_and_resumed_is_the_same_as_run_through(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL", 20)
    through, whole = stage(tmp_path / "a", 60)
    whole.run()
    _, stopped = stage(tmp_path / "b", 60, stop=47)
    with contextlib.suppress(KeyboardInterrupt):
        stopped.run()
    resumed, rest = stage(tmp_path / "b", 60)
    rest.run()
    assert all(torch.equal(one, other) for one, other in zip(through.parameters(), resumed.parameters(), strict=True))
    steps = [json.loads(line)["step"] for line in (tmp_path / "b" / "one.jsonl").read_text().splitlines()]
    assert steps == [25, 50]


def test_it_learns_and_its_curves_are_drawn(tmp_path):
    _, whole = stage(tmp_path, 200)
    whole.run()
    lines = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    draw(tmp_path, ["one", "not begun"])
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_the_rate_rises_stays_and_falls(tmp_path):
    _, whole = stage(tmp_path, 1000)
    shares = [whole._lr_factor(step) for step in range(1000)]
    assert shares[0] < 0.1
    assert shares[100] == shares[600] == 1
    assert shares[650:] == sorted(shares[650:], reverse=True)
    assert shares[-1] < 0.01
