"""Exports that browsers download: what one would contain, its zip while it is made, and how far that is."""

import secrets
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from backend.datasets.build import DatasetBuilder, describe_export, export_command
from backend.datasets.options import DatasetOptions, PictureChoice
from backend.datasets.picture_cutter import PictureOutput
from backend.datasets.plan import DatasetPlan, check_labels, plan_dataset
from backend.datasets.registry import DATASETS, check_format
from backend.datasets.source import TrackSource
from backend.datasets.splits import SPLITS
from backend.datasets.track_builder import TrackBuilder
from backend.datasets.zip_stream import ZipOutput
from backend.errors import BackendError, BadRequest, Busy, SettingsError, one_line
from backend.formats.registry import FORMATS as TRACK_FORMATS
from backend.formats.tasks import used_labels
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.videos import TaskVideos
from backend.recent_values import RecentValues

_MAX_PLANS = 16
"""How many planned datasets can be downloaded."""
_MAX_DOWNLOADS = 2
"""How many are made at once: each keeps some CPU cores busy."""
_MAX_REMARKS = 20


@dataclass(slots=True)
class DatasetDownload:
    """A planned export.

    Attributes:
        build: writes all files; takes the output, and what counts pictures.
        command: that makes the same export.
        file: name of the zip.
        done: number of pictures that are in it.
        error: why it failed; empty: it did not.
    """

    plan: DatasetPlan
    builder: DatasetBuilder | TrackBuilder
    build: Callable[[PictureOutput, Callable[[int], None]], None]
    command: str
    file: str
    remarks: list[str]
    state: Literal["planned", "running", "done", "stopped", "failed"] = "planned"
    done: int = 0
    error: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, count: int) -> None:
        """Count pictures, from several threads."""
        with self._lock:
            self.done += count

    def start(self) -> None:
        """Raises BadRequest: it runs or ran."""
        with self._lock:
            if self.state != "planned":
                raise BadRequest("this download was started before: plan it again")
            self.state = "running"

    def to_json(self) -> dict[str, Any]:
        """How far it is, and what the export lacks."""
        plan, builder = self.plan, self.builder
        remarks = [*self.remarks, *_failures(plan)]
        is_done = self.state == "done"
        return {
            "state": self.state,
            "pictures": plan.picture_count,
            "done": self.done,
            "error": self.error,
            "summary": str(builder.summary) if is_done else "",
            "remarks": _shorten([*(builder.losses() if is_done else []), *remarks]),
        }


class DatasetDownloads:
    """The exports that were planned last.

    Args:
        find_client: the Label Studio of a project; raises StudioError if it is unknown.
        data_dir: where masks are.
    """

    def __init__(self, find_client: Callable[[str], LabelStudioClient], videos: TaskVideos, data_dir: Path) -> None:
        self._find_client, self._videos, self._data_dir = find_client, videos, data_dir
        self._downloads: RecentValues[DatasetDownload] = RecentValues(_MAX_PLANS)
        self._slots = threading.Semaphore(_MAX_DOWNLOADS)

    def plan(self, project: int, name: str, options: DatasetOptions, predictions: bool) -> dict[str, Any]:
        """Plan the export of a project: open its videos and choose their frames.

        Args:
            name: of the format.

        Returns:
            For the page: the key to download it with, and what it would contain.

        Raises:
            BackendError: nothing can be exported.
        """
        try:
            download = self._plan(project, name, options, predictions)
        except SettingsError as error:
            raise BadRequest(str(error)) from error
        key, plan = secrets.token_urlsafe(16), download.plan
        self._downloads.put(key, download)
        splits = {split: [video for video in plan.videos if video.split == split] for split in SPLITS}
        return {
            "key": key,
            "videos": len(plan.videos),
            "bytes": plan.bytes,
            "command": download.command,
            "splits": {
                split: {"videos": len(videos), "pictures": sum(len(video.frames) for video in videos)}
                for split, videos in splits.items()
                if name in DATASETS
            },
            **download.to_json(),
        }

    def _plan(self, project: int, name: str, options: DatasetOptions, predictions: bool) -> DatasetDownload:
        check_options(name, options)
        client = self._find_client(str(project))
        source = TrackSource.from_client(client, self._videos, self._data_dir, project, predictions)
        labels = check_labels(used_labels(source.annotations, source.controls), options)
        plan = plan_dataset(source, options)
        if not plan.videos:
            reasons = _failures(plan) or ["no task has an object"]
            raise BadRequest(f"nothing can be exported: {reasons[0]}")
        remarks = []
        if source.skipped:
            remarks.append(f"{source.skipped} tasks have no submitted annotation and are left out")
        if plan.empty:
            remarks.append(f"{len(plan.empty)} tasks have no object and give no picture")
        more, file = ["--predictions"] if predictions else [], f"project-{project}-{name}.zip"
        if name in DATASETS:
            settings = describe_export(source, name, options, more)
            dataset = DatasetBuilder(source, plan, name, labels, settings)
            return DatasetDownload(plan, dataset, dataset.build, settings["command"], file, remarks)
        if options.pictures == "all":
            more += ["--pictures", "all"]
        tracks = TrackBuilder(source, name)
        return DatasetDownload(
            plan, tracks, partial(tracks.write_to, plan), export_command(source, name, more), file, remarks
        )

    def progress(self, key: str) -> Mapping[str, Any]:
        """How far a download is. Raises BadRequest: it is unknown."""
        return self._find(key).to_json()

    def open(self, key: str) -> tuple[str, Iterator[bytes]]:
        """The name of a zip, and its bytes while it is made; close the iterator to stop.

        Raises:
            BadRequest: the key is unknown, or was used.
            Busy: too many are made.
        """
        download = self._find(key)
        if not self._slots.acquire(blocking=False):
            raise Busy(f"{_MAX_DOWNLOADS} datasets are made now: wait until one of them is done")
        try:
            download.start()
        except BadRequest:
            self._slots.release()
            raise
        return download.file, _Stream(_send(download), partial(self._end, download))

    def _end(self, download: DatasetDownload) -> None:
        download.state = "stopped" if download.state == "running" else download.state
        self._slots.release()

    def _find(self, key: str) -> DatasetDownload:
        download = self._downloads.get(key)
        if download is None:
            raise BadRequest("this download is not planned any more: plan it again")
        return download


class _Stream:
    """Bytes of a zip. `on_end` is called once: when it ends or is closed, even if it was never started."""

    def __init__(self, parts: Generator[bytes], on_end: Callable[[], None]) -> None:
        self._parts, self._on_end = parts, on_end
        self._is_open = True

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._parts)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop, as when the browser goes away."""
        if self._is_open:
            self._is_open = False
            self._parts.close()
            self._on_end()


def _send(download: DatasetDownload) -> Generator[bytes]:
    output = ZipOutput(download.builder.picture_path)
    try:
        yield from output.stream(partial(download.build, output, download.advance))
    except Exception as error:
        is_ours = isinstance(error, BackendError)
        download.error = one_line(error) if is_ours else "an internal error, which the server's log names"
        download.state = "failed"
        raise
    download.state = "done"


def _failures(plan: DatasetPlan) -> list[str]:
    failures = [*plan.skipped, *(f"task {number}: {reason}" for number, reason in sorted(plan.failures.items()))]
    if plan.unopened:
        failures.append(f"{len(plan.unopened)} videos cannot be opened: without pictures, their labels are exported")
    return failures


def _shorten(sentences: list[str]) -> list[str]:
    more = len(sentences) - _MAX_REMARKS
    return sentences if more <= 0 else [*sentences[:_MAX_REMARKS], f"and {more} more"]


def check_options(name: str, options: DatasetOptions) -> None:
    """Check that a format has what the options ask for.

    Raises:
        SettingsError: it has not.
    """
    if name in DATASETS:
        return check_format(name, options)
    if options.pictures not in FORMATS[name]["pictures"]:
        raise SettingsError(f"pictures of {name} must be {' or '.join(FORMATS[name]['pictures'])}")
    if given := [flag for flag in replace(options, pictures="annotated").to_flags() if flag.startswith("--")]:
        raise SettingsError(f"{given[0]} is for the datasets {', '.join(DATASETS)}, not for {name}")
    return None


FORMATS: Mapping[str, Mapping[str, Any]] = {
    **{
        name: {"tasks": form.tasks, "pictures": get_args(PictureChoice), "loses": form.loses}
        for name, form in DATASETS.items()
    },
    **{
        name: {"tasks": (), "pictures": ("all", "none") if form.picture_path else ("none",), "loses": form.loses}
        for name, form in TRACK_FORMATS.items()
    },
}
"""For the page: what each format can hold. Formats of tracks have no tasks to train for, and no other options."""
