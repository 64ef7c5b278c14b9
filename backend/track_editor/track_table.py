"""The tracks of one annotation: which regions they are, their numbers and classes, and where they show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from backend.errors import BadRequest
from backend.formats.tasks import ChosenAnnotation, ExportControls, assign_track_numbers
from backend.labelstudio.keyframe import Keyframe
from backend.labelstudio.notes import renumber_notes
from backend.labelstudio.region import Region
from backend.track_editor.trim import Span, visible_spans

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class TrackRow:
    """One track.

    Attributes:
        number: what people see, unique within the annotation.
        label: its class.
        region, result: the region, and the same as Label Studio stores it.
        spans: the LS frames that show it.
        linked_results: results of other controls with its id.
        absorbed: ids of regions that became parts of it.
    """

    number: int
    label: str
    region: Region
    result: Result
    spans: tuple[Span, ...]
    linked_results: tuple[Result, ...] = ()
    absorbed: tuple[str, ...] = ()

    @property
    def items(self) -> tuple[Keyframe, ...]:
        """Its keyframes."""
        return self.region.keyframes

    @property
    def frames(self) -> int:
        """How many frames show it."""
        return sum(last - first + 1 for first, last in self.spans)


@dataclass(frozen=True, slots=True, eq=False)
class TrackTable:
    """All tracks of an annotation, by number, and what else is annotated.

    Attributes:
        others: results that are no tracks, in their order.
        length: LS frames of the video, as far as the regions tell.
        rate: frames per second that the page counts with.
    """

    rows: tuple[TrackRow, ...]
    others: tuple[Result, ...]
    length: int
    rate: float
    controls: ExportControls

    @classmethod
    def from_annotation(cls, chosen: ChosenAnnotation, controls: ExportControls) -> Self:
        """Of what counts of a task. Regions that cannot be read are left as they are.

        Raises:
            BadRequest: two regions have the same id.
        """
        found = chosen.regions(controls).found
        if len({region.id for _, region in found}) < len(found):
            raise BadRequest("two regions have the same id: delete one of them in Label Studio")
        length = max((max(region.frames_count or 0, region.keyframes[-1].frame) for _, region in found), default=1)
        rate = controls.rate([region for _, region in found], chosen.data)
        numbers = assign_track_numbers([(region.track_id, region.keyframes[0].frame) for _, region in found])
        own, names = {id(result) for result, _ in found}, {region.id for _, region in found}
        rest = [result for result in chosen.results if id(result) not in own]
        entries = [
            TrackRow(
                number,
                controls.label(region.labels),
                region,
                result,
                tuple(visible_spans(region.keyframes, length)),
                tuple(one for one in rest if one.get("id") == region.id),
            )
            for number, (result, region) in zip(numbers, found, strict=True)
        ]
        others = tuple(result for result in rest if str(result.get("id")) not in names)
        return cls(_sorted(entries), others, length, rate, controls)

    def with_rows(self, entries: Sequence[TrackRow], others: Sequence[Result]) -> Self:
        """The same annotation with other tracks."""
        return replace(self, rows=_sorted(entries), others=tuple(others))

    def row(self, number: int) -> TrackRow:
        """One track.

        Raises:
            BadRequest: there is none of this number.
        """
        found = next((entry for entry in self.rows if entry.number == number), None)
        if found is None:
            known = ", ".join(str(entry.number) for entry in self.rows[:20]) or "none"
            raise BadRequest(f"there is no track {number}: there are {known}")
        return found

    @property
    def free_number(self) -> int:
        """The lowest number above all that are taken."""
        return 1 + max((entry.number for entry in self.rows), default=0)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that a track may have; where no label config tells, those that tracks have."""
        config = self.controls.config
        known = config.labels.get(config.video.name, ()) if config else ()
        return tuple(known) or tuple(sorted({entry.label for entry in self.rows}))

    def results(self) -> list[Result]:
        """As Label Studio keeps it; every track has its number with it, so that it stays."""
        return [*(one for entry in self.rows for one in (_numbered(entry), *entry.linked_results)), *self.others]


def _sorted(entries: Sequence[TrackRow]) -> tuple[TrackRow, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.number))


def _numbered(entry: TrackRow) -> Result:
    """Its region with its number, in `meta` and in the line of the Info panel."""
    if entry.region.track_id == entry.number:
        return entry.result
    meta = dict(entry.region.meta)
    meta["track_id"] = entry.number
    meta["text"] = renumber_notes(meta.get("text"), entry.number)
    return {**entry.result, "meta": meta}
