"""Changes to tracks: rename, renumber, merge, split, delete. Each is told in sentences, and no two tracks collide."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from backend.errors import BadRequest
from backend.labelstudio.keyframe import Keyframe
from backend.labelstudio.region import new_region_id, parse_region
from backend.labelstudio.region_results import MEASURED
from backend.track_editor.track_table import Result, TrackRow, TrackTable
from backend.track_editor.trim import Span, cut_span, overlap_frames, remove_span, visible_spans
from backend.tracks.frame_range import MAX_FRAMES

Verb = Literal["rename", "renumber", "merge", "split", "delete"]
Tracks = frozenset[int] | str
"""Numbers; or a class, whose tracks are meant; or "all"."""
ALL = "all"


@dataclass(frozen=True, slots=True)
class Edit:
    """One change.

    Attributes:
        frames: LS frames, both ends included, that it is about; None: the whole video.
        label: what the tracks are renamed to.
        to: the number that they get; the lowest, where they are several.
        at: the LS frame with which the second part begins.
    """

    do: Verb
    tracks: Tracks
    frames: Span | None = None
    label: str = ""
    to: int | None = None
    at: int | None = None

    @classmethod
    def parse(cls, told: object) -> Self:
        """From JSON: `{"do": "split", "tracks": [3], "at": 120}`.

        Raises:
            BadRequest: a part is missing, of another kind, or too much.
        """
        do = told.get("do") if isinstance(told, Mapping) else None
        verb = next((verb for verb in _PARTS if verb == do), None)
        if verb is None or not isinstance(told, Mapping):
            raise BadRequest(f"edit must be an object whose do is one of {', '.join(_PARTS)}")
        for name, (is_right, what) in _PARTS[verb].items():
            if not is_right(told.get(name)):
                raise BadRequest(f"{name} of {verb} must be {what}")
        if unknown := sorted(set(told) - {"do", *_PARTS[verb]}):
            raise BadRequest(f"{verb} knows no {unknown[0]}: it has {', '.join(_PARTS[verb])}")
        tracks, frames = told["tracks"], told.get("frames")
        return cls(
            verb,
            tracks if tracks == ALL else frozenset(tracks),
            (frames[0], frames[1]) if frames else None,
            told.get("label", ""),
            told.get("to"),
            told.get("at"),
        )

    def __str__(self) -> str:
        """As people say it."""
        tracks = self.tracks if isinstance(self.tracks, str) else ", ".join(map(str, sorted(self.tracks)))
        told = f"{self.do} {tracks}"
        told += f" to {self.label}" if self.do == "rename" else ""
        told += f" to {self.to}" if self.to is not None and self.do in ("renumber", "merge") else ""
        told += f" at frame {self.at}" if self.do == "split" else ""
        return told + (f" on frames {self.frames[0]} to {self.frames[1]}" if self.frames else "")


@dataclass(frozen=True, slots=True)
class EditResult:
    """The table after an edit, and a description of the changes."""

    table: TrackTable
    description: tuple[str, ...]


def apply_edit(table: TrackTable, edit: Edit) -> EditResult:
    """What becomes of the tracks.

    Raises:
        BadRequest: it cannot be done without two tracks of one number on a frame, or there is no such track, class or
            frame, or nothing would change.
    """
    entries, told = _VERBS[edit.do](table, edit, _meant(table, edit.tracks))
    if not told:
        raise BadRequest("this would change nothing")
    twice = [number for number, times in Counter(entry.number for entry in entries).items() if times > 1]
    if twice:
        raise BadRequest(f"two tracks would have the number {twice[0]}: renumber one of them first")
    others, lost = _related(table.others, entries)
    told += [f"{lost} relation{'s' * (lost > 1)} to what is deleted go{'es' * (lost == 1)} with it"] if lost else []
    return EditResult(table.with_rows(entries, others), tuple(told))


def _related(others: Sequence[Result], entries: Sequence[TrackRow]) -> tuple[list[Result], int]:
    """What else is annotated, with relations to tracks that became parts of others; and how many relations are lost."""
    heirs = {gone: entry.region.id for entry in entries for gone in entry.absorbed}
    there = {entry.region.id for entry in entries} | {str(one.get("id")) for one in others}
    kept, lost = list[Result](), 0
    for one in others:
        if one.get("type") == "relation":
            one = {**one} | {key: heirs.get(one[key], one[key]) for key in ("from_id", "to_id") if key in one}
            if not {one.get("from_id"), one.get("to_id")} <= there or one.get("from_id") == one.get("to_id"):
                lost += 1
                continue
        kept.append(one)
    return kept, lost


def _meant(table: TrackTable, tracks: Tracks) -> list[TrackRow]:
    if isinstance(tracks, frozenset):
        return [table.row(number) for number in sorted(tracks)]
    found = [entry for entry in table.rows if tracks in (ALL, entry.label)]
    if not found:
        raise BadRequest("there are no tracks" if tracks == ALL else f"there is no track of class {tracks}")
    return found


Done = tuple[list[TrackRow], list[str]]
"""All tracks as they become, and what is told of it."""


def _rename(table: TrackTable, edit: Edit, meant: Sequence[TrackRow]) -> Done:
    known = table.labels
    if table.controls.config and edit.label not in known:
        raise BadRequest(f"there is no class {edit.label}: the project has {', '.join(known)}")
    entries, told = _rest(table, meant), list[str]()
    for entry in meant:
        inside, outside = _carved(table, entry, edit.frames) if entry.label != edit.label else (None, entry)
        if inside and outside:
            inside = replace(inside, number=_free(table, entries))
            told.append(f"track {entry.number}, {_on(inside)} → track {inside.number}, {edit.label}")
        elif inside:
            told.append(f"track {entry.number}: {entry.label} → {edit.label}")
        entries += [outside] if outside else []
        entries += [_labelled(table, inside, edit.label)] if inside else []
    return entries, told


def _renumber(table: TrackTable, edit: Edit, meant: Sequence[TrackRow]) -> Done:
    to = edit.to or 1
    entries, told = _rest(table, meant), list[str]()
    taken = {entry.number: entry for entry in entries}
    for number, entry in enumerate(sorted(meant, key=lambda one: (one.spans, one.number)), start=to):
        inside, outside = _carved(table, entry, edit.frames)
        if outside:
            entries.append(outside)
        if inside is None or (outside is None and number == entry.number):
            entries += [inside] if inside else []
            continue
        if outside and outside.number == number:
            raise BadRequest(f"track {number} has that number already: give another, or leave out the frames")
        what = f"track {entry.number}, {_on(inside)}" if outside else f"track {entry.number}"
        other = taken.get(number)
        if other and len(meant) > 1:
            raise BadRequest(f"number {number} is taken: renumber track {number} first, or begin with another")
        if other:
            entries.remove(other)
            inside = _merged([other, inside], other)
            told.append(f"{what} → a part of track {number}, {other.label}")
        else:
            told.append(f"{what} → track {number}")
        entries.append(replace(inside, number=number))
    return entries, told


def _merge(table: TrackTable, edit: Edit, meant: Sequence[TrackRow]) -> Done:
    if len(meant) < 2:
        raise BadRequest("say at least two tracks to merge")
    first = min(meant, key=lambda entry: entry.spans)
    into = first if edit.to is None else next((entry for entry in meant if entry.number == edit.to), None)
    if into is None:
        raise BadRequest(f"track {edit.to} is none of those that are merged: say one of them")
    ordered = sorted(meant, key=lambda entry: entry.spans)
    told = [
        f"track {entry.number}, {_on(entry)} → a part of track {into.number}"
        + (f", and {into.label} instead of {entry.label}" if entry.label != into.label else "")
        for entry in ordered
        if entry is not into
    ]
    return [*_rest(table, meant), _merged(ordered, into)], told


def _split(table: TrackTable, edit: Edit, meant: Sequence[TrackRow]) -> Done:
    if len(meant) != 1 or edit.at is None:
        raise BadRequest("say one track, and the frame with which its second part begins")
    (entry,) = meant
    second, first = _carved(table, entry, (edit.at, max(edit.at, table.length)))
    if not (first and second):
        raise BadRequest(f"track {entry.number} does not show on both sides of frame {edit.at}")
    second = replace(second, number=table.free_number)
    told = f"track {entry.number}, {_on(second)} → track {second.number}, {entry.label}"
    return [*_rest(table, meant), first, second], [told]


def _delete(table: TrackTable, edit: Edit, meant: Sequence[TrackRow]) -> Done:
    entries, told = _rest(table, meant), list[str]()
    for entry in meant:
        inside, outside = _carved(table, entry, edit.frames)
        entries += [outside] if outside else []
        if inside:
            told.append(f"track {entry.number}, {entry.label}, {_on(inside)}: deleted")
    return entries, told


_VERBS: Mapping[Verb, Callable[[TrackTable, Edit, Sequence[TrackRow]], Done]] = {
    "rename": _rename,
    "renumber": _renumber,
    "merge": _merge,
    "split": _split,
    "delete": _delete,
}


def _rest(table: TrackTable, meant: Sequence[TrackRow]) -> list[TrackRow]:
    return [entry for entry in table.rows if entry not in meant]


def _free(table: TrackTable, entries: Iterable[TrackRow]) -> int:
    return max([table.free_number - 1, *(entry.number for entry in entries)]) + 1


def _on(entry: TrackRow) -> str:
    """Its frames, in words."""
    first, last = entry.spans[0][0], entry.spans[-1][1]
    return f"frame {first}" if first == last else f"frames {first} to {last}"


def _carved(table: TrackTable, entry: TrackRow, frames: Span | None) -> tuple[TrackRow | None, TrackRow | None]:
    """The part of a track on these frames, and the rest of it; None: there is nothing of it.

    Where both are something, the part is a new region, and the rest stays the one that it was.
    """
    if frames is None:
        return entry, None
    first, last = frames[0], frames[1] if frames[1] < table.length else None
    inside, outside = cut_span(entry.items, first, last), remove_span(entry.items, first, last)
    if not (inside and outside):
        return (entry, None) if inside else (None, entry)
    return _cut_off(_with_items(table, entry, inside)), _with_items(table, entry, outside)


def _cut_off(entry: TrackRow) -> TrackRow:
    """A part as a region of its own, with what is said of the whole. What that was clicked with stays there."""
    others = ("object", "points", "at", "partial")
    meta = {key: value for key, value in entry.region.meta.items() if key not in others}
    result = {**entry.result, "id": new_region_id(), "meta": meta}
    beside = tuple({**one, "id": result["id"]} for one in entry.linked_results)
    return replace(entry, region=parse_region(result), result=result, linked_results=beside)


def _with_items(table: TrackTable, entry: TrackRow, items: Sequence[Keyframe]) -> TrackRow:
    """A track with other keyframes; those that stay are as they were, to the digit."""
    given = {int(keyframe["frame"]): keyframe for keyframe in entry.result["value"]["sequence"]}
    before = {item.frame: item for item in entry.items}
    rate = entry.region.framerate or table.rate
    sequence = [
        given[item.frame] if before.get(item.frame) == item else item.to_json(rate)
        for item in sorted(items, key=lambda one: one.frame)
    ]
    meta = _meta([entry], {item.frame for item in items})
    result = {**entry.result, "value": {**entry.result["value"], "sequence": sequence}, "meta": meta}
    region = parse_region(result)
    return replace(entry, region=region, result=result, spans=tuple(visible_spans(region.keyframes, table.length)))


def _meta(parts: Sequence[TrackRow], frames: Set[int]) -> dict[str, Any]:
    """What the first one's region knows, of the keyframes on these frames.

    The seal does not fit any more, as it should not: no later answer replaces a track that a person has changed.
    """
    meta = {key: known for key, known in parts[0].region.meta.items() if key not in MEASURED}
    for key in ("human", "ends"):
        lists = [part.region.meta.get(key) for part in parts]
        known = {frame for one in lists if isinstance(one, list) for frame in one}
        meta |= {key: sorted(known & frames)} if known else {}
    return meta


def _merged(parts: Sequence[TrackRow], into: TrackRow) -> TrackRow:
    """Parts as one track, in the place of one of them.

    Raises:
        BadRequest: two of them show on the same frame.
    """
    for place, one in enumerate(parts):
        for other in parts[place + 1 :]:
            if span := overlap_frames(one.spans, other.spans):
                raise BadRequest(
                    f"tracks {one.number} and {other.number} both show on frames {span[0]} to {span[1]}: "
                    "delete these frames of one of them first"
                )
    keyframes = [keyframe for part in parts for keyframe in part.result["value"]["sequence"]]
    sequence = sorted(keyframes, key=lambda keyframe: keyframe["frame"])
    ordered = [into, *(part for part in parts if part is not into)]
    meta = _meta(ordered, {keyframe["frame"] for keyframe in sequence})
    result = {**into.result, "value": {**into.result["value"], "sequence": sequence}, "meta": meta}
    scored = [(part.region.score, part.frames) for part in parts if part.region.score is not None]
    if scored:
        result["score"] = round(sum(score * count for score, count in scored) / sum(count for _, count in scored), 4)
    found = tuple(sorted(span for part in parts for span in part.spans))
    absorbed = tuple(name for part in parts for name in (*part.absorbed, part.region.id) if name != into.region.id)
    return replace(into, region=parse_region(result), result=result, spans=found, absorbed=absorbed)


def _labelled(table: TrackTable, entry: TrackRow, label: str) -> TrackRow:
    value = entry.result["value"]
    result = {**entry.result, "value": {**value, "labels": [label]}}
    return replace(entry, label=label, region=parse_region(result), result=result)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_FRAMES


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_number, value))


def _are_frames(value: object) -> bool:
    if not isinstance(value, list):
        return value is None
    return _are_numbers(value) and len(value) == 2 and value[0] <= value[1]


_Part = tuple[Callable[[object], bool], str]
_SOME: _Part = (_are_numbers, "a list of track numbers, as [3, 7]")
_ALL: _Part = (lambda value: value == ALL or _are_numbers(value), 'a list of track numbers, as [3, 7], or "all"')
_FRAMES: _Part = (_are_frames, "the first and the last frame, as [100, 200], or null for the whole video")
_TO: _Part = (_is_number, "a track number, from 1 on")
_LABEL: _Part = (lambda value: isinstance(value, str) and bool(value), "the name of a label")
_AT: _Part = (_is_number, "the frame with which the second part begins, from 1 on")
_PARTS: Mapping[Verb, Mapping[str, _Part]] = {
    "rename": {"tracks": _ALL, "label": _LABEL, "frames": _FRAMES},
    "renumber": {"tracks": _ALL, "to": _TO, "frames": _FRAMES},
    "merge": {"tracks": _SOME, "to": (lambda value: value is None or _is_number(value), "one of these tracks")},
    "split": {"tracks": _SOME, "at": _AT},
    "delete": {"tracks": _ALL, "frames": _FRAMES},
}
"""What each edit is made of in JSON, and what each part has to be."""
