"""Computes once more what workers have computed: the same sets of jobs, frame by frame, in the same order."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from backend.engines.base import Engine, Session
from backend.jobs.schedule import Cursor, Progress, Schedule
from backend.jobs.spec import JobSpec
from backend.tracks.track import FrameResult, ResultBlock
from backend.video import Video, VideoInfo, VideoLimits
from benchmarks.jobs_parts.logged_engine import CONTINUE, name_session

Seen = Mapping[str, bytes]
"""The tracks that are seen on a frame, and the box and the score of each."""


class _Job:
    """A job's session, which can go back to the states from which a job was continued.

    Attributes:
        resumed: the frames at which the session was continued from a state.
        computed: what its frames came to, each time.
    """

    def __init__(self, engine: Engine, video: Video, schedule: Schedule) -> None:
        self._engine, self._video, self._schedule = engine, video, schedule
        (self._pass,) = schedule.passes
        self._states: dict[int, bytes] = {}
        self._session: Session | None = None
        self._resources = ExitStack()
        self.resumed: set[int] = set()
        self.computed: dict[int, list[Seen]] = defaultdict(list)
        self.cursor: Cursor | None = None

    def go_to(self, frame: int) -> Cursor:
        """The session where a frame is next."""
        if self.cursor is None or self.cursor.position.frame != frame:  # anew, or from its prompts once more
            self.close()
            is_start = frame == self._pass.span.start
            self._session = session = self._resources.enter_context(
                self._engine.open(self._video, None if is_start else self._states[frame])
            )
            if is_start:
                self._schedule.prompt(session)
            self.cursor = Cursor(self._schedule, session, Progress(0, frame - self._pass.span.start))
        return self.cursor

    def add(self, result: FrameResult) -> None:
        """A frame is done."""
        assert self.cursor
        assert self._session
        self.cursor.advance()
        self.computed[result.frame].append(seen_tracks(*ResultBlock.from_results([result], self._pass.reverse))[0])
        if self.cursor.is_complete:
            self.close()
        elif result.frame + 1 in self.resumed:
            self._states[result.frame + 1] = bytes(self._session.state())

    def close(self) -> None:
        """Free the session."""
        if self.cursor:
            self.cursor.close()
        self._resources.close()
        self.cursor = self._session = None


def replay(
    engine: Engine, path: Path, specs: Mapping[int, JobSpec], lines: Sequence[str]
) -> dict[int, dict[int, list[Seen]]]:
    """What the frames of each job came to, each time they were computed.

    Args:
        path: of the video.
        specs: of the jobs, by number.
        lines: a frame each, and the names of the sessions that advanced together; or of one that was continued.
    """
    with Video(path, VideoLimits()) as video:
        info = VideoInfo.from_video(video)
        schedules = {number: spec.resolve(info).propagation.schedule for number, spec in specs.items()}
        numbers = {name_session(schedule.prompts): number for number, schedule in schedules.items()}
        jobs = {name: _Job(engine, video, schedules[number]) for name, number in numbers.items()}
        steps = [(first, names) for first, *names in map(str.split, lines)]
        continued = set[str]()
        for first, names in steps:
            for name in names:
                if first == CONTINUE:
                    continued.add(name)
                elif name in continued:
                    continued.remove(name)
                    jobs[name].resumed.add(int(first))
        for first, names in steps:
            if first == CONTINUE:
                jobs[names[0]].close()
                continue
            cursors = [jobs[name].go_to(int(first)) for name in names]
            for name, result in zip(names, engine.advance([one.propagation for one in cursors]), strict=True):
                if isinstance(result, Exception):
                    raise result
                jobs[name].add(result)
    return {numbers[name]: dict(job.computed) for name, job in jobs.items()}


def seen_tracks(block: ResultBlock) -> list[Seen]:
    """The tracks that are seen on each frame of a block."""
    columns = (zip(block.tracks, block.rows[:, column], strict=True) for column in range(len(block.frames)))
    return [{track: row.tobytes() for track, row in seen if not np.isnan(row).any()} for seen in columns]
