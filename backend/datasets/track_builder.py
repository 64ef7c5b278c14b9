"""Builds an export in a format of tracks, with every frame as a picture or with none."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from backend.datasets.picture_cutter import PictureCutter, PictureOutput
from backend.datasets.plan import DatasetPlan, PlannedVideo
from backend.datasets.source import TrackSource
from backend.errors import SettingsError
from backend.formats.mask_matching import attach_masks
from backend.formats.registry import FORMATS, Format
from backend.formats.tasks import ChosenAnnotation, read_video_tracks, used_labels
from backend.formats.video_tracks import Size, VideoTracks
from backend.video import VideoInfo

Item = TypeVar("Item")


def require_one(items: Iterator[Item]) -> Iterator[Item]:
    """The same items. Raises SettingsError: there are none."""
    first = next(items, None)
    if first is None:
        raise SettingsError("no task can be exported")
    return chain([first], items)


@dataclass(slots=True)
class TrackBuilder:
    """Reads the tracks of tasks, writes them in one format, and counts what was written.

    Attributes:
        name: of the format.
        dense: write every frame, also in formats that may contain keyframes only.
        size: of videos whose size is unknown.
        written: number of tasks.
        tracks: number of tracks.
        skipped: what of a task cannot be read and is left out, a sentence each.
        unmasked_tracks: number of tracks that the format leaves out, because they have no masks.
        unmasked_boxes: number of other boxes that it leaves out.
    """

    source: TrackSource
    name: str
    dense: bool = False
    size: Size | None = None
    written: int = 0
    tracks: int = 0
    skipped: list[str] = field(default_factory=list)
    unmasked_tracks: int = 0
    unmasked_boxes: int = 0

    @property
    def form(self) -> Format:
        """The format."""
        return FORMATS[self.name]

    @property
    def summary(self) -> str:
        """What was written."""
        return f"{self.written} tasks, {self.tracks} tracks"

    def losses(self) -> list[str]:
        """What the export does not hold, a sentence each; complete when all is written."""
        sentences = [f"{self.name} does not hold {self.form.loses}"]
        if self.unmasked_tracks:
            sentences.append(f"{self.unmasked_tracks} tracks have no masks and are not in {self.name}")
        if self.unmasked_boxes:
            count = self.unmasked_boxes
            sentences.append(f"{count} other boxes have no matching mask and are skipped: track them again")
        return sentences

    def picture_path(self, planned: PlannedVideo, frame: int) -> str:
        """The path of a picture in the export's folder."""
        return self.form.picture_path(planned.name, frame) if self.form.picture_path else ""

    def read(self, annotation: ChosenAnnotation, info: VideoInfo | None) -> VideoTracks:
        """A task's tracks, with masks if the format has them.

        Args:
            info: of the video; None if it is not read.

        Raises:
            BackendError: they cannot be read, or the format cannot hold them.
        """
        video = read_video_tracks(annotation, self.source.controls, info, self.size)
        _ = video.pixels  # raises if the size is unknown
        if self.form.has_masks and video.tracks:
            video = attach_masks(video, self.source.find_masks(annotation))
        if self.form.check:
            self.form.check(video)
        return video

    def write(self, videos: Iterator[VideoTracks], path: Path) -> None:
        """Write tracks to a file, or to files in a folder.

        Raises:
            SettingsError: there are none.
        """
        videos = require_one(videos)
        labels = used_labels(self.source.annotations, self.source.controls)
        (path if self.form.is_folder else path.parent).mkdir(exist_ok=True)
        self.form.write(self._count(videos), labels, path, self.dense)

    def write_with_pictures(
        self, plan: DatasetPlan, output: PictureOutput, folder: Path, advance: Callable[[int], None]
    ) -> None:
        """Write pictures to the output, and tracks to files in a folder.

        Args:
            advance: called with the number of pictures that are done, from several threads.

        Raises:
            BackendError: no task can be exported.
        """
        cutter = PictureCutter(plan, output, advance)

        def read(planned: PlannedVideo) -> VideoTracks:
            tracks = self.read(planned.annotation, VideoInfo.from_video(planned.video) if planned.video else None)
            cutter.cut(planned)
            return tracks

        self.write(cutter.run(read), folder / self.form.file if self.form.file else folder)

    def write_to(self, plan: DatasetPlan, output: PictureOutput, advance: Callable[[int], None]) -> None:
        """Write pictures and tracks to the output.

        Args:
            advance: called with the number of pictures that are done, from several threads.

        Raises:
            BackendError: no task can be exported, or nothing more can be written.
        """
        with TemporaryDirectory() as name:
            folder = Path(name) / self.name
            folder.mkdir()
            self.write_with_pictures(plan, output, folder, advance)
            for path in sorted(file for file in folder.rglob("*") if file.is_file()):
                output.write(path.relative_to(folder).as_posix(), path.read_bytes())

    def _count(self, videos: Iterable[VideoTracks]) -> Iterator[VideoTracks]:
        for video in videos:
            self.written += 1
            self.skipped += [f"task {video.task}: {reason}" for reason in video.skipped]
            self.tracks += len(video.tracks)
            if self.form.needs_masks:
                self.unmasked_tracks += len(video.tracks) - len(video.masked)
                self.unmasked_boxes += sum(len(track.frames) - len(track.masks) for track in video.masked)
            yield video
