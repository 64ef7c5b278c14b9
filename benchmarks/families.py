"""The families of models beside SAM 3 against the library: `python benchmarks/families.py`; one JSON object at the end.

All weights are random: nothing here speaks of how good masks are. `--quick` takes a few frames of everything.

Parity, speed and memory are of a tiny SAM 2 (`tests/engines/sam2/tiny.py`), on one thread of the CPU:

- sam2_parity_sigmoid, sam2_parity_box_px: largest distance of masks (as probabilities) and of boxes to those of
  `Sam2VideoModel`, 5 clicked objects over 30 frames.
- sam2_speedup_1, sam2_speedup_16: CPU time of the library's own session over ours, with so many objects, in one run.
- sam2_peak_mem_ratio: peak memory of 1,600 frames with 2 objects over that of 100.

The rest is of the full-size architecture of sam2.1-hiera-tiny at 512 px with one clicked object, on all cores but one,
as the engine runs:

- sam2_tiny_fps_512: frames a second, from the picture to boxes.
- sam2_tiny_cpu_s_512: CPU seconds of a frame, which other programs on the machine change less.
- sam2_tiny_speedup_512: the library's CPU seconds over ours, turn by turn.
- threads, cores: of torch, and of this machine.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Sam2VideoConfig, Sam2VideoModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.engines.sam2.engine import Sam2Engine
from backend.engines.sam2.weights import load_model
from backend.settings import Settings
from benchmarks import engine as common
from benchmarks.engine import FIVE, SIXTEEN, WARM, Seen, followed, in_turns, ratio, say
from tests.engines.contract import FakeVideo
from tests.engines.sam import scenes
from tests.engines.sam2 import tiny
from tests.engines.sam3 import stock


@dataclass(frozen=True)
class Size:
    """How much of everything is measured.

    Attributes:
        frames: of the film on which results are compared.
        short, long: frames of the runs whose peaks are compared.
        turns: how often each that is timed has its turn.
        side, warm, timed: of the full-size model: pixels, and frames before and while it is timed.
    """

    frames: int = 30
    short: int = 100
    long: int = 1600
    turns: int = 24
    side: int = 512
    warm: int = 10
    timed: int = 20


QUICK = Size(frames=6, short=20, long=40, turns=1, side=64, warm=2, timed=2)


def loaded(folder: Path, image_size: int = 0) -> Sam2Engine:
    engine = Sam2Engine(Settings(engine="sam2", model_path=str(folder), device="cpu", image_size=image_size))
    assert engine.model
    return engine


def parity(folder: Path, frames: int) -> dict[str, float]:
    say("parity")
    engine, video = loaded(folder), scenes.film(scenes.FIVE, frames)
    engine._model = replace(engine.model, max_speck_area=0)  # the library cleans no masks
    model = engine.model.image_encoder._model
    with stock.memories_in_float32():
        logits = list(stock.clicked(model, video, FIVE))
        ours = common.ours(engine, video, FIVE)
    boxes = [[stock.box_of(one, video) or [float("nan")] * 4 for one in torch.split(frame, 1)] for frame in logits]
    theirs = Seen(torch.stack(logits), np.array(boxes, float))
    return {
        "sam2_parity_sigmoid": common.rounded(common.sigmoids_apart(ours, theirs)),
        "sam2_parity_box_px": common.rounded(common.boxes_apart(ours, theirs, video.width)),
    }


def speed(folder: Path, turns: int) -> dict[str, float]:
    say("speed")
    engine = loaded(folder)
    model = load_model(str(folder))
    video = scenes.film(scenes.FIVE, WARM + len(SIXTEEN) + turns * common.TURN + 1)
    times = in_turns(
        {
            "1": followed(engine, video, SIXTEEN[5:6]),
            "stock 1": stock.clicked(model, video, SIXTEEN[5:6]),
            "16": followed(engine, video, SIXTEEN),
            "stock 16": stock.clicked(model, video, SIXTEEN),
        },
        turns,
    )
    return {f"sam2_speedup_{count}": round(times[f"stock {count}"] / times[count], 3) for count in ("1", "16")}


def our_peak(folder: Path, frames: int) -> int:
    engine = loaded(folder)
    for _ in common.clicked_run(frames).run(engine, scenes.endless(scenes.FIVE, frames)):
        pass
    return common.peak()


def memory(folder: Path, size: Size) -> dict[str, float]:
    say("memory")
    with common.processes() as pool:
        return {"sam2_peak_mem_ratio": ratio([pool.submit(our_peak, folder, n) for n in (size.short, size.long)])}


def boxes_of(model: Sam2VideoModel, video: FakeVideo) -> Iterator[Any]:
    """The library's way, from pictures that were preprocessed before to boxes."""
    for logits in stock.clicked(model, video, SIXTEEN[5:6]):
        yield stock.box_of(logits, video)


def full_size(folder: Path, size: Size) -> dict[str, Any]:
    """The full-size architecture; the results of ours and the library's come by turns."""
    say(f"full size at {size.side} px")
    torch.manual_seed(0)
    model = Sam2VideoModel(Sam2VideoConfig()).train(False)
    tiny.enliven(model)
    model.save_pretrained(folder)
    cores = len(os.sched_getaffinity(0))
    engine = loaded(folder, size.side)
    torch.set_num_threads(max(1, cores - 1))  # the engine's own choice does not reach this thread
    video = scenes.film(scenes.FIVE, size.warm + size.timed)
    runs: dict[str, Iterator[Any]] = {
        "ours": followed(engine, video, SIXTEEN[5:6]),
        "stock": boxes_of(load_model(str(folder), image_size=size.side), video),
    }
    for results in runs.values():
        list(islice(results, size.warm))
    walls: dict[str, list[float]] = {name: [] for name in runs}
    cpus: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(size.timed):
        for name, results in runs.items():
            begin, busy = time.perf_counter(), time.process_time()
            next(results)
            walls[name].append(time.perf_counter() - begin)
            cpus[name].append(time.process_time() - busy)
    wall = {name: statistics.median(values) for name, values in walls.items()}
    cpu = {name: statistics.median(values) for name, values in cpus.items()}
    for name in runs:
        say(f"  seconds a frame, {name}: {wall[name]:.2f}, of the CPU {cpu[name]:.2f}")
    return {
        "sam2_tiny_fps_512": common.rounded(1 / wall["ours"]),
        "sam2_tiny_cpu_s_512": common.rounded(cpu["ours"]),
        "sam2_tiny_speedup_512": round(cpu["stock"] / cpu["ours"], 3),
        "threads": torch.get_num_threads(),
        "cores": cores,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few frames of everything")
    size = QUICK if parser.parse_args().quick else Size()
    with tempfile.TemporaryDirectory() as temporary:
        folder = tiny.save(Path(temporary) / "tiny")
        result = {
            **parity(folder, size.frames),
            **speed(folder, size.turns),
            **memory(folder, size),
            **full_size(Path(temporary) / "full", size),
        }
    say("done")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
