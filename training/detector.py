"""Second stage: the detector learns what phrases name, by a set loss (DETR, arXiv:2005.12872, as SAM 3 has it).

The vision encoder stays as it is. The library's forward answers with the last decoder layer alone; here each layer is
asked, for DETR's auxiliary losses, and masks, which cost most, are made for some of the rows.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional
from transformers import Sam3VideoModel
from transformers.models.sam3.modeling_sam3 import inverse_sigmoid

from shapes import COLOURS, SHAPES, Frame, Phrase, Recipe, Thing
from training import data
from training.loop import Stage
from training.losses import balanced, dice, focal, generalised_iou, overlap
from training.model import GRID, WIDTH, WORDS, tokenizer

NAME = "detector"
PICTURES, PHRASES, MASKED = 12, 3, 5
"""Pictures in a batch, phrases for each, and rows (a picture with a phrase) whose masks are made."""
RATE = 6e-4
RECIPE = Recipe(things=(1, 12), radius=(0.06, 0.14), post=0.35)
NEGATIVE = 0.4
"""Share of the phrases that name nothing in their picture."""
QUIET = 0.2
"""Weight of what queries say where nothing is named: presence says it there."""


class Row(NamedTuple):
    """What a phrase names in a picture.

    Attributes:
        boxes: shape (n, 4), x0 y0 x1 y1 as shares of the picture.
        masks: shape (n, FINE, FINE).
    """

    boxes: Tensor
    masks: Tensor


class Answer(NamedTuple):
    """Of `layers` decoder layers, r rows and q queries.

    Attributes:
        logits: shape (layers, r, q).
        boxes: shape (layers, r, q, 4), centre, width and height.
        presence: shape (layers, r).
        masks: shape (MASKED, q, FINE, FINE), of the first rows.
        union: shape (MASKED, FINE, FINE).
        cells: shape (r, GRID * GRID, WIDTH), the picture as the phrase changes it.
    """

    logits: Tensor
    boxes: Tensor
    presence: Tensor
    masks: Tensor
    union: Tensor
    cells: Tensor


def stage(model: Sam3VideoModel, folder: Path, steps: int, seed: int) -> Stage:
    """Of a model whose vision encoder has learned."""
    detector: Any = model.detector_model
    pointing = nn.Linear(WIDTH, 5)
    tokens = tokenizer()
    encoder = detector.vision_encoder.backbone
    encoder.requires_grad_(False)
    parts = nn.ModuleDict({"detector": detector, "pointing": pointing})
    learning = [
        parameter
        for name, parameter in parts.named_parameters()
        if parameter.requires_grad and not name.startswith("detector.geometry_encoder")
    ]
    model.train(False)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        pictures, phrases, rows = _batch(data.random_for(NAME, seed, step))
        read = tokens(phrases, padding=True, return_tensors="pt")
        answer = _answer(detector, pictures, read["input_ids"], read["attention_mask"])
        figures = _losses(answer, rows) | {"dense": _dense(pointing(answer.cells), rows)}
        weights = {"class": 2, "box": 5, "giou": 2, "presence": 1, "mask": 10, "dice": 3, "union": 2, "dense": 2}
        total = torch.stack([weight * figures[name] for name, weight in weights.items()]).sum()
        return total, {name: float(torch.as_tensor(value).detach()) for name, value in figures.items()}

    return Stage(NAME, folder, {"detector": detector, "pointing": pointing}, [(learning, RATE)], steps, loss)


def _batch(random: np.random.Generator) -> tuple[Tensor, list[str], list[Row]]:
    """Pictures, and for each PHRASES phrases; rows go through the pictures' first phrases, then their second ones."""
    frames = []
    for _ in range(PICTURES):
        clip = data.draw(random, RECIPE)
        frames.append((clip.things, clip[int(random.integers(len(clip)))]))
    texts, rows = [], []
    masks = [data.fine(frame.masks) for _, frame in frames]
    for number in range(PHRASES):
        for (things, frame), fine in zip(frames, masks, strict=True):
            negative = random.random() < (NEGATIVE if number else 0.1)
            text, named = _phrase(random, things, frame, negative)
            texts.append(text)
            rows.append(Row(data.boxes(frame)[named], fine[named]))
    return torch.stack([data.square(frame.picture) for _, frame in frames]), texts, rows


def _phrase(random: np.random.Generator, things: list[Thing], frame: Frame, negative: bool) -> tuple[str, list[int]]:
    """A phrase, and the objects that are seen of those that it names: none if `negative`, else some if it can be."""
    seen = data.seen(frame)
    if negative and random.random() < 0.25:
        others = WORDS[-12:]
        noun = str(random.choice([*others, "".join(random.choice(list("abcdefghijklmnoprstuvw"), 5))]))
        return (f"{noun} {random.choice(SHAPES)}" if noun in others[:5] else noun), []
    for _ in range(30):
        colour, shape = str(random.choice(list(COLOURS))), str(random.choice(SHAPES))
        if len(things) and random.random() < 0.8:
            near = things[random.integers(len(things))]
            if not negative:
                colour, shape = near.colour, near.shape
            elif random.random() < 0.5:  # A near miss.
                colour = near.colour
            else:
                shape = near.shape
        kind = random.random()
        phrase = Phrase(colour if kind < 0.6 or 0.8 <= kind < 0.95 else None, shape if kind < 0.8 else None)
        named = [row for row, thing in enumerate(things) if phrase.names(thing) and seen[row]]
        if bool(named) != negative:
            break
    before = str(random.choice(["a ", "the ", "all ", "every "])) if random.random() < 0.1 else ""
    return before + phrase.text(plural=random.random() < 0.4), named


def _answer(detector: Any, pictures: Tensor, ids: Tensor, attention: Tensor) -> Answer:
    """The library's forward, for several phrases a picture."""
    with torch.no_grad():
        hidden = detector.vision_encoder.backbone(pictures).last_hidden_state.mT.unflatten(2, (GRID, GRID))
    neck = detector.vision_encoder.neck
    coarse = neck.fpn_layers[2](hidden)
    with torch.autocast("cpu", torch.bfloat16):
        fine = [layer(hidden[:MASKED]) for layer in neck.fpn_layers[:2]]
    waves = neck.position_encoding(coarse.shape, coarse.device, coarse.dtype)
    words = detector.get_text_features(input_ids=ids, attention_mask=attention, return_dict=True).pooler_output
    there = attention.bool()
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
    return Answer(logits, boxes, presence, masks, union, encoded.last_hidden_state)


def _losses(answer: Answer, rows: list[Row]) -> dict[str, Tensor]:
    count = max(1, sum(len(row.boxes) for row in rows))
    some = torch.tensor([float(len(row.boxes) > 0) for row in rows])
    figures = dict.fromkeys(("class", "box", "giou", "presence"), torch.zeros(()))
    for logits, boxes, presence in zip(answer.logits, answer.boxes, answer.presence, strict=True):
        corners = _corners(boxes)
        matched = [_match(logits[index], corners[index], row) for index, row in enumerate(rows)]
        at, query = (torch.tensor(list(part), dtype=torch.long) for part in _pairs(matched))
        truth = torch.cat([row.boxes[theirs] for row, (_, theirs) in zip(rows, matched, strict=True)])
        target = torch.zeros_like(logits)
        target[at, query] = 1
        quiet = torch.where(some > 0, 1.0, QUIET)[:, None]
        figures["class"] = figures["class"] + (focal(logits, target) * quiet).sum() / count
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
        masks = torch.stack([answer.masks[row, query] for row, query, _ in drawn])
        truth = torch.stack([mask for *_, mask in drawn])
        figures["mask"] = (
            functional.binary_cross_entropy_with_logits(masks, truth) + 0.1 * balanced(masks, truth).mean()
        )
        figures["dice"] = dice(masks, truth).mean()
        figures["iou"] = overlap(masks, truth).mean()
    else:
        figures["mask"] = figures["dice"] = torch.zeros(())
    union = torch.stack([row.masks.sum(0).clamp(max=1) for row in rows[:MASKED]])
    figures["union"] = functional.binary_cross_entropy_with_logits(answer.union, union)
    figures["union"] = figures["union"] + 0.2 * (balanced(answer.union, union) + dice(answer.union, union)).mean()
    best = answer.logits[-1].sigmoid() * answer.presence[-1].sigmoid()[:, None] > 0.5
    right = (best & (target > 0)).sum()
    figures["precision"], figures["recall"] = right / best.sum().clamp(min=1), right / count
    figures["present"] = ((answer.presence[-1] > 0) == (some > 0)).float().mean()
    return figures


@torch.no_grad()
def _match(logits: Tensor, corners: Tensor, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Queries and the objects that they are to find, as many of each."""
    cost = 5 * torch.cdist(_centred(corners), _centred(row.boxes), p=1) - 2 * logits.sigmoid()[:, None]
    cost = cost - 2 * generalised_iou(corners[:, None], row.boxes[None])
    return linear_sum_assignment(torch.nan_to_num(cost, 1e3).numpy())  # type: ignore[no-any-return]


def _pairs(matched: list[tuple[np.ndarray, np.ndarray]]) -> tuple[list[int], list[int]]:
    rows = [row for row, (queries, _) in enumerate(matched) for _ in queries]
    return rows, [int(query) for queries, _ in matched for query in queries]


def _dense(found: Tensor, rows: list[Row]) -> Tensor:
    """Of every cell: does it lie on something named, and where is its box. A head for it is thrown away afterwards."""
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
