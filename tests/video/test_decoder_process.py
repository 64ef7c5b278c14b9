"""A server decodes in processes: same pictures, and a file that harms one harms nobody else."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from backend.errors import BadVideo
from backend.settings_loader import worker_environment
from backend.video import DecoderProcesses, Video, VideoLimits, index_path, probe_video
from backend.video import decoder_process as module
from tests.clips import CLIPS, Clip, read_code, write_clip

pytestmark = pytest.mark.slow


@pytest.fixture
def processes() -> Iterator[DecoderProcesses]:
    processes = DecoderProcesses({**worker_environment(), "SAM3_MARK": "of this test"}, seconds=30)
    yield processes
    processes.close()
    assert not running()


def running() -> list[int]:
    """Decoding processes of these tests."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (
                b"decoder_process" in (path / "cmdline").read_bytes()
                and b"of this test" in (path / "environ").read_bytes()
            ):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def indexed(folder: Path, kind: str = "constant") -> Clip:
    name, options = CLIPS[kind]
    clip = write_clip(folder / name, **options)
    probe_video(clip.path, VideoLimits(), worker_environment())
    return clip


@pytest.mark.parametrize("kind", ["constant", "rotated_90", "avi_h264"])
def test_pictures_are_those_of_this_process(tmp_path: Path, processes: DecoderProcesses, kind: str) -> None:
    clip = indexed(tmp_path, kind)
    with Video(clip.path) as near, Video(clip.path, open_decoder=processes.open) as far:
        assert (near.width, near.height) == (far.width, far.height)
        for number in (0, len(near) - 1, 3):
            assert np.array_equal(near.read(number), far.read(number))
        chosen = list(range(1, len(near), 7))
        assert [read_code(picture) - clip.first for _, picture in far.select(chosen)] == chosen
        assert [number for number, _ in far.frames(range(2, 6), reverse=True)] == [5, 4, 3, 2]


def test_a_process_serves_the_next_video_too(tmp_path: Path, processes: DecoderProcesses) -> None:
    for name in "ab":
        clip = write_clip(tmp_path / f"{name}.mp4", frames=4)
        probe_video(clip.path, VideoLimits(), worker_environment())
        with Video(clip.path, open_decoder=processes.open) as video:
            assert read_code(video.read(2)) == 2
    assert len(running()) == 1


def test_a_picture_that_takes_too_long_ends_its_process(tmp_path: Path, processes: DecoderProcesses) -> None:
    clip = indexed(tmp_path)
    with Video(clip.path, open_decoder=processes.open) as video:
        video.read(0)
        (stuck,) = running()
        os.kill(stuck, signal.SIGSTOP)
        processes.seconds = 0.1
        with pytest.raises(BadVideo, match="takes too long to decode"):
            video.read(1)
        assert stuck not in running()
        processes.seconds = 30
        assert read_code(video.read(1)) == clip.first + 1


def test_a_process_that_dies_costs_one_picture(tmp_path: Path, processes: DecoderProcesses) -> None:
    clip = indexed(tmp_path)
    with Video(clip.path, open_decoder=processes.open) as video:
        video.read(0)
        os.kill(running()[0], signal.SIGKILL)
        with pytest.raises(BadVideo, match="its decoder ends on it"):
            video.read(1)
        assert read_code(video.read(1)) == clip.first + 1


def test_a_damaged_video_is_told(tmp_path: Path, processes: DecoderProcesses) -> None:
    clip = indexed(tmp_path)
    with Video(clip.path, open_decoder=processes.open) as video:
        index_path(clip.path).unlink()
        clip.path.write_bytes(b"no video")
        with pytest.raises(BadVideo, match="it is damaged, empty or in an unsupported format"):
            video.read(0)


@pytest.mark.parametrize("header", [(1, 1, 4), (0, 0, 1 << 30), (-1, -1, 3), (1 << 14, 1 << 14, 3 << 28)])
def test_what_a_taken_over_process_claims_allocates_nothing(monkeypatch, header: tuple[int, int, int]) -> None:
    reply = module._HEADER.pack(*header)
    code = f"import sys, time; sys.stdout.buffer.write({reply!r}); sys.stdout.flush(); time.sleep(60)"
    monkeypatch.setattr(module, "_MAIN", code)
    process = module._Process(worker_environment())
    with pytest.raises(BadVideo, match="sends no picture"):
        process.receive(time.monotonic() + 30, VideoLimits().pixels)
    process.end()


def test_memory_is_limited_and_no_secret_is_known(tmp_path: Path) -> None:
    clip = indexed(tmp_path)
    code = (
        "from pathlib import Path; import os, resource; from backend.video.decoder_process import _open\n"
        f"_open({{'path': {str(clip.path)!r}, 'pixels': 10**7, 'frames': 100}})\n"
        "print(resource.getrlimit(resource.RLIMIT_AS)[0], 'LABEL_STUDIO_API_KEY' in os.environ)"
    )
    environment = worker_environment()
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert 0 < int(said[0]) < 8 << 30
    assert said[1] == "False"
