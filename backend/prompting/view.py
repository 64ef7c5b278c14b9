"""The prompting page's data and actions, as JSON for `http/static/prompting.js`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from backend.concurrency import ConcurrencyLimit
from backend.errors import BadRequest
from backend.formats.tasks import ChosenAnnotation, ExportControls, choose_annotation
from backend.formats.video_tracks import folder_name
from backend.interactive.session import InteractiveSession, SessionKey
from backend.interactive.sessions import InteractiveSessions
from backend.jobs.records import Records
from backend.jobs.scheduler import Scheduler
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.json_values import read_mappings
from backend.labelstudio.label_config import ALL, parse_label_config
from backend.labelstudio.region import Region, new_region_id
from backend.labelstudio.videos import TaskVideos, frame_reader
from backend.prompting.formatting import format_candidate, format_regions, format_rle, format_track
from backend.prompting.page import Page
from backend.prompting.page_request import parse_frame_prompts, parse_frames, parse_id, parse_search, parse_track
from backend.prompting.page_tracks import UNKNOWN, ListedTrack, PageTracks
from backend.prompting.progress import PageProgress
from backend.prompting.review import find_entries
from backend.prompting.sampling import review_region, review_track
from backend.prompting.submitted_annotation import CorrectionWriter
from backend.recent_values import RecentValues
from backend.settings import Settings
from backend.track_editor.annotation import LabelStudioTask
from backend.track_editor.editor import VERSIONS, Editor, EditorState
from backend.tracks.geometry import Boxes
from backend.video import encode_jpeg

_PICTURES = 8
"""How many frames are encoded at the same time."""
_WIDTH = 1920
"""Largest width of a frame's picture in pixels."""
_MAX_PAGES = 64


class PromptingView:
    """One per process; any thread may use it. Every method may raise BackendError.

    A page is named by the project, which may be empty, and the task.

    Args:
        client: returns the client of a project; raises StudioError if its Label Studio is not known.
        describe_engine: as a region's Info panel names the engine.
    """

    def __init__(
        self,
        sessions: InteractiveSessions,
        scheduler: Scheduler,
        records: Records,
        videos: TaskVideos,
        client: Callable[[str], LabelStudioClient],
        settings: Settings,
        describe_engine: Callable[[], str],
    ) -> None:
        self._sessions, self._videos, self._client = sessions, videos, client
        self._settings, self._describe_engine = settings, describe_engine
        self._tracks = PageTracks(scheduler, records, settings)
        self._pages: RecentValues[Page] = RecentValues(_MAX_PAGES)
        self._pictures = ConcurrencyLimit(_PICTURES)

    def overview(self, project: str, task: str) -> dict[str, Any]:
        """The task, its video, the regions of its annotation, and the tracks that were begun on this page."""
        page, regions = self._load(project, task)
        self._tracks.drop_arrived(page, regions)
        session = self._open(page)
        width, height = session.video.size
        return {
            "task": int(task),
            "project": page.project,
            "url": f"{self._client(project).url}/projects/{page.project}/data?task={task}",
            "video": folder_name(0, page.url).partition("-")[2],
            "frames": session.clock.length,
            "rate": page.framerate,
            "width": width,
            "height": height,
            "labels": [*page.labels],
            "regions": format_regions(regions, page.config),
            "phrases": [ALL, *dict.fromkeys(page.config.phrases[label] for label in page.labels)],
            **self._state(page),
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
        return {"frame": prompts.frame, "candidates": [format_candidate(one, size) for one in session.preview(prompts)]}

    def track(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Track an object from its prompts, or correct a track or a region of the annotation with more of them."""
        page = self._page(project, task)
        request = parse_track(body, page.labels)
        shown = None
        if request.id:  # as it is now: a person may have changed it since the page was loaded
            page, regions = self._load(project, task)
            shown = next((region for region in regions if region.id == request.id), None)
            if shown is None and self._tracks.find(page, request.id) is None:
                raise BadRequest(UNKNOWN)
        name = request.id or new_region_id()
        return format_track(self._tracks.track(self._open(page), page, name, request, shown), page)

    def search(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Look for the objects of words, or for those that are like boxes."""
        page = self._page(project, task)
        return self._tracks.search(self._open(page), page, parse_search(body, page.labels)).to_state()

    def stop(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Stop a track or a search; what is computed is kept."""
        page = self._page(project, task)
        self._tracks.stop(page, parse_id(body.get("id")))
        return self._state(page)

    def resume(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Go on with a track or a search that was stopped."""
        page = self._page(project, task)
        self._tracks.resume(page, parse_id(body.get("id")))
        return self._state(page)

    def remove(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Remove a track or a search from the page. What the annotation has got already stays there."""
        page = self._page(project, task)
        self._tracks.remove(page, parse_id(body.get("id")))
        return self._state(page)

    def send(self, project: str, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Offer tracks to the task: the next request of its labelling page brings them.

        Corrected regions of an annotation that was submitted, and that nobody has open, are written there instead;
        `written` are the numbers of their tracks.
        """
        page, names = self._page(project, task), body.get("ids")
        tracks = self._tracks.select(page, [*map(parse_id, names)] if isinstance(names, list) else [])
        corrections = [one for one in tracks if one.track.is_correction and one.job.state == "done"]
        submitted = self._submitted(page) if corrections else None
        if submitted is None:
            self._tracks.offer(page, tracks)
            return {"written": [], **self._state(page)}
        written_now = {one.name for one in corrections}
        self._tracks.offer(page, [one for one in tracks if one.name not in written_now])
        writer = CorrectionWriter(page, self._settings, self._describe_engine())
        written = writer.write(*submitted, corrections)
        page, regions = self._load(project, task)
        self._tracks.drop_arrived(page, regions)
        return {"written": written, "regions": format_regions(regions, page.config), **self._state(page)}

    def _submitted(self, page: Page) -> tuple[Editor, EditorState] | None:
        """The editor of the annotation that was submitted; None: there is none, or it is open somewhere."""
        client, number = self._client(page.project), int(page.task)
        store, chosen = LabelStudioTask(client, number), _shown_annotation(client.task(number), number)
        if chosen is None or chosen.kind != "annotations" or store.has_draft(chosen):
            return None
        editor = Editor(store, self._settings.data_dir.expanduser() / VERSIONS)
        return editor, editor.read()

    def progress(self, project: str, task: str, last_id: str) -> PageProgress:
        """The tracks of the page as they grow."""
        page = self._page(project, task)

        def region_boxes(one: ListedTrack, length: int) -> Boxes:
            return self._tracks.region_boxes(one, page, length)

        return PageProgress(
            lambda: self._tracks.listed(page), lambda: self._tracks.searches(task), region_boxes, last_id
        )

    def review(self, project: str, task: str) -> dict[str, Any]:
        """The frames that are worth a look, worst first, of all tracks and of the annotation's regions."""
        page, regions = self._load(project, task)
        length = self._open(page).clock.length
        listed = self._tracks.listed(page)
        names = {one.name for one in listed}
        tracks = [review_track(one, self._tracks.region_boxes(one, page, length)) for one in listed]
        tracks += [review_region(region, page, length) for region in regions if region.id not in names]
        return {"entries": [asdict(entry) for entry in find_entries(tracks)]}

    def mask(self, project: str, task: str, name: str, frame: int) -> dict[str, Any] | None:
        """The mask of a track on an LS frame; None: it has none there."""
        found = self._tracks.find(self._page(project, task), name)
        if found is None or (computed := found.computed()) is None:
            return None
        resolved, track, _ = computed
        resolved.clock.check_frame(frame)
        mask = track.masks.get(resolved.clock.source_frame(frame))
        return None if mask is None else format_rle(mask)

    def _state(self, page: Page) -> dict[str, Any]:
        return {
            "tracks": [format_track(one, page) for one in self._tracks.listed(page)],
            "searches": [one.to_state() for one in self._tracks.searches(page.task)],
        }

    def _load(self, project: str, task: str) -> tuple[Page, Sequence[Region]]:
        """The task as Label Studio has it now, and the regions of its annotation."""
        client = self._client(project)
        content = client.task(int(task))
        config = parse_label_config(str(client.project(content["project"]).get("label_config") or ""))
        controls, chosen = ExportControls.from_config(config), _shown_annotation(content, int(task))
        regions = [region for _, region in chosen.regions(controls).found] if chosen else []
        rate = controls.rate(regions, content.get("data") or {})
        page = Page(task, str(content["project"]), config.video.url(content), rate, config)
        self._pages.put((project, task), page)
        return page, regions

    def _page(self, project: str, task: str) -> Page:
        return self._pages.get((project, task)) or self._load(project, task)[0]

    def _open(self, page: Page) -> InteractiveSession:
        return self._sessions.open(SessionKey(page.project, page.task, page.url, page.framerate))


def _shown_annotation(task: Mapping[str, Any], number: int) -> ChosenAnnotation | None:
    """What the page shows of a task's annotations: the newest draft, or else what counts."""
    drafts = read_mappings(task.get("drafts"))
    if drafts:
        newest = max(drafts, key=lambda draft: str(draft.get("updated_at") or draft.get("created_at") or ""))
        return ChosenAnnotation(task, number, "drafts", newest)
    return choose_annotation(task, number, predictions=True)
