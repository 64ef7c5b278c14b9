"""Measures what examples find: boxes around what to find, and around what not to find.

`python benchmarks/exemplars.py [--clips 60] [--seed N] [--model shapes] [--quick]`; the last line is one JSON object.
The clips are held out (`shapes.HELD_OUT`) and have 2 to 6 objects of one shape and colour, and 2 to 6 others. The
frame that shows most of the kind gets a box around one of them; what that finds is tracked to both ends of the clip
by the sam3 engine.

- like_precision, like_recall: of the objects of the kind, over all frames, at mask IoU 0.5; visible and gone as in
  `shapes_accuracy.py`. found_precision, found_recall: on the frame with the box alone.
- unlike_removes: of the wrong objects that the box finds on its frame, one of each kind is given as an example of what
  not to find; the share of the others of these kinds that is gone then. The examples do not count: the engine leaves
  them out, whatever the model finds. unlikes: how many others there were. unlike_keeps: of the right ones that the box
  finds there, the share that is still found then.
- unlike_words_removes, unlike_words_keeps: the same for words that name a wider kind.
- text_precision, text_recall: as in `shapes_accuracy.py`, on as many of its clips.
- published_like: whether tokens of boxes equal those that facebookresearch/sam3 computed on the same random weights,
  and detections with them those of Transformers, with boxes within 0.5 pixels.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend import shapes
from backend.shapes import HELD_OUT, WORDS, Clip
from backend.tracks.geometry import Box
from backend.tracks.prompts import Exemplar, Phrase
from backend.tracks.track import FrameResult, Observation
from benchmarks import shapes_accuracy as accuracy
from benchmarks.shapes_accuracy import Film, Masks
from tests.engines.sam3.exemplars import is_as_published

RECIPE = replace(WORDS, things=(4, 12), twins=0.6)
Found = Mapping[str, Masks]


def kind_of(clip: Clip, row: int) -> shapes.ShapePhrase:
    return shapes.ShapePhrase(clip.things[row].colour, clip.things[row].shape)


def chosen_kind(clip: Clip) -> shapes.ShapePhrase | None:
    """The largest kind with 2 to 6 objects and 2 to 6 others; None: there is none."""
    counts = Counter(kind_of(clip, row) for row in range(len(clip.things)))
    fitting = [kind for kind, count in counts.most_common() if 2 <= count <= 6 and 2 <= len(clip.things) - count <= 6]
    return fitting[0] if fitting else None


def clips(first: int, frames: int) -> Iterator[tuple[Clip, shapes.ShapePhrase]]:
    for seed in range(HELD_OUT + first, HELD_OUT + first + 10_000):
        clip = Clip(seed, replace(RECIPE, frames=frames))
        if kind := chosen_kind(clip):
            yield clip, kind


def exemplar(film: Film, frame: int, row: int, positive: bool = True) -> Exemplar:
    return Exemplar(Box(*shapes.bounds(film.truth(frame, row)).tolist()), positive)


def found_at(film: Film, model: str, phrase: Phrase) -> Found:
    """What a phrase finds on its frame."""
    with accuracy.engine(model).open(film) as session:
        return masks(film, session.prompt([phrase]).tracks)


def masks(film: Film, tracks: Mapping[str, Observation]) -> Found:
    return {name: accuracy.mask_of(seen, film) for name, seen in tracks.items() if seen.box is not None}


def tracked(film: Film, model: str, phrase: Phrase) -> list[FrameResult]:
    """What a phrase finds, tracked to both ends."""
    with accuracy.engine(model).open(film) as session:
        session.prompt([phrase])
        after = list(session.propagate(range(phrase.frame, len(film))))
        return [*session.propagate(range(phrase.frame), reverse=True), *after]


def rows_of(film: Film, frame: int, found: Found) -> dict[str, int | None]:
    """The object that each find is, by mask IoU 0.5; None: it is none."""
    rows = {}
    for name, mask in found.items():
        ious = [accuracy.iou(mask, film.truth(frame, row)) for row in range(len(film.clip.things))]
        rows[name] = int(np.argmax(ious)) if max(ious) >= 0.5 else None
    return rows


def judged_unlike(
    film: Film, model: str, frame: int, kind: shapes.ShapePhrase, phrase: Phrase, counts: Counter[str], key: str
) -> None:
    """Find, show one of each wrong kind as what not to find, and find again."""
    before = {row for row in rows_of(film, frame, found_at(film, model, phrase)).values() if row is not None}
    wrong = {row for row in before if not kind.names(film.clip.things[row])}
    if not wrong:
        return
    right = before - wrong
    shown = {kind_of(film.clip, row): row for row in sorted(wrong)}
    examples = [exemplar(film, frame, row, positive=False) for row in shown.values()]
    again = replace(phrase, exemplars=(*phrase.exemplars, *examples))
    after = {row for row in rows_of(film, frame, found_at(film, model, again)).values() if row is not None}
    wrong -= {*shown.values()}  # the engine leaves those out by itself
    counts[f"{key}_wrong"] += len(wrong)
    counts[f"{key}_removed"] += len(wrong - after)
    counts[f"{key}_right"] += len(right)
    counts[f"{key}_kept"] += len(right & after)


def measure(clip: Clip, kind: shapes.ShapePhrase, model: str) -> Counter[str]:
    film, counts = Film(clip), Counter[str]()
    named = clip.named(kind)
    shown = film.seen[:, named].sum(1)
    frame = int(shown.argmax())
    there = [row for row in named if film.seen[frame, row]]
    example = exemplar(film, frame, there[clip.seed % len(there)])
    phrase = Phrase("", frame, (example,))
    found = found_at(film, model, phrase)
    right = {row for row in rows_of(film, frame, found).values() if row in there}
    counts += Counter(found=len(found), found_right=len(right), found_there=len(there))
    whole, _ = accuracy.judged(film, named, tracked(film, model, phrase))
    counts.update({key: int(value) for key, value in whole.items()})
    judged_unlike(film, model, frame, kind, phrase, counts, "unlike")
    wider = shapes.ShapePhrase(None, kind.shape) if clip.seed % 2 else shapes.ShapePhrase(kind.colour, None)
    judged_unlike(film, model, frame, kind, Phrase(wider.text(), frame), counts, "unlike_words")
    return counts


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def summary(counts: Counter[str], words: Sequence[accuracy.Scores]) -> dict[str, object]:
    hits, wrong, missed = (int(sum(sum(part.get(key, [])) for part in words)) for key in ("hits", "wrong", "missed"))
    return {
        "like_precision": share(counts["hits"], counts["hits"] + counts["wrong"]),
        "like_recall": share(counts["hits"], counts["hits"] + counts["missed"]),
        "found_precision": share(counts["found_right"], counts["found"]),
        "found_recall": share(counts["found_right"], counts["found_there"]),
        "unlike_removes": share(counts["unlike_removed"], counts["unlike_wrong"]),
        "unlike_keeps": share(counts["unlike_kept"], counts["unlike_right"]),
        "unlikes": counts["unlike_wrong"],
        "unlike_words_removes": share(counts["unlike_words_removed"], counts["unlike_words_wrong"]),
        "unlike_words_keeps": share(counts["unlike_words_kept"], counts["unlike_words_right"]),
        "text_precision": share(hits, hits + wrong),
        "text_recall": share(hits, hits + missed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="which of the held-out clips is the first")
    parser.add_argument("--model", default="shapes", help="model_path of what is measured")
    parser.add_argument("--frames", type=int, default=64, help="of each clip")
    parser.add_argument("--quick", action="store_true", help="two clips of 16 frames")
    options = parser.parse_args()
    if options.quick:
        options.clips, options.frames = 2, 16
    counts, films = Counter[str](), clips(options.seed, options.frames)
    for number in range(options.clips):
        counts += measure(*next(films), options.model)
        if number % 10 == 9:
            print(number + 1, summary(counts, []), flush=True)
    seeds = range(HELD_OUT + options.seed, HELD_OUT + options.seed + options.clips)
    words = accuracy.measure("words", seeds, options.model, frames=options.frames)
    figures = {**summary(counts, words), "published_like": is_as_published()}
    print(json.dumps({**figures, "clips": options.clips, "seed": options.seed}))


if __name__ == "__main__":
    main()
