"""Indexes a video in a process of its own, which can be killed, may not take much memory, and knows no secret.

The index is kept beside the file, so that whoever opens the video next does not decode it again. It is written without
pickles: a decoder that a file has taken over must not take over who reads its result.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from backend.child_process import python_command
from backend.errors import BadVideo, MediaError
from backend.video.index import VideoIndex, VideoLimits, bad_video, build_index, open_video

_SECONDS = 300.0
"""How long a video may take to open: one with wrong time stamps is decoded once."""
_POLL_SECONDS = 0.05
MEMORY = 1536 << 20
MEMORY_LARGE = 2560 << 20
"""Bytes of address space; the larger one for frames of over 4096 x 4096 pixels."""
LARGE = 4096**2
_MAX_REPLY = 1 << 16
_MAIN = "from backend.video.probe import main; main()"


def index_path(path: Path) -> Path:
    """Where the index of a file is kept."""
    return path.with_name(f"{path.name}.index")


def load_index(path: Path) -> VideoIndex | None:
    """The index that is kept for a file; None: there is none for its current content."""
    try:
        state = path.stat()
        with np.load(index_path(path), allow_pickle=False) as saved:
            if saved["state"].tolist() != [state.st_size, state.st_mtime_ns]:
                return None
            values = json.loads(str(saved["values"]))
            arrays = {name: saved[name] for name in ("stamps", "keys", "times")}
        return VideoIndex(**values, **arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _save_index(path: Path, index: VideoIndex) -> None:
    arrays = {name: getattr(index, name) for name in ("stamps", "keys", "times")}
    values = {name: value for name, value in asdict(index).items() if name not in arrays}
    state, kept = path.stat(), index_path(path)
    part = kept.with_name(f"{kept.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, state=[state.st_size, state.st_mtime_ns], values=json.dumps(values), **arrays)
        part.replace(kept)
    finally:
        part.unlink(missing_ok=True)


def probe_video(
    path: Path,
    limits: VideoLimits,
    environment: Mapping[str, str],
    cancelled: Callable[[], bool] = lambda: False,
    seconds: float = _SECONDS,
) -> None:
    """Index a video, unless its index is kept already.

    Args:
        environment: of the process.
        cancelled: called often; the process is killed once this returns true.
        seconds: until it is killed in any case.

    Raises:
        BadVideo: it contains no video that can be decoded, or takes too much time or memory.
        MediaError: it was cancelled.
    """
    if load_index(path) is not None:
        return
    request = json.dumps({"path": str(path.absolute()), "pixels": limits.pixels, "frames": limits.frames})
    quiet, end = {**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, time.monotonic() + seconds
    status, reply = _run_probe(request, quiet, cancelled, end)
    if status == -signal.SIGKILL:  # by somebody else, as where the machine has no memory left: once more
        _, reply = _run_probe(request, quiet, cancelled, end)
    _raise_error(reply)


def _run_probe(
    request: str, environment: Mapping[str, str], cancelled: Callable[[], bool], end: float
) -> tuple[int, bytes]:
    """The exit status and the reply of a process that indexes a video; arguments are as for `probe_video`."""
    with subprocess.Popen(
        python_command(_MAIN, request),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            _wait(process, cancelled, end)
            return process.returncode, process.stdout.read(_MAX_REPLY) if process.stdout else b""
        finally:
            process.kill()


def _wait(process: "subprocess.Popen[bytes]", cancelled: Callable[[], bool], end: float) -> None:
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
            return
        if cancelled():
            raise MediaError("opening the video was cancelled: send the request again")
        if time.monotonic() > end:
            raise bad_video("it takes too long to open")


def _raise_error(reply: bytes) -> None:
    try:
        error = json.loads(reply)["error"]
    except (ValueError, KeyError, TypeError):
        raise bad_video("its decoder ends on it, or takes too much memory") from None
    if error is not None:
        raise BadVideo(str(error)[:1000])


def main() -> None:
    """Index the video that the only argument names, and print the error as JSON."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    path, limits = Path(request["path"]), VideoLimits(request["pixels"], request["frames"])
    error: str | None = None
    try:
        limit_memory(MEMORY)
        container, stream = open_video(path, limits)
        with container:
            is_large = stream.width * stream.height > LARGE
        if is_large:
            limit_memory(MEMORY_LARGE)
        _save_index(path, build_index(path, limits))
    except BadVideo as raised:
        error = str(raised)
    except MemoryError:
        error = str(bad_video("it takes too much memory to decode"))
    except Exception:  # whatever a damaged file makes of PyAV
        error = str(bad_video("it is damaged"))
    print(json.dumps({"error": error}), flush=True)
    os._exit(0)


def limit_memory(size: int) -> None:
    """Let this process take so many bytes of address space beyond what it has now, and write no core."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = taken + size
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
