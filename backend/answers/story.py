"""The story of one request: the jobs that do what it asks, and the regions and the line that answer it."""

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from backend.answers import law, words
from backend.answers.memory import Answers, Memory, Source, clicks_of, made_of
from backend.engines.base import FAILED, Engine
from backend.errors import BackendError, BadRequest, BadVideo, SettingsError
from backend.jobs.finding import Finding, Found
from backend.jobs.runner import Job, Runner
from backend.jobs.tracking import Tracking
from backend.labelstudio import grammar, regions, segments
from backend.labelstudio.clicks import Click, Clicked
from backend.labelstudio.client import Client
from backend.labelstudio.config import ALL, LabelConfig
from backend.labelstudio.grammar import TRACK, Command, Question, Range
from backend.labelstudio.interactions import Asked, Interaction, Line
from backend.labelstudio.media import Media
from backend.labelstudio.regions import Region
from backend.labelstudio.segments import Segment
from backend.labelstudio.sequence import LAST_FRAME, Item
from backend.prompts import Direction
from backend.settings import Settings
from backend.video import Video, VideoLimits

_WAITERS = 64
"""How many requests may wait for their jobs at once; beyond that they are answered with what is there."""

Results = list[dict[str, Any]]


class Tools:
    """What every request works with: one per process."""

    def __init__(self, settings: Settings, engine: Engine, media: Media) -> None:
        self.settings = settings
        self.engine = engine
        self.runner: Runner[Tracking | Finding] = Runner(settings.limits.queue)
        self.waiters = threading.Semaphore(_WAITERS)
        self.model_version = f"{engine.name}-{engine.version}"
        self._media = media
        self._video_limits = VideoLimits(pixels=settings.limits.pixels, frames=settings.limits.frames)

    def engine_now(self) -> str:
        """The engine's name, and what it is waited for where its model is not ready."""
        status = self.engine.status
        return self.engine.name if status == "ready" else f"{self.engine.name} is {status}"

    def digest(self, parts: Sequence[Any]) -> str:
        """What makes two prompts the same. Labels are left out: a box is followed alike whatever it is called."""
        whole = "|".join(map(str, [self.model_version, *parts]))
        return hashlib.sha256(whole.encode(errors="replace")).hexdigest()

    def submit(self, key: Hashable, digest: str, make: Callable[[], Tracking | Finding]) -> Job[Tracking | Finding]:
        """The job with this digest: one that is there, or a new one instead of what runs under `key`.

        Raises:
            SettingsError: the model could not be loaded; no video is fetched for nothing.
            Busy: too many jobs are waiting.
        """
        if self.engine.status.startswith(FAILED):
            raise SettingsError(self.engine.status.removeprefix(FAILED))
        return self.runner.submit(key, digest, make)

    def open(self, url: str, client: Client | None, cancelled: Callable[[], bool]) -> Video:
        """A task's video, fetched if need be.

        Raises:
            BackendError: it cannot be had or decoded.
        """
        path = self._media.fetch(url, client, cancelled)
        try:
            return Video(path, self._video_limits)
        except BadVideo:
            self._media.forget(path)
            raise


class _Tracked(Protocol):
    """A track that a job makes, as far as it is known."""

    def progress(self) -> tuple[int, int]: ...

    def answer(self) -> tuple[list[Item], float | None]: ...


class _FoundTrack:
    """One of the tracks that a job finds."""

    def __init__(self, finding: Finding, found: Found) -> None:
        self._finding, self._found = finding, found

    def progress(self) -> tuple[int, int]:
        return self._finding.progress()

    def answer(self) -> tuple[list[Item], float | None]:
        return list(self._found.items), self._found.score


@dataclass
class _Work:
    """What one region is answered from.

    Attributes:
        stays: keyframes that are a person's, or stand in for theirs: they are answered as they came.
        cut: the rest.
        job: makes what is to be made of it; None: nothing.
        name: of the track, where the job has several.
        made: what the region is made of, where that is no box; `called`: the label of clicks.
        is_left: it is answered as it came; an error of it is told in the region alone.
    """

    region: Region
    classes: tuple[str, ...]
    stays: Sequence[Item] = ()
    cut: Sequence[Segment] = ()
    job: Job[Tracking | Finding] | None = None
    name: str | None = None
    made: Mapping[str, Any] | None = None
    called: str = ""
    error: BackendError | None = None
    is_left: bool = False


@dataclass(frozen=True)
class _Asking:
    """Words that are looked for.

    Attributes:
        key: of the question.
        answers: what the line was answered before.
    """

    question: Question
    job: Job[Tracking | Finding]
    key: str
    answers: Answers

    @property
    def finding(self) -> Finding:
        """The job's work."""
        if not isinstance(self.job.work, Finding):
            raise TypeError("under the key of words there is another job")
        return self.job.work


class Story:
    """One request.

    Args:
        client: the task's Label Studio, where it is known.
    """

    def __init__(
        self, tools: Tools, memory: Memory, interaction: Interaction, config: LabelConfig, client: Client | None
    ) -> None:
        self._tools, self._memory, self._config, self._client = tools, memory, config, client
        self._settings = tools.settings
        self._interaction = interaction
        self._going_on: set[str] = set()
        self._began = time.monotonic()

    def answered(self, deadline: float) -> Results:
        """Do what is asked, as far as it goes until `deadline` (of the monotonic clock), and answer.

        Raises:
            BackendError: nothing of it can be done, and there is no line to say so.
        """
        interaction, line = self._interaction, self._interaction.line
        self._memory.saw(interaction.task, (*interaction.page, *interaction.context))
        works = [self._box(one) for one in interaction.asked] + [self._object(one) for one in interaction.clicked]
        asking = self._ask(line, grammar.question(line.asked)) if line and line.asked else None
        self._wait([work.job for work in works if work.job] + ([asking.job] if asking else []), deadline)
        for work in works:
            work.error = work.error or (work.job.error if work.job else None)
        errors = [work.error for work in works if work.error and not work.is_left]
        if errors and len(errors) == len(works) and line is None:
            raise errors[0]
        answers = [self._region(work) for work in works]
        results = [one for answer in answers for one in answer]
        told = f"not tracked: {errors[0]}" if errors else self._waited_for(works, answers)
        if asking:
            found, told = self._found(asking)
            results += found
        if line and (told or line.is_marked):
            results += self._line(line, told, is_needed=not results)
        lawful = [dict(one) for one in law.lawful(results, interaction, self._going_on)]
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
        region, command, key = asked.region, asked.command, self._key(asked.region.id)
        work = _Work(region, asked.classes, region.anchors(is_commanded=command != TRACK))
        if asked.error:
            work.error, work.is_left = asked.error, True
        elif command.stop:
            self._stop(work)
        elif command != TRACK or not self._goes_on(work):
            # What is unfinished goes on with the job that redoes it.
            if command.redo and not region.is_partial:
                self._tools.runner.forget(key)
            work.cut = segments.cut(region, self._settings.direction, command)
            if any(segment.is_tracked for segment in work.cut):
                self._track(work, _inside(work.cut, clicks_of(region)), command, self._settings.direction)
        return work

    def _goes_on(self, work: _Work) -> bool:
        """Whether a job is there already that makes the rest of the region, as it was asked for before."""
        region = work.region
        source = self._memory.sources.get(self._key(region.id))
        is_corrected = any(item.is_corrected for item in region.items) or bool(region.deleted)
        if not source or not region.is_partial or "at" in region.meta or is_corrected:
            return False
        if source.job.state in ("failed", "cancelled") or source.job.is_cancelled:
            return False
        work.job, work.name, work.stays, work.made = source.job, source.name, source.stays, source.made
        return True

    def _stop(self, work: _Work) -> None:
        """End the region's job, and answer what it has computed; without one, the region as it is."""
        job = self._tools.runner.newest(self._key(work.region.id))
        source = self._memory.sources.get(self._key(work.region.id))
        if job is None or job.state not in ("queued", "running") or source is None or source.job is not job:
            work.is_left = True
            return
        job.cancel()
        work.job, work.stays, work.made = job, source.stays, source.made

    # Clicks

    def _object(self, clicked: Clicked) -> _Work:
        """The track that clicks make: the region that they made before, or a new one."""
        interaction, memory = self._interaction, self._memory
        clicks = memory.signed(interaction.task, clicked.clicks, interaction.page)
        name = memory.clicked(interaction.task, clicked, interaction.page)
        classes = self._config.clicked(clicked.control, clicked.label, interaction.video)
        region = interaction.page.get(name) or self._new(name, classes)
        by_frame = _by_frame(clicks)
        direction = segments.led(region, by_frame, self._settings.direction)
        work = _Work(
            region=region,
            classes=tuple(label for label in region.labels if label not in self._config.commands) or classes,
            stays=[item for item in region.items if item.is_human],
            cut=segments.around(region, by_frame, direction),
            made=made_of(clicked, clicks),
            called=clicked.label,
        )
        self._track(work, by_frame, TRACK, direction)
        if work.job:
            self._going_on.add(name)
        return work

    # Both

    def _track(
        self, work: _Work, clicked: Mapping[int, Sequence[Click]], command: Command, direction: Direction
    ) -> None:
        """Set the job to work that makes the region's track."""
        settings, interaction, region, cut = self._settings, self._interaction, work.region, work.cut
        make = partial(
            Tracking,
            region,
            cut,
            clicked,
            framerate=interaction.framerate,
            direction=command.direction or direction,
            max_frames=settings.max_frames,
            bound=settings.keyframes.iou,
            engine=self._tools.engine,
            video=partial(self._tools.open, interaction.url, self._client),
        )
        parts: list[Any] = [interaction.framerate, direction, settings.max_frames, command]
        parts += [item.fingerprint for item in work.stays]
        parts += [item.fingerprint for segment in cut for item in (*(segment.kept or ()), *segment.aside)]
        parts += [(one.frame, one.x, one.y, one.positive) for clicks in clicked.values() for one in clicks]
        key = self._key(region.id)
        try:
            work.job = self._tools.submit(key, self._tools.digest([interaction.url, *parts]), make)
        except BackendError as error:
            work.error = error
        else:
            self._memory.sources.put(key, Source(work.job, None, work.stays, work.made))

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
        partial, items, score = None, segments.kept(work.cut), region.score
        if job and (track := _track_of(job, work.name)):
            partial = track.progress() if is_partial else None
            items, score = track.answer()
        elif job:
            return regions.left(region, work.classes, interaction.framerate) if region.items else []
        if not items and not work.stays:
            return []
        return regions.answer(
            region,
            [*work.stays, *items],
            framerate=interaction.framerate,
            labels=work.classes,
            track_id=self._memory.number(interaction.task, region, interaction.track_ids),
            engine=self._tools.engine_now(),
            score=score,
            partial=partial,
            made=work.made,
        )

    def _waited_for(self, works: Sequence[_Work], answers: Sequence[Results]) -> str | None:
        """What to say of clicks of which nothing can be shown yet, or at all."""
        for work, answer in zip(works, answers, strict=True):
            if work.called and work.job and not answer:
                if work.job.state == "done":
                    return f"{work.called}: nothing is seen there, click on it once more"
                done, total = work.job.work.progress()
                status = f"{self._tools.engine_now()}, {done} of {total} frames"
                return f"{work.called}: {status} so far, click once more for the rest"
        return None

    # Words

    def _ask(self, line: Line, question: Question) -> _Asking:
        """The job that finds what a line asks for."""
        interaction, settings = self._interaction, self._settings
        every = [self._config.phrases[label] for label in self._config.labels.get(line.video, ())]
        named = [every if phrase.casefold() == ALL else [phrase] for phrase in question.phrases]
        question = replace(question, phrases=tuple(dict.fromkeys(phrase for phrases in named for phrase in phrases)))
        if not question.phrases:
            raise BadRequest("the config has no labels to look for: write what to find")
        within = question.within if question.at is None else Range(question.at, question.at)
        make = partial(
            Finding,
            question.phrases,
            within,
            framerate=interaction.framerate,
            max_frames=settings.max_frames,
            bound=settings.keyframes.iou,
            engine=self._tools.engine,
            video=partial(self._tools.open, interaction.url, self._client),
        )
        parts = [interaction.url, interaction.framerate, settings.max_frames, question.phrases, within, question.redo]
        key, digest = self._key(line.id or "", "words"), self._tools.digest(parts)
        answers = self._memory.line(interaction.task, line.id)
        # What is unfinished goes on with the job that redoes it.
        if question.redo and answers.unfinished != digest:
            self._tools.runner.forget(key)
            answers.forget(digest)
        return _Asking(question, self._tools.submit(key, digest, make), digest, answers)

    def _found(self, asking: _Asking) -> tuple[Results, str]:
        """Regions for what was found, and what to say of it."""
        job, finding, question, interaction = asking.job, asking.finding, asking.question, self._interaction
        if job.error:
            raise job.error
        is_partial = job.state != "done"
        # Asked in this order: it may go on in between.
        done, total = finding.progress()
        until = finding.until()
        found = finding.found()
        asking.answers.unfinished = asking.key if is_partial else None
        with asking.answers.planning:
            plan = words.plan(
                found,
                interaction.page,
                asking.answers,
                asking.key,
                question,
                since=self._began,
                until=until,
                preserve=self._settings.preserve,
            )
        results: Results = []
        at = question.at
        partial = (1, finding.length or 1) if at else (done, total) if is_partial else None
        for name, one in found.items():
            going_on = plan.going_on.get(name)
            if going_on is None and name not in plan.new:
                continue
            region = going_on or self._new(plan.new[name], self._config.named(one.phrase, interaction.video))
            made = {"phrase": one.phrase, **({"at": at} if at else {})}
            results += regions.answer(
                region,
                one.items,
                framerate=interaction.framerate,
                labels=region.labels,
                track_id=self._memory.number(interaction.task, region, interaction.track_ids),
                engine=self._tools.engine_now(),
                score=one.score,
                partial=partial,
                made=made,
            )
            self._going_on.add(region.id)
            if going_on:
                asking.answers.note(asking.key, name, region.id)
            self._memory.sources.put(self._key(region.id), Source(job, name, (), made))
        return results, self._sentence(asking, found.values(), plan, (done, total) if is_partial else None)

    def _sentence(
        self, asking: _Asking, found: Collection[Found], plan: words.Plan, partial: tuple[int, int] | None
    ) -> str:
        """The outcome of words."""
        at, counts = asking.question.at, dict.fromkeys(asking.question.phrases, 0)
        for one in found:
            counts[one.phrase] = counts.get(one.phrase, 0) + 1
        told = [", ".join(f"{phrase}: {count or 'none'}" for phrase, count in counts.items())]
        if plan.there:
            told.append(f"{plan.there} there already")
        if plan.fresh:
            told.append(f"{plan.fresh} not saved by the page yet: ask again in five seconds")
        if nameless := {one.phrase for one in found if not self._config.named(one.phrase, self._interaction.video)}:
            told.append(f"no class is called {', '.join(sorted(nameless))}: select and press a class key")
        if plan.new:
            told.append("an active class overrides theirs")
        if at:
            told.append(f"on frame {at} only: delete what is wrong, then t on a box, or ask without at")
        if partial and asking.finding.length is None:
            told = [f"{', '.join(asking.question.phrases)}: opening the video, ask again"]
        elif partial and not at:
            held = f", new ones {self._settings.hotstart_frames} later" if self._settings.hotstart_frames else ""
            told.append(f"{partial[0]} of {partial[1]} frames so far{held} ({self._tools.engine_now()}): ask again")
        return " · ".join(told)

    # How it is done

    def _new(self, name: str, classes: tuple[str, ...]) -> Region:
        video = self._interaction.video
        return Region(name, self._config.region_control(video), video, classes, (), origin="prediction")

    def _key(self, name: str, kind: str = "region") -> tuple[str, str, str]:
        return self._interaction.task, kind, name

    def _wait(self, jobs: Sequence[Job[Tracking | Finding]], deadline: float) -> None:
        if self._tools.waiters.acquire(blocking=False):
            try:
                self._tools.runner.wait(jobs, deadline - time.monotonic())
            finally:
                self._tools.waiters.release()


def _track_of(job: Job[Tracking | Finding], name: str | None) -> _Tracked | None:
    """A job's track by its name there; None: it has none of that name any more."""
    if isinstance(job.work, Tracking):
        return job.work
    found = job.work.found().get(name or "")
    return _FoundTrack(job.work, found) if found else None


def _by_frame(clicks: Iterable[Click]) -> dict[int, list[Click]]:
    by_frame: dict[int, list[Click]] = {}
    for click in clicks:
        by_frame.setdefault(click.frame, []).append(click)
    return by_frame


def _inside(cut: Iterable[Segment], clicks: Iterable[Click]) -> dict[int, list[Click]]:
    """The clicks on frames that are tracked."""
    spans = [segment.frames(LAST_FRAME) for segment in cut if segment.is_tracked]
    return _by_frame(click for click in clicks if any(click.frame in span for span in spans))
