"""Reads Label Studio's requests to /predict: the prompts, their frames, and the rest of the annotation."""

import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.errors import BadRequest
from backend.labelstudio.clicks import ClickPrompt, parse_click_prompts
from backend.labelstudio.commands import TRACK, Command, parse_command
from backend.labelstudio.json_values import read_mappings
from backend.labelstudio.label_config import DEFAULT_FRAMERATE, LabelConfig
from backend.labelstudio.notes import MARK, person_lines, typed_lines
from backend.labelstudio.region import (
    TYPE,
    Region,
    agreed_framerate,
    find_linked,
    new_region_id,
    parse_region,
    read_texts,
    read_track_id,
)
from backend.labelstudio.track_end import apply_end
from backend.video.frame_clock import check_framerate

log = logging.getLogger(__name__)

TEXT = "textarea"
Results = list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class RegionPrompt:
    """A region that the request asks to track.

    Attributes:
        classes: the region's classes.
        command: the region's command.
        error: why it cannot be tracked; the response then returns the region as received.
    """

    region: Region
    classes: tuple[str, ...]
    command: Command = TRACK
    error: BadRequest | None = None


@dataclass(frozen=True, slots=True)
class PromptField:
    """The text control for text prompts, as far as the request contains it.

    Attributes:
        control, video: names of the control and of its Video.
        id: id of its result, which differs between annotations; None: not known yet.
        own: a person's lines.
        is_marked: whether it contains a line of the backend.
        text: the text prompt of this request; None: there is none.
    """

    control: str
    video: str
    id: str | None
    own: tuple[str, ...] = ()
    is_marked: bool = False
    text: str | None = None

    def to_result(self, sentence: str | None) -> dict[str, Any]:
        """The result for a response: a person's lines, and the backend's sentence after its mark."""
        lines = [*self.own, *([f"{MARK}{sentence}"] if sentence else [])]
        names = {"from_name": self.control, "to_name": self.video, "type": TEXT}
        return {"id": self.id or new_region_id(), **names, "value": {"text": lines}}


@dataclass(frozen=True)
class PredictRequest:
    """A person's request about one video.

    Attributes:
        task: Label Studio's id of the task.
        url: the video's address in the task's data.
        video: the name of the Video tag.
        framerate: frames per second that Label Studio counts with.
        region_prompts: the regions to track.
        click_prompts: the objects that were clicked on.
        prompt_field: the control for text prompts; None: the config has none.
        context: ids of the results in the request.
        page_name: names the annotation, as far as it was saved; None: it was not.
        page: the annotation's regions that are not asked for, by id: those in `context` as they are, all others as last
            saved, up to 5 s ago.
        saved_clicks: the other clicks of the annotation, as last saved.
        others: ids of the results in all saved annotations and drafts, without those in `context`.
        track_ids: numbers of all tracks in the request.
        user: who sent it, as a draft names them; empty: there is no draft.
    """

    task: str
    url: str
    video: str
    framerate: float
    region_prompts: tuple[RegionPrompt, ...] = ()
    click_prompts: tuple[ClickPrompt, ...] = ()
    prompt_field: PromptField | None = None
    context: frozenset[str] = frozenset()
    page_name: str | None = None
    page: Mapping[str, Region] = field(default_factory=dict)
    saved_clicks: tuple[ClickPrompt, ...] = ()
    others: frozenset[str] = frozenset()
    track_ids: frozenset[int] = frozenset()
    user: str = ""


def parse_request(
    tasks: Sequence[Mapping[str, Any]],
    context: Mapping[str, Any],
    config: LabelConfig,
    prompt_field: PromptField | None,
) -> PredictRequest:
    """Read an interactive request.

    Args:
        prompt_field: its control for text prompts, as `parse_prompt_field` reads it.

    Raises:
        BadRequest: it has no task, or no prompt in it is valid.
    """
    task, data = _task(tasks)
    results = _results(context)
    page_name, saved = _saved(task, results)
    region_prompts = _region_prompts(results, config)
    click_prompts = parse_click_prompts(results, config.points, data)
    if not (region_prompts or click_prompts or (prompt_field and prompt_field.text)):
        _check_types(results)
    videos = {prompt.region.to_name for prompt in region_prompts}
    if len(videos) > 1:
        raise BadRequest(f"the request has boxes on {len(videos)} videos: track the boxes of one video at a time")
    text_video = prompt_field.video if prompt_field and prompt_field.text else config.video.name
    name = next(iter(videos), text_video)
    asked = {prompt.region.id: prompt.region for prompt in region_prompts}
    page = _page(saved, name, config) | _page(results, name, config)
    page = {key: region for key, region in page.items() if key not in asked}
    video = config.videos[name]
    framerate = video.given_rate(data) or agreed_framerate((asked or page).values()) or DEFAULT_FRAMERATE
    check_framerate(framerate)
    ids = frozenset(str(result.get("id")) for result in results)
    all_saved = [result for entry in _entries(task, "drafts", "annotations") for result in _results(entry)]
    return PredictRequest(
        task=task_id(tasks),
        url=video.url(task),
        video=name,
        framerate=framerate,
        region_prompts=tuple(region_prompts),
        click_prompts=tuple(click_prompts),
        prompt_field=prompt_field,
        context=ids,
        page_name=page_name,
        page=page,
        saved_clicks=tuple(_saved_clicks(saved, ids, config, data)),
        others=frozenset(str(result.get("id")) for result in all_saved) - ids,
        track_ids=frozenset(_track_ids(task, context)),
        user=next((str(draft["user"]) for draft in _entries(task, "drafts") if draft.get("user")), ""),
    )


def task_id(tasks: Sequence[Mapping[str, Any]]) -> str:
    """The id of an interactive request's task; empty if it has none."""
    return str(_first(tasks).get("id", ""))


def parse_prompt_field(
    tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any], config: LabelConfig
) -> PromptField | None:
    """Read the control for text prompts. The rest of the request may be invalid: the control shows the error."""
    task = _first(tasks)
    results = _results(context)
    for is_prompt, candidates in ((True, results), (False, _saved(task, results)[1])):
        for result in candidates:
            control, lines = str(result.get("from_name")), read_texts(result)
            if result.get("type") == TEXT and control in config.words:
                own = person_lines(lines)
                return PromptField(
                    control=control,
                    video=config.words[control],
                    id=str(result.get("id")),
                    own=tuple(own),
                    is_marked=isinstance(lines, list) and len(own) < len(lines),
                    text=typed_lines(lines) if is_prompt else None,
                )
    return next((PromptField(control, video, None) for control, video in config.words.items()), None)


def _region_prompts(results: Results, config: LabelConfig) -> list[RegionPrompt]:
    """The regions to track.

    Invalid regions are skipped, so that the others are still tracked; the page keeps them.

    Raises:
        BadRequest: all of them are invalid.
    """
    prompts, first_error = [], None
    for result in results:
        if result.get("type") != TYPE or result.get("origin") == "prediction":
            continue
        try:
            _check_control(result, config)
            region = _region(result, results, config)
            if region.is_asked:
                prompts.append(_region_prompt(region, config.classes(region.labels, region.to_name)))
        except BadRequest as error:
            log.warning("a region is skipped: %s", error)
            first_error = first_error or error
    if first_error and not prompts:
        raise first_error
    return prompts


def _region_prompt(region: Region, classes: tuple[str, ...]) -> RegionPrompt:
    if region.line is None:
        return RegionPrompt(region, classes)
    try:
        changed, command = apply_end(region, parse_command(region.line))
        return RegionPrompt(changed, classes, command)
    except BadRequest as error:
        return RegionPrompt(region, classes, error=error)


def _region(result: Mapping[str, Any], results: Results, config: LabelConfig) -> Region:
    region = parse_region(result, find_linked(result, results), config.lines)
    for reason in region.skipped:
        log.warning("a keyframe is skipped: %s", reason)
    return region


def _saved(task: Mapping[str, Any], context: Results) -> tuple[str | None, Results]:
    """The annotation that the person has open, as last saved: a name for it, and its results.

    The request does not name it: it is the draft or annotation that contains a result of the request, or else the
    newest draft. A request contains only its sender's drafts; annotations may be anyone's, so they need such a match.
    """
    ids = {str(result.get("id")) for result in context}
    drafts = sorted(_entries(task, "drafts"), key=lambda draft: str(draft.get("updated_at", "")), reverse=True)
    pages = [(f"draft {draft.get('id')}", _results(draft)) for draft in drafts]
    pages += [(f"annotation {entry.get('id')}", _results(entry)) for entry in _entries(task, "annotations")]
    matches = (page for page in pages if ids & {str(result.get("id")) for result in page[1]})
    return next(matches, pages[0] if drafts else (None, []))


def _page(saved: Results, video: str, config: LabelConfig) -> dict[str, Region]:
    page = {}
    for result in saved:
        if result.get("type") == TYPE and result.get("to_name") == video:
            try:
                region = _region(result, saved, config)
                page[region.id] = region
            except BadRequest:  # it is not to be tracked, so this is no error of the request
                continue
    return page


def _saved_clicks(
    saved: Results, context: Container[str], config: LabelConfig, data: Mapping[str, Any]
) -> list[ClickPrompt]:
    try:
        return parse_click_prompts([one for one in saved if str(one.get("id")) not in context], config.points, data)
    except BadRequest:  # nobody asked for them
        return []


def _first(tasks: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return tasks[0] if isinstance(tasks, Sequence) and tasks and isinstance(tasks[0], Mapping) else {}


def _task(tasks: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if not isinstance(tasks, Sequence) or not tasks or not isinstance(tasks[0], Mapping):
        raise BadRequest("the request holds no task: it needs tasks: [{id, data}]")
    data = tasks[0].get("data")
    if not isinstance(data, Mapping):
        raise BadRequest("the task holds no data: import it again with the video's address")
    return tasks[0], data


def _entries(task: Mapping[str, Any], *keys: str) -> list[Mapping[str, Any]]:
    return [entry for key in keys for entry in read_mappings(task.get(key))]


def _results(entry: object) -> Results:
    return read_mappings(entry.get("result")) if isinstance(entry, Mapping) else []


def _check_types(results: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a request whose regions are all of types that cannot be tracked; text is ignored."""
    types = {str(result.get("type")) for result in results} - {TEXT}
    if types and TYPE not in types:
        raise BadRequest(f"regions of type {', '.join(sorted(types))} cannot be tracked: draw a VideoRectangle box")


def _check_control(result: Mapping[str, Any], config: LabelConfig) -> None:
    name = str(result.get("from_name"))
    if config.rectangles.get(name) != result.get("to_name"):
        known = ", ".join(f'"{rectangle}"' for rectangle in config.rectangles)
        raise BadRequest(f'the region belongs to the control "{name}", but the boxes of the label config are {known}')


def _track_ids(task: Mapping[str, Any], context: Mapping[str, Any]) -> Iterator[int]:
    entries = [context, *_entries(task, "drafts", "annotations", "predictions")]
    for result in (result for entry in entries for result in _results(entry)):
        if number := read_track_id(result.get("meta")):
            yield number
