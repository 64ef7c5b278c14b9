"""A video is indexed in a process of its own, once, and a file that harms it harms nobody else."""

import os
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from backend.errors import BadVideo, MediaError
from backend.settings_loader import worker_environment
from backend.video import Video, VideoLimits, index_path, probe, probe_video
from backend.video.index import VideoIndex, build_index
from backend.video.probe import load_index
from tests.clips import write_clip

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", frames=20).path


def test_the_kept_index_is_the_one_that_would_be_built(clip: Path, monkeypatch) -> None:
    probe_video(clip, VideoLimits(), ENVIRONMENT)
    kept, built = load_index(clip), build_index(clip, VideoLimits())
    assert kept is not None
    for field in fields(VideoIndex):
        assert np.array_equal(getattr(kept, field.name), getattr(built, field.name)), field.name
    monkeypatch.setattr("backend.video.reader.build_index", None)
    with Video(clip) as video:
        assert len(video) == 20
        assert video.read(3).shape == (video.height, video.width, 3)


def test_a_file_that_changed_is_indexed_again(clip: Path) -> None:
    probe_video(clip, VideoLimits(), ENVIRONMENT)
    write_clip(clip, frames=30)
    assert load_index(clip) is None
    probe_video(clip, VideoLimits(), ENVIRONMENT)
    assert len(load_index(clip).stamps) == 30


def test_an_index_is_never_unpickled(clip: Path) -> None:
    index_path(clip).write_bytes(b"\x80\x04\x95cos\nsystem\n(S'exit'\ntR.")
    assert load_index(clip) is None


@pytest.mark.parametrize("content", [b"", b"no video", b"#EXTM3U\nfile:///etc/passwd\n", bytes(range(256)) * 20])
def test_what_is_no_video_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(BadVideo, match="holds no video that can be decoded"):
        probe_video(path, VideoLimits(), ENVIRONMENT)
    assert not index_path(path).exists()


def test_limits_hold_there_too(clip: Path) -> None:
    with pytest.raises(BadVideo, match="more than 10 frames"):
        probe_video(clip, VideoLimits(frames=10), ENVIRONMENT)


def test_a_process_that_the_machine_killed_is_started_once_more(clip: Path, monkeypatch) -> None:
    mark = clip.with_name("killed")
    killed = (
        f"import os, pathlib; p = pathlib.Path({str(mark)!r}); p.exists() or (p.touch(), os.kill(os.getpid(), 9)); "
    )
    monkeypatch.setattr(probe, "_MAIN", killed + probe._MAIN)
    probe_video(clip, VideoLimits(), ENVIRONMENT)
    assert mark.exists()
    assert len(load_index(clip).stamps) == 20


@pytest.mark.parametrize("main", ["import os; os.abort()", "print('x')", "bytearray(1 << 40)", ""])
def test_a_process_that_dies_is_a_sentence(clip: Path, monkeypatch, main: str) -> None:
    monkeypatch.setattr(probe, "_MAIN", main)
    with pytest.raises(BadVideo, match="its decoder ends on it"):
        probe_video(clip, VideoLimits(), ENVIRONMENT)


def test_one_that_hangs_is_killed_at_the_deadline_or_when_it_is_cancelled(clip: Path, monkeypatch) -> None:
    monkeypatch.setattr(probe, "_MAIN", "import time; time.sleep(600)")
    with pytest.raises(BadVideo, match="takes too long to open"):
        probe_video(clip, VideoLimits(), ENVIRONMENT, seconds=0.2)
    started = time.monotonic()
    with pytest.raises(MediaError, match="was cancelled"):
        probe_video(clip, VideoLimits(), ENVIRONMENT, lambda: time.monotonic() > started + 0.2)


def test_memory_is_limited() -> None:
    code = "from backend.video.probe import limit_memory; limit_memory(64 << 20); bytearray(1 << 30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert "MemoryError" in done.stderr


def test_the_process_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABEL_STUDIO_API_KEY", "BASIC_AUTH_PASS", "SAM3_BACKEND_LABEL_STUDIO_API_KEY"):
        monkeypatch.setenv(name, "canary")
    assert "canary" not in worker_environment().values()
    assert worker_environment()["PATH"] == os.environ["PATH"]
