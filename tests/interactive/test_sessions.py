"""Interactive sessions over a stub engine: what they answer, what they keep, and when they end."""

import time
from pathlib import Path

import numpy as np
import pytest

from backend.errors import BadRequest, Busy, SettingsError
from backend.interactive import sessions as module
from backend.interactive.session import SessionKey
from backend.jobs.spec import OBJECT_TRACK, FramePrompts
from backend.tracks.geometry import Box
from tests.fakes import StubEngine
from tests.jobs.test_scheduler import until

KEY = SessionKey("3", "7", "/clip.mp4", 25.0)
POINT = FramePrompts(4, points=((50.0, 50.0, True),))


def test_a_click_is_answered_in_pixels_of_the_frame_that_the_page_shows(make_interactive) -> None:
    service = make_interactive()
    session = service.interactive.open(KEY)
    best, *_ = session.preview(POINT)
    assert best.box == Box(300, 160, 340, 200)
    assert best.mask.to_mask().shape == (360, 640)
    assert service.engine.encoded == [3], "LS frames begin at 1"
    assert service.scheduler.jobs(9) == []


def test_what_is_encoded_ahead_is_not_encoded_again(make_interactive) -> None:
    service = make_interactive()
    session = service.interactive.open(KEY)
    session.encode_ahead([4, 5, 3])
    until(lambda: session.encoded_frames == {2, 3, 4})
    assert service.engine.encoded == [3, 4, 2]
    session.preview(POINT)
    session.encode_ahead(range(3, 7))
    until(lambda: session.encoded_frames == {2, 3, 4, 5})
    assert service.engine.encoded == [3, 4, 2, 5]


def test_of_many_frames_the_first_are_encoded(make_interactive) -> None:
    service = make_interactive()
    session = service.interactive.open(KEY)
    session.encode_ahead(range(1, 90))
    until(lambda: len(session.encoded_frames) == 32)
    session.encode_ahead([])
    session.preview(FramePrompts(60, points=((50.0, 50.0, True),)))
    assert service.engine.encoded == [*range(32), 59]


@pytest.mark.parametrize("frame", [0, 101])
def test_a_frame_that_the_video_lacks_is_refused(make_interactive, frame: int) -> None:
    session = make_interactive().interactive.open(KEY)
    with pytest.raises(BadRequest, match="there is no frame"):
        session.encode_ahead([frame])
    with pytest.raises(BadRequest, match="there is no frame"):
        session.preview(FramePrompts(frame, points=((5.0, 5.0, True),)))


def test_a_track_is_a_job_like_any_other(make_interactive) -> None:
    service = make_interactive()
    session = service.interactive.open(KEY)
    session.preview(POINT)
    job = session.start_track("abc", [POINT], "both", classes=("Car",))
    service.scheduler.wait([job], 20)
    assert job.state == "done"
    boxes, _ = job.resolved.propagation.tracks()[OBJECT_TRACK].at(np.arange(100))
    assert boxes[:, 0].tolist() == [297 + frame for frame in range(100)]
    (listed,) = service.job_status.overview()["jobs"]
    assert (listed["id"], listed["task"]) == (job.number, "7")
    assert session.start_track("abc", [POINT], "both", classes=("Car",)) is job
    assert service.scheduler.newest(("7", "region", "abc")) is job
    session.preview(POINT)
    assert service.engine.sessions == 1


def test_words_start_a_track_too(make_interactive) -> None:
    service = make_interactive(StubEngine(answering={"car": {"car 1": range(100)}}))
    session = service.interactive.open(KEY)
    job = session.start_track("words", phrases=("car",))
    service.scheduler.wait([job], 20)
    assert list(job.resolved.propagation.tracks()) == ["car 1"]


def test_a_track_without_a_prompt_is_refused(make_interactive) -> None:
    session = make_interactive().interactive.open(KEY)
    with pytest.raises(BadRequest, match="nothing to track"):
        session.start_track("abc")
    with pytest.raises(BadRequest, match="outside the picture"):
        session.start_track("abc", [FramePrompts(1, (120, 10, 5, 5, 0))])


def test_while_the_model_loads_a_preview_says_so(make_interactive) -> None:
    engine = StubEngine(status="loading")
    session = make_interactive(engine).interactive.open(KEY)
    session.encode_ahead([1])
    with pytest.raises(Busy, match="the model is loading"):
        session.preview(POINT)
    failed = StubEngine(status="failed: buy a GPU")
    with pytest.raises(SettingsError, match="buy a GPU"):
        make_interactive(failed).interactive.open(KEY).preview(POINT)


def test_sessions_are_bounded_and_end_when_nobody_uses_them(make_interactive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    service = make_interactive()
    interactive = service.interactive
    ended: list[str] = []
    monkeypatch.setattr(service._pool.previews, "end", ended.append)
    first, second = (interactive.open(SessionKey("3", task, "/clip.mp4", 25.0)) for task in "12")
    assert interactive.open(first.key) is first
    third = interactive.open(SessionKey("3", "3", "/clip.mp4", 25.0))
    assert (ended, interactive.find(second.key)) == ([second.name], None)
    first.used_at = time.monotonic() - 100
    interactive.close_idle(50)
    assert ended == [second.name, first.name]
    interactive.close("3", "3", "ann")
    assert len(interactive) == 1
    interactive.close("3", "3")
    assert ended == [second.name, first.name, third.name]
    assert len(interactive) == 0


def test_a_video_that_the_cache_has_removed_is_fetched_again(make_interactive, tmp_path: Path) -> None:
    service = make_interactive()
    session = service.interactive.open(KEY)
    (tmp_path / "clip.mp4").unlink()
    again = service.interactive.open(KEY)
    assert again is not session
    assert again.preview(POINT)
