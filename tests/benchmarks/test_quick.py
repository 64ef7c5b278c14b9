"""Every benchmark runs to its last line, and prints what its documentation names; no figure is judged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.browser import CHROMIUM
from tests.needs import missing

ROOT = Path(__file__).parent.parent.parent
KEYS = {
    "effort.py": ["frames", "objects", "gestures_hand", "seconds_hand", "gestures_box", "seconds_box", "fewer_box"],
    "engine.py": ["parity_sigmoid", "parity_box_px", "parity_fp32", "text_parity", "rss_slope", "state_equal"],
    "jobs.py": ["lost_jobs", "bytes_equal", "max_recomputed", "bytes_per_object_frame"],
    "keyframes.py": ["seconds", "track_ms", "kept", "fold", "optimal", "frames_checked", "violations"],
    "project.py": ["tasks", "interruptions", "lost", "doubled", "overhead", "export_s", "export_by_format"],
    "shapes_accuracy.py": ["click_mask_iou_easy", "absence", "correction_helps", "hota", "false_frames", "fps_1"],
    "video.py": ["wrong_frames", "random_reads", "containers", "sequential_fps", "opencv_sequential_fps"],
}
"""Some of each one's keys. engine_gpu.py needs a GPU."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", KEYS)
def test_a_benchmark_runs_to_its_last_line(name: str) -> None:
    if name == "effort.py":
        missing(CHROMIUM, "Chromium")
        missing(ROOT / ".venv-labelstudio", "Label Studio in .venv-labelstudio")
    command = [sys.executable, f"benchmarks/{name}", "--quick"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    figures = json.loads(result.stdout.splitlines()[-1])
    assert not set(KEYS[name]) - figures.keys()


def test_every_benchmark_is_in_the_table() -> None:
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert scripts - {"engine_gpu.py"} == KEYS.keys()
