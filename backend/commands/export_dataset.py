"""`sam3-backend project export` to datasets, with a progress bar."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from backend.datasets.build import DatasetBuilder, picture_settings
from backend.datasets.options import DatasetOptions
from backend.datasets.picture_folder import PathOf, PictureFolder, format_bytes
from backend.datasets.plan import DatasetPlan, check_labels, plan_dataset
from backend.datasets.source import TrackSource
from backend.errors import BackendError, SettingsError
from backend.formats.tasks import used_labels
from backend.formats.video_tracks import Size

Say = Callable[[str], None]


def export_dataset(
    source: TrackSource,
    name: str,
    options: DatasetOptions,
    output: Path,
    settings: dict[str, Any],
    say: Say,
    *,
    size: Size | None = None,
    read_videos: bool = True,
) -> int:
    """Write a dataset. What is there of an interrupted export is used again.

    Args:
        name: of the format.
        settings: for `export.json`.
        size: of videos that are not read.

    Returns:
        The number of tasks that were not exported.

    Raises:
        BackendError: no task can be exported, or the disk is full.
    """
    if not read_videos and options.pictures != "none":
        raise SettingsError("--no-video leaves no pictures: add --pictures none to export labels alone")
    labels = check_labels(used_labels(source.annotations, source.controls), options)
    plan = plan_dataset(source, options, size, read_videos)
    if not plan.videos:
        say_failures(plan, say)
        raise SettingsError("no task gives a picture: see above" if plan.failures else "no task has an object")
    builder = DatasetBuilder(source, plan, name, labels, settings, size)
    _build(builder, output, picture_settings(name, options), say)
    say(f"{output.name}: {builder.summary}")
    _say_losses(builder, say)
    say_failures(plan, say)
    return len(plan.failures)


def _build(builder: DatasetBuilder, output: Path, settings: dict[str, Any], say: Say) -> None:
    plan = builder.plan
    with open_picture_folder(output, plan, builder.picture_path, settings, say) as (folder, advance):
        builder.build(folder, advance)
        if not builder.summary.videos:
            say_failures(plan, say)
            raise SettingsError("no task can be exported: see above")


@contextmanager
def open_picture_folder(
    output: Path, plan: DatasetPlan, path_of: PathOf, settings: dict[str, Any], say: Say
) -> Iterator[tuple[PictureFolder, Callable[[int], None]]]:
    """The folder of an export with pictures, which becomes `output` on success and is kept for the next try if not.

    Args:
        path_of: where a picture of a video goes.
        settings: what the pictures depend on; those of other settings are removed.

    Yields:
        The folder, and a function that moves the progress bar on by a number of pictures.

    Raises:
        BackendError: the disk is full.
    """
    lock = threading.Lock()
    try:
        folder = PictureFolder(output.with_name(f".{output.name}.part"), plan, path_of, settings)
        folder.check_space()
        if folder.usable:
            say(f"going on: {folder.usable} of {plan.picture_count} pictures are there")
        elif plan.bytes:
            say(f"{plan.picture_count} pictures of {len(plan.videos)} videos, about {format_bytes(plan.bytes)}")
        with tqdm(total=plan.picture_count, unit="picture") as bar:

            def advance(count: int) -> None:
                with lock:
                    bar.update(count)

            yield folder, advance
        folder.finish(output)
    except OSError as error:
        raise unwritable(output, error) from error


def unwritable(output: Path, error: OSError) -> BackendError:
    """The error of an export that the disk does not take."""
    return BackendError(
        f"{output.name} cannot be written ({error.strerror}): make room, and start the same command again"
    )


def _say_losses(builder: DatasetBuilder, say: Say) -> None:
    plan = builder.plan
    for sentence in builder.losses():
        say(sentence)
    if plan.empty:
        say(f"{len(plan.empty)} tasks have no object and give no picture: --pictures all takes their frames, too")
    if plan.unread:
        say(f"{len(plan.unread)} tasks have Label Studio's frame numbers less one, because their video cannot be read")


def say_failures(plan: DatasetPlan, say: Say) -> None:
    """Name the tasks that are not exported, and what of others is left out."""
    for sentence in plan.skipped:
        say(sentence)
    for number, reason in sorted(plan.failures.items()):
        say(f"task {number}: not exported: {reason}")
    if plan.unopened:
        say(f"{len(plan.unopened)} videos cannot be opened: --pictures none exports labels without the videos")
