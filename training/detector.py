"""Second stage: trains the detector to find what words and exemplars describe, with a set loss.

The loss is DETR's (arXiv:2005.12872), as SAM 3's is. `prompts` draws what to find.

The vision encoder is frozen. The library's forward returns only the last decoder layer. Here all layers count, for
DETR's auxiliary losses, and masks, the most expensive part, are computed for some of the rows only.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import Sam3VideoModel
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput, inverse_sigmoid

from backend.engines.sam3.geometry import encode_geometry
from backend.shapes import Recipe
from backend.tracks.prompts import Exemplar
from training import data
from training.loop import Stage
from training.losses import balanced, dice, focal, generalised_iou, overlap
from training.model import GRID, WIDTH, tokenizer
from training.prompts import Prompt, draw_prompt

NAME = "detector"
PICTURES, PHRASES, MASKED = 12, 3, 5
"""Pictures per batch, phrases per picture, and rows (a picture with a phrase) whose masks are computed."""
RATE, REFINE_RATE = 6e-4, 4e-4
"""Peak learning rates: from the start, and on from a trained detector."""
RECIPE = Recipe(things=(1, 12), radius=(0.06, 0.14), post=0.35)
TWINS = 0.6
"""Share of twins in half of the pictures: exemplars need several objects of a kind."""
ABSENT_WEIGHT = 0.2
"""Weight of the queries' loss where the phrase matches nothing; the presence score covers that case."""


class Row(NamedTuple):
    """The objects in a picture that a prompt matches.

    Attributes:
        boxes: shape (n, 4), x0 y0 x1 y1 as shares of the picture.
        masks: shape (n, FINE, FINE).
    """

    boxes: Tensor
    masks: Tensor


class DetectorOutput(NamedTuple):
    """The detector's outputs for `layers` decoder layers, r rows and q queries.

    Attributes:
        logits: shape (layers, r, q).
        boxes: shape (layers, r, q, 4), centre, width and height.
        presence: shape (layers, r).
        masks: shape (MASKED, q, FINE, FINE), for the first rows.
        union: shape (MASKED, FINE, FINE), all matching objects together.
        cells: shape (r, GRID * GRID, WIDTH), image features conditioned on the phrase.
        geometry: by row, the tokens of its exemplars: shape (n, WIDTH).
    """

    logits: Tensor
    boxes: Tensor
    presence: Tensor
    masks: Tensor
    union: Tensor
    cells: Tensor
    geometry: list[Tensor]


def stage(model: Sam3VideoModel, folder: Path, steps: int, seed: int, *, is_trained: bool = False) -> Stage:
    """The stage, for a model whose vision encoder is trained.

    Args:
        is_trained: the detector is, too; it is trained further, without the help that a new one needs.
    """
    detector: Any = model.detector_model
    dense_head = nn.Linear(WIDTH, 5)
    tokens = tokenizer()
    encoder = detector.vision_encoder.backbone
    encoder.requires_grad_(False)
    parts = nn.ModuleDict({"detector": detector, "dense_head": dense_head})
    learning = [parameter for parameter in parts.parameters() if parameter.requires_grad]
    model.train(False)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        pictures, prompts, rows = draw_batch(data.random_for(NAME, seed, step))
        read = tokens([prompt.text for prompt in prompts], padding=True, return_tensors="pt")
        exemplars = [prompt.exemplars for prompt in prompts]
        output = run_detector(detector, pictures, read["input_ids"], read["attention_mask"], exemplars)
        figures = _losses(output, rows) | {"dense": _dense(dense_head(output.cells), rows)}
        figures["alike"] = _alike(detector, tokens, output.geometry, [prompt.kind for prompt in prompts])
        weights = {"class": 2, "box": 5, "giou": 2, "presence": 1, "mask": 10, "dice": 3, "union": 2, "alike": 2}
        weights |= {} if is_trained else {"dense": 2}
        total = torch.stack([weight * figures[name] for name, weight in weights.items()]).sum()
        return total, {name: float(torch.as_tensor(value).detach()) for name, value in figures.items()}

    return Stage(
        NAME,
        folder,
        {"detector": detector, "dense_head": dense_head},
        [(learning, REFINE_RATE if is_trained else RATE)],
        steps,
        loss,
    )


def draw_batch(random: np.random.Generator) -> tuple[Tensor, list[Prompt], list[Row]]:
    """Pictures with PHRASES prompts each; rows: the first prompt of every picture, then the second, and so on."""
    frames = []
    for number in range(PICTURES):
        clip = data.draw(random, replace(RECIPE, twins=TWINS) if number % 2 else RECIPE)
        frames.append((clip.things, clip[int(random.integers(len(clip)))]))
    prompts, rows = [], []
    masks = [data.fine(frame.masks) for _, frame in frames]
    for number in range(PHRASES):
        for (things, frame), fine in zip(frames, masks, strict=True):
            prompt = draw_prompt(random, things, frame, is_first=not number)
            prompts.append(prompt)
            rows.append(Row(data.boxes(frame)[prompt.named], fine[prompt.named]))
    return torch.stack([data.square(frame.picture) for _, frame in frames]), prompts, rows


def run_detector(
    detector: Any, pictures: Tensor, ids: Tensor, attention: Tensor, exemplars: list[tuple[Exemplar, ...]]
) -> DetectorOutput:
    """The library's forward pass, for several prompts per picture."""
    with torch.no_grad():
        hidden = detector.vision_encoder.backbone(pictures).last_hidden_state.mT.unflatten(2, (GRID, GRID))
    neck = detector.vision_encoder.neck
    coarse = neck.fpn_layers[2](hidden)
    with torch.autocast("cpu", torch.bfloat16):
        fine = [layer(hidden[:MASKED]) for layer in neck.fpn_layers[:2]]
    waves = neck.position_encoding(coarse.shape, coarse.device, coarse.dtype)
    words = detector.get_text_features(input_ids=ids, attention_mask=attention, return_dict=True).pooler_output
    geometry = [
        encode_geometry(detector.geometry_encoder, _one_picture(coarse, waves, row % PICTURES), examples)[0]
        if examples
        else words[0, :0]
        for row, examples in enumerate(exemplars)
    ]
    counts = torch.tensor([len(tokens) for tokens in geometry])
    there = torch.cat([attention.bool(), torch.arange(int(counts.max())) < counts[:, None]], 1)
    words = torch.cat([words, pad_sequence(geometry, batch_first=True)], 1)
    encoded = detector.detr_encoder(
        vision_features=[coarse.repeat(PHRASES, 1, 1, 1)],
        text_features=words,
        vision_pos_embeds=[waves[:1].expand(len(ids), -1, -1, -1)],
        text_mask=there,
    )
    decoded = detector.detr_decoder(
        vision_features=encoded.last_hidden_state,
        text_features=encoded.text_features,
        vision_pos_encoding=encoded.pos_embeds_flattened,
        text_mask=there,
        spatial_shapes=encoded.spatial_shapes,
    )
    states = decoded.intermediate_hidden_states
    boxes = (inverse_sigmoid(decoded.reference_boxes) + detector.detr_decoder.box_head(states)).sigmoid()
    logits = detector.dot_product_scoring(
        decoder_hidden_states=states, text_features=encoded.text_features, text_mask=there
    ).squeeze(-1)
    with torch.autocast("cpu", torch.bfloat16):
        drawn = detector.mask_decoder(
            decoder_queries=states[-1][:MASKED],
            backbone_features=[*fine, coarse[:MASKED]],
            encoder_hidden_states=encoded.last_hidden_state[:MASKED],
            prompt_features=words[:MASKED],
            prompt_mask=there[:MASKED],
        )
    presence = decoded.presence_logits.squeeze(-1)
    masks, union = drawn.pred_masks.float(), drawn.semantic_seg.float()[:, 0]
    return DetectorOutput(logits, boxes, presence, masks, union, encoded.last_hidden_state, geometry)


def _alike(detector: Any, tokens: Any, geometry: list[Tensor], kinds: list[str]) -> Tensor:
    """An auxiliary loss: the token of an exemplar is to be the last one of the words for its kind.

    The detector has learned what these mean; without it, exemplars take several times as long to learn.
    """
    rows = [row for row, kind in enumerate(kinds) if kind]
    if not rows:
        return torch.zeros(())
    read = tokens([kinds[row] for row in rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        words = detector.get_text_features(**read, return_dict=True).pooler_output
    last = words[torch.arange(len(rows)), read["attention_mask"].sum(1) - 1]
    error: Tensor = functional.mse_loss(torch.stack([geometry[row][0] for row in rows]), last) / last.var()
    return error


def _one_picture(coarse: Tensor, waves: Tensor, index: int) -> Sam3VisionEncoderOutput:
    """The only features of a picture that exemplars are encoded with."""
    levels, positions = [coarse[index : index + 1]], [waves[:1]]
    return Sam3VisionEncoderOutput(fpn_hidden_states=tuple(levels * 3), fpn_position_encoding=tuple(positions * 3))


def _losses(output: DetectorOutput, rows: list[Row]) -> dict[str, Tensor]:
    count = max(1, sum(len(row.boxes) for row in rows))
    some = torch.tensor([float(len(row.boxes) > 0) for row in rows])
    figures = dict.fromkeys(("class", "box", "giou", "presence"), torch.zeros(()))
    for logits, boxes, presence in zip(output.logits, output.boxes, output.presence, strict=True):
        corners = _corners(boxes)
        matched = [_match(logits[index], corners[index], row) for index, row in enumerate(rows)]
        at, query = (torch.tensor(list(part), dtype=torch.long) for part in _pairs(matched))
        truth = torch.cat([row.boxes[theirs] for row, (_, theirs) in zip(rows, matched, strict=True)])
        target = torch.zeros_like(logits)
        target[at, query] = 1
        weight = torch.where(some > 0, 1.0, ABSENT_WEIGHT)[:, None]
        figures["class"] = figures["class"] + (focal(logits, target) * weight).sum() / count
        found = corners[at, query]
        figures["box"] = figures["box"] + (boxes[at, query] - _centred(truth)).abs().sum() / count
        figures["giou"] = figures["giou"] + (1 - generalised_iou(found, truth)).sum() / count
        figures["presence"] = figures["presence"] + functional.binary_cross_entropy_with_logits(presence, some)
    drawn = [
        (row, int(query), rows[row].masks[int(theirs)])
        for row in range(MASKED)
        for query, theirs in zip(*matched[row], strict=True)
    ]
    if drawn:
        masks = torch.stack([output.masks[row, query] for row, query, _ in drawn])
        truth = torch.stack([mask for *_, mask in drawn])
        figures["mask"] = (
            functional.binary_cross_entropy_with_logits(masks, truth) + 0.1 * balanced(masks, truth).mean()
        )
        figures["dice"] = dice(masks, truth).mean()
        figures["iou"] = overlap(masks, truth).mean()
    else:
        figures["mask"] = figures["dice"] = torch.zeros(())
    union = torch.stack([row.masks.sum(0).clamp(max=1) for row in rows[:MASKED]])
    figures["union"] = functional.binary_cross_entropy_with_logits(output.union, union)
    figures["union"] = figures["union"] + 0.2 * (balanced(output.union, union) + dice(output.union, union)).mean()
    best = output.logits[-1].sigmoid() * output.presence[-1].sigmoid()[:, None] > 0.5
    right = (best & (target > 0)).sum()
    figures["precision"], figures["recall"] = right / best.sum().clamp(min=1), right / count
    figures["present"] = ((output.presence[-1] > 0) == (some > 0)).float().mean()
    return figures


@torch.no_grad()
def _match(logits: Tensor, corners: Tensor, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Matched pairs: indices of queries, and of the objects that they have to find."""
    cost = 5 * torch.cdist(_centred(corners), _centred(row.boxes), p=1) - 2 * logits.sigmoid()[:, None]
    cost = cost - 2 * generalised_iou(corners[:, None], row.boxes[None])
    return linear_sum_assignment(torch.nan_to_num(cost, 1e3).numpy())  # type: ignore[no-any-return]


def _pairs(matched: list[tuple[np.ndarray, np.ndarray]]) -> tuple[list[int], list[int]]:
    rows = [row for row, (queries, _) in enumerate(matched) for _ in queries]
    return rows, [int(query) for queries, _ in matched for query in queries]


def _dense(found: Tensor, rows: list[Row]) -> Tensor:
    """An auxiliary loss: whether a cell lies on a matching object, and its box. Its head is discarded later."""
    places = (torch.arange(GRID) + 0.5) / GRID
    here = torch.stack(torch.meshgrid(places, places, indexing="xy"), -1).flatten(0, 1)
    on, truth = torch.zeros(len(rows), GRID * GRID), torch.zeros(len(rows), GRID * GRID, 4)
    for index, row in enumerate(rows):
        if len(row.boxes):
            share, which = functional.adaptive_avg_pool2d(row.masks, GRID).flatten(1).max(0)
            on[index], truth[index] = (share > 0.3).float(), _centred(row.boxes)[which]
    boxes = torch.cat([here + 0.2 * found[..., 1:3], 0.2 + 0.2 * found[..., 3:]], -1)
    count = on.sum().clamp(min=1)
    return focal(found[..., 0], on).sum() / count + 5 * ((boxes - truth).abs().sum(-1) * on).sum() / count


def _corners(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def _centred(corners: Tensor) -> Tensor:
    return torch.cat([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], -1)
