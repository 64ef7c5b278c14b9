"""Train the shapes checkpoint: `python -m training`. Stopped at any time, the same command goes on.

Two cores take about two hours. The vision encoder is trained first, with both; then detector and tracker side by side,
with one each, since both leave the encoder as it is. Every figure of every stage is in FOLDER/*.jsonl, and drawn in
FOLDER/curves.png; the result is FOLDER/shapes, a folder in the hub's layout.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Sam3VideoModel

from training import backbone, detector, tracker
from training.curves import draw
from training.model import save, start

STEPS = {backbone.NAME: 1500, detector.NAME: 4000, tracker.NAME: 3000}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is not trained yet."""
    parser = argparse.ArgumentParser(prog="training", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--seed", type=int, default=0)
    for name, steps in STEPS.items():
        parser.add_argument(f"--{name}-steps", type=int, default=steps, metavar="N")
    options = parser.parse_args(arguments)
    steps = {name: getattr(options, f"{name}_steps") for name in STEPS}
    _encoder(options.folder, options.seed, steps[backbone.NAME])
    context = multiprocessing.get_context("spawn")
    beside = [
        context.Process(target=_train, args=(name, options.folder, options.seed, steps[name]))
        for name in (detector.NAME, tracker.NAME)
    ]
    try:
        for process in beside:
            process.start()
        for process in beside:
            process.join()
    finally:
        for process in beside:
            process.terminate()
        draw(options.folder, list(STEPS))
    if any(process.exitcode for process in beside):
        return 1
    save(assembled(options.folder, options.seed), options.folder / "shapes")
    return 0


def _encoder(folder: Path, seed: int, steps: int) -> None:
    """Train the vision encoder, and keep it scaled as the rest wants it."""
    kept = folder / "encoder.pt"
    if kept.exists():
        return
    model = start(seed)
    backbone.stage(model, folder, steps, seed).run()
    backbone.normalise(model, seed)
    torch.save(_backbone(model).state_dict(), kept)


def _train(name: str, folder: Path, seed: int, steps: int) -> None:
    """Train detector or tracker, on one core."""
    torch.set_num_threads(1)
    stage = {detector.NAME: detector.stage, tracker.NAME: tracker.stage}[name]
    stage(_with_encoder(folder, seed), folder, steps, seed).run()


def assembled(folder: Path, seed: int) -> Sam3VideoModel:
    """The model of the last checkpoints."""
    model = _with_encoder(folder, seed)
    found = torch.load(folder / f"{detector.NAME}.pt", weights_only=True)["parts"]
    model.detector_model.load_state_dict(found["detector"])
    followed = torch.load(folder / f"{tracker.NAME}.pt", weights_only=True)["parts"]
    model.tracker_model.load_state_dict(followed["tracker"])
    model.tracker_neck.load_state_dict(followed["neck"])
    return model


def _with_encoder(folder: Path, seed: int) -> Sam3VideoModel:
    model = start(seed)
    _backbone(model).load_state_dict(torch.load(folder / "encoder.pt", weights_only=True))
    return model


def _backbone(model: Sam3VideoModel) -> Any:
    return model.detector_model.vision_encoder.backbone


if __name__ == "__main__":
    sys.exit(main())
