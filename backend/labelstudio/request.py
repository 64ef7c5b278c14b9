"""A request of Label Studio's to /predict: what was prompted, on which frames, and what the page holds beside it."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backend.errors import BadRequest
from backend.labelstudio.clicks import ClickPrompt, parse_click_prompts
from backend.labelstudio.commands import TRACK, Command, parse_command
from backend.labelstudio.json_values import read_mappings
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.notes import MARK, person_lines, typed_lines
from backend.labelstudio.region import TYPE, Region, new_region_id, parse_region, read_texts, read_track_id
from backend.video.frame_clock import check_framerate

log = logging.getLogger(__name__)

TEXT = "textarea"
Results = list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class RegionPrompt:
    """One region that is asked for.

    Attributes:
        classes: the classes that it carries.
        command: what its line says.
        error: why it is not tracked; the region is answered as it came.
    """

    region: Region
    classes: tuple[str, ...]
    command: Command = TRACK
    error: BadRequest | None = None


@dataclass(frozen=True, slots=True)
class PromptField:
    """The line for words, as far as the request shows it.

    Attributes:
        control, video: its names.
        id: of the annotation's text, which is its own in every annotation; None: not seen yet.
        own: a person's lines.
        is_marked: one of ours stands in it.
        asked: what it asks now; None: nothing.
    """

    control: str
    video: str
    id: str | None
    own: tuple[str, ...] = ()
    is_marked: bool = False
    text: str | None = None

    def to_result(self, sentence: str | None) -> dict[str, Any]:
        """The line as it is answered: a person's own lines, and ours behind its mark."""
        lines = [*self.own, *([f"{MARK}{sentence}"] if sentence else [])]
        names = {"from_name": self.control, "to_name": self.video, "type": TEXT}
        return {"id": self.id or new_region_id(), **names, "value": {"text": lines}}


@dataclass(frozen=True)
class PredictRequest:
    """One person's request on one video.

    Attributes:
        task: Label Studio's id of the task.
        url: the video's address as the task has it.
        video: the name of its Video tag.
        framerate: frames per second that the page counts with.
        asked: the regions that are asked for.
        clicked: the objects that were clicked on.
        line: the line for words; None: the config has none.
        context: ids of the regions that the request is about; of these, those that are asked for are ours to touch.
        page: what the annotation holds beside them, by id, as it was last saved: it may be 5 s old.
        others: ids of everybody's annotations.
        track_ids: the numbers of all tracks that the request shows.
    """

    task: str
    url: str
    video: str
    framerate: float
    region_prompts: tuple[RegionPrompt, ...] = ()
    click_prompts: tuple[ClickPrompt, ...] = ()
    prompt_field: PromptField | None = None
    context: frozenset[str] = frozenset()
    page: Mapping[str, Region] = field(default_factory=dict)
    others: frozenset[str] = frozenset()
    track_ids: frozenset[int] = frozenset()


def parse_request(
    tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any], config: LabelConfig
) -> PredictRequest:
    """Read an interactive request.

    Raises:
        BadRequest: it has no task, or nothing in it can be prompted.
    """
    task, data = _task(tasks)
    results = _results(context)
    saved = _saved(task, results)
    line = _line(results, saved, config)
    asked = _asked(results, config)
    clicked = parse_click_prompts(results, config.points, data)
    if not (asked or clicked or (line and line.text)):
        _check_kinds(results)
    videos = {one.region.to_name for one in asked}
    if len(videos) > 1:
        raise BadRequest(f"boxes on {len(videos)} videos at once: ask for the boxes of one video at a time")
    name = next(iter(videos), line.video if line and line.text else config.video.name)
    page = _page(saved, name, config)
    video = config.videos[name]
    known = [one.region for one in asked] + list(page.values())
    framerate = next((region.framerate for region in known if region.framerate), None) or video.rate(data)
    check_framerate(framerate)
    ids = frozenset(str(result.get("id")) for result in results)
    everybody = [result for holder in _holders(task, "drafts", "annotations") for result in _results(holder)]
    return PredictRequest(
        task=str(task.get("id", "")),
        url=video.url(data),
        video=name,
        framerate=framerate,
        region_prompts=tuple(asked),
        click_prompts=tuple(clicked),
        prompt_field=line,
        context=ids,
        page={key: region for key, region in page.items() if key not in ids},
        others=frozenset(str(result.get("id")) for result in everybody) - ids,
        track_ids=frozenset(_track_ids(task, context)),
    )


def parse_prompt_field(
    tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any], config: LabelConfig
) -> PromptField | None:
    """The line for words alone, of a request that may be wrong otherwise: errors are told there."""
    task = tasks[0] if isinstance(tasks, Sequence) and tasks and isinstance(tasks[0], Mapping) else {}
    results = _results(context)
    return _line(results, _saved(task, results), config)


def _line(results: Results, saved: Results, config: LabelConfig) -> PromptField | None:
    for is_asked, shown in ((True, results), (False, saved)):
        for result in shown:
            control, lines = str(result.get("from_name")), read_texts(result)
            if result.get("type") == TEXT and control in config.words:
                own = person_lines(lines)
                return PromptField(
                    control=control,
                    video=config.words[control],
                    id=str(result.get("id")),
                    own=tuple(own),
                    is_marked=isinstance(lines, list) and len(own) < len(lines),
                    text=typed_lines(lines) if is_asked else None,
                )
    return next((PromptField(control, video, None) for control, video in config.words.items()), None)


def _asked(results: Results, config: LabelConfig) -> list[RegionPrompt]:
    """The regions that are asked for, and their classes.

    One that cannot be read costs no other its track: it stays as the page shows it.

    Raises:
        BadRequest: none of those that are asked for can be read.
    """
    asked, error = [], None
    for result in results:
        if result.get("type") != TYPE or result.get("origin") == "prediction":
            continue
        try:
            _check_control(result, config)
            region = _region(result, results, config)
            if region.is_asked:
                asked.append(_commanded(RegionPrompt(region, config.classes(region.labels, region.to_name))))
        except BadRequest as bad:
            log.warning("a region is left as it is: %s", bad)
            error = error or bad
    if error and not asked:
        raise error
    return asked


def _commanded(one: RegionPrompt) -> RegionPrompt:
    if one.region.line is None:
        return one
    try:
        return replace(one, command=parse_command(one.region.line))
    except BadRequest as error:
        return replace(one, error=error)


def _region(result: Mapping[str, Any], results: Results, config: LabelConfig) -> Region:
    beside = [one for one in results if one.get("id") == result.get("id") and one.get("type") != TYPE]
    return parse_region(result, beside, config.lines)


def _saved(task: Mapping[str, Any], context: Results) -> Results:
    """The annotation that the person has open, as it was last saved.

    Drafts are the asker's own. A request names no annotation: it is the one that holds what the request is about, else
    the newest draft. Of annotations that nothing points to nobody knows whose they are.
    """
    ids = {str(result.get("id")) for result in context}
    drafts = sorted(_holders(task, "drafts"), key=lambda draft: str(draft.get("updated_at", "")), reverse=True)
    pages = [_results(holder) for holder in (*drafts, *_holders(task, "annotations"))]
    held = (page for page in pages if ids & {str(result.get("id")) for result in page})
    return next(held, pages[0] if drafts else [])


def _page(saved: Results, video: str, config: LabelConfig) -> dict[str, Region]:
    page = {}
    for result in saved:
        if result.get("type") == TYPE and result.get("to_name") == video:
            try:
                page[str(result.get("id"))] = _region(result, saved, config)
            except BadRequest:  # nobody asks for it
                continue
    return page


def _task(tasks: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if not isinstance(tasks, Sequence) or not tasks or not isinstance(tasks[0], Mapping):
        raise BadRequest("the request holds no task: it needs tasks: [{id, data}]")
    data = tasks[0].get("data")
    if not isinstance(data, Mapping):
        raise BadRequest("the task holds no data: import it again with the video's address")
    return tasks[0], data


def _holders(task: Mapping[str, Any], *keys: str) -> list[Mapping[str, Any]]:
    return [holder for key in keys for holder in read_mappings(task.get(key))]


def _results(holder: object) -> Results:
    return read_mappings(holder.get("result")) if isinstance(holder, Mapping) else []


def _check_kinds(results: Iterable[Mapping[str, Any]]) -> None:
    """Say what to do instead where nothing can be prompted; a person's notes are theirs."""
    kinds = {str(result.get("type")) for result in results} - {TEXT}
    if kinds and TYPE not in kinds:
        raise BadRequest(f"regions of type {', '.join(sorted(kinds))} cannot be tracked: draw a VideoRectangle box")


def _check_control(result: Mapping[str, Any], config: LabelConfig) -> None:
    name = str(result.get("from_name"))
    if config.rectangles.get(name) != result.get("to_name"):
        known = ", ".join(f'"{one}"' for one in config.rectangles)
        raise BadRequest(f'the region belongs to the control "{name}", but the boxes of the label config are {known}')


def _track_ids(task: Mapping[str, Any], context: Mapping[str, Any]) -> Iterator[int]:
    holders = [context, *_holders(task, "drafts", "annotations", "predictions")]
    for result in (result for holder in holders for result in _results(holder)):
        if number := read_track_id(result.get("meta")):
            yield number
