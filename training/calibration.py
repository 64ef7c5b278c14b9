"""Makes the scores of exemplars comparable with those of words, for which the thresholds are meant.

The focal loss leaves exemplars unsure: what they find right has scores around 0.45. The bias of the geometry encoder's
last norm is moved along the mean gradient of these logits. Words do not read it, so what they find stays the same.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Sam3VideoModel

from backend.engines.sam3.detector import WORDLESS
from training import data, detector
from training.model import tokenizer

SHIFT = 0.45
"""By how much logits rise; on clips to train on, precision and recall are then about equal at a score of 0.5."""
BATCHES = 8


def calibrate(model: Sam3VideoModel, seed: int) -> None:
    """Raise the logits of what exemplars find by `SHIFT`."""
    model.requires_grad_(False)
    bias = model.detector_model.geometry_encoder.output_layer_norm.bias
    bias.requires_grad_(True)
    total = torch.zeros_like(bias)
    for batch in range(BATCHES):
        (gradient,) = torch.autograd.grad(mean_logit(model.detector_model, seed, batch), bias)
        total += gradient / BATCHES
    bias.requires_grad_(False)
    bias += SHIFT * total / total.norm() ** 2


def mean_logit(network: Any, seed: int, batch: int) -> Tensor:
    """The mean logit of the queries that exemplars alone choose, as many as there are objects to find."""
    pictures, prompts, rows = detector.draw_batch(data.random_for("calibration", seed, batch))
    chosen = [row for row, prompt in enumerate(prompts) if prompt.text == WORDLESS and len(rows[row].boxes)]
    read = tokenizer()([prompt.text for prompt in prompts], padding=True, return_tensors="pt")
    exemplars = [tuple(one for one in prompt.exemplars if one.positive) for prompt in prompts]
    output = detector.run_detector(network, pictures, read["input_ids"], read["attention_mask"], exemplars)
    best = [output.logits[-1, row].topk(len(rows[row].boxes)).values for row in chosen]
    return torch.cat(best).mean()
