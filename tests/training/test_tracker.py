"""The tracker is trained through what tracks afterwards."""

import numpy as np
import pytest
import torch

from backend.engines.sam.tracker import Tracker
from backend.engines.sam3.image_encoder import Sam3ImageFeatures
from backend.engines.sam3.necks import Necks
from training import data, tracker
from training.model import FINE, SIDE, start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    return start(0).eval()


@pytest.fixture(scope="module")
def film(model):
    encoder = model.detector_model.vision_encoder.backbone
    return tracker._film(encoder, data.random_for("test", 0, 3), 6)


@torch.no_grad()
def test_the_learner_sees_what_the_engines_tracker_sees(model, film):
    view, count = Sam3ImageFeatures(Necks(model), film.hidden[:1]), film.fine.shape[1]
    engine, learner = Tracker(model.tracker_model), tracker.Learner(model)
    points, labels = torch.rand(count, 1, 2) * SIDE, torch.ones(count, 1, dtype=torch.int32)
    reach = engine.memory_window(64)
    alone = [engine.prompt(view, points[row], labels[row], None, None, reach) for row in range(count)]
    learner.present = torch.stack([found.object_scores[0] > 0 for found, _ in alone])
    together, features = learner.prompt_batch(view, points, labels, None, None, reach)
    for row, (found, remembered) in enumerate(alone):
        torch.testing.assert_close(together.logits[row], found.logits[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.object_pointers[row], found.object_pointers[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(features[row], remembered[0].float(), atol=0.05, rtol=0.02)


def test_a_lesson_teaches_every_part(model, film):
    model.zero_grad()
    parts = [model.tracker_model, model.tracker_neck]
    for part in parts:
        part.requires_grad_(True)
    total = torch.zeros(())
    for seed in range(2):
        step_loss = tracker.StepLoss(model, np.random.default_rng(seed))
        step_loss.add_film(film, tracker.Lesson(1.0, 1, 6))
        total = total + step_loss.loss
    total.backward()
    untaught = {name for part in parts for name, value in part.named_parameters() if value.grad is None}
    # The library uses neither of them.
    assert {name for name in untaught if "fpn_layers.3" not in name} == {"no_memory_positional_encoding"}


def test_the_truth_says_whether_an_object_is_there(model, film):
    learner = tracker.Learner(model)
    count = film.fine.shape[1]
    learner.present = torch.arange(count) % 2 == 0
    points, labels = torch.rand(count, 1, 2) * SIDE, torch.ones(count, 1, dtype=torch.int32)
    found, _ = learner.prompt_batch(
        Sam3ImageFeatures(Necks(model), film.hidden[:1]), points, labels, None, None, learner.memory_window(64)
    )
    assert [(row > -1024).any().item() for row in found.logits] == learner.present.tolist()
    assert (learner.outputs[0] > -1024).all()


@pytest.mark.parametrize(("kind", "label"), [("missing", 1), ("surplus", 0)])
def test_a_correction_is_clicked_where_the_mask_is_wrong(model, kind, label):
    truth, found = torch.zeros(FINE, FINE), torch.full((FINE, FINE), -5.0)
    truth[10:20, 10:20] = 1
    if kind == "missing":
        found[10:20, 30:40] = 5
    else:
        found[10:20, 10:40] = 5
    step_loss = tracker.StepLoss(model, np.random.default_rng(0))
    for _ in range(20):
        (x, y), sign = step_loss._click(truth, found)
        column, row = int(x * FINE / SIDE), int(y * FINE / SIDE)
        assert sign == label
        assert 10 <= row < 20
        assert 10 <= column < 20 if kind == "missing" else 20 <= column < 40


def test_films_hold_what_happens(model):
    encoder = model.detector_model.vision_encoder.backbone
    hidden = 0
    for seed in range(8):
        film = tracker._film(encoder, np.random.default_rng(seed), 4)
        frames, count = film.fine.shape[:2]
        assert (frames, film.hidden.shape[0]) == (4, 4)
        assert 1 <= count <= tracker.OBJECTS
        assert (film.shown[0] > data.SEEN).all()
        hidden += int((film.shown < data.SEEN).sum())
    assert hidden > 0
