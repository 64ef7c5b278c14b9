"""What exemplars find gets higher scores, and what words find stays as it was."""

import pytest
import torch

from backend.engines.sam3.version import resolve_model_path
from training.calibration import SHIFT, calibrate, mean_logit
from training.data import random_for
from training.detector import draw_batch, run_detector
from training.model import load, tokenizer

pytestmark = pytest.mark.slow


def by_words(model):
    pictures, prompts, _ = draw_batch(random_for("test", 0, 0))
    read = tokenizer()([prompt.text for prompt in prompts], padding=True, return_tensors="pt")
    with torch.no_grad():
        return run_detector(
            model.detector_model, pictures, read["input_ids"], read["attention_mask"], [()] * len(prompts)
        ).logits


def test_scores_of_exemplars_rise_and_those_of_words_stay():
    model = load(resolve_model_path("shapes")).eval()
    words, before = by_words(model), float(mean_logit(model.detector_model, 1, 0).detach())
    calibrate(model, 1)
    assert 0.5 * SHIFT < float(mean_logit(model.detector_model, 1, 0).detach()) - before < 1.5 * SHIFT
    assert torch.equal(by_words(model), words)
