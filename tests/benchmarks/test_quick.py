"""Every benchmark runs to its last line, and prints what its documentation names; no figure is judged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
KEYS = {
    "engine.py": ["parity_sigmoid", "parity_box_px", "parity_fp32", "text_parity", "rss_slope", "state_equal"],
    "jobs.py": ["lost_jobs", "bytes_equal", "max_recomputed", "bytes_per_object_frame"],
    "keyframes.py": ["seconds", "track_ms", "kept", "fold", "optimal", "frames_checked", "violations"],
    "project.py": ["tasks", "interruptions", "lost", "doubled", "overhead", "export_s", "export_by_format"],
    "video.py": ["wrong_frames", "random_reads", "containers", "sequential_fps", "opencv_sequential_fps"],
}
"""Some of each one's keys."""
NOT_RUN = {"effort.py", "engine_gpu.py", "shapes_accuracy.py"}
"""effort.py and shapes_accuracy.py take many minutes even with --quick, and engine_gpu.py needs a GPU."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", KEYS)
def test_a_benchmark_runs_to_its_last_line(name: str) -> None:
    command = [sys.executable, f"benchmarks/{name}", "--quick"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    figures = json.loads(result.stdout.splitlines()[-1])
    assert not set(KEYS[name]) - figures.keys()


def test_every_benchmark_is_in_the_table() -> None:
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert scripts - NOT_RUN == KEYS.keys()
