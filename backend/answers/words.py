"""From what words have found to regions: which are new, which go on, and which the page has already."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from backend.answers import law
from backend.answers.memory import Answers, Known
from backend.geometry import iou
from backend.jobs.finding import Found
from backend.labelstudio import sequence
from backend.labelstudio.grammar import Question
from backend.labelstudio.regions import Region, new_id

_SAME = 0.5
"""Mean IoU from which on two tracks are of one object."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the objects that were found, by their names.

    Attributes:
        new: those that the page does not have, and the ids that they get.
        going_on: those that go on with a region of an earlier answer.
        there: how many the page has already.
        fresh: how many of these were answered so lately that the page was not saved since. A person may have edited
            them, so they go on only when they are asked for once more.
    """

    new: Mapping[str, str]
    going_on: Mapping[str, Region]
    there: int
    fresh: int


def plan(
    found: Mapping[str, Found],
    page: Mapping[str, Region],
    answers: Answers,
    key: str,
    question: Question,
    *,
    since: float,
    until: int,
    preserve: bool,
) -> Plan:
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
    new, going_on, there, fresh = dict[str, str](), dict[str, Region](), 0, 0
    for name, one in found.items():
        earlier = answers.id_of(key, name)
        match = known.shown.get(earlier) if earlier else None
        match = match or _there(one, known)
        is_saved = match is not None and known.is_saved(match)
        is_free = match and is_saved and question.at is None and match not in going_on.values()
        if match and is_free and match.items[-1].frame <= until and law.may_go_on(match, one.phrase, preserve=preserve):
            going_on[name] = match
        elif match:
            there += 1
            fresh += not is_saved and match.is_partial and match.is_untouched
            answers.note(key, name, match.id)
        elif earlier and earlier not in deleted:
            new[name] = earlier  # that answer has not reached the page
        elif not (earlier or _waits(one, known.shown.values(), until) or _same(one, _of(one.phrase, deleted.values()))):
            new[name] = new_id()
            answers.note(key, name, new[name])
    return Plan(new, going_on, there, fresh)


def _there(one: Found, known: Known) -> Region | None:
    """The region on the page of the same object, as it is there or as it was before a person edited it."""
    before = [region for name, region in known.answered.items() if name in known.shown]
    same = _same(one, known.shown.values()) or _same(one, before)
    return known.shown[same.id] if same else None


def _of(phrase: str, regions: Iterable[Region]) -> list[Region]:
    return [region for region in regions if region.meta.get("phrase") == phrase]


def _waits(one: Found, shown: Iterable[Region], until: int) -> bool:
    """It may be one that was shown on a single frame, which has not been reached yet."""
    ats = [region.meta.get("at") for region in _of(one.phrase, shown)]
    return any(isinstance(at, int) and at > until for at in ats)


def _same(one: Found, shown: Iterable[Region]) -> Region | None:
    """The region of the same object; one that was never tracked is judged on a person's keyframes alone."""
    best, same = _SAME, None
    for region in shown:
        frames = {item.frame for item in (*region.items, *(one.items if region.is_tracked else ()))}
        places = np.array(sorted(frames))
        mine, theirs = sequence.at(one.items, places), sequence.at(region.items, places)
        both = ~(np.isnan(mine[:, 0]) | np.isnan(theirs[:, 0]))
        if both.any():
            overlap = float(iou(sequence.corners(mine[both]), sequence.corners(theirs[both])).mean())
            if overlap >= best:
                best, same = overlap, region
    return same
