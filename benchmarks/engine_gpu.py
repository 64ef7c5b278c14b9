"""The engine sam3 at full size: `python benchmarks/engine_gpu.py`. The last line printed is one JSON object.

It runs on a CUDA device beside the stock library, in bfloat16 as the engine does there. The 859.9 million weights are
random: the figures say nothing about the quality of masks. All objects are clicked on frame 0 of a 1920 x 1080 film of
shapes. `--tiny` runs the tests' small model on the CPU, to check that everything works.

`--peer PYTHON` also runs Ultralytics' SAM3VideoPredictor, by an interpreter that has it, on the same film, both with
the same boxes; `--cpu` does nothing else, at full size, on all cores: `--cpu --peer PYTHON --frames 1` takes a quarter
of an hour on two cores.

Per number of objects, once all memories are full:

- fps: frames per second, from the file to boxes.
- stock_fps: of the library's own loop, whose frames were preprocessed before and which makes no boxes of its masks.
- share_of_peak: what the model has to compute for these frames, by arithmetic, as a share of 790 TFLOP/s.
- stages_ms: of a frame, and of each of its stages. The device is awaited around each, which takes time of its own.
- memory_gib: peak allocation on the device, including weights.
- device_work: of a frame: kernels, waits of the host for the device, and megabytes copied between the two.
- compiled_fps: as fps, with the settings `compile: true`; only with `--compile`, which takes minutes.
- peer_fps, peer_memory_gib, peer_ratio_N: of Ultralytics, and its seconds a frame by ours.

Besides:

- decoding_ms: of a frame; a thread does it beside the others.
- tracker_16_to_stock_3: what a frame costs beside reading and seeing it, ours with 16 objects to the library's with 3.
- iou_bfloat16: mean and least IoU of 5 objects' masks in bfloat16 with those in float32, over 20 frames, and the share
  of masks that are empty in float32. Random weights amplify every small difference; `--trained FOLDER` uses
  others, such as those of ../shared/shapes-kit/model.
- attention: the setting, see `--attention`.
- device, torch, transformers: what it ran on.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import Sam3VideoConfig, Sam3VideoModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.engines import load_engine
from backend.engines.sam import mask_boxes, postprocess
from backend.engines.sam.tracker import Tracker
from backend.engines.sam3 import image_encoder
from backend.engines.sam3.engine import Sam3Engine
from backend.engines.sam3.image_encoder import Sam3ImageEncoder
from backend.engines.sam3.necks import Necks
from backend.settings import Settings
from backend.tracks.prompts import Point, Prompt
from backend.tracks.track import FrameResult
from backend.video import Video, write_video
from benchmarks.engine_gpu_parts import peer
from benchmarks.engine_gpu_parts.timing import Stopwatch, frame_time
from benchmarks.engine_gpu_parts.trace import trace
from tests.engines.contract import FakeVideo
from tests.engines.sam import scenes
from tests.engines.sam3 import stock, tiny

WIDTH, HEIGHT, SIDE = 1920, 1080, 168
OBJECTS, STOCK_OBJECTS = (1, 4, 16, 64), (1, 3, 16)
ATTENTIONS = ("auto", "cudnn", "flash", "flash3", "efficient")
WARM, TIMED = 20, 40
"""Frames until all memories are full, and those that are timed."""
PEAK = 790.0
PER_FRAME, PER_OBJECT = 5.83, 0.95
"""TFLOP: of the vision encoder with its necks, and of the memory attention of one object with seven memories."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def saved(folder: Path, is_tiny: bool) -> Path:
    """The model in the hub's layout."""
    if is_tiny:
        return tiny.save(folder)
    torch.manual_seed(0)
    model = Sam3VideoModel(Sam3VideoConfig()).train(False)
    tiny.enliven(model)
    return tiny.written(model, folder)


def film(path: Path, frames: int) -> Path:
    """Shapes under a moving texture, so that decoding is as expensive as for a real video."""
    noise = np.random.default_rng(0).integers(-12, 13, (HEIGHT, WIDTH, 3), np.int8)

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for number, small in enumerate(scenes.film(scenes.FIVE, frames, SIDE).pictures):
            picture = cv2.resize(small, (WIDTH, HEIGHT)).astype(np.int16) + np.roll(noise, number * 3, axis=1)
            yield picture.clip(0, 255).astype(np.uint8)

    write_video(path, pictures(), 25)
    return path


def clicks(count: int) -> list[tuple[float, float]]:
    """Places in a grid, in pixels; five of them are on the shapes."""
    if count == 5:
        return [(x * WIDTH / SIDE, y * HEIGHT / SIDE) for x, y in (shape.centre(0) for shape in scenes.FIVE)]
    side = int(np.ceil(np.sqrt(count)))
    rows, columns = np.divmod(np.arange(count), side)
    return [((x + 0.5) * WIDTH / side, (y + 0.5) * HEIGHT / side) for x, y in zip(columns, rows, strict=True)]


def followed(engine: Sam3Engine, video: Video, count: int) -> Generator[FrameResult]:
    with engine.open(video) as session:
        session.prompt([Prompt(str(n), 0, points=(Point(*place),)) for n, place in enumerate(clicks(count))])
        with closing(session.propagate(range(len(video)))) as results:
            yield from results


STAGES = [
    (image_encoder, "preprocess_image", "preprocessing"),
    (Sam3ImageEncoder, "_encode", "seeing"),  # with the preprocessing
    (Necks, "tracker_levels", "necks"),
    (Necks, "detector_features", "necks"),
    (Tracker, "_condition_on_memory", "memory attention"),
    (Tracker, "_decode", "mask decoder"),
    (Tracker, "_encode_memory", "memory encoder"),
    (postprocess, "clean_masks", "holes and specks"),
    (mask_boxes, "masks_to_boxes", "boxes"),
]
TRACKER = ("memory attention", "mask decoder", "memory encoder")


def stages(engine: Sam3Engine, video: Video, count: int) -> dict[str, float]:
    """Milliseconds of each, of a frame."""
    watch = Stopwatch()
    results = followed(engine, video, count)
    with ExitStack() as stack:
        for owner, name, stage in STAGES:
            stack.enter_context(patch.object(owner, name, watch.around(stage, getattr(owner, name))))
        for _ in range(WARM):
            next(results)
        watch.seconds.clear()
        found = {"frame": round(frame_time(results, 0) * 1e3, 2)}
    return found | watch.per_frame(len(video) - WARM)


def decoding(video: Video) -> float:
    """Milliseconds of a frame."""
    begin = time.perf_counter()
    for _ in video.frames(range(len(video))):
        pass
    return round((time.perf_counter() - begin) / len(video) * 1e3, 2)


def ours(engine: Sam3Engine, video: Video, counts: Sequence[int]) -> dict[str, dict[int, Any]]:
    found: dict[str, dict[int, Any]] = {
        name: {} for name in ("fps", "share_of_peak", "stages_ms", "memory_gib", "device_work")
    }
    for count in counts:
        engine.model.image_encoder.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        fps = 1 / frame_time(followed(engine, video, count), WARM)
        found["fps"][count] = round(fps, 2)
        found["share_of_peak"][count] = round(fps * (PER_FRAME + PER_OBJECT * count) / PEAK, 4)
        found["memory_gib"][count] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        engine.model.image_encoder.clear()
        found["stages_ms"][count] = stages(engine, video, count)
        engine.model.image_encoder.clear()
        with closing(followed(engine, video, count)) as results:
            for _ in range(WARM):
                next(results)
            found["device_work"][count] = trace(results, 4)
        say(f"{count} objects: {fps:.2f} frames/s, {found['stages_ms'][count]}")
    return found


def theirs(engine: Sam3Engine, video: Video, counts: Sequence[int]) -> tuple[dict[int, float], dict[int, float]]:
    """Frames a second, and milliseconds of a frame beside seeing it."""
    tracker = stock.alone(engine.model.image_encoder._model)
    pictures = FakeVideo([picture for _, picture in video.frames(range(len(video)))])
    fps, own = {}, {}
    for count in counts:
        with engine.model.inference():
            fps[count] = round(1 / frame_time(stock.clicked(tracker, pictures, clicks(count)), WARM), 2)
            assert tracker.vision_encoder is not None
            watch, see = Stopwatch(), tracker.vision_encoder.forward
            with patch.object(tracker.vision_encoder, "forward", watch.around("seeing", see)):
                results = stock.clicked(tracker, pictures, clicks(count))
                for _ in range(WARM):
                    next(results)
                watch.seconds.clear()
                whole = frame_time(results, 0) * 1e3
        own[count] = round(whole - watch.per_frame(len(video) - WARM)["seeing"], 2)
        say(f"the library, {count} objects: {fps[count]} frames/s, {own[count]} ms beside seeing")
    return fps, own


def masks_of(engine: Sam3Engine, video: Video, frames: int = 20) -> np.ndarray:
    """Shape (frames, 5, height, width), bool."""
    return np.array(
        [
            [seen.mask.to_mask() if seen.mask else np.zeros((HEIGHT, WIDTH), bool) for seen in result.tracks.values()]
            for result, _ in zip(followed(engine, video, 5), range(frames), strict=False)
        ]
    )


def likeness(folder: Path, device: str, video: Video) -> dict[str, float]:
    both = [masks_of(loaded(folder, device, dtype=dtype, show_masks=True), video) for dtype in ("bfloat16", "float32")]
    common, either = (both[0] & both[1]).sum((2, 3)), (both[0] | both[1]).sum((2, 3))
    iou = np.where(either, common / np.maximum(either, 1), 1.0)
    empty = float((~both[1].any((2, 3))).mean())
    return {"mean": round(float(iou.mean()), 4), "least": round(float(iou.min()), 4), "empty": round(empty, 3)}


def loaded(folder: Path, device: str, **changes: Any) -> Sam3Engine:
    engine = load_engine(Settings(engine="sam3", model_path=str(folder), device=device, **changes))
    assert isinstance(engine, Sam3Engine)
    assert engine.model
    return engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="the tests' model on the CPU")
    parser.add_argument("--cpu", action="store_true", help="full size on the CPU, beside the peer alone")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has Ultralytics")
    parser.add_argument("--frames", type=int, metavar="N", help=f"how many to time; default {TIMED}, on the CPU 2")
    parser.add_argument("--attention", choices=ATTENTIONS, default="auto", help="the setting of the engine")
    parser.add_argument("--compile", action="store_true", help="also with the model compiled")
    parser.add_argument("--trained", type=Path, metavar="FOLDER", help="weights for iou_bfloat16, in the hub's layout")
    options = parser.parse_args()
    if options.cpu and not options.peer:
        parser.error("--cpu compares with a peer: add --peer PYTHON")
    device, warm = "cpu" if options.tiny or options.cpu else "cuda", 1 if options.cpu else WARM
    with tempfile.TemporaryDirectory() as temporary:
        say("writing the model and the film")
        folder = saved(Path(temporary) / "model", options.tiny)
        path = film(Path(temporary) / "film.mp4", warm + (options.frames or (2 if options.cpu else TIMED)))
        engine = loaded(folder, device, attention=options.attention)
        result = {} if options.cpu else measured(engine, path, folder, options)
        if options.peer:
            places = {count: clicks(count) for count in ((1, 4) if options.cpu else OBJECTS)}
            result |= peer.compare(engine, path, options.peer, places, warm)
    say("done")
    result |= {
        "attention": options.attention,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(result))


def measured(engine: Sam3Engine, path: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything but the peer."""
    device = "cpu" if options.tiny else "cuda"
    with Video(path) as video:
        mine = ours(engine, video, OBJECTS)
        fps, own = theirs(engine, video, STOCK_OBJECTS)
        tracker = sum(mine["stages_ms"][16][stage] for stage in TRACKER)
        result = {
            **mine,
            "decoding_ms": decoding(video),
            "stock_fps": fps,
            "tracker_16_to_stock_3": round(tracker / own[3], 3),
            "iou_bfloat16": likeness(options.trained or folder, device, video),
        }
        if options.compile:
            compiled = loaded(folder, device, attention=options.attention, compile=True)
            result["compiled_fps"] = {
                count: round(1 / frame_time(followed(compiled, video, count), WARM), 2) for count in OBJECTS
            }
        return result


if __name__ == "__main__":
    main()
