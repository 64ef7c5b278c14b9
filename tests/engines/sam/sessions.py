"""What the tests of sessions share: a film, prompts, and ways to run and compare."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from backend.engines.sam.session import SamSession
from backend.tracks.geometry import Box
from backend.tracks.prompts import Phrase, Point, Prompt
from backend.tracks.track import FrameResult
from tests.engines.contract import plain
from tests.engines.sam import scenes

LENGTH = 16
VIDEO = scenes.short(LENGTH)
CIRCLE, BALL = Phrase("circle"), Phrase("red ball")


def click(track: str, frame: int, x: float, y: float, *others: Point) -> Prompt:
    return Prompt(track, frame, points=(Point(x, y), *others))


A, B, C = click("a", 0, 30, 40), Prompt("b", 0, box=Box(90, 20, 140, 60)), click("c", 0, 80, 100)


def run(session: SamSession, start: int, stop: int, reverse: bool = False) -> list[FrameResult]:
    return list(session.propagate(range(start, stop), reverse))


def heard(session: SamSession, count: int, start: int, stop: int, reverse: bool = False) -> list[FrameResult]:
    """The first results of a span that is not heard to its end."""
    with closing(session.propagate(range(start, stop), reverse)) as results:
        return [next(results) for _ in range(count)]


def values(results: Sequence[FrameResult]) -> list[Any]:
    return [[plain(result), dict(result.phrases)] for result in results]


def kept(session: SamSession, track: str) -> Any:
    return session._object_tracker.objects[track].memory_bank
