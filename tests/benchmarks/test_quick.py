"""Every benchmark runs to its last line, prints what its documentation names, and loses nothing; no time is judged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scale_parts.ray_nodes import HAS_RAY
from tests.e2e.browser import CHROMIUM
from tests.needs import missing

ROOT = Path(__file__).parent.parent.parent
KEYS = {
    "datasets.py": "pictures pictures_wrong box_px readers readers_ok speed_vs_ffmpeg memory_mb resumed_same",
    "doors.py": """
        upload_mb mask_p50_ms mask_p99_ms passes_second_click track_first_s region_iou keyframe_share
    """,
    "engine.py": """
        parity_sigmoid parity_box_px parity_fp32 parity_by_model text_parity
        peak_mem_ratio peak_mem_ratio_text stock_peak_mem_ratio rss_slope rss_slope_stderr rss_slope_is_zero
        bytes_per_object_frame cost_ratio_16 stock_cost_ratio_16 speedup_vs_stock_1 speedup_vs_stock_16
        late_starts_ratio encoder_calls_per_frame encoder_calls_second_click state_equal
        published_mask published_pointer published_memory
    """,
    "exemplars.py": """
        like_precision like_recall found_precision found_recall unlike_removes unlike_keeps unlikes
        unlike_words_removes unlike_words_keeps text_precision text_recall published_like
    """,
    "families.py": """
        sam2_parity_sigmoid sam2_parity_box_px sam2_speedup_1 sam2_speedup_16 sam2_peak_mem_ratio
        edgetam_parity_sigmoid edgetam_parity_box_px edgetam_speedup_1 edgetam_speedup_16 edgetam_peak_mem_ratio
        sam2_tiny_fps_512 sam2_tiny_cpu_s_512 sam2_tiny_speedup_512 sam2_tiny_bf16_speedup_512
        edgetam_fps_512 edgetam_cpu_s_512 edgetam_speedup_512 edgetam_bf16_speedup_512 edgetam_over_sam2_512
        threads cores load
    """,
    "hostile.py": """
        cases connections leaks errors_500 hung server_mb decoder_mb legitimate_failed downloads freed_s delayed_s
        fuzz_runs crashes
    """,
    "jobs.py": """
        late floor_p99_ms health_p99_ms predict_over_budget_ms kills lost_jobs bytes_equal max_recomputed restart_s
        bytes_per_object_frame read_s answer_s answer_late_s ooms survived fairness submit_ms list_ms restart_waiting_s
        big_state_ok big_state_predict_ms trouble_lost trouble_told trouble_health_ms boundary_cost
    """,
    "keyframes.py": "seconds track_ms track_ms_median kept fold optimal frames_checked labelstudio_frames violations",
    "latency.py": "first_sign_s whole_s whole_over_compute_s first_answer_s presses_3000",
    "launches.py": """
        kernels_1 kernels_16 kernels_64 kernels_words waits_1 waits_16 waits_64 waits_words objects_words fp32_kernels_1
        masked_calls calls_per_layer masked_calls_auto calls_per_layer_auto
        tidy_ms_64 tidy_ms_64_whole state_mb_object kept_mb_slot state_stop_ms_16 state_write_ms_16
    """,
    "prompting.py": """
        click_mask_p50_ms click_mask_p99_ms passes_second_click step_p95_ms open_s page_mb
    """,
    "project.py": "tasks interruptions lost doubled overhead export_s export_by_format",
    "scale.py": """
        local_2 local_4 local_8 front_ms affinity idle_while_waiting_s kills lost_jobs max_recomputed resumed_s
        health_per_s predict_per_s pages pages_core pages_health_p99_ms
    """,
    "together.py": """
        passes_1 passes_4 passes_10 cost_10 passes_staggered passes_again passes_correction first_answer_ratio
    """,
    "video.py": "wrong_frames random_reads containers sequential_fps opencv_sequential_fps",
}
"""The keys that each one's documentation and README name."""
RIGHT: dict[str, dict[str, object]] = {
    "datasets.py": {"pictures_wrong": 0, "resumed_same": True},
    "doors.py": {"passes_second_click": 0},
    "engine.py": {"encoder_calls_per_frame": 1.0, "encoder_calls_second_click": 0, "state_equal": True},
    "exemplars.py": {"published_like": True},
    "hostile.py": {"connections": 0, "leaks": 0, "errors_500": 0, "hung": 0, "legitimate_failed": 0, "downloads": 1},
    "jobs.py": {
        "lost_jobs": 0,
        "bytes_equal": True,
        "survived": True,
        "trouble_lost": 0,
        "trouble_told": True,
        "big_state_ok": True,
    },
    "keyframes.py": {"violations": 0},
    "prompting.py": {"passes_second_click": 0},
    "project.py": {"lost": 0, "doubled": 0},
    "scale.py": {"lost_jobs": 0, "pages": 50} | ({"kills": 4, "fetches_per_node": 1.0} if HAS_RAY else {}),
    "video.py": {"wrong_frames": 0},
}
"""Figures that have one right value, however loaded the machine is."""
NOT_RUN = {"effort.py", "engine_gpu.py", "shapes_accuracy.py"}
"""effort.py and shapes_accuracy.py take many minutes even with --quick, and engine_gpu.py needs a GPU."""


IN_BROWSER = {"latency.py", "prompting.py"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", KEYS)
def test_a_benchmark_runs_to_its_last_line(name: str) -> None:
    if name in IN_BROWSER:
        missing(CHROMIUM, "Chromium (apt-get install chromium)")
    command = [sys.executable, f"benchmarks/{name}", "--quick"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    figures = json.loads(result.stdout.splitlines()[-1])
    assert not set(KEYS[name].split()) - figures.keys()
    right = RIGHT.get(name, {})
    assert {key: figures[key] for key in right} == right
    assert figures.get("max_recomputed", 0) <= 64


def test_every_benchmark_is_in_the_table() -> None:
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert scripts - NOT_RUN == KEYS.keys()
