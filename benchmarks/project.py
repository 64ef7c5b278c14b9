"""Pre-annotates a whole project with interruptions, then exports it: `python benchmarks/project.py`.

Prints one JSON object. The engine is a stub that sleeps 2 ms per frame, and a small local server answers as Label
Studio 1.23.2 does.

- tasks, interruptions: their numbers; each interruption is a SIGKILL of the command at a random moment.
- lost: tasks without a prediction when the command has ended.
- doubled: predictions beyond one per task.
- overhead: the time of an undisturbed run over that of the engine alone, less 1; another project, of a tenth the tasks.
- export_by_format, export_s: seconds to export 50 tracks over 10,000 frames, and those of the slowest format. Keyframes
  as tracking leaves them, on every 20th frame and with gaps; masks (discs in 640 x 360) on a fiftieth of the frames,
  since pixels and not tracks are what mots and davis take their time for.

davis writes a file for each frame, and ext4 without a journal makes files slowly where many were deleted in the
last minutes: TMPDIR says where they go.

.venv/bin/python benchmarks/project.py [--tasks 1000] [--frames 250] [--quick]
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.commands import annotate
from backend.commands.export import run as export
from backend.commands.export_tracks import ExportOptions
from backend.formats.mask_sidecar import write_sidecar
from backend.formats.registry import NAMES
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_launcher import process_launcher
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.keyframe import Keyframe, mark_as_ours
from backend.settings import Settings
from backend.tracks.masks import Rle
from backend.tracks.prompts import Phrase
from backend.video import Video, VideoLimits
from tests.clips import write_clip
from tests.fakes import sleeping_engine
from tests.labelstudio.bodies import CONFIG
from tests.labelstudio.studio import PROJECT, TOKEN, Studio

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 0.002
VIDEO = "/data/clip.mp4"
SIZE, APART = (640, 360), 20
"""Of what is exported: its pictures, and frames from one keyframe to the next."""


def work(url: str, folder: str) -> None:
    """The command, in a process of its own."""
    settings = Settings(label_studio_url=url, label_studio_api_key=TOKEN, data_dir=Path(folder))
    make: Any = partial(sleeping_engine, SECONDS)
    device = WorkerClient(process_launcher(make, "warning"), "stub", "1", 600)
    sys.exit(annotate.run(settings, PROJECT, ("car",), pool=WorkerPool([device])))


def started(studio: Studio, folder: Path) -> subprocess.Popen[bytes]:
    code = f"from benchmarks.project import work; work({studio.url!r}, {str(folder)!r})"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, cwd=ROOT)


def filled(studio: Studio, clip: Path, tasks: int) -> None:
    """Give Label Studio the clip and tasks that show it."""
    studio.places[VIDEO] = 200, clip.read_bytes()
    for _ in range(tasks):
        studio.add_task({"video": VIDEO, "fps": 25})


def broken_off(clip: Path, folder: Path, tasks: int, interruptions: int = 5) -> dict[str, Any]:
    """A project whose command is killed so often and started again."""
    chance = random.Random(7)
    frames = len(Video(clip, VideoLimits()))
    with Studio(CONFIG) as studio:
        filled(studio, clip, tasks)
        done = 0
        for _ in range(interruptions):
            process = started(studio, folder)
            # Somewhere within the next part of the work, counted in predictions so that a slow machine gets there, too.
            until = done + chance.randrange(1, max(2, tasks // (interruptions + 1)))
            while len(studio.predictions) < until and process.poll() is None:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, frames * SECONDS))
            process.send_signal(signal.SIGKILL)
            process.wait()
            done = len(studio.predictions)
        if started(studio, folder).wait():
            raise SystemExit("tasks have failed")
        given = [one["task"] for one in studio.predictions]
    return {"tasks": tasks, "interruptions": interruptions, **counted(given, tasks)}


def counted(given: Sequence[int], tasks: int) -> dict[str, int]:
    """What became of tasks 1 to `tasks`, by the task of each prediction."""
    lost = set(range(1, tasks + 1)) - set(given)
    return {"lost": len(lost), "doubled": len(given) - len(set(given))}


def overhead(clip: Path, folder: Path, tasks: int) -> float:
    """What one run takes beyond the engine's own time."""
    alone = []
    with Video(clip, VideoLimits()) as video:
        for _ in range(5):
            began = time.monotonic()
            with sleeping_engine(SECONDS).open(video) as session:
                session.prompt([Phrase("car")])
                for _ in session.propagate(range(len(video))):
                    pass
            alone.append(time.monotonic() - began)
    with Studio(CONFIG) as studio:
        filled(studio, clip, tasks)
        process = started(studio, folder)
        while not studio.predictions:  # from the first one on: it starts once, whatever the project's size
            time.sleep(0.002)
        began = time.monotonic()
        while len(studio.predictions) < tasks:
            time.sleep(0.002)
        whole = time.monotonic() - began
        process.wait()
    return whole / ((tasks - 1) * statistics.median(alone)) - 1


def exports(folder: Path, tracks: int = 50, frames: int = 10_000) -> dict[str, float]:
    """Seconds by format, and where it may hold keyframes alone those of every frame, too."""
    folder.mkdir()
    results = [region(number, frames) for number in range(1, tracks + 1)]
    task = {"id": 1, "data": {"video": "a.mp4", "fps": 25}, "annotations": [{"id": 1, "result": results}]}
    file = folder / "tasks.json"
    file.write_text(json.dumps([task]))
    write_sidecar(file, {one["id"]: discs(one, frames // 50) for one in results})
    found = {}
    for name, dense in ways():
        wanted = ExportOptions(name, folder / f"{name}{dense}", dense, size=SIZE, read_videos=False)
        began = time.monotonic()
        if export(Settings(), file, wanted, say=lambda _: None):
            raise SystemExit(f"{name} is not exported")
        found[f"{name} --dense" if dense else name] = time.monotonic() - began
    return found


def ways() -> Iterator[tuple[str, bool]]:
    """The formats, and whether every frame is written where that is a choice."""
    for name in NAMES:
        yield name, False
        if name in ("csv", "labelstudio"):
            yield name, True


def region(number: int, frames: int) -> dict[str, Any]:
    """A track in Label Studio's words."""
    rng = np.random.default_rng(number)
    start = np.array([*rng.uniform(10, 80, 2), 10, 10])
    boxes = np.round(start + np.cumsum(rng.normal(0, 0.2, (len(range(0, frames, APART)), 4)), 0), 4)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    keyframes = [
        mark_as_ours(Keyframe(1 + place * APART, place % 50 != 49, *row)).to_unchanged_json(25)
        for place, row in enumerate(boxes.tolist())
    ]
    value = {"sequence": keyframes, "labels": ["Car"], "framesCount": frames, "duration": frames / 25}
    names = {"from_name": "box", "to_name": "video", "type": "videorectangle", "meta": {"track_id": number}}
    return {"id": f"r{number}", **names, "value": value, "score": 0.9}


def discs(track: dict[str, Any], frames: int) -> dict[int, Rle]:
    """Masks of a track on the first frames: it has hardly moved by then."""
    first = track["value"]["sequence"][0]
    (x, width), (y, height) = (
        (first[corner] * side / 100, first[length] * side / 100)
        for corner, length, side in (("x", "width", SIZE[0]), ("y", "height", SIZE[1]))
    )
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    disc = (2 * (columns - x) / width - 1) ** 2 + (2 * (rows - y) / height - 1) ** 2 < 1
    return dict.fromkeys(range(frames), Rle.from_mask(disc))


def main() -> None:
    """Run all, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=250, help="of each task's clip")
    parser.add_argument("--quick", action="store_true", help="few tasks, short tracks")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.frames = 12, 20
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = exports(folder / "exports", **({"tracks": 2, "frames": 100} if options.quick else {}))
        clip = write_clip(folder / "clip.mp4", frames=options.frames, size=(64, 48)).path
        found = broken_off(clip, folder / "broken", options.tasks)
        cost = overhead(clip, folder / "whole", max(options.tasks // 10, 10))
    export_s = {name: round(spent, 2) for name, spent in seconds.items()}
    print(
        json.dumps(
            {**found, "overhead": round(cost, 4), "export_s": max(export_s.values()), "export_by_format": export_s}
        )
    )


if __name__ == "__main__":
    main()
