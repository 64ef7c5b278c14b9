"""`sam3-backend track` of several videos: each is a job of the workers.

The jobs are on disk: if the command is interrupted, run it again to continue.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from backend.commands.console import describe_running, format_count, print_message, summarize
from backend.commands.track_task import (
    TrackedVideo,
    build_task,
    check_outputs,
    crop_span,
    label_tracks,
    read_regions,
    write_tasks,
)
from backend.errors import BackendError, BadRequest, SettingsError
from backend.jobs.job import Job
from backend.jobs.metrics import Metrics
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import JobSpec, prompt_digest
from backend.jobs.store import Store
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.region import Region
from backend.service import make_workers
from backend.settings import Settings
from backend.tracks.frame_range import ALL_FRAMES, FrameRange
from backend.tracks.masks import Rle
from backend.tracks.prompts import TextSearch
from backend.video import Video, VideoInfo, VideoLimits
from backend.video.frame_clock import FrameClock

_POLL_SECONDS = 0.2
_AHEAD = 64
"""How many videos have jobs that have not ended."""


@dataclass(frozen=True, slots=True)
class TextPrompts:
    """What to find in each video, and where.

    Attributes:
        frame: source frame to search from; None: the first one of the span, or the last one backward.
        span: source frames to track in; None: the whole video.
    """

    searches: Sequence[TextSearch]
    frame: int | None
    span: range | None

    @classmethod
    def from_searches(cls, searches: Sequence[TextSearch], span: range | None) -> "TextPrompts":
        """Raises SettingsError: the searches start on different frames."""
        frames = {search.frame for search in searches}
        if len(frames) > 1:
            raise SettingsError("several videos are searched from one frame: give every --text the same @F, or none")
        return cls(searches, frames.pop(), span)

    def spec(self, path: Path, url: str, info: VideoInfo, settings: Settings) -> JobSpec:
        """The job of a video.

        Raises:
            BadRequest: the span or the frame is outside the video.
        """
        length, clock = len(info.times), FrameClock(info.times, info.end, info.rate)
        span = crop_span(self.span, length)
        source = self.frame if self.frame is not None else span[-1 if settings.direction == "backward" else 0]
        if source not in span:
            raise BadRequest(f"the prompt on frame {source} is outside the span {span.start}..{span.stop}")
        start = clock.first_frame(source)
        last = clock.first_frame(span.stop) - 1 if span.stop < length else ALL_FRAMES.last
        ends = {"forward": ((start, None),), "backward": ((None, start),)}
        return JobSpec(
            task=str(path),
            project="",
            url=url,
            framerate=info.rate,
            max_frames=settings.max_frames,
            intervals=ends.get(settings.direction, ((None, start), (start, None))),
            ranges=(FrameRange(start, start), FrameRange(clock.first_frame(span.start), last)),
            phrases=tuple(search.text for search in self.searches),
            masks=settings.show_masks,
        )


class FileJobs:
    """The jobs of files. A context manager's `close` saves those that run.

    Raises:
        SettingsError: the engine cannot run here, or another command uses the same folder.
    """

    def __init__(self, prompts: TextPrompts, settings: Settings, pool: WorkerPool | None) -> None:
        self._prompts, self._settings, self._limits = prompts, settings, VideoLimits.from_settings(settings)
        self._infos: dict[Path, VideoInfo] = {}
        limits, folder = settings.limits, settings.data_dir.expanduser() / "track"
        self._store = Store(folder / "jobs.sqlite3", limits.store, limits.retention_days)
        # Those of an interrupted command go on when they are asked for again.
        self._store.set_ended([(row.number, "cancelled", None, time.time()) for row in self._store.unfinished()])
        try:
            self.pool = pool or make_workers(settings)
        except BackendError:
            self._store.close()
            raise
        self._scheduler = Scheduler(
            self.pool,
            self._store,
            lambda spec, _: Path(spec.task),
            lambda _: None,  # the file is the user's
            self._limits,
            queue=limits.queue,
            metrics=Metrics(),
            masks=settings.show_masks,
        )
        try:
            self.pool.start()
        except BackendError:
            self.close()
            raise

    def close(self) -> None:
        """Save the running jobs and end the workers."""
        self._scheduler.close()

    def submit(self, path: Path) -> Job:
        """The job of a video.

        Raises:
            BackendError: the file cannot be decoded, or the prompts do not fit it.
        """
        if not path.is_file():
            raise BadRequest("there is no such file")
        status = path.stat()
        url = f"{path.absolute()}?size={status.st_size}&time={status.st_mtime_ns}"
        with Video(path, self._limits) as video:
            self._infos[path] = VideoInfo.from_video(video)
        spec = self._prompts.spec(path.absolute(), url, self._infos[path], self._settings)
        digest = prompt_digest(self.pool.model_version, [url, spec.to_json()])
        return self._scheduler.submit(("file", spec.task), digest, spec, batch=True)

    def task(self, path: Path, job: Job, before: Sequence[Region]) -> tuple[str, Mapping[str, Mapping[int, Rle]]]:
        """The task of a job that is done, as JSON, and the masks of its regions.

        Raises:
            BackendError: the results are damaged.
        """
        resolved = job.resolved
        if resolved is None or job.error:
            raise job.error or BackendError("the results are no longer kept: run the command again")
        propagation = resolved.propagation
        labels = label_tracks(propagation, {}, self._prompts.searches)
        tracked = TrackedVideo(str(path), self._infos.pop(path), propagation, propagation.tracks(), labels, {})
        task, ids = build_task(tracked, self._settings, (self.pool.name, self.pool.version), before)
        masks = {region: tracked.tracks[name].masks for name, region in ids.items()}
        return json.dumps(task, indent=1, ensure_ascii=False), masks


def run(
    paths: Iterable[Path],
    searches: Sequence[TextSearch],
    settings: Settings,
    *,
    span: range | None,
    output: Path | None,
    pool: WorkerPool | None = None,
) -> None:
    """Find what the searches name in several videos, and write a task for each that does not fail.

    Args:
        searches: of words alone.
        span: source frames to track in; None: the whole video.
        output: as in `backend.commands.track.run`.
        pool: runs the jobs; None: workers with the engine and the devices of the settings.

    Raises:
        BackendError: the engine cannot run, or some videos failed; what became of the others is written.
    """
    check_outputs(output)
    settings = replace(settings, show_masks=settings.show_masks and output is not None)
    prompts = TextPrompts.from_searches(searches, span)
    videos = list(dict.fromkeys(paths))
    tasks, masks, failed = dict[Path, str](), dict[str, Mapping[int, Rle]](), dict[Path, BackendError]()
    before = read_regions(output)
    with closing(FileJobs(prompts, settings, pool)) as jobs, tqdm(total=len(videos), unit="video", smoothing=0) as bar:
        waiting, running = iter(videos), dict[Path, Job]()
        while len(tasks) + len(failed) < len(videos):
            for path in islice(waiting, _AHEAD - len(running)):
                try:
                    running[path] = jobs.submit(path)
                except BackendError as error:
                    failed[path] = error
            for path in [path for path, job in running.items() if job.has_ended]:
                try:
                    tasks[path], found = jobs.task(path, running.pop(path), before.get(str(path), ()))
                    masks |= found if settings.show_masks else {}
                except BackendError as error:
                    failed[path] = error
            bar.n = len(tasks) + len(failed)
            bar.set_postfix_str(describe_running({path.name: job for path, job in running.items()}))
            if running:
                jobs.pool.check_engine()
                time.sleep(_POLL_SECONDS)
    write_tasks(output, [tasks[path] for path in videos if path in tasks], masks if settings.show_masks else None)
    print_message(summarize("tracked", "video", len(tasks), len(failed)))
    for path, why in failed.items():
        print_message(f"{path}: failed: {' '.join(str(why).split())}")
    if failed:
        raise BackendError(f"{format_count(len(failed), 'video')} failed: see above")
