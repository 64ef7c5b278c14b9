"""The families of models beside SAM 3 against the library: `python benchmarks/families.py`; one JSON object at the end.

All weights are random: nothing here speaks of how good masks are. `--quick` takes a few frames of everything. The
library's EdgeTAM has our RepViT, since timm, whose own it takes, is not installed.

Parity, speed and memory are of a tiny SAM 2 and a tiny EdgeTAM (`tests/engines/*/tiny.py`), on one thread of the CPU;
each key begins with `sam2_` or `edgetam_`:

- parity_sigmoid, parity_box_px: largest distance of masks (as probabilities) and of boxes to those of the library's
  model, 5 clicked objects over 30 frames.
- speedup_1, speedup_16: CPU time of the library's own session over ours, with so many objects, in one run.
- peak_mem_ratio: peak memory of 1,600 frames with 2 objects over that of 100. The cache of frames, which has a size of
  its own, is so small here that it is full by then.

The rest is of the full-size architectures of sam2.1-hiera-tiny and EdgeTAM at 512 px with one clicked object, on all
cores but one, as the engines run; all of them take turns, frame by frame. Keys begin with `sam2_tiny_` or `edgetam_`:

- fps_512: frames a second, from the picture to boxes.
- cpu_s_512: CPU seconds of a frame, which other programs on the machine change less.
- speedup_512: the library's CPU seconds over ours.
- bf16_speedup_512: ours over those with `dtype: bfloat16`; below 1 where the CPU has no instructions for it.
- edgetam_over_sam2_512: SAM 2's CPU seconds over EdgeTAM's.
- threads, cores, load: of torch, of this machine, and how many processes wanted a core in the last minute.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EdgeTamVideoModel, Sam2VideoConfig, Sam2VideoModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.engines.edgetam import weights as edgetam_weights
from backend.engines.edgetam.checkpoint import published_config
from backend.engines.edgetam.engine import EdgeTamEngine
from backend.engines.sam2 import weights as sam2_weights
from backend.engines.sam2.engine import Sam2Engine
from backend.settings import CacheSettings, Settings
from benchmarks import engine as common
from benchmarks.engine import FIVE, SIXTEEN, Seen, followed, in_turns, ratio, say
from tests.engines.contract import FakeVideo
from tests.engines.edgetam import tiny as tiny_edgetam
from tests.engines.sam import scenes
from tests.engines.sam2 import tiny as tiny_sam2
from tests.engines.sam3 import stock

Model = Sam2VideoModel | EdgeTamVideoModel
ONE = SIXTEEN[5:6]
SMALL_CACHE = 8 * 2**20


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        name: of the engine.
        full_name: what the keys of the full-size model begin with.
        engine: its class.
        save_tiny: saves the tiny model in a folder.
        load: loads the library's model from a folder.
        build: makes the full-size model.
        enliven: gives a model random weights that make masks.
    """

    name: Any
    full_name: str
    engine: type[Sam2Engine] | type[EdgeTamEngine]
    save_tiny: Callable[[Path], Path]
    load: Callable[..., Model]
    build: Callable[[], Model]
    enliven: Callable[[Any], None]

    def open(self, folder: Path, **changes: Any) -> Sam2Engine | EdgeTamEngine:
        """Its engine on the model of a folder, loaded."""
        engine = self.engine(Settings(engine=self.name, model_path=str(folder), device="cpu", **changes))
        assert engine.model
        return engine


FAMILIES = (
    Family(
        "sam2",
        "sam2_tiny",
        Sam2Engine,
        tiny_sam2.save,
        sam2_weights.load_model,
        lambda: Sam2VideoModel(Sam2VideoConfig()),
        tiny_sam2.enliven,
    ),
    Family(
        "edgetam",
        "edgetam",
        EdgeTamEngine,
        tiny_edgetam.save,
        edgetam_weights.load_model,
        lambda: EdgeTamVideoModel(published_config()),
        tiny_edgetam.enliven,
    ),
)


@dataclass(frozen=True)
class FullSize:
    """How much is measured of the full-size models: pixels, and frames before and while they are timed."""

    side: int = 512
    warm: int = 10
    timed: int = 20


QUICK = FullSize(side=256, warm=1, timed=1)


def parity(family: Family, folder: Path, frames: int) -> dict[str, float]:
    say(f"{family.name}: parity")
    engine, video = family.open(folder), scenes.film(scenes.FIVE, frames)
    engine._model = replace(engine.model, max_speck_area=0)  # the library cleans no masks
    model = engine.model.image_encoder._model
    with stock.memories_in_float32():
        logits = list(stock.clicked(model, video, FIVE))
        ours = common.ours(engine, video, FIVE)
    boxes = [[stock.box_of(one, video) or [float("nan")] * 4 for one in torch.split(frame, 1)] for frame in logits]
    theirs = Seen(torch.stack(logits), np.array(boxes, float))
    return {
        "parity_sigmoid": common.rounded(common.sigmoids_apart(ours, theirs)),
        "parity_box_px": common.rounded(common.boxes_apart(ours, theirs, video.width)),
    }


def speed(family: Family, folder: Path, size: common.Size) -> dict[str, float]:
    say(f"{family.name}: speed")
    engine = family.open(folder)
    model = family.load(str(folder))
    video = scenes.film(scenes.FIVE, size.warm + len(SIXTEEN) + size.turns * common.TURN + 1)
    times = in_turns(
        {
            "1": followed(engine, video, ONE),
            "stock 1": stock.clicked(model, video, ONE),
            "16": followed(engine, video, SIXTEEN),
            "stock 16": stock.clicked(model, video, SIXTEEN),
        },
        size.warm,
        size.turns,
    )
    return {f"speedup_{count}": round(times[f"stock {count}"] / times[count], 3) for count in ("1", "16")}


def our_peak(name: str, folder: Path, frames: int) -> int:
    (family,) = (one for one in FAMILIES if one.name == name)  # a family cannot be sent to another process
    engine = family.open(folder, cache=CacheSettings(device=SMALL_CACHE, host=SMALL_CACHE))
    for _ in common.clicked_run(frames).run(engine, scenes.endless(scenes.FIVE, frames)):
        pass
    return common.peak()


def memory(family: Family, folder: Path, size: common.Size) -> dict[str, float]:
    say(f"{family.name}: memory")
    with common.processes() as pool:
        peaks = [pool.submit(our_peak, family.name, folder, frames) for frames in (size.short, size.long)]
        return {"peak_mem_ratio": ratio(peaks)}


def boxes_of(model: Model, video: FakeVideo) -> Iterator[Any]:
    """The library's way, from pictures that were preprocessed before to boxes."""
    for logits in stock.clicked(model, video, ONE):
        yield stock.box_of(logits, video)


def full_size(folder: Path, size: FullSize) -> dict[str, Any]:
    """The full-size architectures; the results of all of them, ours and the library's, come by turns."""
    say(f"full size at {size.side} px")
    cores = len(os.sched_getaffinity(0))
    video = scenes.film(scenes.FIVE, size.warm + size.timed)
    runs: dict[str, Iterator[Any]] = {}
    for family in FAMILIES:
        torch.manual_seed(0)
        model = family.build().train(False)
        family.enliven(model)
        path = folder / family.name
        model.save_pretrained(path)
        name = family.full_name
        runs[name] = followed(family.open(path, image_size=size.side), video, ONE)
        runs[f"{name} bf16"] = followed(family.open(path, image_size=size.side, dtype="bfloat16"), video, ONE)
        runs[f"{name} stock"] = boxes_of(family.load(str(path), image_size=size.side), video)
    torch.set_num_threads(max(1, cores - 1))  # the engine's own choice does not reach this thread
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
    figures: dict[str, Any] = {}
    for name in [family.full_name for family in FAMILIES]:
        figures |= {
            f"{name}_fps_512": common.rounded(1 / wall[name]),
            f"{name}_cpu_s_512": common.rounded(cpu[name]),
            f"{name}_speedup_512": round(cpu[f"{name} stock"] / cpu[name], 3),
            f"{name}_bf16_speedup_512": round(cpu[name] / cpu[f"{name} bf16"], 3),
        }
    return figures | {
        "edgetam_over_sam2_512": round(cpu["sam2_tiny"] / cpu["edgetam"], 3),
        "threads": torch.get_num_threads(),
        "cores": cores,
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few frames of everything")
    quick = parser.parse_args().quick
    size = common.QUICK if quick else common.Size()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for family in FAMILIES:
            folder = family.save_tiny(Path(temporary) / f"tiny {family.name}")
            found = {
                **parity(family, folder, size.frames),
                **speed(family, folder, size),
                **memory(family, folder, size),
            }
            result |= {f"{family.name}_{key}": value for key, value in found.items()}
        result |= full_size(Path(temporary), QUICK if quick else FullSize())
    say("done")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
