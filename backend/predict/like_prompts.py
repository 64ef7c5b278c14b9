"""`like` and `unlike` in a region's own line: what is like its box, and what of that is wrong.

What `like` has found carries its example in `meta`, so that `unlike` needs nothing but the page.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from backend import engines
from backend.errors import BadRequest, Unsupported
from backend.jobs.job import Job
from backend.jobs.spec import ExemplarBox, FramePrompts
from backend.labelstudio.commands import TextQuery
from backend.labelstudio.json_values import read_frame, read_number
from backend.labelstudio.keyframe import Keyframe, boxes_at, mark_as_ours, percent_corners
from backend.labelstudio.region import Region, fingerprint_keyframes
from backend.labelstudio.region_results import build_unchanged
from backend.predict.request_context import RequestContext
from backend.predict.results import TextDetection, TextResult
from backend.predict.text_prompts import ObjectSearch, TextMatches
from backend.tracks.frame_range import FrameRange
from backend.tracks.geometry import box_iou
from backend.tracks.prompts import LIKE, Direction

_SAME_IOU = 0.5
"""IoU on the example's frame from which an object is the one that was found before."""
_NOWHERE = (0.0, 0.0, 0.01, 0.01)
"""The box of a region that was taken away, in percent: Label Studio shows every keyframe on its own frame."""


@dataclass(frozen=True, slots=True)
class Example:
    """The example of a search, as `meta` of what it has found holds it.

    Attributes:
        region: id of the region whose box it is.
        frame: LS frame of the box.
        box: x, y, width, height in percent, and rotation in degrees.
        words: they narrow the kind; empty: there are none.
    """

    region: str
    frame: int
    box: tuple[float, float, float, float, float]
    words: str = ""

    @classmethod
    def from_region(cls, region: Region, words: str, direction: Direction) -> Self:
        """The box of a region from which its track goes furthest in this direction.

        Raises:
            BadRequest: it shows no box.
        """
        shown = [key for key in region.anchors(is_commanded=True) if not region.hides(key)]
        if not shown:
            raise BadRequest("like needs a box as the example: draw one around the object")
        key = shown[-1 if direction == "backward" else 0]
        return cls(region.id, key.frame, (key.x, key.y, key.width, key.height, key.rotation), words)

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Self | None:
        """From `meta` of a region; None: no example has found it."""
        match meta.get("like"):
            case {"region": str(region), "frame": frame, "box": [*box], "words": str(words)}:
                numbers = [number for each in box if (number := read_number(each)) is not None]
                if read_frame(frame) and len(numbers) == 5:
                    x, y, width, height, rotation = numbers
                    return cls(region, int(frame), (x, y, width, height, rotation), words)
        return None

    def to_meta(self) -> dict[str, Any]:
        """For `meta`."""
        return {"region": self.region, "frame": self.frame, "box": list(self.box), "words": self.words}

    @property
    def phrase(self) -> str:
        """The name of the kind."""
        return f"{LIKE} {self.words}".rstrip()

    def exemplars(self, page: Iterable[Region]) -> tuple[ExemplarBox, ...]:
        """What to search by: the example, and what `unlike` has taken away of what it found."""
        wrong = {region.id: box for region in page if (box := self._taken_box(region))}
        return (
            ExemplarBox(self.frame, self.box),
            *(ExemplarBox(self.frame, box, positive=False) for _, box in sorted(wrong.items())),
        )

    def has_found(self, region: Region) -> bool:
        """Whether a region was found by this example."""
        example = Example.from_meta(region.meta)
        return example is not None and example.region == self.region and example.frame == self.frame

    def box_on(self, keyframes: Sequence[Keyframe]) -> tuple[float, float, float, float] | None:
        """The box of keyframes on the frame of the example; None: they show none there."""
        if not keyframes:
            return None
        (box,) = boxes_at(keyframes, np.array([self.frame])).tolist()
        return None if np.isnan(box[0]) else tuple(box)

    def _taken_box(self, region: Region) -> tuple[float, float, float, float, float] | None:
        if not (region.is_taken_away and self.has_found(region)):
            return None
        match region.meta["unlike"]:
            case [int() | float() as x, int() | float() as y, int() | float() as width, int() | float() as height]:
                return x, y, width, height, 0
        return None


@dataclass(frozen=True, slots=True)
class LikeSearch:
    """What is searched for by an example.

    Attributes:
        classes: of the region, which its like gets.
        exemplars: see `Example.exemplars`.
        job: that searches; it tracks the region itself as well, so that this is not found again.
    """

    example: Example
    classes: tuple[str, ...]
    exemplars: tuple[ExemplarBox, ...]
    job: Job


class LikePrompt(ObjectSearch):
    """A search for what is like a region.

    Attributes:
        region: its id.
    """

    def __init__(self, context: RequestContext, search: LikeSearch, *, is_asked: bool = True) -> None:
        request, example = context.request, search.example
        digest = context.digest([LIKE, request.url, example, search.exemplars])
        cache = context.cache.prompt_field(request.task, request.prompt_field.id if request.prompt_field else None)
        super().__init__(context, TextQuery((example.phrase,)), cache, digest, search.job, is_asked=is_asked)
        self._search, self._key = search, (request.task, example.region)
        self.region = example.region
        context.cache.likes.put(self._key, search)

    def _classes(self, phrase: str) -> tuple[str, ...]:
        return self._search.classes

    def _extra_meta(self, detection: TextDetection) -> dict[str, Any]:
        return {"phrase": detection.phrase, LIKE: self._search.example.to_meta()}

    def _finish(self) -> None:
        self._context.cache.likes.pop(self._key)

    def _status_line(
        self, detections: Collection[TextDetection], matches: TextMatches, progress: tuple[int, int] | None
    ) -> str:
        what = f"{len(detections)} more" if detections else "nothing else"
        example = self._search.example
        parts = [f"{example.phrase}: {what} on frame {example.frame}"]
        if matches.existing:
            parts.append(f"{matches.existing} there already")
        if matches.deleted:
            parts.append(f"{matches.deleted} deleted before")
        if progress:
            parts.append(f"{progress[0]} of {progress[1]} frames: ask again for more")
        return " · ".join(parts)


def _is_among(box: Sequence[float] | None, others: Sequence[Sequence[float]]) -> bool:
    """Whether a box is of the same object as one of the others, all in percent."""
    if box is None or not others:
        return False
    corners = percent_corners(np.array([box, *others]))
    return bool((box_iou(corners[:1], corners[1:]) >= _SAME_IOU).any())


def pending_likes(context: RequestContext, asked: Collection[str]) -> list[LikePrompt]:
    """The searches by examples of which the annotation may lack objects or frames.

    Args:
        asked: ids of the regions whose like the request asks for.
    """
    task, prompts = context.request.task, list[LikePrompt]()
    for name in sorted({*context.request.page, *context.request.context} - {*asked}):
        search: LikeSearch | None = context.cache.likes.get((task, name))
        if search is None:
            continue
        if search.job.is_cancelled or search.job.state in ("failed", "cancelled"):
            context.cache.likes.pop((task, name))
        else:
            prompts.append(LikePrompt(context, search, is_asked=False))
    return prompts


def example_prompts(
    example: Example, direction: Direction
) -> tuple[tuple[FramePrompts, ...], tuple[tuple[int | None, int | None], ...]]:
    """Prompts and intervals of the example's own object, for a region with nothing left to track."""
    ends: list[tuple[int | None, int | None]] = []
    ends += [(None, example.frame)] if direction != "forward" else []
    ends += [(example.frame, None)] if direction != "backward" else []
    return (FramePrompts(example.frame, example.box),), tuple(ends)


def check_engine(context: RequestContext) -> None:
    """Check that the engine can search by examples.

    Raises:
        Unsupported: it cannot.
    """
    if not engines.knows_words(context.pool.name):
        raise Unsupported(f"the engine {context.pool.name} knows no examples: set engine: sam3, which does")


class UnlikePrompt:
    """A wrong object that `like` has found, and the search for what the example finds without its like.

    Only the frame of the example is searched.

    Attributes:
        job: of that search.
        region: id of the example's region.

    Raises:
        BackendError: no example has found the region, it has no box on the example's frame, or no job can be started.
    """

    def __init__(self, context: RequestContext, region: Region, classes: tuple[str, ...]) -> None:
        check_engine(context)
        example = Example.from_meta(region.meta)
        if example is None:
            raise BadRequest("unlike takes away what like has found: select one of its boxes")
        box = example.box_on(region.keyframes)
        if box is None:
            raise BadRequest(f"unlike needs the box on frame {example.frame}, where like has found it")
        self._context, self._region, self._example, self._box, self._classes = context, region, example, box, classes
        exemplars = example.exemplars(page := context.request.page.values())
        exemplars = (*exemplars, ExemplarBox(example.frame, (*box, 0), positive=False))
        self.region = example.region
        self._found = [other for other in page if example.has_found(other) and not other.is_taken_away]
        self.job = context.submit(
            context.key(example.region, "unlike"),
            context.digest([context.request.url, context.request.framerate, exemplars, example.words]),
            phrases=(example.phrase,),
            exemplars=exemplars,
            classes=classes,
            ranges=(FrameRange(example.frame, example.frame),),
        )

    def build_regions(self, response: Iterable[Region] = ()) -> tuple[list[Region], str]:
        """The region and those of its like that nobody has edited, without boxes; and the status line.

        Raises:
            BackendError: the job has failed.
        """
        if self.job.error:
            raise self.job.error
        if self.job.state != "done":
            note = "unlike: still looking, ask again"
            return [build_unchanged(self._region, self._classes)], note
        self.job.is_fetched = True
        example, found = self._example, TextResult(self.job, self._context.settings).choose()
        right = [box for each in found.values() if (box := example.box_on(each.track.keyframes))]
        regions = [self._take_away(self._region, self._box)]
        for other in self._found:
            box = example.box_on(other.keyframes)
            if box and other.is_untouched and not _is_among(box, right):
                regions.append(self._take_away(other, box))
        return regions, f"unlike: {len(regions)} taken away, delete their rows"

    def _take_away(self, region: Region, box: Sequence[float]) -> Region:
        keyframe = mark_as_ours(Keyframe(region.keyframes[0].frame, False, *_NOWHERE))
        dropped = ("partial", "human", "ends", "corrected")
        meta = {key: value for key, value in region.meta.items() if key not in dropped}
        meta |= {"unlike": list(box), "seal": fingerprint_keyframes([keyframe]), "ends": [keyframe.frame]}
        meta["text"] = [f"track {region.track_id} · taken away by unlike: delete its row"]
        self._context.cache.sources.pop(self._context.key(region.id))
        return replace(
            region, keyframes=(keyframe,), meta=meta, labels=self._classes or region.labels, origin="prediction"
        )
