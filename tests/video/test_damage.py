"""Files that break off or are damaged say where, and what can be read is read."""

import re
from pathlib import Path

import pytest

from backend.video import Video
from tests.clips import CLIPS, Clip, read_code, write_clip, write_clips

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clip]:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.mark.parametrize("kind", CLIPS)
def test_a_whole_file_has_no_damage(clips: dict[str, Clip], kind: str) -> None:
    with Video(clips[kind].path) as video:
        assert len(list(video.frames(range(len(video))))) == len(video)
        assert video.damage == ""


# A transport stream does not say how long it is.
@pytest.mark.parametrize("kind", [kind for kind in CLIPS if not kind.startswith("mpeg")])
def test_a_file_that_breaks_off_says_how_far_it_reads(clips: dict[str, Clip], tmp_path: Path, kind: str) -> None:
    clip = clips[kind]
    content = clip.path.read_bytes()
    path = tmp_path / clip.path.name
    path.write_bytes(content[: len(content) * 6 // 10])
    with Video(clip.path) as whole:
        length, end = len(whole), whole.end
    with Video(path) as video:
        assert 0 < len(video) < length
        said = re.match(
            r"the video is cut off(?:: it can be read for| after) ([\d.]+)(?: of ([\d.]+))? s", video.damage
        )
        assert said is not None, video.damage
        assert float(said[1]) == pytest.approx(video.end, abs=0.06)
        if kind in ("constant", "ntsc", "late", "matroska", "vp9"):
            assert float(said[2]) == pytest.approx(end, abs=0.06)
        assert read_code(video.read(0)) == clip.first


@pytest.mark.parametrize("reverse", [False, True])
def test_damage_in_the_middle_says_where(tmp_path: Path, reverse: bool) -> None:
    clip = write_clip(tmp_path / "a.mp4", frames=100, gop=10)
    content = bytearray(clip.path.read_bytes())
    middle = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 2
    content[middle : middle + 400] = bytes(400)
    clip.path.write_bytes(content)
    with Video(clip.path) as video:
        assert video.damage == ""
        read = dict(video.frames(range(100), reverse=reverse))
        said = re.fullmatch(r"the video is damaged at ([\d.]+) s", video.damage)
    assert said is not None
    assert 1.0 < float(said[1]) < 3.0
    assert len(read) == 100
    good = [number for number in (0, 5, 95, 99) if read_code(read[number]) == number]
    assert good == [0, 5, 95, 99]
