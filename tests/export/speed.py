"""How long 50 tracks over 10,000 frames take in each format: `python -m tests.export.speed [TRACKS FRAMES]`.

Keyframes as tracking leaves them, one on every 20 frames, with gaps; masks (discs in 640 x 360) on a fiftieth of the
frames, since pixels and not tracks are what mots and davis take their time for. Prints seconds, and those of the CPU.
yolo and davis make a file for each frame: TMPDIR=/dev/shm leaves the disk out.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from backend.commands.export import Wanted, run
from backend.export.formats import FORMATS, NAMES
from backend.labelstudio.sequence import Item, ours
from backend.masks import Rle
from backend.settings import Settings

SIZE, APART = (640, 360), 20


def region(number: int, frames: int) -> dict:
    rng = np.random.default_rng(number)
    places = range(1, frames + 1, APART)
    start = np.array([40, 40, 10, 10])
    boxes = np.round(start + np.cumsum(rng.normal(0, 0.2, (len(places), 4)), 0), 4)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    keyframes = [
        ours(Item(frame, place % 50 != 49, *row)).untouched(25)
        for place, (frame, row) in enumerate(zip(places, boxes.tolist(), strict=True))
    ]
    value = {"sequence": keyframes, "labels": ["Car"], "framesCount": frames, "duration": frames / 25}
    names = {"from_name": "box", "to_name": "video", "type": "videorectangle", "meta": {"track_id": number}}
    return {"id": f"r{number}", **names, "value": value, "score": 0.9}


def discs(tracks: int, frames: int) -> dict:
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    found = {}
    for number in range(1, tracks + 1):
        x, y = np.random.default_rng(number).uniform([50, 50], [590, 310])
        mask = Rle.of((rows - y) ** 2 + (columns - x) ** 2 < 30**2)
        found[1, f"r{number}"] = dict.fromkeys(range(frames), mask)
    return found


def main(tracks: int = 50, frames: int = 10_000) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tasks.json"
        results = [region(number, frames) for number in range(1, tracks + 1)]
        task = {"id": 1, "data": {"video": "a.mp4", "fps": 25}, "annotations": [{"id": 1, "result": results}]}
        file.write_text(json.dumps([task]))
        masks = discs(tracks, frames // 50)
        for name in NAMES:
            is_masked = name in FORMATS and FORMATS[name].needs == "masks"
            for dense in (False, True) if name in ("csv", "labelstudio") else (False,):
                wanted = Wanted(name, Path(folder) / f"{name}{dense}", dense, size=SIZE, looks=False)
                start, used = time.perf_counter(), time.process_time()
                run(Settings(), file, wanted, masks if is_masked else None, say=lambda _: None)
                spent = time.perf_counter() - start, time.process_time() - used
                share = f", {tracks} x {frames // 50} masks" if is_masked else ""
                print(f"{name}{' --dense' if dense else ''}{share}: {spent[0]:.2f} s (CPU {spent[1]:.2f} s)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
