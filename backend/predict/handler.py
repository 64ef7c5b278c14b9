"""The story of one request: the jobs that do what it asks, and the regions and the line that answer it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.errors import BackendError
from backend.jobs.job import Job
from backend.labelstudio.clicks import Click, ClickPrompt
from backend.labelstudio.commands import TRACK, Command
from backend.labelstudio.keyframe import Keyframe
from backend.labelstudio.keyframes import KeyframeSet
from backend.labelstudio.region import TYPE, Region, parse_region
from backend.labelstudio.region_results import build_refusal, build_unchanged
from backend.labelstudio.request import PromptField, RegionPrompt
from backend.labelstudio.segments import Segment, click_direction, cut_segments, kept_keyframes, segments_around_clicks
from backend.predict import overwrite_policy
from backend.predict.request_context import RequestContext, Results
from backend.predict.response_cache import ResultSource, clicks_origin, parse_clicks
from backend.predict.results import RegionResult, frame_prompts, tracked_intervals, tracked_ranges
from backend.predict.text_query import submit_text_prompt
from backend.predict.text_results import TextResult
from backend.tracks.frame_range import LAST_FRAME
from backend.tracks.prompts import Direction, group_by_frame


@dataclass
class _RegionWork:
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
    fixed: Sequence[Keyframe] = ()
    segments: Sequence[Segment] = ()
    result: RegionResult | TextResult | None = None
    track_name: str | None = None
    origin: Mapping[str, Any] | None = None
    click_label: str = ""
    error: BackendError | None = None
    is_unchanged: bool = False

    @property
    def job(self) -> Job | None:
        """What makes it."""
        return self.result.job if self.result else None


class PredictHandler:
    """From one request to its answer."""

    def __init__(self, request: RequestContext) -> None:
        self._request = request
        self._cache, self._tools, self._interaction = request.cache, request.tools, request.interaction
        self._direction = request.tools.settings.direction
        self._continued: set[str] = set()

    def handle(self, deadline: float) -> Results:
        """Do what is asked, as far as it goes until `deadline` (of the monotonic clock), and answer.

        Raises:
            BackendError: nothing of it can be done, and there is no line to say so.
        """
        interaction, line = self._interaction, self._interaction.prompt_field
        self._cache.mark_seen(interaction.task, (*interaction.page, *interaction.context))
        works = [self._handle_region(one) for one in interaction.region_prompts] + [
            self._handle_clicks(one) for one in interaction.click_prompts
        ]
        asking = submit_text_prompt(self._request)
        self._tools.wait([work.job for work in works if work.job] + ([asking.job] if asking else []), deadline)
        for work in works:
            work.error = work.error or (work.job.error if work.job else None)
        errors = [work.error for work in works if work.error and not work.is_unchanged]
        if errors and len(errors) == len(works) and line is None:
            raise errors[0]
        answers = [self._answer_region(work) for work in works]
        results = [one for answer in answers for one in answer]
        told = f"not tracked: {errors[0]}" if errors else self._clicks_status(works, answers)
        if asking:
            found, told = asking.answer()
            results += found
            self._continued |= asking.continued
        if line and (told or line.is_marked):
            results += self._answer_prompt_field(line, told, is_needed=not results)
        lawful = [dict(one) for one in overwrite_policy.allowed_results(results, interaction, self._continued)]
        boxes = [parse_region(one) for one in lawful if one["type"] == TYPE]
        self._cache.record(interaction.task, boxes)
        return lawful

    def _answer_prompt_field(self, line: PromptField, told: str | None, *, is_needed: bool) -> Results:
        """The line for words; not of an annotation that was never saved, unless there is no other place to tell it."""
        if line.id is None:
            return [line.to_result(told)] if told and is_needed else []
        own = self._cache.person_lines(self._interaction.task, line.id, line.own, is_now=line.text is not None)
        return [replace(line, own=own).to_result(told)]

    # Boxes

    def _handle_region(self, asked: RegionPrompt) -> _RegionWork:
        region, command, key = asked.region, asked.command, self._request.key(asked.region.id)
        work = _RegionWork(region, asked.classes, region.anchors(is_commanded=command != TRACK))
        if asked.error:
            work.error, work.is_unchanged = asked.error, True
        elif command.stop:
            self._stop_job(work)
        elif command != TRACK or not self._continue_job(work):
            # What is unfinished goes on with the job that redoes it.
            if command.redo and not region.is_partial:
                self._tools.scheduler.forget(key)
            work.segments = cut_segments(region, self._direction, command)
            if any(segment.is_tracked for segment in work.segments):
                self._submit_job(work, _tracked_clicks(work.segments, parse_clicks(region)), command, self._direction)
        return work

    def _continue_job(self, work: _RegionWork) -> bool:
        """Whether a job is there already that makes the rest of the region, as it was asked for before."""
        region = work.region
        source = self._cache.sources.get(self._request.key(region.id))
        is_corrected = any(item.is_corrected for item in region.keyframes) or bool(region.deleted)
        if not source or not region.is_partial or "at" in region.meta or is_corrected:
            return False
        if source.result.job.state in ("failed", "cancelled") or source.result.job.is_cancelled:
            return False
        work.result, work.track_name, work.fixed, work.origin = (
            source.result,
            source.track_name,
            source.fixed,
            source.origin,
        )
        return True

    def _stop_job(self, work: _RegionWork) -> None:
        """End the region's job, and answer what it has computed; without one, the region as it is."""
        job = self._tools.scheduler.newest(self._request.key(work.region.id))
        source = self._cache.sources.get(self._request.key(work.region.id))
        if job is None or job.state not in ("queued", "running") or source is None or source.result.job is not job:
            work.is_unchanged = True
            return
        self._tools.scheduler.cancel(job.number)
        work.result, work.fixed, work.origin = source.result, source.fixed, source.origin

    # Clicks

    def _handle_clicks(self, clicked: ClickPrompt) -> _RegionWork:
        """The track that clicks make: the region that they made before, or a new one."""
        interaction, memory = self._interaction, self._cache
        clicks = memory.sign_clicks(interaction.task, clicked.clicks, interaction.page)
        name = memory.region_id(interaction.task, clicked, interaction.page)
        classes = self._request.config.click_classes(clicked.control, clicked.label, interaction.video)
        region = interaction.page.get(name) or self._request.new_region(name, classes)
        clicked_on = group_by_frame(clicks)
        direction = click_direction(region, clicked_on, self._direction)
        work = _RegionWork(
            region=region,
            classes=tuple(label for label in region.labels if label not in self._request.config.commands) or classes,
            fixed=[item for item in region.keyframes if item.is_human],
            segments=segments_around_clicks(region, clicked_on, direction),
            origin=clicks_origin(clicked, clicks),
            click_label=clicked.label,
        )
        self._submit_job(work, clicked_on, TRACK, direction)
        if work.job:
            self._continued.add(name)
        return work

    # Both

    def _submit_job(
        self, work: _RegionWork, clicked: Mapping[int, Sequence[Click]], command: Command, direction: Direction
    ) -> None:
        """Set the job to work that makes the region's track."""
        interaction, region, cut = self._interaction, work.region, work.segments
        recipe = self._request.job_spec(
            length=region.frames_count,
            prompts=frame_prompts(cut, clicked),
            intervals=tracked_intervals(cut, clicked, command.direction or direction),
            ranges=tracked_ranges(cut),
        )
        parts: list[Any] = [interaction.framerate, direction, self._tools.settings.max_frames, command]
        parts += [item.fingerprint for item in work.fixed]
        parts += [item.fingerprint for segment in cut for item in (*(segment.kept or ()), *segment.set_aside)]
        parts += [(one.frame, one.x, one.y, one.positive) for clicks in clicked.values() for one in clicks]
        key = self._request.key(region.id)
        try:
            job = self._tools.submit(key, self._tools.digest([interaction.url, *parts]), recipe)
        except BackendError as error:
            work.error = error
        else:
            work.result = RegionResult(job, region, cut, self._tools.settings)
            self._cache.sources.put(key, ResultSource(work.result, None, work.fixed, work.origin))

    def _answer_region(self, work: _RegionWork) -> Results:
        """A region as it is answered; nothing where there is no box of it to show."""
        interaction, region, job = self._interaction, work.region, work.job
        if work.is_unchanged:
            reason = str(work.error) if work.error else None
            return build_unchanged(region, work.classes, interaction.framerate, reason)
        if work.error:
            # What clicks have made is not in the request: a copy of it that only tells of an error may lose an edit.
            is_here = region.id in interaction.context
            return build_refusal(region, work.classes, interaction.framerate, str(work.error)) if is_here else []
        # Asked before the frames are looked at: it may end in between, and then they would lack some.
        is_partial = job is not None and job.state != "done"
        missing = work.result.progress() if work.result and is_partial else None
        made, score = KeyframeSet(kept_keyframes(work.segments), region.iou), region.score
        if work.result:
            answer = _read_answer(work.result, work.track_name)
            if answer is None:
                if not region.keyframes:
                    return []
                told = None if is_partial else "it was seen for a moment only, delete it if it is nothing"
                return build_unchanged(region, work.classes, interaction.framerate, told, is_partial=is_partial)
            made, score = answer
        if not made.keyframes and not work.fixed:
            return []
        learned = work.result.learned() if isinstance(work.result, RegionResult) else {}
        made_of = {**(work.origin or {}), **learned}
        whole = replace(made, keyframes=[*work.fixed, *made.keyframes])
        return self._request.answer(region, whole, work.classes, score, missing, made_of)

    def _clicks_status(self, works: Sequence[_RegionWork], answers: Sequence[Results]) -> str | None:
        """What to say of clicks of which nothing can be shown yet, or at all."""
        for work, answer in zip(works, answers, strict=True):
            if work.click_label and work.result and not answer:
                if work.result.job.state == "done":
                    return f"{work.click_label}: nothing is seen there, click on it once more"
                done, total = work.result.progress()
                status = f"{self._tools.engine_status()}, {done} of {total} frames"
                return f"{work.click_label}: {status} so far, click once more for the rest"
        return None


def _read_answer(view: RegionResult | TextResult, name: str | None) -> tuple[KeyframeSet, float | None] | None:
    """Keyframes and score of a track by its name in the job; None: it has none of that name any more."""
    if isinstance(view, RegionResult):
        return view.answer()
    found = view.detections().get(name or "")
    return (found.made, found.score) if found else None


def _tracked_clicks(cut: Iterable[Segment], clicks: Iterable[Click]) -> dict[int, list[Click]]:
    """The clicks on frames that are tracked."""
    spans = [segment.frames(LAST_FRAME) for segment in cut if segment.is_tracked]
    return group_by_frame(click for click in clicks if any(click.frame in span for span in spans))
