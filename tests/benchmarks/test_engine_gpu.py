"""What is read from a profiler's trace of a GPU."""

from typing import Any

from benchmarks.engine_gpu_parts.trace import summarize


def event(kind: str, name: str, **arguments: int) -> dict[str, Any]:
    return {"ph": "X", "cat": kind, "name": name, "ts": 1.0, "dur": 2.0, "args": arguments}


def test_kernels_waits_and_copies_are_counted_by_frame() -> None:
    events = [
        {"ph": "M", "name": "process_name"},
        event("cpu_op", "aten::linear"),
        *[event("kernel", "gemm")] * 8,
        event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", bytes=3_000_000),
        event("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)", bytes=1_000_000),
        event("gpu_memcpy", "Memcpy DtoD (Device -> Device)", bytes=9_000_000),
        event("cuda_runtime", "cudaLaunchKernel"),
        event("cuda_runtime", "cudaStreamSynchronize"),
    ]
    assert summarize(events, 4) == {"kernels": 2.0, "waits": 0.25, "copied_mb": 1.0}
