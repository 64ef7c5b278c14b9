"""What a GPU does for a frame, from a trace of PyTorch's profiler."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def trace(results: Iterator[Any], frames: int) -> dict[str, float]:
    """Per frame, over so many of them: see `summarize`."""
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        with profile(activities=activities, acc_events=True) as profiler:
            for _ in range(frames):
                next(results)
        profiler.export_chrome_trace(str(path))
        return summarize(json.loads(path.read_text())["traceEvents"], frames)


def summarize(events: Sequence[Mapping[str, Any]], frames: int) -> dict[str, float]:
    """Kernels, waits of the host for the device, and megabytes copied between the two, of a frame.

    Args:
        events: of a Chrome trace.
        frames: how many frames they are of.
    """
    kernels = sum(event.get("cat") == "kernel" for event in events)
    waits = sum(event.get("cat") == "cuda_runtime" and event["name"] in WAITS for event in events)
    copies = (event for event in events if event.get("cat") == "gpu_memcpy" and "DtoD" not in event["name"])
    copied = sum(event["args"]["bytes"] for event in copies)
    return {
        "kernels": round(kernels / frames, 1),
        "waits": round(waits / frames, 2),
        "copied_mb": round(copied / frames / 1e6, 3),
    }
