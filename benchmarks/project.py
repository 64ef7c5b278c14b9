"""A whole project annotated ahead, broken off and gone on with: `python benchmarks/project.py`. Prints one JSON object.

The engine is a stub that sleeps 2 ms a frame, Label Studio a small one that answers as 1.23.2 does, both right here.

- tasks, interruptions: how many there were; each interruption is a SIGKILL of the command at a random moment.
- lost: tasks without a prediction when the command has ended.
- doubled: predictions beyond one a task.
- overhead: the time of an undisturbed run over that of the engine alone, less 1; another project, of a tenth the tasks.

.venv/bin/python benchmarks/project.py [--tasks 1000] [--frames 250]
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.commands import annotate
from backend.jobs.device import Device, in_process
from backend.jobs.propagation import Propagations
from backend.prompts import Phrase
from backend.settings import Settings
from backend.video import Video, VideoLimits
from tests.clips import write_clip
from tests.fakes import sleeping
from tests.labelstudio.bodies import CONFIG
from tests.labelstudio.studio import PROJECT, TOKEN, Studio

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 0.002
VIDEO = "/data/clip.mp4"


def work(url: str, folder: str) -> None:
    """The command, in a process of its own."""
    settings = Settings(label_studio_url=url, label_studio_api_key=TOKEN, data_dir=Path(folder))
    device = Device(in_process(partial(sleeping, SECONDS), "warning"), "stub", "1", 600)
    sys.exit(annotate.run(settings, PROJECT, ("car",), device=device))


def started(studio: Studio, folder: Path) -> subprocess.Popen[bytes]:
    code = f"from benchmarks.project import work; work({studio.url!r}, {str(folder)!r})"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, cwd=ROOT)


def place(clip: Path, studio: Studio, folder: Path) -> None:
    """Put the clip where the command keeps what it has downloaded: transfers are not measured."""
    kept = folder / "media" / hashlib.sha256((studio.url + VIDEO).encode()).hexdigest()[:32]
    kept.parent.mkdir(parents=True)
    shutil.copy(clip, kept)


def filled(studio: Studio, tasks: int) -> None:
    for _ in range(tasks):
        studio.add_task({"video": VIDEO, "fps": 25})


def broken_off(clip: Path, folder: Path, tasks: int, interruptions: int = 5) -> dict[str, Any]:
    """A project whose command is killed so often and started again."""
    chance = random.Random(7)
    frames = len(Video(clip, VideoLimits()))
    with Studio(CONFIG) as studio:
        filled(studio, tasks)
        place(clip, studio, folder)
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
    lost = set(range(1, tasks + 1)) - set(given)
    return {
        "tasks": tasks,
        "interruptions": interruptions,
        "lost": len(lost),
        "doubled": len(given) - len(set(given)),
    }


def overhead(clip: Path, folder: Path, tasks: int) -> float:
    """What one run takes beyond the engine's own time."""
    alone = []
    with Video(clip, VideoLimits()) as video:
        for _ in range(5):
            propagations = Propagations(len(video), {}, [], [Phrase("car")])
            began = time.monotonic()
            for _ in propagations.run(sleeping(SECONDS), video):
                pass
            alone.append(time.monotonic() - began)
    with Studio(CONFIG) as studio:
        filled(studio, tasks)
        place(clip, studio, folder)
        process = started(studio, folder)
        while not studio.predictions:  # from the first one on: it starts once, whatever the project's size
            time.sleep(0.002)
        began = time.monotonic()
        while len(studio.predictions) < tasks:
            time.sleep(0.002)
        whole = time.monotonic() - began
        process.wait()
    return whole / ((tasks - 1) * statistics.median(alone)) - 1


def main() -> None:
    """Run all, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=250, help="of each task's clip")
    options = parser.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = write_clip(folder / "clip.mp4", frames=options.frames, size=(64, 48)).path
        found = broken_off(clip, folder / "broken", options.tasks)
        cost = overhead(clip, folder / "whole", max(options.tasks // 10, 10))
    print(json.dumps({**found, "overhead": round(cost, 4)}))


if __name__ == "__main__":
    main()
