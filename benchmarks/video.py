"""Checks frames and times decoding: `python benchmarks/video.py [--quick]`. The last line printed is one JSON object.

Reads random frames of clips in all containers and timings, and checks the number drawn into each; then decodes a 1280 x
720 H.264 clip to RGB in order, with `Video` and with OpenCV in turns, and takes the best of three."""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.video import Video
from tests.clips import CLIPS, Misread, code_picture, read_code, write_clip, write_clips

READS = 20  # of every clip
NOISE = np.random.default_rng(0).integers(-12, 13, (720, 1280, 3), np.int8)


def noisy(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """A code under a moving texture, so that decoding is as expensive as for a real video."""
    texture = np.roll(NOISE[:height, :width], number * 3, axis=1)
    picture: NDArray[np.uint8] = np.clip(code_picture(number, width, height).astype(np.int16) + texture, 0, 255)
    return picture.astype(np.uint8)


def code(picture: NDArray[np.uint8]) -> int | None:
    try:
        return read_code(picture)
    except Misread:
        return None


def random_reads(folder: Path, count: int = READS) -> tuple[int, int]:
    reads = wrong = 0
    for name, clip in write_clips(folder).items():
        with Video(clip.path) as video:
            order = random.Random(name).choices(range(len(video)), k=count)
            begin = time.perf_counter()
            bad = sum(code(video.read(index)) != clip.first + index for index in order)
            print(f"{name:16} {bad} of {count} wrong, {(time.perf_counter() - begin) / count * 1e3:6.1f} ms per read")
        reads, wrong = reads + count, wrong + bad
    return reads, wrong


def ours(path: Path) -> float:
    with Video(path) as video:
        begin = time.perf_counter()
        frames = sum(1 for _ in video.frames(range(len(video))))
        return frames / (time.perf_counter() - begin)


def opencv(path: Path) -> float:
    capture = cv2.VideoCapture(str(path))
    begin, frames = time.perf_counter(), 0
    while (read := capture.read())[0]:
        cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
        frames += 1
    seconds = time.perf_counter() - begin
    capture.release()
    return frames / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few reads and a short film")
    is_quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        reads, wrong = random_reads(Path(folder), 2 if is_quick else READS)
        film = write_clip(
            Path(folder) / "film.mp4",
            frames=20 if is_quick else 300,
            size=(1280, 720),
            gop=60,
            bframes=2,
            rate=25,
            draw=noisy,
        )
        speeds = [(ours(film.path), opencv(film.path)) for _ in range(3)]
        result = {
            "wrong_frames": wrong,
            "random_reads": reads,
            "containers": len(CLIPS),
            "sequential_fps": round(max(speed for speed, _ in speeds), 1),
            "opencv_sequential_fps": round(max(speed for _, speed in speeds), 1),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
