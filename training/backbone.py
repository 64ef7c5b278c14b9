"""First stage: trains the vision encoder to predict shape, colour and box of the object in each cell of a fine grid.

Only the encoder is kept; detector and tracker share it unchanged.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Sam3VideoModel

from backend.shapes import COLOURS, SHAPES, Recipe
from training import data
from training.loop import Stage
from training.model import DEEP, FINE, GRID

NAME = "backbone"
BATCH = 32
RATE = 1e-3
RECIPE = Recipe(things=(1, 12), radius=(0.06, 0.15), post=0.3)
KINDS = (len(SHAPES) + 1, len(COLOURS) + 1, 4)
"""Number of outputs per cell: shape and colour (index 0: none), and the sides of the object's box."""
DISTANCE_SCALE = 4.0
"""Factor for distances, which are shares of the picture."""


def stage(model: Sam3VideoModel, folder: Path, steps: int, seed: int) -> Stage:
    """The stage, for an untrained model."""
    encoder: Any = model.detector_model.vision_encoder.backbone
    head = nn.Linear(DEEP, (FINE // GRID) ** 2 * sum(KINDS))
    parts = nn.ModuleDict({"encoder": encoder, "head": head})
    model.train(False)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        pictures, truth = _batch(data.random_for(NAME, seed, step))
        hidden = encoder(pictures).last_hidden_state
        return _loss(functional.pixel_shuffle(head(hidden).mT.unflatten(2, (GRID, GRID)), FINE // GRID), truth)

    return Stage(NAME, folder, dict(parts), [(parts.parameters(), RATE)], steps, loss)


def _batch(random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Pictures, and per cell the shape, the colour and the distances to the sides of the box."""
    pictures, truths = [], []
    centres = (np.arange(FINE, dtype=np.float32) + 0.5) / FINE
    cell_centres = np.stack(np.meshgrid(centres, centres) * 2)
    for _ in range(BATCH):
        clip = data.draw(random, RECIPE)
        frame = clip[int(random.integers(len(clip)))]
        cells, boxes = data.fine(frame.masks).numpy(), data.boxes(frame).numpy()
        truth = np.zeros((6, FINE, FINE), np.float32)
        for thing, cell, box in zip(clip.things, cells, boxes, strict=True):
            inside = cell > 0.5
            truth[0][inside] = SHAPES.index(thing.shape) + 1
            truth[1][inside] = list(COLOURS).index(thing.colour) + 1
            truth[2:, inside] = DISTANCE_SCALE * (box[:, None] - cell_centres[:, inside])
        pictures.append(data.square(frame.picture))
        truths.append(torch.from_numpy(truth))
    return torch.stack(pictures), torch.stack(truths)


def _loss(found: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The loss and its metrics. Cells of objects count twice: they are few, and shapes would never be learned."""
    shape, colour, sides = torch.split(found, list(KINDS), 1)
    shapes, colours = truth[:, 0].long(), truth[:, 1].long()
    there = shapes > 0
    on = there.sum().clamp(min=1)

    def class_loss(logits: Tensor, names: Tensor) -> Tensor:
        wrong = functional.cross_entropy(logits, names, reduction="none")
        return wrong.mean() + (wrong * there).sum() / on

    def accuracy(logits: Tensor, names: Tensor) -> float:
        return float(((logits.argmax(1) == names) & there).sum() / on)

    away = ((sides - truth[:, 2:]).abs().mean(1) * there).sum() / on
    figures = {"shape": accuracy(shape, shapes), "colour": accuracy(colour, colours), "away": float(away.detach())}
    return class_loss(shape, shapes) + class_loss(colour, colours) + 2 * away, figures


@torch.no_grad()
def normalise(model: Sam3VideoModel, seed: int) -> None:
    """Scale the encoder's output to mean 0 and standard deviation 1 without other changes.

    The encoder has no final norm. Its trained output is so large that position encodings, which are at most 1, have no
    effect in later attention. Each block starts with a norm, so the residual stream can be scaled as a whole.
    """
    encoder: Any = model.detector_model.vision_encoder.backbone
    pictures, _ = _batch(data.random_for("normalise", seed, 0))
    before = encoder(pictures).last_hidden_state.flatten(0, 1)
    mean, scale = before.mean(0), 1 / (before - before.mean(0)).std()
    encoder.layer_norm.weight.mul_(scale)
    encoder.layer_norm.bias.mul_(scale)
    for layer in encoder.layers:
        for last in (layer.attention.o_proj, layer.mlp.fc2):
            last.weight.mul_(scale)
            last.bias.mul_(scale)
    encoder.layers[-1].mlp.fc2.bias.sub_(mean * scale)
    after = encoder(pictures).last_hidden_state.flatten(0, 1)
    torch.testing.assert_close(after, (before - mean) * scale, atol=1e-3, rtol=1e-3)
