"""The three stages in order, and the model assembled from their checkpoints."""

from pathlib import Path
from typing import Any

import torch
from transformers import Sam3VideoModel

from training import backbone, detector, tracker
from training.model import load, start


def encode(folder: Path, seed: int, steps: int) -> None:
    """Train the vision encoder and save it, normalised for the other stages."""
    path = folder / "encoder.pt"
    if path.exists():
        return
    model = start(seed)
    backbone.stage(model, folder, steps, seed).run()
    backbone.normalise(model, seed)
    torch.save(_backbone(model).state_dict(), path)


def train(name: str, folder: Path, seed: int, steps: int) -> None:
    """Train the detector or the tracker, on one core."""
    torch.set_num_threads(1)
    stage = {detector.NAME: detector.stage, tracker.NAME: tracker.stage}[name]
    stage(_with_encoder(folder, seed), folder, steps, seed).run()


def refine(folder: Path, checkpoint: Path, seed: int, steps: int) -> Sam3VideoModel:
    """Train the detector of a trained checkpoint further, on one core; its other parts stay as they are."""
    torch.set_num_threads(1)
    model = load(checkpoint)
    detector.stage(model, folder, steps, seed, is_trained=True).run()
    return model


def assembled(folder: Path, seed: int) -> Sam3VideoModel:
    """Assemble the model from the last checkpoints."""
    model = _with_encoder(folder, seed)
    trained_detector = torch.load(folder / f"{detector.NAME}.pt", weights_only=True)["parts"]
    model.detector_model.load_state_dict(trained_detector["detector"])
    trained_tracker = torch.load(folder / f"{tracker.NAME}.pt", weights_only=True)["parts"]
    model.tracker_model.load_state_dict(trained_tracker["tracker"])
    model.tracker_neck.load_state_dict(trained_tracker["neck"])
    return model


def _with_encoder(folder: Path, seed: int) -> Sam3VideoModel:
    model = start(seed)
    _backbone(model).load_state_dict(torch.load(folder / "encoder.pt", weights_only=True))
    return model


def _backbone(model: Sam3VideoModel) -> Any:
    return model.detector_model.vision_encoder.backbone
