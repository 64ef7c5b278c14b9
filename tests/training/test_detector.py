"""What the detector is asked in training is what it is asked afterwards."""

from types import SimpleNamespace

import pytest
import torch

from backend.engines.sam3.detector import Sam3Detector, TextFeatures
from training import data, detector
from training.model import start, tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    return start(0).eval()


def batch(seed=0):
    return detector.draw_batch(data.random_for("test", 0, seed))


@torch.no_grad()
def test_its_last_layer_answers_as_the_engine_does(model):
    pictures, prompts, _ = batch()
    texts, exemplars = [prompt.text for prompt in prompts], [prompt.exemplars for prompt in prompts]
    read = tokenizer()(texts, padding=True, return_tensors="pt")
    answer = detector.run_detector(model.detector_model, pictures, read["input_ids"], read["attention_mask"], exemplars)
    rows = {0, 2, detector.PICTURES + 1, next(row for row, some in enumerate(exemplars) if len(some) > 1)}
    assert {bool(exemplars[row]) for row in rows} == {True, False}
    for row in rows:
        vision = model.detector_model.get_vision_features(pixel_values=pictures[row % detector.PICTURES][None])
        ids = tokenizer()([texts[row]], padding="max_length", max_length=32, return_tensors="pt")
        words = model.detector_model.get_text_features(**ids, return_dict=True).pooler_output
        text = TextFeatures(words, ids["attention_mask"])
        if exemplars[row]:
            text = Sam3Detector(model, None)._add_geometry(vision, text, [exemplars[row]])
        stock = model.detector_model(
            vision_embeds=vision,
            text_embeds=SimpleNamespace(pooler_output=text.features),
            attention_mask=text.attention_mask,
        )
        torch.testing.assert_close(answer.logits[-1, row], stock.pred_logits[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(answer.presence[-1, row], stock.presence_logits[0, 0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(detector._corners(answer.boxes[-1, row]), stock.pred_boxes[0], atol=1e-4, rtol=1e-4)
        if row < detector.MASKED:  # In half precision.
            far = (answer.masks[row] - stock.pred_masks[0]).abs().mean() / stock.pred_masks[0].std()
            assert far < 0.05


def test_queries_are_matched_to_the_nearest_boxes():
    boxes = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9]])
    found = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.58, 0.6, 0.9, 0.9], [0.1, 0.12, 0.3, 0.3]])
    queries, theirs = detector._match(torch.zeros(3), found, detector.Row(boxes, torch.zeros(2, 1, 1)))
    assert dict(zip(queries.tolist(), theirs.tolist(), strict=True)) == {1: 1, 2: 0}


def test_a_right_answer_costs_less_than_a_wrong_one(model):
    pictures, prompts, rows = batch(1)
    texts, exemplars = [prompt.text for prompt in prompts], [prompt.exemplars for prompt in prompts]
    read = tokenizer()(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        answer = detector.run_detector(
            model.detector_model, pictures, read["input_ids"], read["attention_mask"], exemplars
        )
    logits, boxes = torch.full_like(answer.logits, -9.0), answer.boxes.clone()
    masks, union = torch.full_like(answer.masks, -9.0), torch.full_like(answer.union, -9.0)
    for index, row in enumerate(rows):
        count = len(row.boxes)
        logits[:, index, :count], boxes[:, index, :count] = 9.0, detector._centred(row.boxes)
        if index < detector.MASKED:
            masks[index, :count] = row.masks * 18 - 9
            union[index] = row.masks.sum(0).clamp(max=1) * 18 - 9
    some = torch.tensor([9.0 if len(row.boxes) else -9.0 for row in rows]).expand_as(answer.presence)
    right = detector._losses(answer._replace(logits=logits, boxes=boxes, masks=masks, union=union, presence=some), rows)
    wrong = detector._losses(answer, rows)
    assert right["recall"] == right["precision"] == right["present"] == 1
    for name in ("class", "box", "giou", "presence", "mask", "dice", "union"):
        assert right[name] < 0.3 * wrong[name], name
