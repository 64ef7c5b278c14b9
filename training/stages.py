"""The stages in order, and the model assembled from their checkpoints."""

from pathlib import Path
from typing import Any

import torch
from transformers import Sam3VideoModel

from training import backbone, detector, tracker
from training.model import load, start

_STAGES = {
    detector.NAME: detector.stage,
    tracker.NAME: tracker.stage,
    tracker.OUTLINES: tracker.outlines_stage,
}


def encode(folder: Path, seed: int, steps: int) -> None:
    """Train the vision encoder and save it, normalised for the other stages."""
    path = folder / "encoder.pt"
    if path.exists():
        return
    model = start(seed)
    backbone.stage(model, folder, steps, seed).run()
    backbone.normalise(model, seed)
    torch.save(_backbone(model).state_dict(), path)


def train(name: str, folder: Path, seed: int, steps: int, checkpoint: Path | None = None) -> None:
    """Run a stage, on one core.

    Args:
        checkpoint: of the model that the stage begins with; None: a new one with the trained encoder.
    """
    torch.set_num_threads(1)
    model = load(checkpoint) if checkpoint else _with_encoder(folder, seed)
    _STAGES[name](model, folder, steps, seed).run()


def refine(folder: Path, checkpoint: Path, seed: int, steps: int) -> Sam3VideoModel:
    """Train the detector of a trained checkpoint further, on one core; its other parts stay as they are."""
    torch.set_num_threads(1)
    model = load(checkpoint)
    detector.stage(model, folder, steps, seed, is_trained=True).run()
    return model


def assembled(folder: Path, seed: int) -> Sam3VideoModel:
    """Assemble the model from the last checkpoints of detector and tracker."""
    model = _with_encoder(folder, seed)
    model.detector_model.load_state_dict(_parts(folder, detector.NAME)["detector"])
    _load_tracker(model, folder, tracker.NAME)
    return model


def with_outlines(folder: Path, checkpoint: Path) -> Sam3VideoModel:
    """A trained model with the layers that draw the tracker's masks as they were trained further on outlines."""
    model, trained = load(checkpoint), load(checkpoint)
    _load_tracker(trained, folder, tracker.OUTLINES)
    # The other layers were trained along, but so short a training makes them worse: more objects are lost.
    tracker.drawing_layers(model).load_state_dict(tracker.drawing_layers(trained).state_dict())
    return model


def _load_tracker(model: Sam3VideoModel, folder: Path, name: str) -> None:
    trained = _parts(folder, name)
    model.tracker_model.load_state_dict(trained["tracker"])
    model.tracker_neck.load_state_dict(trained["neck"])


def _parts(folder: Path, name: str) -> Any:
    return torch.load(folder / f"{name}.pt", weights_only=True)["parts"]


def _with_encoder(folder: Path, seed: int) -> Sam3VideoModel:
    model = start(seed)
    _backbone(model).load_state_dict(torch.load(folder / "encoder.pt", weights_only=True))
    return model


def _backbone(model: Sam3VideoModel) -> Any:
    return model.detector_model.vision_encoder.backbone
