"""Videos on a node: each comes once, whole or not at all, and the oldest give way."""

import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.errors import MediaError
from backend.jobs import node_videos
from backend.jobs.carried import PART_BYTES, VideoFile, VideoPart, send_video
from backend.jobs.node_videos import NodeVideos
from backend.jobs.node_worker import _delete_states, _shared_folder


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
    node = Node(tmp_path / "node", 250)
    videos = [a_video(tmp_path / "server" / f"{number}.mp4", 100) for number in range(3)]
    paths = []
    for number, video in enumerate(videos[:2]):
        paths.append(node.videos.fetch(video))
        os.utime(paths[-1], (number, number))
    node.videos.fetch(videos[0])
    third = node.videos.fetch(videos[2])
    assert [path.exists() for path in (*paths, third)] == [True, False, True]
    huge = a_video(tmp_path / "server" / "huge.mp4", 999)
    assert node.videos.fetch(huge).exists(), "the newest one stays, however large"


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
