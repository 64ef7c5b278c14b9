"""Compares the sam3 engine with transformers: parity, memory and speed.

`python benchmarks/engine.py [--quick]`; the last line is one JSON object. Both run the model of
`tests/engines/sam3/tiny.py` with random weights on one CPU thread, on clips of moving shapes. `--quick` runs a few
frames of each part, to see that it works; its figures mean little. Memory is measured on Linux only.

Parity. Ours runs without NMS and hole filling, because those of transformers need a kernel that is not installed, and
without the memory filter (`MemoryWindow.min_eff_iou`), which transformers lacks. `stock.mended` fixes two defects in
transformers' text tracking. Three models are compared:

- "tiny": random weights as transformers initialises them; each mask covers the whole picture.
- "shapes": an early checkpoint of the shapes model, ../shared/shapes-kit/model; left out if that does not exist.
- "lively": the tests' random weights, whose masks cover parts of the picture, on the contract test's clip. They amplify
  every difference: transformers differs from itself as much as from ours. Only parity_fp32 and text_parity use them.

- parity_sigmoid: largest difference of mask sigmoids over all pixels, 5 objects and 30 frames.
- parity_box_px: largest difference of box edges in pixels of the clip.
- parity_fp32: like parity_sigmoid, with both memories in float32 instead of bfloat16.
- parity_by_model: these three for each model; also `self_sigmoid` and `self_box_px`, transformers against itself with
  noise of 1e-7 in its input, and `not_empty`, the share of masks that are not empty.
- text_parity: whether several phrases on two clips find the same objects, on the same frames, with the same boxes
  (0.5 px), and each of our names always has the same number in transformers; "lively" runs in float32.

Memory. Each run has a process of its own. The cache of frames, which has a size of its own, is small.

- peak_mem_ratio: peak RSS over 1,600 frames ÷ over 100 frames, with 2 clicked objects and results stored as jobs do.
- peak_mem_ratio_text: the same for a phrase.
- stock_peak_mem_ratio: the same for transformers with 2 clicked objects.
- rss_slope: bytes of RSS that each frame adds in the second half of 20,000 frames with 2 objects: a least-squares fit
  over block means. The table of results is filled before.
- rss_slope_stderr: standard error of the slope if RSS is a random walk from block to block, which is the worst case.
- rss_slope_is_zero: whether the slope's 95 % interval contains 0, or the whole growth is less than a page.
- bytes_per_object_frame: what a job stores for one object on one frame, by tracemalloc, with an engine that stores
  nothing.

Speed. CPU seconds a frame: the median of many frames after all memories are full, measured in turns with what it is
compared with. Preprocessing and boxes count for ours, and not for transformers.

- cost_ratio_16: 16 objects ÷ 1 object. stock_cost_ratio_16: the same for transformers.
- speedup_vs_stock_1, speedup_vs_stock_16: transformers ÷ ours, with 1 and 16 objects.
- late_starts_ratio: 16 objects that start on 16 different frames ÷ 16 that start together.
- encoder_calls_per_frame: image encoder calls; the maximum over a phrase, two phrases with 3 objects, and 16 objects.
- encoder_calls_second_click: image encoder calls for another click on a frame with one, and for a click on a frame that
  was just tracked.

- state_equal: whether a session that continues from its saved state in another process gives equal results.
"""

import argparse
import gc
import json
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.engines import load_engine
from backend.engines.base import Session
from backend.engines.sam.engine import SamEngine
from backend.engines.sam3 import weights
from backend.engines.sam3.engine import Sam3Engine
from backend.jobs.propagation import PropagationRun
from backend.jobs.schedule import Interval
from backend.settings import CacheSettings, Settings
from backend.tracks.geometry import Box
from backend.tracks.prompts import Phrase, Point, Prompt
from backend.tracks.track import FrameResult, Observation
from tests.engines import contract
from tests.engines.contract import FakeVideo
from tests.engines.sam import scenes
from tests.engines.sam3 import stock, tiny
from tests.engines.sam3.published import Comparison

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ROOT.parent / "shared/shapes-kit/model"
Clicks = Sequence[tuple[float, float]]
FIVE: Clicks = [shape.centre(0) for shape in scenes.FIVE]
SIXTEEN: Clicks = [(x, y) for y in (25, 65, 105, 145) for x in (25, 65, 105, 145)]
TWO = SIXTEEN[:2]
BALL_BRICK_AND_GROUND: Clicks = [(32, 42), (122, 88), (60, 60), (20, 100), (140, 20)]
EASY = {"score_threshold": 0.1, "new_object_threshold": 0.15}
"""Thresholds that random weights reach easily."""
HALF = {"score_threshold": 0.3, "new_object_threshold": 0.4, "max_objects": 1000}
"""Thresholds that about a dozen objects of random weights reach."""
PHRASES = {"lively": ["c", "a b", "tree"], "shapes": ["shape", "red circle", "blue shape", "circle"]}
SMALL_CACHE = CacheSettings(device=2**20, host=0)
"""Full after about seventy frames of the tiny model."""
TURN = 4


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        frames: length of the clips for parity.
        short, long: lengths of the two runs whose peak memory is compared.
        run, settled, block: length of the RSS run, its first frames that do not count, and the length of a block.
        warm: frames until all memories are full, before frames are timed: 16 object pointers, and a few more.
        turns: how many turns each timed run gets.
        phrases: how many phrases are tried on each model.
    """

    frames: int = 30
    short: int = 100
    long: int = 1600
    run: int = 20_000
    settled: int = 10_000
    block: int = 1000
    warm: int = 24
    turns: int = 24
    phrases: int = 4


QUICK = Size(frames=4, short=8, long=12, run=60, settled=20, block=10, warm=2, turns=1, phrases=1)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def loaded(folder: Path, **changes: Any) -> Sam3Engine:
    engine = load_engine(Settings(engine="sam3", model_path=str(folder), device="cpu", **changes))
    assert isinstance(engine, Sam3Engine)
    assert engine.model
    return engine


def clicked(session: Session, clicks: Clicks) -> None:
    session.prompt([click(number, place) for number, place in enumerate(clicks)])


def click(number: int, place: tuple[float, float], frame: int = 0) -> Prompt:
    return Prompt(str(number), frame, points=(Point(*place),))


# Parity


@dataclass
class Seen:
    """Mask logits, shape (frames, objects, h, w), and boxes, shape (frames, objects, 4), NaN where there is none."""

    logits: Tensor
    boxes: NDArray[np.float64]


def ours(engine: SamEngine, video: FakeVideo, clicks: Clicks) -> Seen:
    logits, boxes = [], []
    with engine.open(video) as session:
        clicked(session, clicks)
        for result in session.propagate(range(len(video))):
            memories = [one.memory_bank.get(result.frame) for one in session._object_tracker.objects.values()]
            logits.append(torch.stack([memory.logits for memory in memories if memory and memory.logits is not None]))
            boxes.append([seen.box or [np.nan] * 4 for seen in result.tracks.values()])
    return Seen(torch.stack(logits), np.array(boxes, float))


def theirs(engine: Sam3Engine, video: FakeVideo, clicks: Clicks, noise: float = 0.0) -> Seen:
    logits = list(stock.clicked(stock.alone(stock.model_of(engine)), video, clicks, noise))
    boxes = [[stock.box_of(one, video) or [np.nan] * 4 for one in torch.split(frame, 1)] for frame in logits]
    return Seen(torch.stack(logits), np.array(boxes, float))


def sigmoids_apart(a: Seen, b: Seen) -> float:
    return float((a.logits.sigmoid() - b.logits.sigmoid()).abs().max())


def boxes_apart(a: Seen, b: Seen, side: int) -> float:
    """Largest difference of box edges in pixels; `side` where only one has a box."""
    missing = np.isnan(a.boxes) != np.isnan(b.boxes)
    return float(np.where(missing, side, np.nan_to_num(np.abs(a.boxes - b.boxes))).max())


def parity(engine: Sam3Engine, video: FakeVideo, clicks: Clicks) -> dict[str, float]:
    seen, stock_seen = ours(engine, video, clicks), theirs(engine, video, clicks)
    noisy = theirs(engine, video, clicks, noise=1e-7)
    with stock.memories_in_float32():
        fp32 = sigmoids_apart(ours(engine, video, clicks), theirs(engine, video, clicks))
    values = {
        "sigmoid": sigmoids_apart(seen, stock_seen),
        "box_px": boxes_apart(seen, stock_seen, video.width),
        "fp32": fp32,
        "self_sigmoid": sigmoids_apart(noisy, stock_seen),
        "self_box_px": boxes_apart(noisy, stock_seen, video.width),
        "not_empty": 1 - float(np.isnan(seen.boxes[..., 0]).mean()),
    }
    return {name: rounded(value) for name, value in values.items()}


def finds_the_same(engine: Sam3Engine, folder: Path, video: FakeVideo, phrase: str) -> bool:
    ours, theirs = stock.both_named(engine, folder, video, phrase)
    say(f"  {phrase}: {len(theirs)} objects in transformers, {len(ours)} in ours")
    return stock.are_same(ours, theirs)


def text_parity(engine: Sam3Engine, folder: Path, phrases: Sequence[str], frames: int) -> bool:
    films = [scenes.film(shapes, frames) for shapes in (scenes.FIVE, scenes.LATER)]
    found = [finds_the_same(engine, folder, film, phrase) for phrase in phrases for film in films]
    return all(found)


def plain(lively: Path) -> Path:
    """The tests' model with random weights as transformers initialises them, but with every object present."""
    folder = lively.with_name("plain")
    shutil.copytree(lively, folder)
    model = tiny.build()
    model.tracker_model.mask_decoder.pred_obj_score_head.proj_out.bias.data.fill_(1)
    model.save_pretrained(folder)
    return folder


def parity_figures(lively: Path, size: Size) -> dict[str, Any]:
    folders = {"tiny": plain(lively), "lively": lively, **({"shapes": SHAPES} if SHAPES.exists() else {})}
    found: dict[str, dict[str, float]] = {}
    texts = []
    for name, folder in folders.items():
        say(f"parity, {name}")
        engine = stock.bare(loaded(folder, **(HALF if name == "lively" else {})))
        if name == "lively":
            found[name] = parity(engine, FakeVideo(contract.video().pictures[: size.frames]), BALL_BRICK_AND_GROUND)
        else:
            found[name] = parity(engine, scenes.film(scenes.FIVE, size.frames), FIVE)
        with stock.memories_in_float32() if name == "lively" else nullcontext():
            texts.append(text_parity(engine, folder, PHRASES.get(name, [])[: size.phrases], size.frames))

    def worst(key: str, models: Sequence[str]) -> float:
        return max(values[key] for name, values in found.items() if name in models)

    return {
        "parity_sigmoid": worst("sigmoid", ["tiny", "shapes"]),
        "parity_box_px": worst("box_px", ["tiny", "shapes"]),
        "parity_fp32": worst("fp32", list(folders)),
        "parity_by_model": found,
        "text_parity": all(texts),
    }


def published() -> dict[str, float]:
    say("likeness to the original")
    comparison = Comparison()
    comparison.run()
    return {
        "published_mask": rounded(max(comparison.masks.values())),
        "published_pointer": rounded(max(comparison.pointers.values())),
        "published_memory": rounded(max(comparison.memories.values())),
    }


# Memory


def processes() -> ProcessPoolExecutor:
    """Runs each task in a process of its own, two at a time; PyTorch is imported once for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.engine"])
    return ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=1)


def peak() -> int:
    """Peak RSS of this process in bytes; getrusage may give that of the process it was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def resident() -> int:
    """Current RSS in bytes; /proc/self/statm may be off by hundreds of pages."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss"))


def clicked_run(frames: int) -> PropagationRun:
    """Two clicked objects on all frames, with results stored as jobs store them."""
    prompts = [click(number, place) for number, place in enumerate(TWO)]
    return PropagationRun(frames, {prompt.track: [Interval(0, None)] for prompt in prompts}, prompts)


def our_peak(folder: Path, frames: int, words: bool) -> int:
    engine = loaded(folder, **EASY, max_objects=4, cache=SMALL_CACHE)
    run = PropagationRun(frames, {}, [], [Phrase("a b", 0)]) if words else clicked_run(frames)
    for _ in run.run(engine, scenes.endless(scenes.FIVE, frames)):
        pass
    return peak()


def stock_peak(folder: Path, frames: int) -> int:
    tracker = stock.alone(weights.load_model(str(folder))[0])
    for _ in stock.clicked(tracker, scenes.endless(scenes.FIVE, frames), TWO):
        pass
    return peak()


def rss(folder: Path, size: Size) -> list[float]:
    """Mean RSS of each block in bytes."""
    engine = loaded(folder, cache=SMALL_CACHE)
    table = np.empty((size.run, len(TWO), 5), np.float32)
    table.fill(0)
    samples = np.zeros((size.run - size.settled) // 10, np.int64)
    samples.fill(1)  # filled before, like the table; a list would grow with the frames
    with engine.open(scenes.endless(scenes.FIVE, size.run)) as session:
        clicked(session, TWO)
        for result in session.propagate(range(size.run)):
            for row, seen in zip(table[result.frame], result.tracks.values(), strict=True):
                row[:] = [*(seen.box or [np.nan] * 4), seen.score]
            if result.frame >= size.settled and result.frame % 10 == 0:
                samples[(result.frame - size.settled) // 10] = resident()
            if result.frame % 2000 == 0:
                say(f"  frame {result.frame}: {resident() / 2**20:.1f} MiB")
    means: list[float] = samples.reshape(-1, size.block // 10).mean(1).tolist()
    return means


def slope(means: Sequence[float], block: int) -> dict[str, Any]:
    steps = np.diff(means)
    found = float(np.polyfit(np.arange(len(means)) * block, means, 1)[0])
    # The variance of a slope fitted to a random walk is 6/5 of that of its mean step.
    error = float(np.sqrt(1.2 / len(steps)) * steps.std(ddof=1) / block)
    return {
        "rss_slope": rounded(found),
        "rss_slope_stderr": rounded(error),
        # RSS cannot show less than a page over all blocks.
        "rss_slope_is_zero": abs(found) <= max(students_t(len(steps) - 1) * error, 4096 / (len(means) * block)),
    }


def students_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, by the Cornish-Fisher expansion."""
    z = statistics.NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


class StorelessEngine:
    """An engine and its session that store nothing."""

    def open(self, video: FakeVideo) -> "StorelessEngine":
        """Start."""
        return self

    def __enter__(self) -> "StorelessEngine":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def prompt(self, prompts: Sequence[Any]) -> FrameResult:
        """Ignore the prompts."""
        return FrameResult(0, {})

    def propagate(self, span: range, reverse: bool) -> Iterator[FrameResult]:
        """Boxes that move."""
        for frame in span:
            box = Box(frame % 90, 10.0, frame % 90 + 20.0, 30.0)
            yield FrameResult(frame, {str(number): Observation(box, 0.5) for number in range(len(TWO))})


def bytes_per_object_frame(frames: int) -> float:
    gc.collect()
    tracemalloc.start()
    run = clicked_run(frames)
    for _ in run.run(StorelessEngine(), FakeVideo([np.zeros((1, 1, 3), np.uint8)])):  # type: ignore[arg-type]
        pass
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return kept / frames / len(TWO)


def memory(folder: Path, size: Size) -> dict[str, Any]:
    say(f"memory; {size.run} frames with 2 objects:")
    with processes() as pool:
        means = pool.submit(rss, folder, size)
        lengths = size.short, size.long
        ours_peaks = [pool.submit(our_peak, folder, frames, False) for frames in lengths]
        text_peaks = [pool.submit(our_peak, folder, frames, True) for frames in lengths]
        stock_peaks = [pool.submit(stock_peak, folder, frames) for frames in lengths]
        return {
            "peak_mem_ratio": ratio(ours_peaks),
            "peak_mem_ratio_text": ratio(text_peaks),
            "stock_peak_mem_ratio": ratio(stock_peaks),
            **slope(means.result(), size.block),
            "bytes_per_object_frame": round(bytes_per_object_frame(size.run), 1),
        }


def ratio(peaks: Sequence[Future[int]]) -> float:
    short, long = (one.result() for one in peaks)
    say(f"  peaks: {short / 2**20:.1f} MiB, {long / 2**20:.1f} MiB")
    return round(long / short, 4)


# Speed


def followed(engine: SamEngine, video: FakeVideo, clicks: Clicks, apart: int = 0) -> Iterator[FrameResult]:
    """Track objects, each of which starts `apart` frames after the one before."""
    with engine.open(video) as session:
        by_frame: dict[int, list[Prompt]] = {}
        for number, place in enumerate(clicks):
            by_frame.setdefault(number * apart, []).append(click(number, place, number * apart))
        for prompts in by_frame.values():
            session.prompt(prompts)
        yield from session.propagate(range(len(video)))


def in_turns(runs: Mapping[str, Iterator[Any]], warm: int, turns: int) -> dict[str, float]:
    """Median CPU seconds a frame, after this many frames and those on which objects start."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for results in runs.values():
        assert len(list(islice(results, warm + len(SIXTEEN)))) == warm + len(SIXTEEN)
    for _ in range(turns):
        for name, results in runs.items():
            for _ in range(TURN):
                begin = time.process_time()
                next(results)
                times[name].append(time.process_time() - begin)
    medians = {name: statistics.median(values) for name, values in times.items()}
    say("  ms per frame: " + ", ".join(f"{name} {seconds * 1e3:.1f}" for name, seconds in medians.items()))
    return medians


def speed(folder: Path, size: Size) -> dict[str, float]:
    say("speed")
    engine = loaded(folder)
    tracker = stock.alone(stock.model_of(engine))
    video = scenes.film(scenes.FIVE, size.warm + len(SIXTEEN) + size.turns * TURN + 1)
    times = in_turns(
        {
            "1": followed(engine, video, SIXTEEN[5:6]),
            "stock 1": stock.clicked(tracker, video, SIXTEEN[5:6]),
            "16": followed(engine, video, SIXTEEN),
            "stock 16": stock.clicked(tracker, video, SIXTEEN),
            "16 late": followed(engine, video, SIXTEEN, apart=1),
        },
        size.warm,
        size.turns,
    )
    return {
        "cost_ratio_16": round(times["16"] / times["1"], 3),
        "stock_cost_ratio_16": round(times["stock 16"] / times["stock 1"], 3),
        "speedup_vs_stock_1": round(times["stock 1"] / times["1"], 3),
        "speedup_vs_stock_16": round(times["stock 16"] / times["16"], 3),
        "late_starts_ratio": round(times["16 late"] / times["16"], 3),
    }


def encoder(folder: Path, frames: int) -> dict[str, float]:
    say("runs of the vision encoder")
    engine = loaded(folder, **EASY)
    counter = engine.model.image_encoder
    per_frame = []
    for words, clicks in ((1, []), (2, SIXTEEN[:3]), (0, SIXTEEN)):
        before = counter.runs
        with engine.open(scenes.film(scenes.FIVE, frames)) as session:
            clicked_and_named = [click(number, place) for number, place in enumerate(clicks)]
            session.prompt([*clicked_and_named, *(Phrase(text, 0) for text in ("a b", "c")[:words])])
            for _ in session.propagate(range(frames)):
                pass
            per_frame.append((counter.runs - before) / frames)
            before = counter.runs
            session.prompt([click(0, FIVE[1])])
            session.prompt([click(0, FIVE[1], frames - 1)])
            again = counter.runs - before
    return {"encoder_calls_per_frame": max(per_frame), "encoder_calls_second_click": again}


# State


def state_equal() -> bool:
    say("state")
    video, stop = contract.video(), 24
    with contract.tiny_sam3().open(video) as session, tempfile.TemporaryDirectory() as folder:
        clicked(session, [(32, 42), (120, 88)])
        session.prompt([Phrase("a b", 0)])
        results = session.propagate(range(stop))
        list(islice(results, stop // 2))
        state = Path(folder) / "state"
        state.write_bytes(bytes(session.state()))
        here = [contract.plain(result) for result in results]
        command, asked = [sys.executable, "-m", "tests.engines.contract"], ["sam3", str(state), stop // 2, stop]
        there = subprocess.run(command, input=json.dumps(asked), cwd=ROOT, check=True, capture_output=True, text=True)
    return bool(json.loads(there.stdout) == json.loads(json.dumps(here)))


def rounded(value: float) -> float:
    return float(f"{value:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few frames of everything")
    size = QUICK if parser.parse_args().quick else Size()
    with tempfile.TemporaryDirectory() as temporary:
        folder = tiny.save(Path(temporary) / "tiny")
        result = {
            **parity_figures(folder, size),
            **published(),
            **encoder(folder, size.frames),
            "state_equal": state_equal(),
            **speed(folder, size),
            **memory(folder, size),
        }
    say("done")
    print(json.dumps(result))


torch.set_num_threads(1)
cv2.setNumThreads(1)

if __name__ == "__main__":
    main()
