"""Answers an interactive request: submits the jobs for its prompts, waits, and returns regions and the status line."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from backend.errors import BackendError
from backend.jobs.job import Job
from backend.jobs.spec import ExemplarBox
from backend.labelstudio.clicks import Click, ClickPrompt
from backend.labelstudio.commands import TRACK, Command
from backend.labelstudio.keyframes import KeyframeSet
from backend.labelstudio.region import Region
from backend.labelstudio.region_results import build_refusal, build_unchanged, format_region
from backend.labelstudio.request import PromptField, RegionPrompt
from backend.labelstudio.segments import Segment, click_direction, cut_segments, kept_keyframes, segments_around_clicks
from backend.predict import overwrite_policy
from backend.predict.click_class import read_class, submit_class_job
from backend.predict.event_regions import find_begun, recognise_region
from backend.predict.like_prompts import (
    Example,
    LikePrompt,
    LikeSearch,
    UnlikePrompt,
    check_engine,
    example_prompts,
    pending_likes,
)
from backend.predict.pending import pending_regions, pending_texts
from backend.predict.region_work import RegionWork
from backend.predict.request_context import RequestContext
from backend.predict.response_cache import ResultSource, clicks_meta, parse_clicks
from backend.predict.results import RegionResult, frame_prompts, prompt_intervals
from backend.predict.sent_tracks import SENT, SentTracks
from backend.predict.text_prompts import ObjectSearch, TextPrompt
from backend.tracks.frame_range import LAST_FRAME
from backend.tracks.prompts import Direction, group_by_frame


class PredictHandler:
    """Answers one request."""

    def __init__(self, context: RequestContext) -> None:
        self._context = context
        self._request, self._cache, self._scheduler = context.request, context.cache, context.scheduler
        self._direction = context.settings.direction
        self._continued: set[str] = set()
        self._examples: list[LikePrompt | UnlikePrompt] = []
        self._begun_before: set[int] = set()
        self._sent = SentTracks(context)

    def handle(self, deadline: float) -> list[dict[str, Any]]:
        """Do what the request asks for; returns the results that are there by `deadline`, of the monotonic clock.

        Raises:
            BackendError: nothing of it can be done, and the config has no control for text prompts.
        """
        request, field = self._request, self._request.prompt_field
        if field:
            self._cache.prompt_field(request.task, field.id).request_time = self._context.start_time
        works = [self._handle_region(prompt) for prompt in request.region_prompts]
        works += [self._handle_clicks(prompt) for prompt in request.click_prompts]
        text = field.text if field else None
        is_sent_asked = text is not None and text.strip().casefold() == SENT
        text_prompt = TextPrompt(self._context, field.id, text) if field and text and not is_sent_asked else None
        asked = {work.region.id for work in works}
        earlier_searches = [
            *pending_texts(self._context, text_prompt),
            *pending_likes(self._context, {example.region for example in self._examples}),
        ]
        jobs = [job for work in works if work.source for job in work.source.jobs]
        jobs += [example.job for example in self._examples] + ([text_prompt.job] if text_prompt else [])
        earlier_jobs = [work.job for work in pending_regions(self._context, asked) if work.job]
        self._context.wait(jobs, deadline, [*earlier_jobs, *(prompt.job for prompt in earlier_searches)])
        for prompt, work in zip(request.region_prompts, works, strict=False):
            self._leave_to_page(prompt.region, work)
        for work in works:
            work.error = work.error or (work.job.error if work.job else None)
        errors = [work.error for work in works if work.error and not work.is_unchanged]
        if errors and len(errors) == len(works) and field is None:
            raise errors[0]
        answers = [self._answer_region(work) for work in works]
        regions = [region for region in answers if region]
        status = f"not tracked: {errors[0]}" if errors else self._clicks_status(works, answers)
        status = self._answer_examples(regions) or status
        earlier_status = self._add_pending(regions, asked, earlier_searches)
        sent = self._sent_regions({*asked, *(region.id for region in regions)})
        regions += sent
        if text_prompt:
            text_regions, status = text_prompt.build_regions(regions)
            regions += text_regions
        self._continued.update(region.id for region in regions if region.id not in asked)
        if is_sent_asked:
            waiting = f"{self._sent.waiting} more with t on their boxes" if self._sent.waiting else ""
            none = waiting or "nothing new: track an object on the page of the task, then Send"
            status = f"{SENT}: " + (" · ".join(filter(None, [str(len(sent)), waiting])) if sent else none)
        status = status or earlier_status
        allowed = overwrite_policy.allowed_regions(regions, request, self._continued)
        is_dropped = field is not None and self._is_overtaken(field)
        self._cache.record(request.task, allowed, is_dropped=is_dropped)
        for job in jobs if is_dropped else ():
            job.is_fetched = False
        results = [result for region in allowed for result in format_region(region, request.framerate)]
        if field and (status or field.is_marked):
            results += self._answer_prompt_field(field, status, is_needed=not regions)
        return results

    def _is_overtaken(self, field: PromptField) -> bool:
        """Whether the annotation has sent another request meanwhile: Label Studio drops the response to this one."""
        return self._cache.prompt_field(self._request.task, field.id).request_time > self._context.start_time

    def _add_pending(self, regions: list[Region], asked: set[str], searches: Sequence[ObjectSearch]) -> str | None:
        """Add what earlier requests asked for to `regions`; returns the status line of their searches.

        Args:
            asked: ids of the regions that the request asks for.
        """
        added, lines = list[Region](), list[str]()
        for prompt in searches:
            with suppress(BackendError):
                text_regions, status = prompt.build_regions(
                    [*regions, *added], lambda classes: self._may_bring(classes, is_by_words=True)
                )
                added += text_regions
                lines.append(status)
        known = {*asked, *(region.id for region in (*regions, *added))}
        works = [work for work in pending_regions(self._context, known) if self._may_bring(work.classes)]
        regions += added + [region for work in works if (region := self._answer_region(work))]
        return " · ".join(lines) or None

    def _sent_regions(self, known: set[str]) -> list[Region]:
        """What was sent from the prompting page and may come with this response, beside the regions in `known`."""
        works = [work for work in self._sent.missing(known) if self._may_bring(work.classes, is_by_words=True)]
        return [region for work in works if (region := self._answer_region(work))]

    def _may_bring(self, classes: tuple[str, ...], *, is_by_words: bool = False) -> bool:
        """Whether a region that the request does not ask for keeps these classes in the response.

        Label Studio sets the classes that are active when a response comes on all of its regions: those of a region
        that is selected, as it is while its key or its own line is used, and may be when words are typed (seen in
        1.23.2). A click on the strip deselects it.

        Args:
            is_by_words: words have found the region; further words risk its class as they do.
        """
        asked = {prompt.classes for prompt in self._request.region_prompts}
        return asked == {classes} if asked else is_by_words or bool(self._request.click_prompts)

    def _answer_prompt_field(self, field: PromptField, status: str | None, *, is_needed: bool) -> list[dict[str, Any]]:
        """The control for text prompts with the status line.

        An annotation that was never saved gets none, unless it is needed because the response is empty otherwise.
        """
        if field.id is None:
            return [field.to_result(status)] if status and is_needed else []
        return [self._cache.answer_prompt_field(self._request.task, field, status)]

    # Boxes

    def _handle_region(self, prompt: RegionPrompt) -> RegionWork:
        region, command, key = prompt.region, prompt.command, self._context.key(prompt.region.id)
        if command == TRACK and not prompt.error and (sent := self._sent.work(region.id, region)):
            return sent
        if command == TRACK and not prompt.error:
            begun = find_begun(self._context, region)
            if any(not job.has_ended for job in begun):
                return RegionWork(region, prompt.classes, is_answered=True)
            self._begun_before.update(job.number for job in begun)
        if found := recognise_region(self._context, region):
            if command == TRACK and not found.is_corrected and (adopted := self._sent.adopt(found)):
                return adopted
            region = found.region
        work = RegionWork(region, prompt.classes, region.anchors(is_commanded=command != TRACK))
        if prompt.error:
            work.error, work.is_unchanged = prompt.error, True
        elif command.stop:
            self._stop_job(work)
        elif command.like is not None or command.unlike:
            self._handle_example(work, command)
        elif command != TRACK or not self._continue_job(work):
            # If the last response to a `redo` lacked frames, the same command continues its job.
            if command.redo and not region.is_partial:
                self._scheduler.forget(key)
            work.segments = cut_segments(region, self._direction, command)
            if tracked := work.tracked_segments:
                self._submit_job(work, _tracked_clicks(tracked, parse_clicks(region)), command, self._direction)
        return work

    def _leave_to_page(self, asked: Region, work: RegionWork) -> None:
        """Answer no region that the page has begun to track since the request: it sets the keyframes itself."""
        begun = {job.number for job in find_begun(self._context, asked)} - self._begun_before
        if begun and work.job:
            self._scheduler.cancel(work.job.number)
            self._cache.sources.pop(self._context.key(asked.id))
            work.source, work.is_answered = None, True

    def _continue_job(self, work: RegionWork) -> bool:
        """Whether an existing job computes the missing frames of the region, which nobody has corrected since."""
        region = work.region
        source = self._cache.sources.get(self._context.key(region.id))
        is_corrected = any(keyframe.is_corrected for keyframe in region.keyframes) or bool(region.deleted)
        if not source or not region.is_partial or "at" in region.meta or is_corrected:
            return False
        if source.result.job.state in ("failed", "cancelled") or source.result.job.is_cancelled:
            return False
        work.source, work.fixed = source, source.fixed
        return True

    def _stop_job(self, work: RegionWork) -> None:
        """Stop the region's job, to return what it has computed; if none runs, the region stays as it is."""
        key = self._context.key(work.region.id)
        job, source = self._scheduler.newest(key), self._cache.sources.get(key)
        if job is None or job.state not in ("queued", "running") or source is None or source.result.job is not job:
            work.is_unchanged = True
            return
        self._scheduler.cancel(job.number)
        work.source, work.fixed = source, source.fixed

    # Examples

    def _handle_example(self, work: RegionWork, command: Command) -> None:
        """Search for what is like a region, or without what is like it."""
        context, region = self._context, work.region
        try:
            check_engine(context)
            if command.like is None:
                self._examples.append(UnlikePrompt(context, region, work.classes))
                work.is_answered = True
                return
            example = Example.from_region(region, command.like, self._direction)
        except BackendError as error:
            work.error, work.is_unchanged = error, True
            return
        exemplars = example.exemplars((*self._request.page.values(), region))
        work.segments = cut_segments(region, self._direction, TRACK)
        clicks_by_frame = _tracked_clicks(work.tracked_segments, parse_clicks(region))
        self._submit_job(work, clicks_by_frame, TRACK, self._direction, search=(example, exemplars))
        if work.source:
            like = LikeSearch(example, work.classes, exemplars, work.source.result.job)
            self._examples.append(LikePrompt(context, like))
            if not work.tracked_segments:
                work.source, work.is_unchanged = None, True

    def _answer_examples(self, regions: list[Region]) -> str | None:
        """Add what examples have found or taken away to `regions`; returns their status line."""
        lines: list[str] = []
        for example in self._examples:
            try:
                found, line = example.build_regions(regions)
                regions += found
            except BackendError as error:
                line = f"not done: {error}"
            lines.append(line)
        return " · ".join(lines) or None

    # Clicks

    def _handle_clicks(self, prompt: ClickPrompt) -> RegionWork:
        """Track an object from its clicks: as the region that they prompted before, or as a new one."""
        request, config = self._request, self._context.config
        clicks = self._cache.sign_clicks(request.task, prompt.clicks, request.page)
        name = self._cache.region_id(request.task, prompt, request.page)
        known = config.click_classes(prompt.control, prompt.label, request.video)
        region = request.page.get(name) or self._context.new_region(name, known)
        classes = config.own_classes(region.labels)
        clicks_by_frame = group_by_frame(clicks)
        direction = click_direction(region, clicks_by_frame, self._direction)
        work = RegionWork(
            region=region,
            classes=classes or known or self._cache.answered_classes(request.task, name),
            fixed=[keyframe for keyframe in region.keyframes if keyframe.is_human],
            segments=segments_around_clicks(region, clicks_by_frame, direction),
            click_label=prompt.label,
        )
        class_job = None
        if not work.classes:
            with suppress(BackendError):  # if it matters, the track's own job has the same error
                class_job = submit_class_job(self._context, name, clicks)
        self._submit_job(work, clicks_by_frame, TRACK, direction, clicks_meta(prompt, clicks), class_job)
        if work.job:
            self._continued.add(name)
        return work

    # Both

    def _submit_job(
        self,
        work: RegionWork,
        clicks_by_frame: Mapping[int, Sequence[Click]],
        command: Command,
        direction: Direction,
        extra_meta: Mapping[str, Any] | None = None,
        class_job: Job | None = None,
        search: tuple[Example, tuple[ExemplarBox, ...]] | None = None,
    ) -> None:
        """Submit the job that tracks the region; with `search`, it also finds what is like it."""
        request, region, segments, tracked = self._request, work.region, work.segments, work.tracked_segments
        parts: list[Any] = [request.url, request.framerate, direction, self._context.settings.max_frames, command]
        parts += [keyframe.fingerprint for keyframe in work.fixed]
        parts += [key.fingerprint for segment in segments for key in (*(segment.kept or ()), *segment.set_aside)]
        parts += [
            (click.frame, click.x, click.y, click.positive) for clicks in clicks_by_frame.values() for click in clicks
        ]
        key = self._context.key(region.id)
        prompts = frame_prompts(tracked, clicks_by_frame)
        intervals = prompt_intervals(tracked, clicks_by_frame, command.direction or direction)
        searched: dict[str, Any] = {}
        if search:
            example, exemplars = search
            parts += [example, exemplars]
            searched = {"phrases": (example.phrase,), "exemplars": exemplars}
            if not prompts:
                prompts, intervals = example_prompts(example, direction)
        try:
            job = self._context.submit(
                key,
                self._context.digest(parts),
                length=region.frames_count,
                prompts=prompts,
                intervals=intervals,
                ranges=tuple(segment.within for segment in tracked),
                classes=work.classes,
                **searched,
            )
        except BackendError as error:
            work.error = error
        else:
            result = RegionResult(job, region, segments, self._context.settings)
            work.source = ResultSource(result, None, work.fixed, extra_meta, region, class_job)
            self._cache.sources.put(key, work.source)

    def _answer_region(self, work: RegionWork) -> Region | None:
        """A region for the response; None: it has no box."""
        region, job, source = work.region, work.job, work.source
        if work.is_answered:
            return None
        if work.is_unchanged:
            return build_unchanged(region, work.classes, str(work.error) if work.error else None)
        if work.error:
            # The request does not contain a region of clicks: a copy with the error might overwrite an edit.
            is_in_request = region.id in self._request.context
            return build_refusal(region, work.classes, str(work.error)) if is_in_request else None
        # Read before the results: if the job ends in between, they are complete all the same.
        is_partial = job is not None and job.state != "done"
        partial = source.result.progress() if source and is_partial else None
        track, score = KeyframeSet(kept_keyframes(work.segments), region.iou), region.score
        if source:
            answer = source.read()
            if answer is None:
                if not region.keyframes:
                    return None
                reason = None if is_partial else "it was seen for a moment only, delete it if it is nothing"
                return build_unchanged(region, work.classes, reason, is_partial=is_partial)
            track, score = answer
        if not track.keyframes and not work.fixed:
            return None
        extra_meta = dict(source.extra_meta or {}) if source else {}
        track = replace(track, keyframes=[*work.fixed, *track.keyframes])
        if source and source.class_job and not self._has_class(work):
            work.classes = read_class(self._context, source.class_job, track) or work.classes
        is_stopped = job is not None and (job.is_cancelled or job.state in ("cancelled", "failed"))
        return self._context.build_region(
            region, track, score, partial, extra_meta, work.classes, is_stopped=is_stopped
        )

    def _has_class(self, work: RegionWork) -> bool:
        """Whether a person or an earlier response has set the class of a region."""
        own = self._context.config.own_classes(work.region.labels)
        return bool(own or (work.click_label and work.classes))

    def _clicks_status(self, works: Sequence[RegionWork], answers: Sequence[Region | None]) -> str | None:
        """The status line for clicks without a result or class; None: there are none."""
        for work, answer in zip(works, answers, strict=True):
            if work.click_label and answer and not answer.labels:
                return f"{work.click_label} has no class: select its box and press a class key"
            if work.click_label and work.source and not answer:
                if work.source.result.job.state == "done":
                    return f"{work.click_label}: nothing is seen there, click on it once more"
                done, total = work.source.result.progress()
                return f"{work.click_label}: {done} of {total} frames so far, click once more for the rest"
        return None


def _tracked_clicks(segments: Iterable[Segment], clicks: Iterable[Click]) -> dict[int, list[Click]]:
    """The clicks in these segments, by frame."""
    spans = [segment.frames(LAST_FRAME) for segment in segments]
    return group_by_frame(click for click in clicks if any(click.frame in span for span in spans))
