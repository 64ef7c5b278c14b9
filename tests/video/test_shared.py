"""A video that stays open between looks."""

from pathlib import Path

import pytest

from backend.errors import BadVideo
from backend.video import SharedVideo, Video
from tests.clips import read_code, write_clip


def test_a_video_is_opened_once_and_another_takes_its_place(tmp_path: Path) -> None:
    one, other = (write_clip(tmp_path / f"{name}.mp4", frames=8).path for name in "ab")
    held = SharedVideo(Video)
    with held.open(one) as first:
        assert read_code(first.read(5)) == 5
    with held.open(one) as again:
        assert again is first
        assert read_code(again.read(2)) == 2
    with held.open(other) as second:
        assert second is not first
    held.close()
    with held.open(other) as third:
        assert third is not second
    held.close()


def test_a_file_that_is_none_leaves_room_for_others(tmp_path: Path) -> None:
    (tmp_path / "none.mp4").write_text("no video")
    held = SharedVideo(Video)
    with pytest.raises(BadVideo), held.open(tmp_path / "none.mp4"):
        pass
    with held.open(write_clip(tmp_path / "a.mp4", frames=3).path) as video:
        assert len(video) == 3
    held.close()
