"""Frames a second beside Ultralytics' SAM3VideoPredictor, on the same film with the same boxes."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from backend.engines.sam3.engine import Sam3Engine
from backend.tracks.geometry import Box
from backend.tracks.prompts import Prompt
from backend.tracks.track import FrameResult
from backend.video import Video
from benchmarks.engine_gpu_parts.timing import frame_time

SIDE = 160
"""Of the boxes, pixels."""


def compare(
    engine: Sam3Engine, film: Path, python: str, places: Mapping[int, Sequence[tuple[float, float]]], warm: int
) -> dict[str, Any]:
    """By number of objects, one after the other on the same cores.

    Args:
        engine: with random weights, as the peer's are.
        film: a video file.
        python: an interpreter that has Ultralytics.
        places: the centres of so many boxes on the first frame, pixels.
        warm: frames before those that are timed.

    Returns:
        `peer_fps` and `peer_memory_gib` by number of objects, and of each `peer_ratio_N`: their seconds by ours.
    """
    assert engine.model
    device, threads = engine.model.tracker.device.type, os.cpu_count() or 1
    fps, memory, ratios = dict[int, float](), dict[int, float](), dict[str, float]()
    for count, centres in places.items():
        boxes = [Box(x - SIDE / 2, y - SIDE / 2, x + SIDE / 2, y + SIDE / 2) for x, y in centres]
        task = {"film": str(film), "boxes": boxes, "warm": warm, "device": device, "threads": threads}
        script = Path(__file__).with_name("ultralytics_film.py")
        command = [python, str(script), json.dumps(task)]
        theirs = json.loads(
            subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
        )
        if device == "cpu":
            torch.set_num_threads(threads)  # the engine leaves a core to others; the peer does not
        engine.model.image_encoder.clear()  # frames that another count of objects left there would be free
        with Video(film) as video:
            ours = frame_time(_track(engine, video, boxes), warm)
        fps[count], memory[count] = round(1 / theirs["seconds"], 4), theirs["memory_gib"]
        ratios[f"peer_ratio_{count}"] = round(theirs["seconds"] / ours, 2)
        print(f"{count} objects: {ours:.2f} s a frame, Ultralytics {theirs['seconds']:.2f}", flush=True)
    return {"peer_fps": fps, "peer_memory_gib": memory, **ratios}


def _track(engine: Sam3Engine, video: Video, boxes: Sequence[Box]) -> Iterator[FrameResult]:
    with engine.open(video) as session:
        session.prompt([Prompt(str(number), 0, box=box) for number, box in enumerate(boxes)])
        with closing(session.propagate(range(len(video)))) as results:
            yield from results
