"""Keyframes of a long result are chosen once: as its job goes, when it ends, and not again after a restart."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.jobs import store_keeper
from backend.labelstudio import keyframes
from backend.labelstudio.keyframe_memo import Choice, KeyframeMemo
from backend.labelstudio.keyframes import SampledTrack, choose_keyframes
from backend.labelstudio.segments import Segment
from backend.predict import keyframe_chooser
from backend.predict.results import TextResult
from backend.settings import KeyframeSettings, Settings
from backend.tracks.keyframe_selection import select_keyframes
from tests.fakes import FakeVideo, Gate, StubEngine
from tests.labelstudio.bodies import body

CONFIG = (Path(__file__).resolve().parents[2] / "label_config.xml").read_text()
WHOLE = Segment(None, None)
TEXT = {"id": "line", "from_name": "text_prompt", "to_name": "video", "type": "textarea", "origin": "manual"}


def wandering(frames: int, seed: int = 1) -> SampledTrack:
    rng = np.random.default_rng(seed)
    boxes = np.column_stack([rng.normal(0, 0.1, (frames, 2)).cumsum(0) % 50, np.full((frames, 2), 20.0)]).round(4)
    boxes[frames // 3] = np.nan
    return SampledTrack(boxes, np.ones(frames, bool))


def choose(seen: SampledTrack, memo: KeyframeMemo | None = None, settings: Settings | None = None, **more):
    return choose_keyframes([WHOLE], lambda _: seen, settings or Settings(), (640, 360), memo=memo, **more)


@given(st.integers(0, 99), st.sampled_from([1, 4, 300, 900]), st.booleans())
def test_a_memo_changes_nothing(seed: int, frames: int, is_whole: bool) -> None:
    seen, memo = wandering(frames, seed), KeyframeMemo()
    plain = choose(seen, is_whole=is_whole)
    first = choose(seen, memo, is_whole=is_whole)
    stored = KeyframeMemo()
    stored.load(memo.to_bytes())
    assert plain == first == choose(seen, memo, is_whole=is_whole) == choose(seen, stored, is_whole=is_whole)
    assert all(key.fingerprint == key.fp and not key.is_human for key in choose(seen, stored).keyframes)


@given(st.dictionaries(st.binary(min_size=16, max_size=16), st.tuples(st.lists(st.integers(0, 8191)), st.floats(0, 1))))
def test_choices_are_stored_whole(given: dict) -> None:
    memo, stored = KeyframeMemo(), KeyframeMemo()
    for key, (rows, iou) in given.items():
        memo.put(key, Choice(rows, [f"{row:08x}" for row in rows], iou))
    stored.load(memo.to_bytes())
    assert all(stored.get(key) == memo.get(key) for key in given)
    KeyframeMemo().load(memo.to_bytes()[:-1])  # damaged: nothing comes of it


def test_what_a_choice_depends_on_makes_it_another(monkeypatch: pytest.MonkeyPatch) -> None:
    memo, seen = KeyframeMemo(), wandering(600)
    choose(seen, memo)
    for settings in (Settings(keyframes=KeyframeSettings(iou=0.8)), Settings(keyframes=KeyframeSettings(mode="exact"))):
        assert choose(seen, memo, settings) == choose(seen, None, settings)
    other = SampledTrack(seen.boxes + np.array([0.5, 0, 0, 0]), seen.looked)
    assert choose(other, memo) == choose(other)


def test_a_long_track_is_cut_at_frames_that_stay_as_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyframes, "_PIECE", 300)
    whole = wandering(3000)
    calls = 0

    def counted(runs, *rest):
        nonlocal calls
        calls += len(runs)
        return select_keyframes(runs, *rest)

    monkeypatch.setattr(keyframes, "select_keyframes", counted)
    memo, most = KeyframeMemo(), 0
    for frames in range(1200, 3001, 100):
        calls = 0
        looked = np.arange(len(whole.boxes)) < frames
        boxes = np.where(looked[:, None], whole.boxes, np.nan)
        choose(SampledTrack(boxes, looked), memo, is_whole=False)
        most = max(most, calls) if frames > 1200 else most
    assert most <= 3, "only the end is thought through"
    calls = 0
    made = choose(whole, memo)
    assert calls <= 2
    fewest = len(choose(SampledTrack(whole.boxes, whole.looked)).keyframes)
    assert len(made.keyframes) == fewest
    monkeypatch.setattr(keyframes, "_PIECE", 10**6)
    assert 0 <= fewest - len(choose(whole).keyframes) <= 10, "each cut costs one at most"
    assert made.iou >= Settings().keyframes.iou


def ask(service) -> list[dict]:
    request = body({**TEXT, "value": {"text": ["car"]}})
    (answer,) = service.predict(request["tasks"], request["params"]["context"], CONFIG, "3")
    return answer["result"]


def test_a_result_is_thought_through_once_and_not_again_after_a_restart(
    make_service, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(store_keeper, "_EVERY", 0.05)
    monkeypatch.setattr(keyframe_chooser, "_EVERY", 0.05)
    monkeypatch.setattr(keyframe_chooser, "_LONG", 100)
    monkeypatch.setattr(keyframes, "_PIECE", 300)
    monkeypatch.setattr(keyframes, "_LEAST_KEPT", 1)
    counted: list[int] = []

    def count(runs, *rest):
        counted.append(len(runs))
        return select_keyframes(runs, *rest)

    monkeypatch.setattr(keyframes, "select_keyframes", count)
    gate = Gate(900)
    video = FakeVideo(1000)
    answering = {"car": {"x": range(1000)}}
    service = make_service(StubEngine(answering=answering, gate=gate), video, response_timeout=0.1)
    ask(service)
    until(lambda: counted)  # as it goes
    gate.open()
    until(lambda: pieces(service) == 4)
    counted.clear()
    ask(service)
    before = TextResult(service.scheduler.job(1), service.settings).detections()
    assert not counted
    until(lambda: service.store.job(1).is_fetched)
    service.close()
    service = make_service(StubEngine(answering=answering), video, data_dir=tmp_path)
    counted.clear()
    after = TextResult(service.scheduler.job(1), service.settings).detections()
    assert not counted
    assert after == before
    assert len(after["x"].track.keyframes) == 5


def pieces(service) -> int:
    """How many pieces of the track are stored."""
    memo = KeyframeMemo()
    memo.load(service.store.memo(1) or b"")
    return len(memo._choices)


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
