"""Formats of JSON with pictures, tracks and boxes: COCO-VID and YouTube-VIS."""

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


def write_coco_vid(clips: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """COCO-VID: `videos`, `images` of every frame, `annotations` on every frame, `tracks`, `categories`.

    `instance_id` is the track's id in its video, `track_id` unique in the file (as TAO wants it), `frame_id` from 0 on.
    Masks are `segmentation`, as uncompressed run lengths.
    """
    book = _References(number_labels(labels))
    with _document(out, labels) as write:
        write("annotations", book.annotations(clips))
        write("videos", map(json.dumps, book.videos))
        write("tracks", map(json.dumps, book.tracks))
        write("images", book.images)


@dataclass(slots=True)
class _References:
    """What annotations refer to, noted while they are written."""

    classes: Mapping[str, int]
    videos: list[dict[str, Any]] = field(default_factory=list)
    tracks: list[dict[str, Any]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)

    def annotations(self, clips: Iterable[VideoTracks]) -> Iterator[str]:
        """All rows of each track at once."""
        first_image, first_row = 1, 1
        for number, clip in enumerate(clips, start=1):
            self.videos.append(_video(clip, number) | {"neg_category_ids": [], "not_exhaustive_category_ids": []})
            self.images.append(_images(clip, number, first_image))
            for trace in clip.tracks:
                refers = {"video_id": number, "category_id": self.classes[trace.label]}
                self.tracks.append({"id": len(self.tracks) + 1, **refers, "instance_id": trace.id})
                refers |= {"track_id": len(self.tracks), "instance_id": trace.id}
                yield _annotations(trace, refers, first_row, first_image)
                first_row += len(trace.frames)
            first_image += clip.length


def _annotations(trace: ExportTrack, refers: Mapping[str, int], first_row: int, first_image: int) -> str:
    fixed = json.dumps(refers)[1:-1]
    form = f'{{"id":%d,"image_id":%d,{fixed},"bbox":{_BOX},"area":%.2f,"iscrowd":0}}\n'
    numbered = np.arange(len(trace.frames)) + first_row
    text = format_rows(form, numbered, trace.frames + first_image, to_xywh(trace.boxes), _areas(trace))
    if not trace.masks:
        return _joined(text)
    return ",\n".join(map(_masked, text.splitlines(), map(trace.masks.get, trace.frames.tolist())))


def _masked(annotation: str, mask: Rle | None) -> str:
    return annotation if mask is None else f'{annotation[:-1]},"segmentation":{_lengths(mask)}}}'


def _images(clip: VideoTracks, number: int, first: int) -> str:
    width, height = clip.pixels
    name = json.dumps(clip.name)[1:-1].replace("%", "%%")
    fixed = f'"video_id":{number},"width":{width},"height":{height}'
    form = f'{{"id":%d,"frame_id":%d,"frame_index":%d,"file_name":"{name}/%06d.jpg",{fixed}}}\n'
    frames = np.arange(clip.length)
    return _joined(format_rows(form, frames + first, frames, frames, frames))


def write_youtube_vis(clips: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """YouTube-VIS: one annotation a track, with `bboxes`, `areas` and `segmentations` of every frame, null where none.

    `id` is unique in the file, `track_id` the track's id in its video. A frame without a kept mask has no segmentation.
    """
    videos: list[dict[str, Any]] = []
    with _document(out, labels) as write:
        write("annotations", _per_track(clips, number_labels(labels), videos))
        write("videos", map(json.dumps, videos))


def _per_track(clips: Iterable[VideoTracks], classes: Mapping[str, int], videos: list[dict[str, Any]]) -> Iterator[str]:
    count = 0
    for number, clip in enumerate(clips, start=1):
        names = [f"{clip.name}/{frame:06d}.jpg" for frame in range(clip.length)]
        width, height = clip.pixels
        videos.append(_video(clip, number) | {"file_names": names})
        for trace in clip.tracks:
            count += 1
            refers = {"id": count, "video_id": number, "category_id": classes[trace.label], "track_id": trace.id}
            refers |= {"iscrowd": 0, "width": width, "height": height, "length": clip.length}
            yield json.dumps(refers)[:-1] + "," + _per_frame(trace, clip.length) + "}"


def _per_frame(trace: ExportTrack, length: int) -> str:
    """A track's lists, an entry for each frame of its video."""
    frames = trace.frames.tolist()
    boxes = format_rows(f"{_BOX}\n", to_xywh(trace.boxes)).splitlines()
    areas = format_rows("%.2f\n", _areas(trace)).splitlines()
    lists = {
        "bboxes": dict(zip(frames, boxes, strict=True)),
        "areas": dict(zip(frames, areas, strict=True)),
        "segmentations": {frame: _lengths(mask) for frame, mask in trace.masks.items()},
    }
    every = range(length)
    return ",".join(
        f'"{key}":[{",".join([texts.get(frame, "null") for frame in every])}]' for key, texts in lists.items()
    )


def _video(clip: VideoTracks, number: int) -> dict[str, Any]:
    width, height = clip.pixels
    return {"id": number, "name": clip.name, "width": width, "height": height, "length": clip.length, "fps": clip.rate}


def _areas(trace: ExportTrack) -> NDArray[np.float64]:
    """Square pixels, of the mask where there is one; shape (n,)."""
    areas: NDArray[np.float64] = np.prod(trace.boxes[:, 2:] - trace.boxes[:, :2], axis=1)
    masked = sorted(trace.masks)
    areas[np.searchsorted(trace.frames, masked)] = [trace.masks[frame].area for frame in masked]
    return areas


def _lengths(mask: Rle) -> str:
    return json.dumps({"size": [mask.height, mask.width], "counts": mask.counts.tolist()})


def _joined(text: str) -> str:
    return text.rstrip("\n").replace("\n", ",\n")


@contextmanager
def _document(out: Path, labels: Sequence[str]) -> Iterator[_Write]:
    """A JSON file; what it yields writes a list into it, of texts that are JSON already."""
    categories = [{"id": number, "name": label} for label, number in number_labels(labels).items()]
    with out.open("w", encoding="utf-8") as file:

        def write(key: str, texts: Iterable[str]) -> None:
            file.write(f',\n"{key}":[')
            mark = "\n"
            for text in filter(None, texts):
                file.write(mark + text)
                mark = ",\n"
            file.write("]")

        file.write(f'{{"info":{{"description":"written by sam3-backend"}},\n"categories":{json.dumps(categories)}')
        yield write
        file.write("}\n")
