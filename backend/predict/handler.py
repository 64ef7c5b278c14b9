"""The story of one request: the jobs that do what it asks, and the regions and the line that answer it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.errors import BackendError
from backend.jobs.job import Job
from backend.labelstudio import region as regions
from backend.labelstudio import segments
from backend.labelstudio.clicks import Click, Clicked
from backend.labelstudio.commands import TRACK, Command
from backend.labelstudio.keyframe import Item
from backend.labelstudio.keyframes import Made
from backend.labelstudio.region import Region
from backend.labelstudio.request import Asked, Line
from backend.labelstudio.segments import Segment
from backend.predict import overwrite_policy
from backend.predict.request_context import Request, Results
from backend.predict.response_cache import Source, clicks_of, made_of
from backend.predict.results import Tracking, shown_on, stretches, within
from backend.predict.text_query import ask
from backend.predict.text_results import Finding
from backend.tracks.frame_range import LAST_FRAME
from backend.tracks.prompts import Direction, group_by_frame


@dataclass
class _Work:
    """What one region is answered from.

    Attributes:
        stays: keyframes that are a person's, or stand in for theirs: they are answered as they came.
        cut: the rest.
        view: of the job that makes what is to be made of it; None: nothing.
        name: of the track, where the job has several.
        made: what the region is made of, where that is no box; `called`: the label of clicks.
        is_left: it is answered as it came; an error of it is told in the region alone.
    """

    region: Region
    classes: tuple[str, ...]
    stays: Sequence[Item] = ()
    cut: Sequence[Segment] = ()
    view: Tracking | Finding | None = None
    name: str | None = None
    made: Mapping[str, Any] | None = None
    called: str = ""
    error: BackendError | None = None
    is_left: bool = False

    @property
    def job(self) -> Job | None:
        """What makes it."""
        return self.view.job if self.view else None


class Story:
    """From one request to its answer."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._memory, self._tools, self._interaction = request.memory, request.tools, request.interaction
        self._direction = request.tools.settings.direction
        self._going_on: set[str] = set()

    def answered(self, deadline: float) -> Results:
        """Do what is asked, as far as it goes until `deadline` (of the monotonic clock), and answer.

        Raises:
            BackendError: nothing of it can be done, and there is no line to say so.
        """
        interaction, line = self._interaction, self._interaction.line
        self._memory.saw(interaction.task, (*interaction.page, *interaction.context))
        works = [self._box(one) for one in interaction.asked] + [self._object(one) for one in interaction.clicked]
        asking = ask(self._request)
        self._tools.wait([work.job for work in works if work.job] + ([asking.job] if asking else []), deadline)
        for work in works:
            work.error = work.error or (work.job.error if work.job else None)
        errors = [work.error for work in works if work.error and not work.is_left]
        if errors and len(errors) == len(works) and line is None:
            raise errors[0]
        answers = [self._region(work) for work in works]
        results = [one for answer in answers for one in answer]
        told = f"not tracked: {errors[0]}" if errors else self._waited_for(works, answers)
        if asking:
            found, told = asking.found()
            results += found
            self._going_on |= asking.going_on
        if line and (told or line.is_marked):
            results += self._line(line, told, is_needed=not results)
        lawful = [dict(one) for one in overwrite_policy.lawful(results, interaction, self._going_on)]
        boxes = [regions.parse(one) for one in lawful if one["type"] == regions.TYPE]
        self._memory.note(interaction.task, boxes)
        return lawful

    def _line(self, line: Line, told: str | None, *, is_needed: bool) -> Results:
        """The line for words; not of an annotation that was never saved, unless there is no other place to tell it."""
        if line.id is None:
            return [line.written(told)] if told and is_needed else []
        own = self._memory.own(self._interaction.task, line.id, line.own, is_now=line.asked is not None)
        return [replace(line, own=own).written(told)]

    # Boxes

    def _box(self, asked: Asked) -> _Work:
        region, command, key = asked.region, asked.command, self._request.key(asked.region.id)
        work = _Work(region, asked.classes, region.anchors(is_commanded=command != TRACK))
        if asked.error:
            work.error, work.is_left = asked.error, True
        elif command.stop:
            self._stop(work)
        elif command != TRACK or not self._goes_on(work):
            # What is unfinished goes on with the job that redoes it.
            if command.redo and not region.is_partial:
                self._tools.scheduler.forget(key)
            work.cut = segments.cut(region, self._direction, command)
            if any(segment.is_tracked for segment in work.cut):
                self._track(work, _inside(work.cut, clicks_of(region)), command, self._direction)
        return work

    def _goes_on(self, work: _Work) -> bool:
        """Whether a job is there already that makes the rest of the region, as it was asked for before."""
        region = work.region
        source = self._memory.sources.get(self._request.key(region.id))
        is_corrected = any(item.is_corrected for item in region.items) or bool(region.deleted)
        if not source or not region.is_partial or "at" in region.meta or is_corrected:
            return False
        if source.view.job.state in ("failed", "cancelled") or source.view.job.is_cancelled:
            return False
        work.view, work.name, work.stays, work.made = source.view, source.name, source.stays, source.made
        return True

    def _stop(self, work: _Work) -> None:
        """End the region's job, and answer what it has computed; without one, the region as it is."""
        job = self._tools.scheduler.newest(self._request.key(work.region.id))
        source = self._memory.sources.get(self._request.key(work.region.id))
        if job is None or job.state not in ("queued", "running") or source is None or source.view.job is not job:
            work.is_left = True
            return
        self._tools.scheduler.cancel(job.number)
        work.view, work.stays, work.made = source.view, source.stays, source.made

    # Clicks

    def _object(self, clicked: Clicked) -> _Work:
        """The track that clicks make: the region that they made before, or a new one."""
        interaction, memory = self._interaction, self._memory
        clicks = memory.signed(interaction.task, clicked.clicks, interaction.page)
        name = memory.clicked(interaction.task, clicked, interaction.page)
        classes = self._request.config.clicked(clicked.control, clicked.label, interaction.video)
        region = interaction.page.get(name) or self._request.new(name, classes)
        clicked_on = group_by_frame(clicks)
        direction = segments.led(region, clicked_on, self._direction)
        work = _Work(
            region=region,
            classes=tuple(label for label in region.labels if label not in self._request.config.commands) or classes,
            stays=[item for item in region.items if item.is_human],
            cut=segments.around(region, clicked_on, direction),
            made=made_of(clicked, clicks),
            called=clicked.label,
        )
        self._track(work, clicked_on, TRACK, direction)
        if work.job:
            self._going_on.add(name)
        return work

    # Both

    def _track(
        self, work: _Work, clicked: Mapping[int, Sequence[Click]], command: Command, direction: Direction
    ) -> None:
        """Set the job to work that makes the region's track."""
        interaction, region, cut = self._interaction, work.region, work.cut
        recipe = self._request.recipe(
            length=region.frames_count,
            prompts=shown_on(cut, clicked),
            intervals=stretches(cut, clicked, command.direction or direction),
            ranges=within(cut),
        )
        parts: list[Any] = [interaction.framerate, direction, self._tools.settings.max_frames, command]
        parts += [item.fingerprint for item in work.stays]
        parts += [item.fingerprint for segment in cut for item in (*(segment.kept or ()), *segment.aside)]
        parts += [(one.frame, one.x, one.y, one.positive) for clicks in clicked.values() for one in clicks]
        key = self._request.key(region.id)
        try:
            job = self._tools.submit(key, self._tools.digest([interaction.url, *parts]), recipe)
        except BackendError as error:
            work.error = error
        else:
            work.view = Tracking(job, region, cut, self._tools.settings)
            self._memory.sources.put(key, Source(work.view, None, work.stays, work.made))

    def _region(self, work: _Work) -> Results:
        """A region as it is answered; nothing where there is no box of it to show."""
        interaction, region, job = self._interaction, work.region, work.job
        if work.is_left:
            reason = str(work.error) if work.error else None
            return regions.left(region, work.classes, interaction.framerate, reason)
        if work.error:
            # What clicks have made is not in the request: a copy of it that only tells of an error may lose an edit.
            is_here = region.id in interaction.context
            return regions.refusal(region, work.classes, interaction.framerate, str(work.error)) if is_here else []
        # Asked before the frames are looked at: it may end in between, and then they would lack some.
        is_partial = job is not None and job.state != "done"
        missing = work.view.progress() if work.view and is_partial else None
        made, score = Made(segments.kept(work.cut), region.iou), region.score
        if work.view:
            answer = _answer_of(work.view, work.name)
            if answer is None:
                if not region.items:
                    return []
                told = None if is_partial else "it was seen for a moment only, delete it if it is nothing"
                return regions.left(region, work.classes, interaction.framerate, told, is_partial=is_partial)
            made, score = answer
        if not made.items and not work.stays:
            return []
        learned = work.view.learned() if isinstance(work.view, Tracking) else {}
        made_of = {**(work.made or {}), **learned}
        whole = replace(made, items=[*work.stays, *made.items])
        return self._request.answer(region, whole, work.classes, score, missing, made_of)

    def _waited_for(self, works: Sequence[_Work], answers: Sequence[Results]) -> str | None:
        """What to say of clicks of which nothing can be shown yet, or at all."""
        for work, answer in zip(works, answers, strict=True):
            if work.called and work.view and not answer:
                if work.view.job.state == "done":
                    return f"{work.called}: nothing is seen there, click on it once more"
                done, total = work.view.progress()
                status = f"{self._tools.engine_now()}, {done} of {total} frames"
                return f"{work.called}: {status} so far, click once more for the rest"
        return None


def _answer_of(view: Tracking | Finding, name: str | None) -> tuple[Made, float | None] | None:
    """Keyframes and score of a track by its name in the job; None: it has none of that name any more."""
    if isinstance(view, Tracking):
        return view.answer()
    found = view.found().get(name or "")
    return (found.made, found.score) if found else None


def _inside(cut: Iterable[Segment], clicks: Iterable[Click]) -> dict[int, list[Click]]:
    """The clicks on frames that are tracked."""
    spans = [segment.frames(LAST_FRAME) for segment in cut if segment.is_tracked]
    return group_by_frame(click for click in clicks if any(click.frame in span for span in spans))
