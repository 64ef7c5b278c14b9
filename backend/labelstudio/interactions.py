"""A request of Label Studio's to /predict: what was prompted, on which frames of which video."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import BadRequest, Unsupported
from backend.labelstudio import regions
from backend.labelstudio.clock import check_framerate
from backend.labelstudio.config import LabelConfig
from backend.labelstudio.regions import Region

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Interaction:
    """One person's request for tracks on one video.

    Attributes:
        task: Label Studio's id of the task.
        url: the video's address as the task has it.
        framerate: frames per second that the page counts with.
        regions: the regions that are asked for; whatever else the request shows is not ours to touch.
        classes: by region id, the classes that it carries.
        track_ids: the numbers of all tracks that the request shows.
    """

    task: str
    url: str
    framerate: float
    regions: tuple[Region, ...]
    classes: Mapping[str, tuple[str, ...]]
    track_ids: frozenset[int]


def parse(tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any], config: LabelConfig) -> Interaction:
    """Read an interactive request.

    Raises:
        BadRequest: it has no task, or nothing in it can be prompted.
        Unsupported: it prompts in a way that this version does not know.
    """
    task, data = _task(tasks)
    asked = _asked(context, config)
    videos = {region.to_name for region, _ in asked}
    if len(videos) > 1:
        raise BadRequest(f"boxes on {len(videos)} videos at once: ask for the boxes of one video at a time")
    video = config.videos[videos.pop() if videos else next(iter(config.videos))]
    framerate = next((region.framerate for region, _ in asked if region.framerate), None) or video.rate(data)
    check_framerate(framerate)
    return Interaction(
        task=str(task.get("id", "")),
        url=video.url(data),
        framerate=framerate,
        regions=tuple(region for region, _ in asked),
        classes={region.id: classes for region, classes in asked},
        track_ids=frozenset(_track_ids(task, context)),
    )


def _asked(context: Mapping[str, Any], config: LabelConfig) -> list[tuple[Region, tuple[str, ...]]]:
    """The regions that are asked for, and their classes.

    One that cannot be read costs no other its track: it stays as the page shows it.

    Raises:
        BadRequest: none of those that are asked for can be read.
    """
    results, asked, error = _results(context), [], None
    _check_kinds(results)
    for result in results:
        if result.get("type") != regions.TYPE or result.get("origin") == "prediction":
            continue
        try:
            _check_control(result, config)
            beside = [one for one in results if one.get("id") == result.get("id") and one.get("type") != regions.TYPE]
            region = regions.parse(result, beside)
            if region.is_asked:
                asked.append((region, config.classes(region.labels, region.to_name)))
        except BadRequest as bad:
            log.warning("a region is left as it is: %s", bad)
            error = error or bad
    if error and not asked:
        raise error
    return asked


def _task(tasks: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if not isinstance(tasks, Sequence) or not tasks or not isinstance(tasks[0], Mapping):
        raise BadRequest("the request holds no task: it needs tasks: [{id, data}]")
    data = tasks[0].get("data")
    if not isinstance(data, Mapping):
        raise BadRequest("the task holds no data: import it again with the video's address")
    return tasks[0], data


def _results(holder: object) -> list[Mapping[str, Any]]:
    results = holder.get("result") if isinstance(holder, Mapping) else None
    return [result for result in results if isinstance(result, Mapping)] if isinstance(results, list) else []


def _check_kinds(results: Sequence[Mapping[str, Any]]) -> None:
    """Say what to do instead where nothing can be prompted."""
    kinds = {str(result.get("type")) for result in results}
    if regions.TYPE in kinds or not kinds:
        return
    if "textarea" in kinds:
        raise Unsupported("this version cannot find objects by words: draw a box, select it and press t")
    if "keypointlabels" in kinds:
        raise Unsupported("this version takes no clicks from Label Studio: draw a box, select it and press t")
    raise BadRequest(f"regions of type {', '.join(sorted(kinds))} cannot be tracked: draw a VideoRectangle box")


def _check_control(result: Mapping[str, Any], config: LabelConfig) -> None:
    name = str(result.get("from_name"))
    if config.rectangles.get(name) != result.get("to_name"):
        known = ", ".join(f'"{one}"' for one in config.rectangles)
        raise BadRequest(f'the region belongs to the control "{name}", but the boxes of the label config are {known}')


def _track_ids(task: Mapping[str, Any], context: Mapping[str, Any]) -> Iterator[int]:
    holders = [context]
    for key in ("drafts", "annotations", "predictions"):
        listed = task.get(key)
        holders += listed if isinstance(listed, list) else []
    for result in (result for holder in holders for result in _results(holder)):
        if number := regions.track_id(result.get("meta")):
            yield number
