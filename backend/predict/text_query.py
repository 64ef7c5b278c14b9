"""One line of words: the job that looks for them, the regions of what it finds, and the sentence that tells of it."""

from collections.abc import Collection
from dataclasses import replace

from backend.errors import BadRequest
from backend.labelstudio.commands import TextQuery, parse_text_query
from backend.labelstudio.label_config import ALL, LabelConfig
from backend.predict import text_prompts
from backend.predict.request_context import RequestContext, Results
from backend.predict.response_cache import ResultSource
from backend.predict.text_results import TextDetection, TextResult
from backend.tracks.frame_range import FrameRange


class TextPrompt:
    """What a line asks, from the moment when it is submitted.

    Attributes:
        job: looks for it.
        going_on: ids of the regions that are answered, once they are.

    Raises:
        BackendError: it asks for nothing, or nothing can be looked for now.
    """

    def __init__(self, request: RequestContext, text: str | None, question: TextQuery) -> None:
        self._request = request
        self._question = question = replace(
            question, phrases=_class_names(question, request.config, request.interaction.video)
        )
        interaction, tools = request.interaction, request.tools
        within = question.within if question.at is None else FrameRange(question.at, question.at)
        limit = tools.settings.max_frames
        parts = [interaction.url, interaction.framerate, limit, question.phrases, within, question.redo]
        key, self._key = request.key(text or "", "words"), tools.digest(parts)
        self._answers = request.cache.prompt_field(interaction.task, text)
        # What is unfinished goes on with the job that redoes it.
        if question.redo and self._answers.unfinished != self._key:
            tools.scheduler.forget(key)
            self._answers.forget(self._key)
        recipe = request.job_spec(phrases=question.phrases, ranges=(within,))
        self.job = tools.submit(key, self._key, recipe)
        self._finding = TextResult(self.job, request.tools.settings)
        self.continued: set[str] = set()

    def answer(self) -> tuple[Results, str]:
        """Regions for what was found by now, and what to say of it.

        Raises:
            BackendError: the job has failed.
        """
        job, request, question, interaction = self.job, self._request, self._question, self._request.interaction
        if job.error:
            raise job.error
        is_partial, finding = job.state != "done", self._finding
        # Asked in this order: it may go on in between.
        done, total = finding.progress()
        until = finding.until()
        found = finding.detections()
        self._answers.unfinished = self._key if is_partial else None
        with self._answers.planning:
            plan = text_prompts.match_regions(
                found,
                interaction.page,
                self._answers,
                self._key,
                question,
                since=request.start_time,
                until=until,
                preserve=request.tools.settings.preserve,
            )
        results: Results = []
        at = question.at
        missing = (1, finding.length or 1) if at else (done, total) if is_partial else None
        for name, one in found.items():
            going_on = plan.continued.get(name)
            if going_on is None and name not in plan.new:
                continue
            region = going_on or request.new_region(
                plan.new[name], request.config.classes_of_phrase(one.phrase, interaction.video)
            )
            made = {"phrase": one.phrase, **({"at": at} if at else {})}
            results += request.answer(region, one.made, region.labels, one.score, missing, made)
            self.continued.add(region.id)
            if going_on:
                self._answers.note(self._key, name, region.id)
            request.cache.sources.put(request.key(region.id), ResultSource(finding, name, (), made))
        return results, self._status_line(found.values(), plan, (done, total) if is_partial else None)

    def _status_line(
        self, found: Collection[TextDetection], plan: text_prompts.TextMatches, missing: tuple[int, int] | None
    ) -> str:
        request, question, at = self._request, self._question, self._question.at
        counts = dict.fromkeys(question.phrases, 0)
        for one in found:
            counts[one.phrase] = counts.get(one.phrase, 0) + 1
        told = [", ".join(f"{phrase}: {count or 'none'}" for phrase, count in counts.items())]
        if plan.existing:
            told.append(f"{plan.existing} there already")
        if plan.fresh:
            told.append(f"{plan.fresh} not saved by the page yet: ask again in five seconds")
        video = request.interaction.video
        if nameless := {one.phrase for one in found if not request.config.classes_of_phrase(one.phrase, video)}:
            told.append(f"no class is called {', '.join(sorted(nameless))}: select and press a class key")
        if plan.new:
            told.append("an active class overrides theirs")
        if at:
            told.append(f"on frame {at} only: delete what is wrong, then t on a box, or ask without at")
        if missing and self._finding.length is None:
            told = [f"{', '.join(question.phrases)}: opening the video, ask again"]
        elif missing and not at:
            hotstart = request.tools.settings.hotstart_frames
            held = f", new ones {hotstart} later" if hotstart else ""
            told.append(
                f"{missing[0]} of {missing[1]} frames so far{held} ({request.tools.engine_status()}): ask again"
            )
        return " · ".join(told)


def submit_text_prompt(request: RequestContext) -> TextPrompt | None:
    """What the request's line asks; None: nothing."""
    line = request.interaction.prompt_field
    return TextPrompt(request, line.id, parse_text_query(line.text)) if line and line.text else None


def _class_names(question: TextQuery, config: LabelConfig, video: str) -> tuple[str, ...]:
    """The phrases, "all" as every label's."""
    every = [config.phrases[label] for label in config.labels.get(video, ())]
    named = [every if phrase.casefold() == ALL else [phrase] for phrase in question.phrases]
    phrases = tuple(dict.fromkeys(phrase for part in named for phrase in part))
    if not phrases:
        raise BadRequest("the config has no labels to look for: write what to find")
    return phrases
