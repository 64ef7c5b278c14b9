"""Measures how accurate the shapes model is.

`python benchmarks/shapes_accuracy.py [--clips 200] [--seed N] [--quick]`; the last line is one JSON object. All clips
are held out (`shapes.HELD_OUT`): none was used for training. The model runs in the sam3 engine as users run it, at the
clips' own size.

An object is *visible* on a frame where its mask covers at least 0.1 % of the picture, and *gone* where it covers
nothing; frames between the two do not count. Mask figures use the frames on which the object is visible.

- click_*, box_*: mean over all objects of the mean IoU over an object's visible frames, after one click (or box) on the
  first of them. The prompted frame counts. Easy: shapes.EASY, crowded: shapes.CROWDED.
- absence: of the frames after the prompt on which an object is gone, the share on which nothing is reported for it.
- correction_helps: an object whose IoU falls below 0.5 on a visible frame gets one more click there, on what its mask
  lacks (or, if that is little, on what is too much). Share of these objects whose mean IoU afterwards is higher than
  without the click.
- text_*, hota: phrases such as "red circle" on clips with 1 to 6 objects that match and up to 6 that do not: precision
  and recall over all frames at mask IoU 0.5, and HOTA (trackeval) of masks.
- false_frames: share of the frames of the same clips on which a phrase that matches none of the objects finds one.
- crossings_kept: two objects that look the same are clicked and pass each other (their boxes' IoU rises above 0.3 and
  falls to 0). Of the passes before which each track was on its own object, the share after which it still is.
- weak_*: click_* of an earlier checkpoint on the same clips.
- fps_1: frames a second with one clicked object, read from a video file, with two threads.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

try:
    from trackeval.metrics import HOTA
except ImportError:
    sys.exit("this benchmark needs trackeval: make lint installs what development needs")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend import shapes
from backend.engines.sam3.engine import Sam3Engine
from backend.engines.sam3.version import resolve_model_path
from backend.settings import Settings
from backend.shapes import COLOURS, CROSSING, CROWDED, EASY, HELD_OUT, SHAPES, WORDS, Clip, Recipe
from backend.tracks.geometry import Box
from backend.tracks.prompts import Phrase, Point, Prompt
from backend.tracks.track import FrameResult, Observation
from backend.video import Video
from tests.engines.contract import FakeVideo

SEEN = 0.001
FAILED = 0.5
WEAK = Path(__file__).resolve().parent.parent.parent / "shared" / "shapes-kit" / "model"

Masks = NDArray[np.bool_]
Scores = dict[str, list[float]]


class Film(FakeVideo):
    """A clip as a video for the engine; its frames are drawn once."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.frames_drawn = list(clip)
        super().__init__([frame.picture for frame in self.frames_drawn])
        shown = np.array([frame.areas for frame in self.frames_drawn]).reshape(len(clip), -1)
        self.seen, self.gone = shown >= SEEN * self.width * self.height, shown == 0

    def truth(self, frame: int, row: int) -> Masks:
        mask: Masks = self.frames_drawn[frame].masks[row]
        return mask

    def starts(self) -> dict[int, int]:
        """The first frame on which each object is visible, by row."""
        return {row: int(seen.argmax()) for row, seen in enumerate(self.seen.T) if seen.any()}


@cache
def engine(model: str, masks: bool = True) -> Sam3Engine:
    torch.set_num_threads(1)
    loaded = Sam3Engine(Settings(engine="sam3", model_path=model, device="cpu", show_masks=masks))
    assert loaded.model
    return loaded


def mask_of(observation: Observation | None, film: Film) -> Masks:
    if observation is None or observation.mask is None:
        return np.zeros((film.height, film.width), bool)
    return observation.mask.to_mask()


def iou(one: Masks, other: Masks) -> float:
    either = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / either if either else 1.0


def inner(area: Masks) -> tuple[float, float]:
    """The point of an area that is farthest from its edge."""
    depth = cv2.distanceTransform(np.pad(area, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return float(x) + 0.5, float(y) + 0.5


def click(name: str, frame: int, area: Masks, positive: bool = True) -> Prompt:
    return Prompt(name, frame, points=(Point(*inner(area), positive),))


def box(name: str, frame: int, area: Masks) -> Prompt:
    return Prompt(name, frame, box=Box(*shapes.bounds(area).tolist()))


def correction(name: str, frame: int, truth: Masks, found: Masks) -> Prompt:
    missing, surplus = truth & ~found, found & ~truth
    positive = missing.sum() >= 0.3 * surplus.sum()
    return click(name, frame, missing if positive else surplus, positive)


def by_frame(prompts: Sequence[Prompt]) -> dict[int, list[Prompt]]:
    grouped: dict[int, list[Prompt]] = {}
    for prompt in prompts:
        grouped.setdefault(prompt.frame, []).append(prompt)
    return grouped


def track(film: Film, model: str, prompts: Sequence[Prompt]) -> list[Mapping[str, Observation]]:
    """The result for every prompted object on every frame, from the first prompt on."""
    with engine(model).open(film) as session:
        for _, together in sorted(by_frame(prompts).items()):
            session.prompt(together)
        first = min(prompt.frame for prompt in prompts)
        return [{}] * first + [result.tracks for result in session.propagate(range(first, len(film)))]


def ious(film: Film, tracks: Sequence[Mapping[str, Observation]], name: str, row: int, start: int) -> dict[int, float]:
    """The IoU on each visible frame of an object from its prompt on, by frame."""
    return {
        frame: iou(mask_of(tracks[frame].get(name), film), film.truth(frame, row))
        for frame in range(start, len(film))
        if film.seen[frame, row]
    }


def prompted(seed: int, recipe: Recipe, kind: str, model: str, full: bool) -> Scores:
    """Scores of a click (if `full`, also of a box and of corrections) on every object of a clip."""
    film, scores = Film(Clip(seed, recipe)), dict[str, list[float]]()
    starts = film.starts()
    makers: dict[str, Callable[[str, int, Masks], Prompt]] = {"click": click} | ({"box": box} if full else {})
    names = {(how, row): f"{how} {row}" for how in makers for row in starts}
    if not names:
        return scores
    prompts = [makers[how](name, starts[row], film.truth(starts[row], row)) for (how, row), name in names.items()]
    tracks = track(film, model, prompts)
    for (how, row), name in names.items():
        found = ious(film, tracks, name, row, starts[row])
        scores.setdefault(f"{how}_{kind}", []).append(float(np.mean(list(found.values()))))
        for frame in range(starts[row] + 1, len(film)):
            if film.gone[frame, row]:
                there = tracks[frame].get(name)
                scores.setdefault("absence", []).append(float(there is None or there.box is None))
        failed = next((frame for frame, value in found.items() if value < FAILED), None)
        after = [value for frame, value in found.items() if failed is not None and frame > failed]
        if full and how == "click" and failed is not None and failed > starts[row] and after:
            better = corrected(film, model, prompts[list(names).index((how, row))], row, failed)
            scores.setdefault("correction", []).append(float(np.mean(better) > np.mean(after)))
            scores.setdefault("rest_before", []).append(float(np.mean(after)))
            scores.setdefault("rest_after", []).append(float(np.mean(better)))
    return scores


def corrected(film: Film, model: str, prompt: Prompt, row: int, failed: int) -> list[float]:
    """IoUs after the frame on which an object gets another click, its track so far kept."""
    with engine(model).open(film) as session:
        session.prompt([prompt])
        *_, last = session.propagate(range(prompt.frame, failed + 1))
        found = mask_of(last.tracks.get(prompt.track), film)
        session.prompt([correction(prompt.track, failed, film.truth(failed, row), found)])
        rest = [result.tracks for result in session.propagate(range(failed + 1, len(film)))]
    tracks: list[Any] = [{}] * (failed + 1) + rest
    return list(ious(film, tracks, prompt.track, row, failed + 1).values())


def crossed(seed: int, recipe: Recipe, kind: str, model: str, full: bool) -> Scores:
    """Scores of objects that look the same and pass each other."""
    film, scores = Film(Clip(seed, recipe)), dict[str, list[float]]()
    starts = film.starts()
    if len(starts) < 2:
        return scores
    tracks = track(film, model, [click(str(row), start, film.truth(start, row)) for row, start in starts.items()])
    boxes = np.array([frame.boxes for frame in film.frames_drawn])
    rows = sorted(starts)
    for one in rows:
        for other in rows[rows.index(one) + 1 :]:
            for before, after in passes(boxes[:, one], boxes[:, other]):
                if before >= max(starts[one], starts[other]) and right(film, tracks[before], before, one, other):
                    scores.setdefault("crossings", []).append(float(right(film, tracks[after], after, one, other)))
    return scores


def passes(one: NDArray[np.float64], other: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Last frame before and first after each stretch on which two objects' boxes, shape (frames, 4), have IoU > 0.3."""
    overlaps = np.array([box_iou(*pair) for pair in zip(one, other, strict=True)])
    apart = [frame for frame, value in enumerate(overlaps) if value == 0]
    return [(before, after) for before, after in pairwise(apart) if np.nanmax(overlaps[before : after + 1]) > 0.3]


def box_iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The boxes' IoU on each frame; NaN where one of them is NaN."""
    if np.isnan(one[0] + other[0]):
        return np.nan
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    both = float(np.prod(np.clip(high - low, 0, None)))
    return both / (float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - both)


def right(film: Film, tracks: Mapping[str, Observation], frame: int, one: int, other: int) -> bool:
    """Whether each of two tracks overlaps its own object more than the other."""
    found = {row: mask_of(tracks.get(str(row)), film) for row in (one, other)}
    return all(
        iou(found[row], film.truth(frame, row)) > max(0.25, iou(found[row], film.truth(frame, not_it)))
        for row, not_it in ((one, other), (other, one))
    )


def phrase_of(clip: Clip) -> tuple[shapes.ShapePhrase, shapes.ShapePhrase] | None:
    """A phrase that matches 1 to 6 objects of a clip, with at most 6 others, and a phrase that matches none."""
    random = np.random.default_rng((clip.seed, 1))
    every = [shapes.ShapePhrase(colour, shape) for colour in (None, *COLOURS) for shape in (None, *SHAPES)]
    random.shuffle(every)
    named = {phrase: len(clip.named(phrase)) for phrase in every}
    some = [phrase for phrase, count in named.items() if 1 <= count <= 6 and len(clip.things) - count <= 6]
    none = [phrase for phrase, count in named.items() if not count]
    return (some[0], none[0]) if some and none else None


def worded(seed: int, recipe: Recipe, kind: str, model: str, full: bool) -> Scores:
    """Scores of a phrase that matches some of a clip's objects, and of one that matches none."""
    film, scores = Film(Clip(seed, recipe)), dict[str, list[float]]()
    chosen = phrase_of(film.clip)
    if chosen is None:
        return scores
    some, none = (phrase.text() for phrase in chosen)
    results = searched(film, model, some)
    counts, data = judged(film, film.clip.named(chosen[0]), results)
    for key, value in (*counts.items(), *hota_parts(data).items()):
        scores[key] = [value] if np.isscalar(value) else value  # type: ignore[assignment, list-item]
    scores["false"] = [
        float(any(seen.box for seen in result.tracks.values())) for result in searched(film, model, none)
    ]
    return scores


def searched(film: Film, model: str, text: str) -> list[FrameResult]:
    with engine(model).open(film) as session:
        session.prompt([Phrase(text)])
        return list(session.propagate(range(len(film))))


def judged(film: Film, named: Sequence[int], results: Sequence[FrameResult]) -> tuple[dict[str, float], dict[str, Any]]:
    """True positives, false positives and misses over all frames, and the data that HOTA is computed from."""
    counts = {"hits": 0.0, "wrong": 0.0, "missed": 0.0}
    ids: dict[str, int] = {}
    data: dict[str, Any] = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    for result in results:
        there = [row for row in named if film.seen[result.frame, row]]
        slivers = [row for row in named if not (film.seen | film.gone)[result.frame, row]]
        found = {name: mask_of(seen, film) for name, seen in result.tracks.items() if seen.box is not None}
        for row in slivers:  # Neither visible nor gone: does not count.
            sliver = film.truth(result.frame, row)
            found = {name: mask for name, mask in found.items() if np.count_nonzero(mask & sliver) < 0.5 * mask.sum()}
        values = np.array(
            [[iou(film.truth(result.frame, row), mask) for mask in found.values()] for row in there]
        ).reshape(len(there), len(found))
        hits = matched(values)
        counts["hits"] += hits
        counts["wrong"] += len(found) - hits
        counts["missed"] += len(there) - hits
        data["gt_ids"].append(np.array([list(named).index(row) for row in there], int))
        data["tracker_ids"].append(np.array([ids.setdefault(name, len(ids)) for name in found], int))
        data["similarity_scores"].append(values)
    data["num_gt_ids"], data["num_tracker_ids"] = len(named), len(ids)
    data["num_gt_dets"] = sum(map(len, data["gt_ids"]))
    data["num_tracker_dets"] = sum(map(len, data["tracker_ids"]))
    return counts, data


def matched(values: NDArray[np.float64]) -> int:
    """Pairs with an IoU of at least 0.5, best first."""
    values, hits = values.copy(), 0
    while values.size and values.max() >= 0.5:
        row, column = np.unravel_index(values.argmax(), values.shape)
        values[row], values[:, column] = 0, 0
        hits += 1
    return hits


def hota_parts(data: dict[str, Any]) -> dict[str, list[float]]:
    found = HOTA().eval_sequence(data)
    return {f"HOTA {key}": list(map(float, found[key])) for key in ("HOTA_TP", "HOTA_FN", "HOTA_FP", "AssA", "DetA")}


def combined_hota(parts: Sequence[Scores]) -> float:
    """HOTA over all clips, as trackeval combines sequences."""
    arrays = {
        key: np.array([part[f"HOTA {key}"] for part in parts if f"HOTA {key}" in part])
        for key in ("HOTA_TP", "HOTA_FN", "HOTA_FP", "AssA")
    }
    if not arrays["AssA"].size:
        return 0.0
    hits = arrays["HOTA_TP"].sum(0)
    detection = hits / np.maximum(1, hits + arrays["HOTA_FN"].sum(0) + arrays["HOTA_FP"].sum(0))
    association = (arrays["AssA"] * arrays["HOTA_TP"]).sum(0) / np.maximum(1e-10, hits)
    return float(np.sqrt(detection * association).mean())


def frames_per_second(model: str) -> float:
    """Frames a second with one clicked object from a file, as `serve` runs it (no masks are kept); best of three."""
    served = engine(model, masks=False)
    torch.set_num_threads(2)
    clip = Clip(HELD_OUT, EASY)
    row, start = next(iter(Film(clip).starts().items()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        clip.save(path)
        rates = []
        for _ in range(3):
            served.model.image_encoder.clear()
            with Video(path) as video, served.open(video) as session:
                session.prompt([click("one", start, clip[start].masks[row])])
                began = time.perf_counter()
                frames = sum(1 for _ in session.propagate(range(start, len(clip))))
                rates.append(frames / (time.perf_counter() - began))
    torch.set_num_threads(1)
    return max(rates)


PARTS: dict[str, tuple[Callable[[int, Recipe, str, str, bool], Scores], Recipe]] = {
    "easy": (prompted, EASY),
    "crowded": (prompted, CROWDED),
    "words": (worded, WORDS),
    "crossing": (crossed, CROSSING),
}


def measure(
    part: str, seeds: Sequence[int], model: str, jobs: int = 1, full: bool = True, frames: int = EASY.frames
) -> list[Scores]:
    """The scores of one part, clip by clip."""
    work, recipe = PARTS[part]
    recipe = replace(recipe, frames=frames)
    if jobs == 1:
        return [work(seed, recipe, part, model, full) for seed in seeds]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        asked = [pool.submit(work, seed, recipe, part, model, full) for seed in seeds]
        return [answer.result() for answer in asked]


def mean(parts: Sequence[Scores], key: str) -> float | None:
    values = [value for part in parts for value in part.get(key, [])]
    return round(float(np.mean(values)), 4) if values else None


def summary(easy: list[Scores], crowded: list[Scores], words: list[Scores], crossing: list[Scores]) -> dict[str, Any]:
    hits, wrong, missed = (sum(sum(part.get(key, [])) for part in words) for key in ("hits", "wrong", "missed"))
    return {
        "click_mask_iou_easy": mean(easy, "click_easy"),
        "click_mask_iou_crowded": mean(crowded, "click_crowded"),
        "box_mask_iou_easy": mean(easy, "box_easy"),
        "box_mask_iou_crowded": mean(crowded, "box_crowded"),
        "correction_helps": mean(easy + crowded, "correction"),
        "corrections": sum(len(part.get("correction", [])) for part in easy + crowded),
        "rest_before": mean(easy + crowded, "rest_before"),
        "rest_after": mean(easy + crowded, "rest_after"),
        "text_precision": round(hits / max(1, hits + wrong), 4),
        "text_recall": round(hits / max(1, hits + missed), 4),
        "hota": round(combined_hota(words), 4),
        "false_frames": mean(words, "false"),
        "absence": mean(easy + crowded, "absence"),
        "crossings_kept": mean(crossing, "crossings"),
        "crossings": sum(len(part.get("crossings", [])) for part in crossing),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200, help="of each kind")
    parser.add_argument("--seed", type=int, default=0, help="which of the held-out clips are the first")
    parser.add_argument("--model", default="shapes", help="model_path of what is measured")
    parser.add_argument("--weak", default=str(WEAK) if WEAK.is_dir() else "", help="model_path of another to compare")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--quick", action="store_true", help="one clip of 24 frames of each kind, one checkpoint")
    options = parser.parse_args()
    if options.quick:
        options.clips, options.weak, options.jobs = 1, "", 1
    frames = 24 if options.quick else EASY.frames
    seeds = range(HELD_OUT + options.seed, HELD_OUT + options.seed + options.clips)
    found = {}
    for part in PARTS:
        found[part] = measure(part, seeds, options.model, options.jobs, frames=frames)
        print(
            part,
            {key: mean(found[part], key) for key in sorted({key for one in found[part] for key in one})},
            flush=True,
        )
    figures = summary(**found)
    for part in ("easy", "crowded"):
        weak = measure(part, seeds, options.weak, options.jobs, full=False) if options.weak else []
        figures[f"weak_{part}"] = mean(weak, f"click_{part}")
    figures["fps_1"] = round(frames_per_second(options.model), 1)
    figures["megabytes"] = megabytes(options.model)
    print(json.dumps({**figures, "clips": options.clips, "seed": options.seed}))


def megabytes(model: str) -> float:
    return round(sum(path.stat().st_size for path in resolve_model_path(model).glob("*.safetensors")) / 1e6, 2)


if __name__ == "__main__":
    main()
