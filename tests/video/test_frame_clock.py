import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import BadRequest
from backend.video.frame_clock import FrameClock

RATES = [10, 12.5, 23.976, 24000 / 1001, 24, 25, 29.97, 30000 / 1001, 30, 50, 59.94, 60000 / 1001, 60]


def constant(count: int, rate: float, framerate: float) -> FrameClock:
    return FrameClock(np.arange(count) / rate, count / rate, framerate)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("count", [1, 2, 67, 100, 5000])
def test_at_the_files_own_rate_frame_k_is_picture_k_minus_1(rate: float, count: int) -> None:
    clock = constant(count, rate, rate)
    assert clock.length == count
    assert (clock.source_frames(np.arange(1, count + 1)) == np.arange(count)).all()
    assert [clock.first_frame(source) for source in range(count)] == list(range(1, count + 1))


@pytest.mark.parametrize("rate", RATES)
def test_times_rounded_to_milliseconds_as_in_matroska_change_nothing(rate: float) -> None:
    clock = FrameClock(np.round(np.arange(2000) / rate, 3), 2000 / rate, rate)
    assert (clock.source_frames(np.arange(1, 2001)) == np.arange(2000)).all()


@given(st.integers(1, 400), st.sampled_from(RATES), st.floats(5, 120))
def test_any_framerate_maps_every_frame_to_the_picture_that_is_up_then(
    count: int, rate: float, framerate: float
) -> None:
    clock = constant(count, rate, framerate)
    frames = np.arange(1, clock.length + 1)
    sources = clock.source_frames(frames)
    seconds = (frames - 1) / framerate + 0.002 + 1e-6  # a picture that appears just then is the one that shows
    assert (np.diff(sources) >= 0).all()
    assert (sources / rate <= seconds + 1e-9).all()
    assert (seconds < (sources + 1) / rate + 1e-9).all()
    assert sources[-1] == count - 1 or framerate < rate + 1e-6 or count == 1


@given(st.lists(st.floats(0.01, 0.5), min_size=1, max_size=60), st.floats(101, 240))
def test_variable_frame_rate_is_found_again_from_either_side(gaps: list[float], framerate: float) -> None:
    times = np.cumsum([0, *gaps[:-1]])
    clock = FrameClock(times, times[-1] + gaps[-1], framerate)
    for source in range(len(times)):
        assert clock.source_frame(clock.first_frame(source)) == source
    for frame in range(1, clock.length + 1):
        assert clock.first_frame(clock.source_frame(frame)) <= frame


def test_frames_after_the_last_picture_show_it_still() -> None:
    clock = constant(100, 25, 25)  # the file's sound may last for 25 frames more
    assert clock.length == 100
    assert clock.source_frame(125) == 99


def test_a_frame_that_the_video_ends_in_is_not_whole() -> None:
    # Seen in Label Studio: a file of 3.1 s counted at 50 has 155 frames, and no 156th.
    clock = FrameClock(np.array([0, 1, 2]), 3.11, 50)
    assert (clock.length, clock.whole_frames) == (156, 155)
    assert FrameClock(np.array([0.0]), 0.001, 25).whole_frames == 1


@given(st.integers(1, 400), st.sampled_from(RATES))
def test_at_the_files_own_rate_every_frame_is_whole(count: int, rate: float) -> None:
    clock = constant(count, rate, rate)
    assert clock.whole_frames == clock.length == count


def test_before_a_late_first_picture_the_first_one_counts() -> None:
    clock = FrameClock(0.5 + np.arange(10) / 25, 0.9, 25)
    assert clock.source_frame(1) == 0
    assert clock.first_frame(0) == 14


def test_at_the_wrong_framerate_it_follows_what_the_page_shows() -> None:
    # Seen in Label Studio: a 25 frames/s file counted at 30 shows picture 0 on frame 2 and picture 40 on frame 50.
    clock = constant(100, 25, 30)
    assert clock.source_frame(2) == 0
    assert clock.source_frame(50) == 40
    assert clock.length == 120


def test_more_frames_than_any_page_counts_are_refused() -> None:
    with pytest.raises(BadRequest, match="too many"):
        constant(10**5, 25, 999)


@pytest.mark.parametrize("framerate", [0, -25, float("nan"), float("inf"), 1e6, 1e-3])
def test_an_impossible_framerate_is_refused(framerate: float) -> None:
    with pytest.raises(BadRequest, match="set fps"):
        constant(10, 25, framerate)
