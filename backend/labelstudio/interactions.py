"""A request of Label Studio's to /predict: what was prompted, on which frames of which video."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import BadRequest, Unsupported
from backend.labelstudio import regions
from backend.labelstudio.config import LabelConfig
from backend.labelstudio.regions import Region


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
        BadRequest: it has no task, a region cannot be read, or nothing in it can be prompted.
        Unsupported: it prompts in a way that this version does not know.
    """
    task, data = _task(tasks)
    asked = [region for region in map(regions.parse, _rectangles(context, config)) if region.is_asked]
    videos = {region.to_name for region in asked}
    if len(videos) > 1:
        raise BadRequest(f"boxes on {len(videos)} videos at once: ask for the boxes of one video at a time")
    video = config.videos[videos.pop() if videos else next(iter(config.videos))]
    return Interaction(
        task=str(task.get("id", "")),
        url=video.url(data),
        framerate=next((region.framerate for region in asked if region.framerate), None) or video.rate(data),
        regions=tuple(asked),
        classes={region.id: config.classes(region.labels, video.name) for region in asked},
        track_ids=frozenset(_track_ids(task, context)),
    )


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


def _rectangles(context: Mapping[str, Any], config: LabelConfig) -> Iterator[Mapping[str, Any]]:
    """The results that are boxes on a video; texts beside them belong to them and are passed over."""
    results = _results(context)
    kinds = {str(result.get("type")) for result in results}
    if regions.TYPE not in kinds:
        if "textarea" in kinds:
            raise Unsupported("this version cannot find objects by words: draw a box, select it and press t")
        if "keypointlabels" in kinds:
            raise Unsupported("this version takes no clicks from Label Studio: draw a box, select it and press t")
        if kinds:
            raise BadRequest(f"regions of type {', '.join(sorted(kinds))} cannot be tracked: draw a VideoRectangle box")
    for result in results:
        if result.get("type") == regions.TYPE:
            name = result.get("from_name")
            if config.rectangles.get(str(name)) != result.get("to_name"):
                known = ", ".join(f'"{name}"' for name in config.rectangles)
                raise BadRequest(
                    f'the region belongs to the control "{name}", but the boxes of the label config are {known}'
                )
            yield result


def _track_ids(task: Mapping[str, Any], context: Mapping[str, Any]) -> Iterator[int]:
    holders = [context]
    for key in ("drafts", "annotations", "predictions"):
        listed = task.get(key)
        holders += listed if isinstance(listed, list) else []
    for result in (result for holder in holders for result in _results(holder)):
        meta = result.get("meta")
        number = meta.get("track_id") if isinstance(meta, Mapping) else None
        if isinstance(number, int):
            yield number
