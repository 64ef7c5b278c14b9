"""Several readers of one video, in one thread: each frame is decoded once for all who stand on it."""

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.video import Pictures, Video
from tests.clips import read_code, write_clip

LENGTH = 40


class Counting(Video):
    """A video that knows which spans were decoded."""

    def frames(self, span: range, reverse: bool = False) -> Pictures:
        self.spans.append(span)
        return super().frames(span, reverse)

    spans: list[range]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=LENGTH).path


@pytest.fixture
def video(clip: Path):
    with Counting(clip) as opened:
        opened.spans = []
        yield opened
        assert not opened._read_aheads, "its decoders are closed"


def test_who_stand_on_a_frame_share_it(video) -> None:
    with closing(video.follow(range(30))) as one, closing(video.follow(range(20))) as other:
        for (frame, read), (_, read_too) in zip(one, other, strict=False):
            assert read() is read_too()
            assert read_code(read()) == frame
    assert video.spans == [range(30)]


def test_a_late_one_starts_anew_and_the_others_go_on_from_where_it_meets_them(video) -> None:
    with closing(video.follow(range(30))) as one, closing(video.follow(range(30))) as other:
        for _ in range(20):
            frame, read = next(one)
            read()
        for _ in range(20):
            frame, read_too = next(other)
            read_too()
        for (frame, read), (_, read_too) in zip(one, other, strict=True):
            assert read() is read_too()
            assert read_code(read()) == frame
    assert video.spans == [range(30), range(30)]


def test_what_nobody_reads_is_not_decoded(video) -> None:
    with closing(video.follow(range(LENGTH))) as frames:
        for frame, read in frames:
            if frame in (20, 24, 38):
                assert read_code(read()) == frame
    assert video.spans == [range(20, LENGTH), range(38, LENGTH)]


@given(data=st.data())
def test_everybody_gets_the_frame_that_he_stands_on(clip: Path, data: st.DataObject) -> None:
    spans = st.lists(st.tuples(st.integers(0, LENGTH - 1), st.integers(1, LENGTH), st.booleans()), max_size=3)
    with Video(clip) as opened:
        readers = [opened.follow(range(min(a, b), max(a, b)), reverse) for a, b, reverse in data.draw(spans)]
        for number in data.draw(st.lists(st.integers(0, 2), max_size=40)):
            if number < len(readers) and (item := next(readers[number], None)) and data.draw(st.booleans()):
                frame, read = item
                assert read_code(read()) == frame
        for reader in readers:
            reader.close()
        assert not opened._read_aheads
