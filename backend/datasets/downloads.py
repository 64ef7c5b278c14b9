"""Datasets that browsers download: what one would contain, its zip while it is made, and how far that is."""

import secrets
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from backend.datasets.build import DatasetBuilder, describe_export
from backend.datasets.options import DatasetOptions
from backend.datasets.plan import DatasetPlan, check_labels, plan_dataset
from backend.datasets.registry import DATASETS, check_format
from backend.datasets.source import TrackSource
from backend.datasets.splits import SPLITS
from backend.datasets.zip_stream import ZipOutput
from backend.errors import BackendError, BadRequest, Busy, SettingsError, one_line
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
    """A planned dataset.

    Attributes:
        file: name of the zip.
        done: number of pictures that are in it.
        error: why it failed; empty: it did not.
    """

    builder: DatasetBuilder
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
        """How far it is, and what its dataset lacks."""
        plan, builder = self.builder.plan, self.builder
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
    """The datasets that were planned last.

    Args:
        find_client: the Label Studio of a project; raises StudioError if it is unknown.
        data_dir: where masks are.
    """

    def __init__(self, find_client: Callable[[str], LabelStudioClient], videos: TaskVideos, data_dir: Path) -> None:
        self._find_client, self._videos, self._data_dir = find_client, videos, data_dir
        self._downloads: RecentValues[DatasetDownload] = RecentValues(_MAX_PLANS)
        self._slots = threading.Semaphore(_MAX_DOWNLOADS)

    def plan(self, project: int, name: str, options: DatasetOptions, predictions: bool) -> dict[str, Any]:
        """Plan a project's dataset: open its videos and choose their frames.

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
        key, plan = secrets.token_urlsafe(16), download.builder.plan
        self._downloads.put(key, download)
        splits = {split: [video for video in plan.videos if video.split == split] for split in SPLITS}
        return {
            "key": key,
            "videos": len(plan.videos),
            "bytes": plan.bytes,
            "command": download.builder.settings["command"],
            "splits": {
                split: {"videos": len(videos), "pictures": sum(len(video.frames) for video in videos)}
                for split, videos in splits.items()
            },
            **download.to_json(),
        }

    def _plan(self, project: int, name: str, options: DatasetOptions, predictions: bool) -> DatasetDownload:
        check_format(name, options)
        client = self._find_client(str(project))
        source = TrackSource.from_client(client, self._videos, self._data_dir, project, predictions)
        labels = check_labels(used_labels(source.annotations, source.controls), options)
        plan = plan_dataset(source, options)
        if not plan.videos:
            reasons = _failures(plan) or ["no task has an object"]
            raise BadRequest(f"nothing can be exported: {reasons[0]}")
        settings = describe_export(source, name, options, ["--predictions"] if predictions else [])
        remarks = []
        if source.skipped:
            remarks.append(f"{source.skipped} tasks have no submitted annotation and are left out")
        if plan.empty:
            remarks.append(f"{len(plan.empty)} tasks have no object and give no picture")
        builder = DatasetBuilder(source, plan, name, labels, settings)
        return DatasetDownload(builder, f"project-{project}-{name}.zip", remarks)

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
        yield from output.stream(partial(download.builder.build, output, download.advance))
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


FORMATS = {name: {"tasks": list(form.tasks), "loses": form.loses} for name, form in DATASETS.items()}
"""For the page: what each format can hold."""
