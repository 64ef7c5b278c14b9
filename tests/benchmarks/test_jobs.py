"""The jobs benchmark's own judgement, and what it finds; nothing is timed here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backend.jobs.spec import FramePrompts, JobSpec
from backend.video import Video, VideoInfo, VideoLimits
from benchmarks.jobs_parts.kills import recomputed
from benchmarks.jobs_parts.logged_engine import FrameLog, LoggedEngine
from benchmarks.jobs_parts.replay import replay
from benchmarks.jobs_parts.saved_tracks import store
from tests.clips import write_clip
from tests.fakes import StubEngine


def test_what_is_computed_again_counts_for_the_kill_that_lost_it() -> None:
    assert recomputed([0, 1, 2, 3, 4], [2]) == [0, 0]
    assert recomputed([0, 1, 2, 1, 2, 3], [3]) == [2, 0]
    # The second kill strikes another job: what the first one lost is computed again only after it.
    assert recomputed([0, 1, 50, 51, 1, 51], [2, 4]) == [1, 1, 0]
    assert recomputed([0, 1, 1, 2], [4]) == [0, 1], "nobody was killed in between"
    frames = ["0 a", "0 b", "1 a", "1 b", "1 a", "1 b", "0 b"]
    assert recomputed(frames, [4], lambda frame: frame[-1]) == [2, 0], "of the job that lost most"


def test_tracks_take_little_room(tmp_path: Path) -> None:
    assert store(tmp_path, quick=True)["bytes_per_object_frame"] <= 64


def boxed(x: float) -> JobSpec:
    return JobSpec("7", "3", "/a.mp4", 25.0, prompts=(FramePrompts(1, (x, 20, 12, 15, 0)),), intervals=((1, None),))


class SociableEngine(StubEngine):
    """Its scores are how many go together."""

    def advance(self, propagations):
        results: list[Any] = super().advance(propagations)
        tracks = [
            {name: seen._replace(score=float(len(results))) for name, seen in one.tracks.items()} for one in results
        ]
        return [replace(one, tracks=own) for one, own in zip(results, tracks, strict=True)]


def test_what_killed_workers_computed_is_computed_again_with_the_same_company(tmp_path: Path) -> None:
    clip, specs = write_clip(tmp_path / "clip.mp4", frames=10, size=(64, 48)).path, {1: boxed(10), 2: boxed(20)}
    engine, states = LoggedEngine(SociableEngine, tmp_path / "log"), list[bytes]()
    with Video(clip, VideoLimits()) as video:
        info = VideoInfo.from_video(video)
        sessions = [engine.open(video) for _ in specs]
        for spec, session in zip(specs.values(), sessions, strict=True):
            spec.resolve(info).propagation.schedule.prompt(session)
        both = [session.propagate(range(10)) for session in sessions]
        for frame in range(6):
            engine.advance(both)
            if frame == 3:
                states = [bytes(session.state()) for session in sessions]
        # They are killed; then the second one goes only one frame beside the first.
        first, second = (engine.open(video, state).propagate(range(4, 10)) for state in states)
        engine.advance([first, second])
        engine.advance([first])
        engine.advance([first])
    log = FrameLog(tmp_path / "log")
    assert [len(line.split()) - 1 for line in log.lines()] == [2] * 6 + [1, 1] + [2, 1, 1]
    assert (len(log.frames()), log.count()) == (16, 13)
    computed = replay(SociableEngine(), clip, specs, log.lines())

    def scores(number: int) -> list[list[float]]:
        return [
            [float(np.frombuffer(seen["object"], np.float32)[4]) for seen in one] for one in computed[number].values()
        ]

    assert scores(1) == [[2]] * 4 + [[2, 2], [2, 1], [1]]
    assert scores(2) == [[2]] * 4 + [[2, 2], [2]]
