"""The frame that the strip shows, the one that the video shows and the one that the engine sees are the same one."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.demo.labelstudio import LabelStudio
from backend.video import Video
from backend.video.frame_clock import FrameClock
from tests.clips import read_code, write_clip
from tests.e2e.conftest import Project, connected, opened
from tests.needs import THOROUGH

pytestmark = pytest.mark.slow

UNEVEN = np.cumsum(np.random.default_rng(1).choice([0.02, 0.033, 0.04, 0.1], 60)).round(3).tolist()
CLIPS: dict[str, dict[str, Any]] = {
    "25": {"rate": 25},
    "29.97": {"rate": Fraction(30000, 1001)},
    "30": {"rate": 30},
    "59.94": {"rate": Fraction(60000, 1001)},
    "variable": {"times": [0.0, *UNEVEN]},
}
NAMES = CLIPS if THOROUGH else ("25", "29.97", "variable")


def code(png: bytes) -> int:
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return read_code(np.asarray(picture))


@pytest.mark.parametrize("name", NAMES)
def test_strip_video_and_engine_show_the_same_frame(studio: LabelStudio, tmp_path: Path, name: str) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, size=(640, 360), **CLIPS[name])
    project = connected(studio, path, None)
    seen = _seen(project, path)
    assert len(seen) >= 6
    assert all(len(set(codes)) == 1 for codes in seen.values()), seen


def _seen(project: Project, path: Path) -> dict[int, tuple[int, int, int]]:
    """By LS frame: the codes that the strip, the video and the engine's picture carry."""
    numbers = project.data["frame_numbers"]
    seen = {}
    with opened(project) as page, Video(path) as video:
        clock = FrameClock(video.times, video.end, project.data["fps"])
        for picture in np.linspace(0, len(numbers) - 1, 7).astype(int).tolist():
            page.turn_to(picture)
            page.go(numbers[picture])
            engine = read_code(video.read(clock.source_frame(numbers[picture])))
            strip = code(page.strip_picture())
            seen[numbers[picture]] = strip, code(page.video_picture()), engine
        page.shot(f"19-frames-{len(numbers)}")
    return seen
