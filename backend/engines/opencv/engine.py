"""The engine that needs no weights: CSRT carries boxes, GrabCut makes boxes of clicks, looks tell when one is lost.

What a session saves is each track's anchor, at most 64 frames back: the restored session tracks from there, unheard, to
where it was.
"""

import json
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Self

from backend.engines import validation
from backend.engines.base import process_memory
from backend.engines.opencv.appearance import Look, Picture, box_of_clicks, box_of_mask
from backend.engines.opencv.csrt import Anchor, Carry
from backend.errors import BadRequest, Unsupported
from backend.tracks.geometry import Box
from backend.tracks.prompts import Phrase, Prompt
from backend.tracks.track import ABSENT, FrameResult, Observation
from backend.video import Video

NEAREST = 4
"""So many of a track's prompts, the nearest in time, say how it looks."""
DIRECTIONS = {"forward": False, "reverse": True}


class OpenCVSession:
    """Tracks on one video; see `backend.engines.base.Session`."""

    def __init__(self, video: Video, state: bytes | None = None) -> None:
        self._video = video
        self._prompts: dict[str, dict[int, Look]] = {}
        self._carries: dict[bool, dict[str, Carry]] = {False: {}, True: {}}
        if state is not None:
            self._restore(state)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._prompts.clear()
        for carries in self._carries.values():
            carries.clear()

    def prompt(self, prompts: Sequence[Prompt | Phrase]) -> FrameResult:
        """Make a box of each track's prompt; a later prompt of a track on the same frame replaces the earlier one.

        Raises:
            Unsupported: a phrase.
            BadRequest: no prompts, several frames, negative points alone, or a prompt outside the video or the picture.
        """
        frame = validation.frame_of(prompts, self._video)
        if any(isinstance(item, Phrase) for item in prompts):
            raise Unsupported(
                "the engine opencv cannot find objects by words: set engine: sam3, or draw a box around the object"
            )
        shown = validation.by_track((item for item in prompts if isinstance(item, Prompt)), self._video)
        picture = Picture(frame, self._video.read(frame))
        boxes = {track: _box(item, picture) for track, item in shown.items()}
        for track, box in boxes.items():
            self._take(track, picture.look(box))
        return FrameResult(frame, {track: Observation(box, 1.0) for track, box in boxes.items()})

    def _take(self, track: str, look: Look) -> None:
        for reverse, carries in self._carries.items():
            carry = carries.get(track)
            if carry is None:
                continue
            if carry.at == look.frame:
                carries[track] = Carry(Anchor(look.frame, look.box, look))
                continue
            # What was computed so far did not know this prompt: go on from its result, not through it again.
            if carry.stale and carry.anchor.frame != carry.at:
                at, carry = carry.at, Carry(carry.anchor)
                self._repeat({track: carry}, at, reverse)
                carries[track] = carry
            carry.settle()
        self._prompts.setdefault(track, {})[look.frame] = look

    def remove(self, track: str) -> None:
        """Forget a track; nothing changes about the others."""
        self._prompts.pop(track, None)
        for carries in self._carries.values():
            carries.pop(track, None)

    def propagate(self, span: range, reverse: bool = False) -> Generator[FrameResult, None, None]:
        """Carry the prompts through a span; see the contract.

        Raises:
            BadRequest: the span reaches outside the video.
        """
        return self._run(validation.checked_span(span, self._video), reverse)

    def _run(self, span: range, reverse: bool) -> Generator[FrameResult, None, None]:
        if not span:
            return
        active, last = self._catch_up(span.stop if reverse else span.start - 1, reverse)
        with closing(self._video.frames(span, reverse)) as frames:
            for index, rgb in frames:
                picture = Picture(index, rgb)
                yield FrameResult(index, {t: self._step(t, picture, last, active, reverse) for t in self._prompts})
                last = picture

    def _catch_up(self, before: int, reverse: bool) -> tuple[set[str], Picture | None]:
        """The tracks that can go on from a frame; trackers that were saved track unheard from their anchors to it."""
        live = {}
        for track, looks in self._prompts.items():
            carry = self._carries[reverse].get(track)
            if carry and carry.at == before:
                # A copy, so that an error on the way leaves the track where it was.
                live[track] = Carry(carry.anchor) if carry.stale else carry
            elif before in looks:
                live[track] = Carry(Anchor(before, looks[before].box, looks[before]))
        last = self._repeat(live, before, reverse)
        self._carries[reverse].update(live)
        return set(live), last

    def _repeat(self, live: dict[str, Carry], before: int, reverse: bool) -> Picture | None:
        """Bring stale tracks from their anchors to a frame, whose picture it returns; None if there was none."""
        starts = [carry.anchor.frame for carry in live.values() if carry.stale]
        if not starts:
            return None
        picture: Picture | None = None
        span = range(before, max(starts) + 1) if reverse else range(min(starts), before + 1)
        with closing(self._video.frames(span, reverse)) as frames:
            for index, rgb in frames:
                picture = Picture(index, rgb)
                for track, carry in live.items():
                    if carry.at == index and carry.stale:
                        carry.start(picture)
                    elif (carry.at > index) if reverse else (carry.at < index):
                        carry.advance(picture, self._known(track, index))
        return picture

    def _step(self, track: str, picture: Picture, last: Picture | None, active: set[str], reverse: bool) -> Observation:
        """Answer for one track on the next frame of the span; `active` gains a track on its prompt."""
        look = self._prompts[track].get(picture.frame)
        if look:
            carry = self._carries[reverse][track] = Carry(Anchor(look.frame, look.box, look))
            carry.start(picture)
            active.add(track)
            return Observation(look.box, 1.0)
        if track not in active:
            return ABSENT
        carry = self._carries[reverse][track]
        if carry.stale and last:  # prompted while this generator waited
            carry.start(last)
        return carry.advance(picture, self._known(track, picture.frame))

    def _known(self, track: str, frame: int) -> list[Look]:
        looks = self._prompts[track]
        return [looks[index] for index in sorted(looks, key=lambda index: abs(index - frame))[:NEAREST]]

    def state(self) -> bytes:
        """Prompts and anchors as JSON; pictures are read from the video again."""
        carries = {
            name: {track: _saved(carry) for track, carry in self._carries[reverse].items()}
            for name, reverse in DIRECTIONS.items()
        }
        prompts = {track: [_place(look) for look in looks.values()] for track, looks in self._prompts.items()}
        return json.dumps({"version": OpenCVEngine.version, "prompts": prompts, **carries}).encode()

    def _restore(self, state: bytes) -> None:
        try:
            saved = json.loads(state)
            if saved["version"] != OpenCVEngine.version:
                raise KeyError("version")
            prompts, carries = saved["prompts"], {name: saved[name] for name in DIRECTIONS}
            places = [place for places in prompts.values() for place in places]
            places += [carry["recent"] for tracks in carries.values() for carry in tracks.values()]
            looks = self._looks(places)
            for track, places in prompts.items():
                self._prompts[track] = {place[0]: looks[tuple(place)] for place in places}
            for name, reverse in DIRECTIONS.items():
                for track, carry in carries[name].items():
                    anchor = Anchor(carry["frame"], Box(*carry["box"]), looks[tuple(carry["recent"])], carry["lost"])
                    self._carries[reverse][track] = Carry(anchor, carry["at"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Unsupported(
                f"the saved state is not of {OpenCVEngine.name} {OpenCVEngine.version}: run the track again"
            ) from error

    def _looks(self, places: Sequence[Sequence[float]]) -> dict[tuple[float, ...], Look]:
        """Look again at places, each a frame and a box; every frame is read once and one at a time."""
        looks: dict[tuple[float, ...], Look] = {}
        picture: Picture | None = None
        for place in sorted({tuple(place) for place in places}):
            frame = int(place[0])
            if picture is None or picture.frame != frame:
                picture = Picture(frame, self._video.read(frame))
            looks[place] = picture.look(Box(*place[1:]))
        return looks


class OpenCVEngine:
    """The engine `opencv`; see `backend.engines.base.Engine`."""

    name = "opencv"
    version = "csrt-1"
    status = "ready"

    def memory(self) -> tuple[int, int] | None:
        """Of the process; it needs no other device."""
        return process_memory()

    def open(self, video: Video, state: bytes | None = None) -> OpenCVSession:
        """Start on a video, or go on from a saved state.

        Raises:
            Unsupported: the state is of another engine or version.
        """
        return OpenCVSession(video, state)


def _place(look: Look) -> list[float]:
    return [look.frame, *look.box]


def _saved(carry: Carry) -> dict[str, object]:
    anchor = carry.anchor
    return {
        "at": carry.at,
        "frame": anchor.frame,
        "box": anchor.box,
        "recent": _place(anchor.recent),
        "lost": anchor.lost,
    }


def _box(prompt: Prompt, picture: Picture) -> Box:
    if prompt.mask is not None and (box := box_of_mask(prompt.mask)):
        return box
    if prompt.is_negative:
        raise BadRequest("negative points alone say nothing: add a positive point or a box")
    if prompt.box is not None and not prompt.points:
        return prompt.box
    return box_of_clicks(picture.rgb, prompt.points, prompt.box)
