"""From what words have found to regions: which are new, which go on, and which the page has already."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from backend.labelstudio.commands import TextQuery
from backend.labelstudio.region import Region, new_region_id
from backend.labelstudio.track_ids import TrackShape, match_shapes, shape_overlaps
from backend.predict import overwrite_policy
from backend.predict.response_cache import PageRegions, PromptFieldCache
from backend.predict.text_results import TextDetection


@dataclass(frozen=True, slots=True)
class TextMatches:
    """What becomes of the objects that were found, by their names.

    Attributes:
        new: those that the page does not have, and the ids that they get.
        going_on: those that go on with a region of an earlier answer.
        there: how many the page has already.
        fresh: how many of these were answered so lately that the page was not saved since. A person may have edited
            them, so they go on only when they are asked for once more.
    """

    new: Mapping[str, str]
    continued: Mapping[str, Region]
    existing: int
    fresh: int


def match_regions(
    found: Mapping[str, TextDetection],
    page: Mapping[str, Region],
    answers: PromptFieldCache,
    key: str,
    question: TextQuery,
    *,
    since: float,
    until: int,
    preserve: bool,
) -> TextMatches:
    """Match objects with what the page shows. What a person has deleted stays away, unless it is asked for anew.

    Args:
        page: as it was last saved.
        answers: what this line was answered before.
        key: of the question.
        since: when the page was shown to us, of the monotonic clock.
        until: the last LS frame that was looked at. What an earlier answer shows beyond it is not shortened.
    """
    known = answers.regions(page, since)
    deleted = {} if question.redo else known.deleted
    ids = {name: answers.id_of(key, name) for name in found}
    on_page = _on_page(found, ids, known)
    unknown = {name: one for name, one in found.items() if name not in on_page and not ids[name]}
    doubled = _alike(unknown, known.shown.values())
    gone = _alike(unknown, deleted.values(), of_one_phrase=True)
    lost = match_shapes(_sights(unknown), _seen(known.lost))
    new, going_on, there, fresh = dict[str, str](), dict[str, Region](), 0, 0
    for name, one in found.items():
        match = on_page.get(name)
        is_saved = match is not None and known.is_saved(match)
        is_free = match and is_saved and question.at is None and match not in going_on.values()
        if (
            match
            and is_free
            and match.keyframes[-1].frame <= until
            and overwrite_policy.may_extend(match, one.phrase, preserve=preserve)
        ):
            going_on[name] = match
        elif match or name in doubled:
            there += 1
            fresh += match is not None and not is_saved and match.is_partial and match.is_untouched
        elif earlier := ids[name]:
            if earlier not in deleted:
                new[name] = earlier  # that answer has not reached the page
        elif not (_waits(one, known.shown.values(), until) or name in gone):
            new[name] = lost.get(name) or new_region_id()
        if became := new.get(name) or (match.id if match else None):
            answers.note(key, name, became)
    return TextMatches(new, going_on, there, fresh)


def _on_page(
    found: Mapping[str, TextDetection], ids: Mapping[str, str | None], known: PageRegions
) -> dict[str, Region]:
    """The region on the page of each object: the one that it became, or one like it, as it is or was answered."""
    placed = {name: known.shown[earlier] for name, earlier in ids.items() if earlier and earlier in known.shown}
    for shown in (known.shown, known.answered):
        taken = {region.id for region in placed.values()}
        free = {name: one for name, one in shown.items() if name in known.shown and name not in taken}
        rest = {name: one for name, one in found.items() if name not in placed}
        placed |= {name: known.shown[same] for name, same in match_shapes(_sights(rest), _seen(free)).items()}
    return placed


def _alike(found: Mapping[str, TextDetection], shown: Iterable[Region], *, of_one_phrase: bool = False) -> set[str]:
    """The objects that look like one of these regions, whether another one does, too."""
    shown = list(shown)
    overlaps = shape_overlaps([*_sights(found).values()], [TrackShape.from_region(region) for region in shown])
    return {
        name
        for (name, one), row in zip(found.items(), overlaps, strict=True)
        for overlap, region in zip(row, shown, strict=True)
        if overlap and (not of_one_phrase or region.meta.get("phrase") == one.phrase)
    }


def _sights(found: Mapping[str, TextDetection]) -> dict[str, TrackShape]:
    return {name: TrackShape(one.made.keyframes, frozenset({one.phrase})) for name, one in found.items()}


def _seen(regions: Mapping[str, Region]) -> dict[str, TrackShape]:
    return {name: TrackShape.from_region(region) for name, region in regions.items()}


def _waits(one: TextDetection, shown: Iterable[Region], until: int) -> bool:
    """It may be one that was shown on a single frame, which has not been reached yet."""
    ats = [region.meta.get("at") for region in shown if region.meta.get("phrase") == one.phrase]
    return any(isinstance(at, int) and at > until for at in ats)
