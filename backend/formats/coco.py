"""COCO-VID and YouTube-VIS: JSON files of videos, tracks and boxes."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.formats.video_tracks import ExportTrack, VideoTracks, format_rows, number_labels, to_xywh
from backend.tracks.masks import Rle

_BOX = "[%.2f,%.2f,%.2f,%.2f]"
_Write = Callable[[str, Iterable[str]], None]


def write_coco_vid(videos: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """Write COCO-VID: `videos`, `images` (every frame), `annotations` (every frame), `tracks` and `categories`.

    `instance_id` is the track's id in its video, `track_id` is unique in the file (as TAO requires), and `frame_id`
    counts from 0. Masks are in `segmentation`, as uncompressed run lengths.
    """
    references = _References(number_labels(labels))
    with _document(out, labels) as write:
        write("annotations", references.annotations(videos))
        write("videos", map(json.dumps, references.videos))
        write("tracks", map(json.dumps, references.tracks))
        write("images", references.images)


@dataclass(slots=True)
class _References:
    """Videos, tracks and images that the annotations refer to, collected while these are written."""

    classes: Mapping[str, int]
    videos: list[dict[str, Any]] = field(default_factory=list)
    tracks: list[dict[str, Any]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)

    def annotations(self, videos: Iterable[VideoTracks]) -> Iterator[str]:
        """The JSON of all annotations, one text for each track."""
        first_image, first_row = 1, 1
        for number, video in enumerate(videos, start=1):
            self.videos.append(_video(video, number) | {"neg_category_ids": [], "not_exhaustive_category_ids": []})
            self.images.append(_images(video, number, first_image))
            for track in video.tracks:
                refers = {"video_id": number, "category_id": self.classes[track.label]}
                self.tracks.append({"id": len(self.tracks) + 1, **refers, "instance_id": track.id})
                refers |= {"track_id": len(self.tracks), "instance_id": track.id}
                yield _annotations(track, refers, first_row, first_image)
                first_row += len(track.frames)
            first_image += video.length


def _annotations(track: ExportTrack, refers: Mapping[str, int], first_row: int, first_image: int) -> str:
    fixed = json.dumps(refers)[1:-1]
    form = f'{{"id":%d,"image_id":%d,{fixed},"bbox":{_BOX},"area":%.2f,"iscrowd":0}}\n'
    numbered = np.arange(len(track.frames)) + first_row
    text = format_rows(form, numbered, track.frames + first_image, to_xywh(track.boxes), _areas(track))
    if not track.masks:
        return _join_lines(text)
    return ",\n".join(map(_add_mask, text.splitlines(), map(track.masks.get, track.frames.tolist())))


def _add_mask(annotation: str, mask: Rle | None) -> str:
    return annotation if mask is None else f'{annotation[:-1]},"segmentation":{_mask_json(mask)}}}'


def _images(video: VideoTracks, number: int, first: int) -> str:
    width, height = video.pixels
    name = json.dumps(video.name)[1:-1].replace("%", "%%")
    fixed = f'"video_id":{number},"width":{width},"height":{height}'
    form = f'{{"id":%d,"frame_id":%d,"frame_index":%d,"file_name":"{name}/%06d.jpg",{fixed}}}\n'
    frames = np.arange(video.length)
    return _join_lines(format_rows(form, frames + first, frames, frames, frames))


def write_youtube_vis(videos: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """Write YouTube-VIS: one annotation for each track, with `bboxes`, `areas` and `segmentations` of every frame.

    `id` is unique in the file, and `track_id` is the track's id in its video. Missing values are null.
    """
    entries: list[dict[str, Any]] = []
    with _document(out, labels) as write:
        write("annotations", _per_track(videos, number_labels(labels), entries))
        write("videos", map(json.dumps, entries))


def _per_track(
    videos: Iterable[VideoTracks], classes: Mapping[str, int], entries: list[dict[str, Any]]
) -> Iterator[str]:
    count = 0
    for number, video in enumerate(videos, start=1):
        names = [f"{video.name}/{frame:06d}.jpg" for frame in range(video.length)]
        width, height = video.pixels
        entries.append(_video(video, number) | {"file_names": names})
        for track in video.tracks:
            count += 1
            refers = {"id": count, "video_id": number, "category_id": classes[track.label], "track_id": track.id}
            refers |= {"iscrowd": 0, "width": width, "height": height, "length": video.length}
            yield json.dumps(refers)[:-1] + "," + _per_frame(track, video.length) + "}"


def _per_frame(track: ExportTrack, length: int) -> str:
    """A track's lists, with an entry for each frame of its video."""
    frames = track.frames.tolist()
    boxes = format_rows(f"{_BOX}\n", to_xywh(track.boxes)).splitlines()
    areas = format_rows("%.2f\n", _areas(track)).splitlines()
    lists = {
        "bboxes": dict(zip(frames, boxes, strict=True)),
        "areas": dict(zip(frames, areas, strict=True)),
        "segmentations": {frame: _mask_json(mask) for frame, mask in track.masks.items()},
    }
    return ",".join(
        f'"{key}":[{",".join([texts.get(frame, "null") for frame in range(length)])}]' for key, texts in lists.items()
    )


def _video(video: VideoTracks, number: int) -> dict[str, Any]:
    width, height = video.pixels
    size = {"width": width, "height": height}
    return {"id": number, "name": video.name, **size, "length": video.length, "fps": video.rate}


def _areas(track: ExportTrack) -> NDArray[np.float64]:
    """Areas in square pixels, of the mask where a frame has one, else of the box; shape (n,)."""
    areas: NDArray[np.float64] = np.prod(track.boxes[:, 2:] - track.boxes[:, :2], axis=1)
    masked = sorted(track.masks)
    areas[np.searchsorted(track.frames, masked)] = [track.masks[frame].area for frame in masked]
    return areas


def _mask_json(mask: Rle) -> str:
    return json.dumps({"size": [mask.height, mask.width], "counts": mask.counts.tolist()})


def _join_lines(text: str) -> str:
    return text.rstrip("\n").replace("\n", ",\n")


@contextmanager
def _document(out: Path, labels: Sequence[str]) -> Iterator[_Write]:
    """Open a JSON file and yield a function that writes a list of JSON texts into it."""
    categories = [{"id": number, "name": label} for label, number in number_labels(labels).items()]
    with out.open("w", encoding="utf-8") as file:

        def write(key: str, texts: Iterable[str]) -> None:
            file.write(f',\n"{key}":[')
            separator = "\n"
            for text in filter(None, texts):
                file.write(separator + text)
                separator = ",\n"
            file.write("]")

        file.write(f'{{"info":{{"description":"written by sam3-backend"}},\n"categories":{json.dumps(categories)}')
        yield write
        file.write("}\n")
