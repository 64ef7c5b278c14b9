"""A training stage: its steps, checkpoints and log."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WARMUP, DECAY = 0.02, 0.35
"""Shares of the steps in which the learning rate rises at the start and falls at the end."""
LOG_INTERVAL = 25
"""Steps between lines of the log."""
CHECKPOINT_INTERVAL = 200
"""Steps between checkpoints."""


@dataclass(frozen=True)
class Stage:
    """What to train, and for how long.

    Attributes:
        name: of its files, without suffix.
        folder: of its files.
        parts: the modules to save, by name.
        rates: groups of parameters with their learning rates.
        steps: total number of steps.
        loss: maps the step number to the loss and to metrics for the log.
    """

    name: str
    folder: Path
    parts: Mapping[str, nn.Module]
    rates: Iterable[tuple[Iterable[nn.Parameter], float]]
    steps: int
    loss: Callable[[int], tuple[Tensor, dict[str, float]]]

    def run(self) -> None:
        """Train to the last step, resuming from the last checkpoint if there is one."""
        groups: list[dict[str, Any]] = [
            {"params": list(parameters), "lr": rate, "peak_lr": rate} for parameters, rate in self.rates
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=1e-3, betas=(0.9, 0.99))
        parameters = [parameter for group in groups for parameter in group["params"]]
        step = self._resume(optimizer)
        began, mean = time.monotonic(), dict[str, float]()
        while step < self.steps:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * self._lr_factor(step)
            loss, figures = self.loss(step)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            if torch.isfinite(norm):
                optimizer.step()
            step += 1
            for key, value in {"loss": float(loss.detach()), "norm": float(norm), **figures}.items():
                mean[key] = 0.95 * mean.get(key, value) + 0.05 * value
            if step % LOG_INTERVAL == 0:
                line = {"step": step, "minutes": round((time.monotonic() - began) / 60, 2)}
                line |= {key: round(value, 4) for key, value in mean.items()}
                print(self.name, json.dumps(line), flush=True)
                with self._log.open("a") as log:
                    log.write(json.dumps(line) + "\n")
            if step % CHECKPOINT_INTERVAL == 0 or step == self.steps:
                self._save(optimizer, step)

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.name}.jsonl"

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.name}.pt"

    def _lr_factor(self, step: int) -> float:
        return min(1.0, (step + 1) / (WARMUP * self.steps), (self.steps - step) / (DECAY * self.steps))

    def _save(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        saved: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()}
        unfinished = self._path.with_suffix(".unfinished")
        torch.save({"parts": saved, "optimizer": optimizer.state_dict(), "step": step}, unfinished)
        unfinished.replace(self._path)

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            self._log.unlink(missing_ok=True)
            return 0
        saved = torch.load(self._path, weights_only=True)
        self.load(saved["parts"])
        optimizer.load_state_dict(saved["optimizer"])
        return int(saved["step"])

    def load(self, parts: Mapping[str, Any]) -> None:
        """Load the weights of a checkpoint."""
        for name, part in self.parts.items():
            part.load_state_dict(parts[name])
