"""Videos on a node: each comes once, whole or not at all, and the oldest give way."""

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest

from backend.errors import MediaError
from backend.jobs import node_videos
from backend.jobs.carried import PART_BYTES, VideoFile, VideoPart, send_video
from backend.jobs.node_videos import NodeVideos
from backend.jobs.node_worker import _delete_states, _shared_folder
from backend.video.reader import hold_file


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's files are not on this machine."""
    monkeypatch.setattr(VideoFile, "is_here", False)


def a_video(path: Path, size: int = 2 * PART_BYTES + 7) -> VideoFile:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(os.urandom(size))
    return VideoFile.from_path(path)


class Node:
    """The shared folder of a node, with a worker; `asked` are the videos that came from the server."""

    def __init__(self, folder: Path, max_bytes: int = 1 << 30) -> None:
        self.asked: list[VideoFile] = []
        self.videos = NodeVideos(folder, max_bytes, self._send)

    def _send(self, video: VideoFile) -> None:
        self.asked.append(video)
        threading.Thread(target=send_video, args=(video, self.videos.add)).start()


def test_a_video_comes_once_for_all_workers_of_a_node(tmp_path: Path) -> None:
    video = a_video(tmp_path / "server" / "film.mp4")
    nodes = [Node(tmp_path / "node") for _ in range(4)]
    with ThreadPoolExecutor() as threads:
        paths = list(threads.map(lambda node: node.videos.fetch(video), nodes))
    (path,) = {*paths}
    assert path.read_bytes() == video.path.read_bytes()
    assert path.suffix == ".mp4"
    assert sum(len(node.asked) for node in nodes) == 1
    changed = a_video(video.path)
    assert nodes[0].videos.fetch(changed) != path, "another file under the same name is another video"


def test_one_folder_for_all_needs_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    video = a_video(tmp_path / "server" / "film.mp4")
    node = Node(tmp_path / "node")
    assert (node.videos.fetch(video), node.asked) == (video.path, [])
    assert not VideoFile(video.path, video.size + 1, video.modified_ns).is_here
    assert not VideoFile.from_path(tmp_path / "none.mp4").is_here


def test_those_that_were_not_used_for_longest_give_way(tmp_path: Path) -> None:
    node, other = (Node(tmp_path / "node", 250) for _ in range(2))
    videos = [a_video(tmp_path / "server" / f"{number}.mp4", 100) for number in range(4)]
    paths = []
    for number, video in enumerate(videos[:2]):
        paths.append(node.videos.fetch(video))
        os.utime(paths[-1], (number, 7))
    node.videos.fetch(videos[0])
    assert paths[0].stat().st_mtime == 7, "it is the same video still, for all caches"
    paths.append(node.videos.fetch(videos[2]))
    assert [path.exists() for path in paths] == [True, False, True]
    for path in paths[::2]:
        os.utime(path, (0, 7))
    with hold(paths[0]):
        paths.append(other.videos.fetch(videos[3]))
    assert [path.exists() for path in paths] == [True, False, True, True], "a video that is open, or about to be, stays"
    huge = other.videos.fetch(a_video(tmp_path / "server" / "huge.mp4", 999))
    assert huge.exists(), "the newest one stays, however large"
    kept = sorted(path for path in (tmp_path / "node").iterdir())
    assert kept == sorted(path.with_suffix(suffix) for path in (paths[2], huge) for suffix in (".mp4", ".lock"))


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """As while a video is open."""
    descriptor = hold_file(path)
    try:
        yield
    finally:
        os.close(descriptor)


def test_what_a_killed_worker_has_left_of_a_video_is_deleted(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    left, coming = (tmp_path / "node" / f"{name}.coming" for name in ("a", "b"))
    left.touch()
    coming.touch()
    with hold(coming):
        node.videos.fetch(a_video(tmp_path / "server" / "film.mp4"))
    assert (left.exists(), coming.exists()) == (False, True)


def test_a_video_comes_whole_though_its_new_file_was_taken_for_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, other = (Node(tmp_path / "node") for _ in range(2))
    deleted = list[Path]()

    def lock_late(file: BinaryIO, operation: int) -> None:
        if not deleted:
            deleted.extend((tmp_path / "node").glob("*.coming"))
            other.videos._prune()
        fcntl.flock(file, operation)

    monkeypatch.setattr(
        node_videos, "fcntl", SimpleNamespace(flock=lock_late, LOCK_EX=fcntl.LOCK_EX, LOCK_SH=fcntl.LOCK_SH)
    )
    video = a_video(tmp_path / "server" / "film.mp4")
    path = node.videos.fetch(video)
    assert path.read_bytes() == video.path.read_bytes()
    assert len(deleted) == 1


def test_a_slow_disk_holds_up_the_server_and_a_video_that_is_given_up_does_not(tmp_path: Path, monkeypatch) -> None:
    video = a_video(tmp_path / "server" / "film.mp4", 9)
    sent: list[int] = []

    def send(_: VideoFile) -> None:
        for number in range(9):  # as the node's disk would never get to write
            threads.submit(lambda part: (slow.add(part), sent.append(part)), VideoPart(video, bytes([number])))

    with ThreadPoolExecutor(1) as threads:
        slow = NodeVideos(tmp_path / "node", 1 << 30, send)
        monkeypatch.setattr(slow, "_next_part", lambda _: wait_and_fail(sent))
        with pytest.raises(MediaError, match="given up"):
            slow.fetch(video)
    assert len(sent) == 9, "parts that nobody waits for are dropped"


def wait_and_fail(sent: list[int]) -> VideoPart:
    deadline = time.monotonic() + 30
    while len(sent) < node_videos._MAX_PARTS:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(sent) == node_videos._MAX_PARTS
    raise MediaError("given up")


def test_a_video_that_does_not_come_whole_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_videos, "_PART_SECONDS", 0.05)
    video = a_video(tmp_path / "server" / "film.mp4")
    folder = tmp_path / "node"
    cut = NodeVideos(folder, 1 << 30, lambda _: [cut.add(VideoPart(video, b"abc")), cut.add(VideoPart(video))])
    with pytest.raises(MediaError, match="whole"):
        cut.fetch(video)
    silent = NodeVideos(folder, 1 << 30, lambda _: None)
    with pytest.raises(MediaError, match="does not come"):
        silent.fetch(video)
    video.path.unlink()
    with pytest.raises(MediaError, match="no longer stored"):
        Node(folder).videos.fetch(video)
    assert [path for path in folder.iterdir() if path.suffix != ".lock"] == []


def test_the_shared_folder_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = _shared_folder()
    assert _shared_folder() == own
    own.chmod(0o777)
    assert _shared_folder() != own


def test_states_of_workers_that_were_killed_are_deleted(tmp_path: Path) -> None:
    for number in (os.getpid(), 2**22 + 1):
        (tmp_path / f"states-{number}-x").mkdir()
    _delete_states(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"states-{os.getpid()}-x"]
