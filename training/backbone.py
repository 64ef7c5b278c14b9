"""First stage: the vision encoder learns what is where, by naming every cell of a fine grid.

What it learns is thrown away but for the encoder itself, which detector and tracker then share and leave as it is.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Sam3VideoModel

from shapes import COLOURS, SHAPES, Recipe
from training import data
from training.loop import Stage
from training.model import DEEP, FINE, GRID

NAME = "backbone"
BATCH = 32
RATE = 1e-3
RECIPE = Recipe(things=(1, 12), radius=(0.06, 0.15), post=0.3)
KINDS = (len(SHAPES) + 1, len(COLOURS) + 1, 4)
"""Outputs of a cell: shape and colour (first: none), and where the sides of its object's box are."""
FAR = 4.0
"""By how much distances, shares of the picture, are enlarged."""


def stage(model: Sam3VideoModel, folder: Path, steps: int, seed: int) -> Stage:
    """Of a model that knows nothing yet."""
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
    """Pictures, and of every cell its shape, its colour and the distances to the sides of its box."""
    pictures, truths = [], []
    places = (np.arange(FINE, dtype=np.float32) + 0.5) / FINE
    here = np.stack(np.meshgrid(places, places) * 2)
    for _ in range(BATCH):
        clip = data.draw(random, RECIPE)
        frame = clip[int(random.integers(len(clip)))]
        cells, boxes = data.fine(frame.masks).numpy(), data.boxes(frame).numpy()
        truth = np.zeros((6, FINE, FINE), np.float32)
        for thing, cell, box in zip(clip.things, cells, boxes, strict=True):
            inside = cell > 0.5
            truth[0][inside] = SHAPES.index(thing.shape) + 1
            truth[1][inside] = list(COLOURS).index(thing.colour) + 1
            truth[2:, inside] = FAR * (box[:, None] - here[:, inside])
        pictures.append(data.square(frame.picture))
        truths.append(torch.from_numpy(truth))
    return torch.stack(pictures), torch.stack(truths)


def _loss(found: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Objects cover little of a picture: their cells are counted a second time, or shapes are never learned."""
    shape, colour, sides = torch.split(found, list(KINDS), 1)
    shapes, colours = truth[:, 0].long(), truth[:, 1].long()
    there = shapes > 0
    on = there.sum().clamp(min=1)

    def named(logits: Tensor, names: Tensor) -> Tensor:
        wrong = functional.cross_entropy(logits, names, reduction="none")
        return wrong.mean() + (wrong * there).sum() / on

    def right(logits: Tensor, names: Tensor) -> float:
        return float(((logits.argmax(1) == names) & there).sum() / on)

    away = ((sides - truth[:, 2:]).abs().mean(1) * there).sum() / on
    figures = {"shape": right(shape, shapes), "colour": right(colour, colours), "away": float(away.detach())}
    return named(shape, shapes) + named(colour, colours) + 2 * away, figures


@torch.no_grad()
def normalise(model: Sam3VideoModel, seed: int) -> None:
    """Scale the encoder's output to mean 0 and standard deviation 1, changing nothing else.

    It has no norm of its own at its end; trained freely it comes out so large that the position encodings, which are
    at most 1, drown in all attention after it. All its blocks are behind norms of their own, so that the residual
    stream can be scaled as one.
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
