"""Decodes for a server in processes that can be killed, may not take much memory, and know no secret.

A process serves one video at a time and is used again for the next one. What it sends are plain bytes of pictures: a
decoder that a file has taken over must not take over who reads its result.
"""

import json
import os
import selectors
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from backend.child_process import python_command
from backend.errors import BadVideo
from backend.video.decoder import Decoder, Picture
from backend.video.index import VideoIndex, VideoLimits, bad_video, build_index
from backend.video.probe import LARGE, MEMORY, MEMORY_LARGE, limit_memory, load_index

_SECONDS = 60.0
"""How long a picture may take: some files have to be decoded from their start."""
_IDLE = 2
"""Processes that wait for the next video."""
_HEADER = struct.Struct("<iii")
"""Height, width and number of bytes that follow; a height of 0 is an error, whose text follows."""
_MAX_ERROR = 4096
_POLL_SECONDS = 0.5
_MAIN = "from backend.video.decoder_process import main; main()"


class DecoderProcesses:
    """The decoding processes of a server.

    Args:
        environment: of the processes.
        seconds: a picture that takes longer ends its process.
    """

    def __init__(self, environment: Mapping[str, str], seconds: float = _SECONDS) -> None:
        self._environment = {**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.seconds = seconds
        self._idle: list[_Process] = []
        self._lock = threading.Lock()
        self._closed = False

    def open(self, path: Path, index: VideoIndex, limits: VideoLimits) -> "RemoteDecoder":
        """A decoder of a file whose index is kept; it takes a process with its first picture."""
        return RemoteDecoder(self, path, index, limits)

    def take(self) -> "_Process":
        """A process that nobody uses."""
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.poll() is None:
                    return process
                process.end()
        return _Process(self._environment)

    def give_back(self, process: "_Process") -> None:
        """Keep a process for the next video, or end it."""
        with self._lock:
            if not self._closed and len(self._idle) < _IDLE:
                self._idle.append(process)
                return
        process.end()

    def close(self) -> None:
        """End all processes that nobody uses; those in use end when they are given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()


class RemoteDecoder:
    """As `Decoder`, in a process, which does not say which frames are damaged. Not thread-safe."""

    damaged: int | None = None

    def __init__(self, processes: DecoderProcesses, path: Path, index: VideoIndex, limits: VideoLimits) -> None:
        self._processes, self._path, self._limits = processes, path, limits
        self._process: _Process | None = None

    def read(self, number: int) -> Picture:
        """As `Decoder.read`.

        Raises:
            BadVideo: it cannot be decoded, or takes too much time or memory.
        """
        if self._process is None:
            self._process = self._processes.take()
            request = {"path": str(self._path.absolute()), "pixels": self._limits.pixels, "frames": self._limits.frames}
            self._process.send(request)
        try:
            self._process.send({"frame": number})
            return self._process.receive(time.monotonic() + self._processes.seconds, self._limits.pixels)
        except BadVideo:
            self._process.end()
            self._process = None
            raise

    def read_backward(self, start: int, stop: int) -> Iterator[tuple[int, Picture]]:
        """As `Decoder.read_backward`, but each frame is decoded when it is asked for."""
        for number in reversed(range(start, stop)):
            yield number, self.read(number)

    def close(self) -> None:
        """Let the next video have the process."""
        if self._process is not None:
            self._processes.give_back(self._process)
            self._process = None


class _Process(subprocess.Popen[bytes]):
    """A process that runs `main`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(
            python_command(_MAIN, str(os.getpid())),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
        self._ready = selectors.DefaultSelector()
        self._ready.register(self.stdout or 0, selectors.EVENT_READ)

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request; a process that has ended says so when its reply is read."""
        if self.stdin:
            with suppress(OSError):
                self.stdin.write(f"{json.dumps(request)}\n".encode())

    def receive(self, end: float, max_pixels: int) -> Picture:
        """A picture.

        Args:
            end: by `time.monotonic`.

        Raises:
            BadVideo: there is none.
        """
        height, width, size = _HEADER.unpack(self._read(_HEADER.size, end))
        if height == 0 and 0 <= size <= _MAX_ERROR:
            raise BadVideo(self._read(size, end).decode(errors="replace"))
        if min(height, width) < 1 or height * width > max_pixels or size != height * width * 3:
            raise bad_video("its decoder sends no picture")
        return np.frombuffer(self._read(size, end), np.uint8).reshape(height, width, 3)

    def _read(self, size: int, end: float) -> bytearray:
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            if not self._ready.select(max(0.0, end - time.monotonic())):
                raise bad_video("it takes too long to decode")
            count = os.readv(self.stdout.fileno(), [view[done:]]) if self.stdout else 0
            if not count:
                raise bad_video("its decoder ends on it, or takes too much memory")
            done += count
        return data

    def end(self) -> None:
        """End it at once."""
        self.kill()
        self.wait()
        self._ready.close()
        for pipe in (self.stdin, self.stdout):
            if pipe:
                pipe.close()


def main() -> None:
    """Decode what the requests on standard input ask for, until it is closed or the server has ended."""
    threading.Thread(target=_exit_with, args=(int(sys.argv[1]),), daemon=True).start()
    # What a library prints must not mix with pictures.
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    decoder: Decoder | None = None
    for line in sys.stdin.buffer:
        request: dict[str, Any] = json.loads(line)
        try:
            if "path" in request:
                if decoder:
                    decoder.close()
                decoder, opened = None, request
                continue
            decoder = decoder or _open(opened)
            _send_picture(output, decoder.read(request["frame"]))
        except BadVideo as error:
            _send_error(output, error)
        except MemoryError:
            _send_error(output, bad_video("it takes too much memory to decode"))
        except Exception:  # whatever a damaged file makes of PyAV
            _send_error(output, bad_video("it is damaged"))
    os._exit(0)


def _open(request: Mapping[str, Any]) -> Decoder:
    """Raises BadVideo: the file cannot be opened."""
    path, limits = Path(request["path"]), VideoLimits(request["pixels"], request["frames"])
    index = load_index(path)
    is_large = index is not None and index.width * index.height > LARGE
    limit_memory(MEMORY_LARGE if is_large else MEMORY)
    return Decoder(path, index or build_index(path, limits), limits)


def _send_picture(output: BinaryIO, picture: Picture) -> None:
    _write(output, _HEADER.pack(*picture.shape[:2], picture.nbytes))
    _write(output, picture.data.cast("B"))


def _send_error(output: BinaryIO, error: BadVideo) -> None:
    text = str(error).encode()[:_MAX_ERROR]
    _write(output, _HEADER.pack(0, 0, len(text)) + text)


def _write(output: BinaryIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[output.write(view) or 0 :]


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
