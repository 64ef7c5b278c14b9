"""The prompting page's data and actions, as JSON for `http/static/prompting.js`: LS frames, percent of the picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.concurrency import ConcurrencyLimit
from backend.errors import BadRequest
from backend.formats.tasks import ChosenAnnotation, ExportControls, assign_track_numbers, choose_annotation
from backend.formats.video_tracks import folder_name
from backend.interactive.session import InteractiveSession, SessionKey
from backend.interactive.sessions import InteractiveSessions
from backend.jobs.job import Job
from backend.jobs.records import Records
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import OBJECT_TRACK, FramePrompts
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.json_values import read_mappings
from backend.labelstudio.keyframe import boxes_to_percent
from backend.labelstudio.label_config import LabelConfig, parse_label_config
from backend.labelstudio.region import Region, new_region_id
from backend.labelstudio.videos import TaskVideos, frame_reader
from backend.prompting.page_request import parse_frame_prompts, parse_frames, parse_id, parse_track
from backend.prompting.progress import PageProgress
from backend.recent_values import RecentValues
from backend.tracks.frame_range import FrameRange
from backend.tracks.masks import Rle
from backend.tracks.track import Observation
from backend.video import encode_jpeg

_PICTURES = 8
"""How many frames are encoded at the same time."""
_WIDTH = 1920
"""Largest width of a frame's picture in pixels."""
_MAX_PAGES = 64


@dataclass(frozen=True, slots=True)
class _Page:
    """What an open page needs to know of its task."""

    task: str
    project: str
    url: str
    framerate: float
    config: LabelConfig

    @property
    def labels(self) -> Sequence[str]:
        return self.config.labels.get(self.config.video.name, ())


class PromptingView:
    """One per process; any thread may use it. Every method may raise BackendError.

    A page is named by the project, which may be empty, and the task.

    Args:
        client: returns the client of a project; raises StudioError if its Label Studio is not known.
    """

    def __init__(
        self,
        sessions: InteractiveSessions,
        scheduler: Scheduler,
        records: Records,
        videos: TaskVideos,
        client: Callable[[str], LabelStudioClient],
    ) -> None:
        self._sessions, self._scheduler, self._records = sessions, scheduler, records
        self._videos, self._client = videos, client
        self._pages: RecentValues[_Page] = RecentValues(_MAX_PAGES)
        self._pictures = ConcurrencyLimit(_PICTURES)

    def overview(self, project: str, task: str) -> dict[str, Any]:
        """The task, its video, the regions of its annotation, and the tracks that were begun on this page."""
        client = self._client(project)
        content = client.task(int(task))
        config = parse_label_config(str(client.project(content["project"]).get("label_config") or ""))
        controls, chosen = ExportControls.from_config(config), _shown_annotation(content, int(task))
        regions = [region for _, region in chosen.regions(controls).found] if chosen else []
        rate = controls.rate(regions, content.get("data") or {})
        page = _Page(task, str(content["project"]), config.video.url(content), rate, config)
        self._pages.put((project, task), page)
        session = self._open(page)
        width, height = session.video.size
        return {
            "task": int(task),
            "project": page.project,
            "url": f"{client.url}/projects/{page.project}/data?task={task}",
            "video": folder_name(0, page.url).partition("-")[2],
            "frames": session.clock.length,
            "rate": rate,
            "width": width,
            "height": height,
            "labels": [*page.labels],
            "regions": _format_regions(regions, controls),
            "tracks": [_format_track(name, job, is_offered) for name, job, is_offered in self._tracks(task)],
        }

    def frame(self, project: str, task: str, number: int) -> bytes:
        """An LS frame, as JPEG."""
        page = self._page(project, task)
        with self._pictures, self._videos.look(page.url, self._client(page.project)) as video:
            picture = frame_reader(video, page.framerate)(number)
        return encode_jpeg(picture, _WIDTH)

    def encode_ahead(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Encode the frames that the page looks at, in this order."""
        session = self._open(self._page(project, task))
        session.encode_ahead(parse_frames(body.get("frames")))
        return {"encoded": sorted({session.clock.first_frame(frame) for frame in session.encoded_frames})}

    def preview(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The masks that the prompts on a frame would select, best first."""
        session, prompts = self._open(self._page(project, task)), parse_frame_prompts(body)
        size = session.video.size
        return {"frame": prompts.frame, "candidates": [_format_mask(one, size) for one in session.preview(prompts)]}

    def track(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Track an object from its prompts, or track it again from other ones."""
        page = self._page(project, task)
        request = parse_track(body, page.labels)
        offered = self._records.page_tracks(task)
        if request.id and request.id not in offered:
            raise BadRequest("there is no such track on this page: load the page again")
        name, session = request.id or new_region_id(), self._open(page)
        ranges: tuple[FrameRange, ...] = ()
        if request.first or request.last:
            ranges = (FrameRange(request.first or 1, min(request.last or session.clock.length, session.clock.length)),)
        job = session.start_track(
            name, request.prompts, request.direction, ranges=ranges, classes=(request.label,) if request.label else ()
        )
        is_offered = offered.get(name, False)
        self._records.put_page_track(task, name, is_offered=is_offered)
        return _format_track(name, job, is_offered)

    def stop(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Stop tracking; what is computed is kept."""
        name, job, is_offered = self._track(task, body)
        self._scheduler.cancel(job.number)
        return _format_track(name, job, is_offered)

    def resume(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Go on with a track that was stopped."""
        name, job, is_offered = self._track(task, body)
        self._scheduler.resume(job.number)
        return _format_track(name, self._newest(task, name) or job, is_offered)

    def remove(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Remove a track from the page. What the labelling page has got already stays there."""
        name, job, _ = self._track(task, body)
        self._scheduler.cancel(job.number)
        self._records.remove_page_track(task, name)
        return {"id": name}

    def send(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Offer tracks to the task: the next request of its labelling page brings them."""
        names = body.get("ids")
        known = {name: job for name, job, _ in self._tracks(task)}
        if not isinstance(names, list) or not names or not all(name in known for name in map(str, names)):
            raise BadRequest("there is nothing to send: track an object first")
        for name in names:
            self._records.put_page_track(task, str(name), is_offered=True)
        return {"tracks": [_format_track(name, job, is_offered) for name, job, is_offered in self._tracks(task)]}

    def progress(self, project: str, task: str, last_id: str) -> PageProgress:
        """The tracks of the page as they grow."""
        self._page(project, task)
        return PageProgress(lambda: {name: job for name, job, _ in self._tracks(task)}, last_id)

    def mask(self, project: str, task: str, name: str, frame: int) -> dict[str, Any] | None:
        """The mask of a track on an LS frame; None: it has none, or masks are not kept."""
        job = self._newest(task, name) if name in self._records.page_tracks(task) else None
        if job is None or (resolved := job.resolved) is None:
            return None
        resolved.clock.check_frame(frame)
        masks = resolved.propagation.target(OBJECT_TRACK).track().masks
        found = masks.get(resolved.clock.source_frame(frame))
        return None if found is None else _format_rle(found)

    def _page(self, project: str, task: str) -> _Page:
        if (page := self._pages.get((project, task))) is None:
            self.overview(project, task)
            page = self._pages.get((project, task))
        if page is None:
            raise BadRequest("too many pages are open: load the page again")
        return page

    def _open(self, page: _Page) -> InteractiveSession:
        return self._sessions.open(SessionKey(page.project, page.task, page.url, page.framerate))

    def _newest(self, task: str, name: str) -> Job | None:
        return self._scheduler.newest((task, "region", name))

    def _tracks(self, task: str) -> list[tuple[str, Job, bool]]:
        """The tracks that were begun on this page: id, job, and whether it is offered."""
        found = ((name, self._newest(task, name), offered) for name, offered in self._records.page_tracks(task).items())
        return [(name, job, is_offered) for name, job, is_offered in found if job]

    def _track(self, task: str, body: Mapping[str, Any]) -> tuple[str, Job, bool]:
        name = parse_id(body.get("id"))
        found = next((track for track in self._tracks(task) if track[0] == name), None)
        if found is None:
            raise BadRequest("there is no such track on this page: load the page again")
        return found


def _shown_annotation(task: Mapping[str, Any], number: int) -> ChosenAnnotation | None:
    """What the page shows of a task's annotations: the newest draft, or else what counts."""
    drafts = read_mappings(task.get("drafts"))
    if drafts:
        newest = max(drafts, key=lambda draft: str(draft.get("updated_at") or draft.get("created_at") or ""))
        return ChosenAnnotation(task, number, "drafts", newest)
    return choose_annotation(task, number, predictions=True)


def _format_regions(regions: Sequence[Region], controls: ExportControls) -> list[dict[str, Any]]:
    seen = [region for region in regions if region.keyframes]
    numbers = assign_track_numbers([(region.track_id, region.keyframes[0].frame) for region in seen])
    return [
        {
            "id": region.id,
            "number": number,
            "label": controls.label(region.labels),
            "keyframes": [
                [key.frame, key.enabled, key.x, key.y, key.width, key.height, key.rotation, key.is_human]
                for key in region.keyframes
            ],
        }
        for number, region in zip(numbers, seen, strict=True)
    ]


def _format_track(name: str, job: Job, is_offered: bool) -> dict[str, Any]:
    spec = job.row.spec
    done, total = job.progress()
    return {
        "id": name,
        "job": job.number,
        "label": next(iter(spec.classes), ""),
        "direction": spec.direction,
        "range": [spec.ranges[0].first, spec.ranges[0].last] if spec.ranges else None,
        "prompts": [_format_prompts(one) for one in spec.prompts],
        "state": job.state,
        "error": str(job.error) if job.error else None,
        "done": done,
        "total": total,
        "offered": is_offered,
    }


def _format_prompts(prompts: FramePrompts) -> dict[str, Any]:
    box = [*prompts.box[:4]] if prompts.box else None
    return {"frame": prompts.frame, "box": box, "points": [[*point] for point in prompts.points]}


def _format_mask(observation: Observation, size: tuple[int, int]) -> dict[str, Any]:
    box = boxes_to_percent(np.array([observation.box]), *size)[0].round(4).tolist() if observation.box else None
    return {
        "score": round(observation.score, 4),
        "box": box,
        "mask": _format_rle(observation.mask) if observation.mask else None,
    }


def _format_rle(mask: Rle) -> dict[str, Any]:
    """Run lengths down the columns, the first of pixels outside."""
    return {"width": mask.width, "height": mask.height, "counts": mask.counts.tolist()}
