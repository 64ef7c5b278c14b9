"""Third stage: trains the tracker on clicks, boxes and masks, and over time with its memory.

It uses the engine's own tracker and selection of memories, so training matches inference. There are two differences.
Whether an object is present comes from the truth, because a wrong prediction would cut the gradient. The outputs of the
mask decoder are kept for the loss.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import Sam3VideoModel

from backend.engines.sam.memory_bank import FrameMemory, MemoryBank
from backend.engines.sam.tracker import MaskPrediction, Tracker
from backend.engines.sam3.image_encoder import Sam3ImageFeatures
from backend.engines.sam3.necks import Necks
from backend.shapes import Clip, Recipe, bounds
from training import data
from training.loop import Stage
from training.losses import balanced, dice, overlap
from training.model import FINE, SIDE
from training.outlines import Outlines, enlarge, outline_loss

NAME, OUTLINES = "tracker", "outlines"
RATE, OUTLINES_RATE = 5e-4, 3e-4
"""Peak learning rates: from the start, and where a trained tracker is trained further on outlines."""
RECIPES = (
    Recipe(things=(3, 7), post=0.6, strays=0.3, blinks=0.4),
    Recipe(things=(2, 5), twins=0.9, equal=True, strays=0.0, speed=(0.006, 0.018), post=0.2, blinks=0.2),
    Recipe(things=(1, 3), strays=0.3, blinks=0.3),
)
SHARES = (0.45, 0.2, 0.35)
"""Probability of each recipe."""
OBJECTS = 4
"""Maximum number of objects per clip."""


class Lesson(NamedTuple):
    """The contents of a step.

    Attributes:
        until: the share of all steps after which the next lesson begins.
        clips: number of clips.
        frames: frames per clip.
        masks: whether to prompt with masks and correct them. Before it understands clicks and boxes, they only disturb.
        teacher_forcing: how often the true mask is remembered instead of the predicted one. Bad memories teach
            nothing about memory.
    """

    until: float
    clips: int
    frames: int
    masks: bool = True
    teacher_forcing: float = 0.0


LESSONS = (
    Lesson(0.1, 6, 1, masks=False),
    Lesson(0.18, 6, 1),
    Lesson(0.36, 3, 4, teacher_forcing=0.7),
    Lesson(0.5, 2, 6, teacher_forcing=0.2),
    Lesson(1.0, 2, 8, teacher_forcing=0.05),
)
OUTLINES_LESSONS = (Lesson(0.4, 3, 2), Lesson(1.0, 2, 4))


class Learner(Tracker):
    """The engine's tracker, which is told whether objects are present and keeps the outputs of its mask decoder.

    Attributes:
        present: whether each object of the next call is present, shape (n,), bool.
        outputs: the last call's masks (n, k, h, w), expected IoUs (n, k) and scores (n,).
    """

    memory_dtype = torch.float32

    def __init__(self, model: Sam3VideoModel) -> None:
        super().__init__(model.tracker_model)
        self.present = torch.ones(0, dtype=torch.bool)
        self.outputs: tuple[Tensor, Tensor, Tensor]

    def _select_best_masks(
        self, logits: Tensor, iou_scores: Tensor, tokens: Tensor, object_scores: Tensor
    ) -> MaskPrediction:
        self.outputs = logits.float(), iou_scores.float(), object_scores.float()
        return super()._select_best_masks(logits, iou_scores, tokens, torch.where(self.present, 10.0, -10.0))


@dataclass
class Film:
    """A part of a clip, and the objects to track in it.

    Attributes:
        hidden: output of the vision encoder, shape (frames, positions, width).
        fine: shape (frames, n, FINE, FINE), how much of each cell each object covers.
        shown: shape (frames, n), visible pixels of each object, as a share of the picture.
        first: masks on the first frame, in the size of the picture, shape (n, height, width).
        outlines: of each frame.
    """

    hidden: Tensor
    fine: Tensor
    shown: Tensor
    first: NDArray[np.bool_]
    outlines: list[Outlines]


def stage(model: Sam3VideoModel, folder: Path, steps: int, seed: int) -> Stage:
    """The stage, for a model whose vision encoder is trained."""
    return _stage(NAME, model, folder, steps, seed)


def outlines_stage(model: Sam3VideoModel, folder: Path, steps: int, seed: int) -> Stage:
    """Trains a trained tracker further, on outlines."""
    return _stage(OUTLINES, model, folder, steps, seed)


def _stage(name: str, model: Sam3VideoModel, folder: Path, steps: int, seed: int) -> Stage:
    on_outlines = name == OUTLINES
    encoder: Any = model.detector_model.vision_encoder.backbone
    encoder.requires_grad_(False)
    parts = {"tracker": model.tracker_model, "neck": model.tracker_neck}
    learning = [parameter for part in parts.values() for parameter in part.parameters()]
    model.train(False)
    lessons, sizes = (OUTLINES_LESSONS, data.LARGE_SIZES) if on_outlines else (LESSONS, data.SIZES)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        random = data.random_for(name, seed, step)
        lesson = next(lesson for lesson in lessons if step < lesson.until * steps or lesson is lessons[-1])
        step_loss = StepLoss(model, random, on_outlines=on_outlines)
        for _ in range(lesson.clips):
            step_loss.add_film(_film(encoder, random, lesson.frames, sizes), lesson)
        return step_loss.loss / lesson.clips, step_loss.figures()

    return Stage(name, folder, parts, [(learning, OUTLINES_RATE if on_outlines else RATE)], steps, loss)


def drawing_layers(model: Sam3VideoModel) -> nn.ModuleList:
    """The layers that only draw the tracker's masks: not those that find objects, score them and remember them."""
    decoder, neck = model.tracker_model.mask_decoder, model.tracker_neck
    upscaling = [decoder.upscale_conv1, decoder.upscale_layer_norm, decoder.upscale_conv2]
    fine = [decoder.conv_s0, decoder.conv_s1, *neck.fpn_layers[:2]]
    return nn.ModuleList([decoder.mask_tokens, decoder.output_hypernetworks_mlps, *upscaling, *fine])


def _film(encoder: Any, random: np.random.Generator, frames: int, sizes: data.Sizes = data.SIZES) -> Film:
    """Some frames of a clip, usually the one of three candidates in which visibility changes most."""
    films = []
    for _ in range(3 if frames > 1 else 1):
        clip = data.draw(random, RECIPES[int(random.choice(len(RECIPES), p=SHARES))], sizes)
        stride = int(random.choice((1, 1, 2, 3))) if frames > 1 else 1
        start = int(random.integers(len(clip) - (frames - 1) * stride)) if (frames - 1) * stride < len(clip) else 0
        shown = _outline_shares(clip, range(start, start + (frames - 1) * stride + 1, stride))
        films.append((clip, start, stride, shown))
    clip, start, stride, shown = max(
        films, key=lambda film: np.ptp(film[-1], axis=0).sum() if random.random() < 0.7 else 0
    )
    seen = [clip[start + number * stride] for number in range(frames)]
    areas = np.array([frame.areas for frame in seen]) / seen[0].picture[..., 0].size
    candidates = np.flatnonzero(areas[0] > 2 * data.SEEN)
    if not len(candidates):
        return _film(encoder, random, frames, sizes)
    # Objects whose visibility changes most come first.
    order = sorted(candidates, key=lambda row: areas[:, row].min() / areas[0, row] + 0.3 * random.random())[:OBJECTS]
    with torch.no_grad():
        hidden = encoder(torch.stack([data.square(frame.picture) for frame in seen])).last_hidden_state
    fine = torch.stack([data.fine(frame.masks[order]) for frame in seen])
    outlines = [Outlines.from_masks(frame.masks[order]) for frame in seen]
    return Film(hidden, fine, torch.from_numpy(areas[:, order]), seen[0].masks[order], outlines)


def _outline_shares(clip: Clip, frames: range) -> NDArray[np.float64]:
    """Roughly how visible each object is, shape (frames, objects), estimated from the centres, without drawing."""
    width, height = clip.recipe.size
    shares = np.ones((len(frames), len(clip.things)))
    for at, frame in enumerate(frames):
        centres = [thing.centre(frame) for thing in clip.things]
        for row, (centre, thing) in enumerate(zip(centres, clip.things, strict=True)):
            behind = clip.post is not None and all(
                (cut.start or 0) <= place < (cut.stop if cut.stop is not None else np.inf)
                for cut, place in zip(clip.post, centre[::-1], strict=True)
            )
            outside = not (0 <= centre[0] < width and 0 <= centre[1] < height)
            over = [float(np.linalg.norm(centre - other)) / thing.radius for other in centres[row + 1 :]]
            shares[at, row] = 0.0 if behind or outside or frame in thing.away else min([1.0, *over])
    return shares


class StepLoss:
    """The loss of a step, summed over its films; masks are compared by cell, or `on_outlines`."""

    def __init__(self, model: Sam3VideoModel, random: np.random.Generator, *, on_outlines: bool = False) -> None:
        self._model, self._random, self._on_outlines = model, random, on_outlines
        self._learner = Learner(model)
        self._reach = self._learner.memory_window(64)
        self.loss = torch.zeros(())
        self._seen: dict[str, list[float]] = {}

    def figures(self) -> dict[str, float]:
        """The mean of each metric, for the log."""
        return {key: float(np.mean(values)) for key, values in self._seen.items() if values}

    def add_film(self, film: Film, lesson: Lesson) -> None:
        """Prompt a film's objects on its first frame and track them to its last one, with corrections."""
        frames, count = film.fine.shape[:2]
        memories = [MemoryBank() for _ in range(count)]
        for one in memories:
            one.directions[False].joined_at = 0
        total, necks = torch.zeros(()), Necks(self._model)
        corrected = int(self._random.integers(1, frames)) if frames > 2 and self._random.random() < 0.8 else -1
        for frame in range(frames):
            view = Sam3ImageFeatures(necks, film.hidden[frame : frame + 1])
            self._learner.present = film.shown[frame] >= data.SEEN
            if frame == 0:
                loss = self._prompt(view, film, memories, lesson.masks)
            else:
                loss = self._track(
                    view, film, memories, frame, use_truth=self._random.random() < lesson.teacher_forcing
                )
                if frame == corrected and count > 1:
                    loss = loss + self._correct(view, film, memories, frame)
            total = total + loss
            for one in memories:
                one.prune(frame, False, self._reach)
        self.loss = self.loss + total / frames * (1 if frames > 1 else 1.5)

    def _prompt(self, view: Sam3ImageFeatures, film: Film, memories: list[MemoryBank], masks: bool) -> Tensor:
        """The first frame: prompt with clicks, a box and a mask, and remember the result of one of them."""
        random, learner = self._random, self._learner
        kind = str(random.choice(["click", "box", "mask"], p=[0.5, 0.27, 0.23] if masks else [0.6, 0.4, 0]))
        loss = torch.zeros(())
        if masks:
            found, features = learner.use_masks(view, (film.fine[0] > random.uniform(0.3, 0.6)).float())
            loss = loss + self._loss(film, 0, "given")
        # Encoding a picture is expensive and prompting is cheap, so train on the other prompts as well.
        for asked in ("click", "box"):
            clicked, remembered = learner.prompt_batch(view, *self._points(film, asked), None, None, self._reach)
            loss = loss + self._loss(film, 0, asked)
            for _ in range(int(random.integers(0, 3)) if masks else 0):
                again = [self._click(film.fine[0, row], clicked.logits[row]) for row in range(len(memories))]
                points = torch.tensor([[point] for point, _ in again])
                labels = torch.tensor([[label] for _, label in again], dtype=torch.int32)
                clicked, remembered = learner.prompt_batch(
                    view, points, labels, clicked.logits.detach(), None, self._reach
                )
                loss = loss + self._loss(film, 0, "again")
            if asked == kind:
                found, features = clicked, remembered
        for row, one in enumerate(memories):
            one.cond_frames[0] = FrameMemory(
                features[row], found.object_pointers[row], found.logits[row], float(found.object_scores[row])
            )
        return loss

    def _track(
        self, view: Sam3ImageFeatures, film: Film, memories: list[MemoryBank], frame: int, use_truth: bool
    ) -> Tensor:
        learner = self._learner
        found = self._found(view, memories, frame)
        loss = self._loss(film, frame, "track")
        logits = film.fine[frame] * 20 - 10 if use_truth else found.logits
        features = learner.encode_memory(view, logits, found.object_scores, full_size=True)
        for row, one in enumerate(memories):
            score = 10.0 if learner.present[row] else -10.0
            quality = float(found.eff_iou_scores[row].detach()) if learner.present[row] else 0.0
            one.directions[False].non_cond_frames[frame] = FrameMemory(
                features[row], found.object_pointers[row], found.logits[row].detach(), score, quality
            )
        return loss

    def _found(self, view: Sam3ImageFeatures, memories: list[MemoryBank], frame: int) -> MaskPrediction:
        histories = [one.select(frame, False, self._reach) for one in memories]
        return self._learner.track(view, histories, self._reach)

    def _correct(self, view: Sam3ImageFeatures, film: Film, memories: list[MemoryBank], frame: int) -> Tensor:
        """Correct a tracked frame with clicks; often the objects have swapped memories, as after a mix-up."""
        learner, count = self._learner, len(memories)
        rows = [row for row in range(count) if learner.present[row]]
        if len(rows) < 2:
            return torch.zeros(())
        taken = dict(zip(rows, rows, strict=True))
        if self._random.random() < 0.7:
            taken = dict(zip(rows, [*rows[1:], rows[0]], strict=True))
        tracked = {row: dict(memories[row].directions[False].non_cond_frames) for row in rows}
        for row in rows:
            memories[row].directions[False].non_cond_frames = tracked[taken[row]]
        masks = (tracked[taken[row]][frame].logits for row in rows)
        previous = torch.stack([mask for mask in masks if mask is not None])
        clicks = [self._click(film.fine[frame, row], previous[at]) for at, row in enumerate(rows)]
        points = torch.tensor([[point] for point, _ in clicks])
        labels = torch.tensor([[label] for _, label in clicks], dtype=torch.int32)
        histories = [memories[row].select(frame, False, self._reach) for row in rows]
        present = learner.present
        learner.present = present[rows]
        found, features = learner.prompt_batch(view, points, labels, previous, histories, self._reach)
        learner.present = present
        for index, row in enumerate(rows):
            one = memories[row]
            one.clear_around(frame, self._reach)
            one.cond_frames[frame] = FrameMemory(
                features[index], found.object_pointers[index], found.logits[index], 10.0
            )
        return self._loss(film, frame, "correct", rows)

    def _loss(self, film: Film, frame: int, kind: str, rows: list[int] | None = None) -> Tensor:
        """The loss of the last outputs. All masks have the same target, since prompts are unambiguous."""
        logits, quality, scores = self._learner.outputs
        rows = list(range(len(logits))) if rows is None else rows
        truth, share = film.fine[frame, rows], film.shown[frame, rows]
        present, gone = share >= data.SEEN, share == 0
        if self._on_outlines:
            logits, outlines = enlarge(logits), film.outlines[frame].of(rows)
            truth = outlines.masks[:, None].expand_as(logits)
            masks = outline_loss(logits, outlines)
        else:
            truth = truth[:, None].expand_as(logits)
            wrong = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((2, 3))
            masks = 6 * wrong + 2 * balanced(logits, truth) + 3 * dice(logits, truth)
        right = overlap(logits, truth)
        masks = masks + 0.5 * (quality - right).abs()
        loss = (masks.mean(1) * present).sum() / max(1, len(present))
        weight = present.float() + 2 * gone
        presence = functional.binary_cross_entropy_with_logits(scores, present.float(), reduction="none")
        loss = loss + (presence * weight).sum() / max(1, len(present))
        self._seen.setdefault(kind, []).extend(right[:, 0][present].tolist())
        if kind == "track":
            self._seen.setdefault("seen", []).extend((scores[present] > 0).float().tolist())
            self._seen.setdefault("gone", []).extend((scores[gone] <= 0).float().tolist())
        return loss

    def _points(self, film: Film, kind: str) -> tuple[Tensor, Tensor]:
        """Points of each object, equally many: a click and sometimes others on and off the object, or a box."""
        more = int(self._random.integers(0, 3)) if self._random.random() < 0.3 else 0
        signs = [1, *self._random.integers(0, 2, more)]
        points, labels = [], []
        for row, mask in enumerate(film.first):
            if kind == "box":
                box = bounds(mask).reshape(2, 2)
                box += self._random.normal(0, 0.05, (2, 2)) * (box[1] - box[0])
                points.append(box * SIDE / mask.shape[::-1])
                labels.append([2, 3])
                continue
            others = np.asarray(np.delete(film.first, row, 0).any(0))
            beside = others if others.any() and self._random.random() < 0.6 else ~mask
            spots = [_spot(self._random, mask if sign else beside) for sign in signs]
            points.append(np.array(spots) * SIDE / mask.shape[::-1])
            labels.append(signs)
        return torch.tensor(np.array(points), dtype=torch.float32), torch.tensor(np.array(labels), dtype=torch.int32)

    def _click(self, truth: Tensor, logits: Tensor) -> tuple[tuple[float, float], int]:
        """Where a person would click to correct a mask, in the model's pixels, and the label: 1 positive, 0 negative.

        On a missing part of the object, or on the surplus if that is much larger.
        """
        there: NDArray[np.bool_] = truth.numpy() > 0.5
        found: NDArray[np.bool_] = logits.detach().numpy() > 0
        missing, surplus = there & ~found, found & ~there
        positive = missing.sum() >= 0.3 * surplus.sum() or not surplus.any()
        area = np.asarray((missing if missing.any() else there) if positive else surplus)
        if not area.any():  # The object is too small to fill a cell.
            area = np.asarray(truth.numpy() >= truth.max().item())
        x, y = _spot(self._random, area)
        return (x * SIDE / FINE, y * SIDE / FINE), int(positive)


def _spot(random: np.random.Generator, area: NDArray[np.bool_]) -> tuple[float, float]:
    """A random place in an area, away from its border: x, y."""
    depth = cv2.distanceTransform(np.pad(area, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    ys, xs = np.nonzero(depth >= depth.max() * random.uniform(0.3, 1.0))
    chosen = random.integers(len(ys))
    return float(xs[chosen]) + 0.5, float(ys[chosen]) + 0.5
