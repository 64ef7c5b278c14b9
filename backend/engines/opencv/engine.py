"""The engine without weights: CSRT tracks boxes, GrabCut turns clicks into boxes, appearance detects lost objects.

A session saves each track's anchor, at most 64 frames back. A restored session replays the frames from there.
"""

import json
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Self

from backend.engines import validation
from backend.engines.base import CacheUse, Propagation, advance_each, read_process_memory
from backend.engines.opencv.appearance import Appearance, FrameImage, box_from_clicks, box_from_mask, mask_from_box
from backend.engines.opencv.csrt import Anchor, BoxTracker
from backend.errors import BadRequest, StateRefused, Unsupported
from backend.tracks.geometry import Box
from backend.tracks.masks import Rle
from backend.tracks.prompts import Phrase, Prompt
from backend.tracks.track import ABSENT, FrameResult, Observation
from backend.video import Video

MAX_APPEARANCES = 4
"""Number of a track's prompts, the nearest in time, whose appearance is used."""
DIRECTIONS = {"forward": False, "reverse": True}


class OpenCVSession:
    """Tracks on one video; see `backend.engines.base.Session`."""

    def __init__(self, video: Video, state: bytes | None = None) -> None:
        self._video = video
        self._prompts: dict[str, dict[int, Appearance]] = {}
        self._trackers: dict[bool, dict[str, BoxTracker]] = {False: {}, True: {}}
        if state is not None:
            self._restore(state)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._prompts.clear()
        for carries in self._trackers.values():
            carries.clear()

    def prompt(self, prompts: Sequence[Prompt | Phrase]) -> FrameResult:
        """Turn each track's prompt into a box; a later prompt of a track on the same frame replaces the earlier one.

        Raises:
            Unsupported: a phrase.
            BadRequest: no prompts, several frames, negative points alone, or a prompt outside the video or the picture.
        """
        frame = validation.validate_frame(prompts, self._video)
        if any(isinstance(item, Phrase) for item in prompts):
            raise Unsupported(
                "the engine opencv cannot find objects by words or examples: set engine: sam3, or draw a box around "
                "the object"
            )
        merged = validation.merge_prompts((item for item in prompts if isinstance(item, Prompt)), self._video)
        picture = FrameImage(frame, self._video.read(frame))
        boxes = {track: _box_from_prompt(item, picture) for track, item in merged.items()}
        for track, box in boxes.items():
            self._apply_prompt(track, picture.appearance(box))
        return FrameResult(frame, {track: Observation(box, 1.0) for track, box in boxes.items()})

    def _apply_prompt(self, track: str, appearance: Appearance) -> None:
        for reverse, trackers in self._trackers.items():
            tracker = trackers.get(track)
            if tracker is None:
                continue
            if tracker.frame == appearance.frame:
                trackers[track] = BoxTracker(Anchor(appearance.frame, appearance.box, appearance))
                continue
            # The frames so far were computed without this prompt: continue from their result.
            if tracker.needs_start and tracker.anchor.frame != tracker.frame:
                at, tracker = tracker.frame, BoxTracker(tracker.anchor)
                self._replay({track: tracker}, at, reverse)
                trackers[track] = tracker
            tracker.move_anchor()
        self._prompts.setdefault(track, {})[appearance.frame] = appearance

    def keep_masks(self) -> None:
        """See the contract; it has none."""

    def remove(self, track: str) -> None:
        """Remove a track; the others do not change."""
        self._prompts.pop(track, None)
        for trackers in self._trackers.values():
            trackers.pop(track, None)

    def propagate(self, span: range, reverse: bool = False) -> Generator[FrameResult, None, None]:
        """Propagate the prompts through a span; see the contract.

        Raises:
            BadRequest: the span reaches outside the video.
        """
        return self._run(validation.validate_span(span, self._video), reverse)

    def _run(self, span: range, reverse: bool) -> Generator[FrameResult, None, None]:
        if not span:
            return
        active, last = self._catch_up(span.stop if reverse else span.start - 1, reverse)
        with closing(self._video.follow(span, reverse)) as frames:
            for index, read in frames:
                picture = FrameImage(index, read())
                yield FrameResult(index, {t: self._step(t, picture, last, active, reverse) for t in self._prompts})
                last = picture

    def _catch_up(self, before: int, reverse: bool) -> tuple[set[str], FrameImage | None]:
        """The tracks that can continue from a frame; restored trackers are replayed from their anchors to it."""
        trackers = {}
        for track, appearances in self._prompts.items():
            tracker = self._trackers[reverse].get(track)
            if tracker and tracker.frame == before:
                # A copy, so that an error during the replay does not change the track.
                trackers[track] = BoxTracker(tracker.anchor) if tracker.needs_start else tracker
            elif before in appearances:
                trackers[track] = BoxTracker(Anchor(before, appearances[before].box, appearances[before]))
        last = self._replay(trackers, before, reverse)
        self._trackers[reverse].update(trackers)
        return set(trackers), last

    def _replay(self, trackers: dict[str, BoxTracker], before: int, reverse: bool) -> FrameImage | None:
        """Replay trackers from their anchors to a frame; returns its picture, None if nothing was replayed."""
        starts = [tracker.anchor.frame for tracker in trackers.values() if tracker.needs_start]
        if not starts:
            return None
        picture: FrameImage | None = None
        span = range(before, max(starts) + 1) if reverse else range(min(starts), before + 1)
        with closing(self._video.frames(span, reverse)) as frames:
            for index, rgb in frames:
                picture = FrameImage(index, rgb)
                for track, carry in trackers.items():
                    if carry.frame == index and carry.needs_start:
                        carry.start(picture)
                    elif (carry.frame > index) if reverse else (carry.frame < index):
                        carry.advance(picture, self._nearest_appearances(track, index))
        return picture

    def _step(
        self, track: str, picture: FrameImage, last: FrameImage | None, active: set[str], reverse: bool
    ) -> Observation:
        """Track one object on the next frame of the span; a track is added to `active` on its prompt."""
        appearance = self._prompts[track].get(picture.frame)
        if appearance:
            tracker = self._trackers[reverse][track] = BoxTracker(Anchor(appearance.frame, appearance.box, appearance))
            tracker.start(picture)
            active.add(track)
            return Observation(appearance.box, 1.0)
        if track not in active:
            return ABSENT
        tracker = self._trackers[reverse][track]
        if tracker.needs_start and last:  # prompted while this generator waited
            tracker.start(last)
        return tracker.advance(picture, self._nearest_appearances(track, picture.frame))

    def _nearest_appearances(self, track: str, frame: int) -> list[Appearance]:
        appearances = self._prompts[track]
        return [
            appearances[index] for index in sorted(appearances, key=lambda index: abs(index - frame))[:MAX_APPEARANCES]
        ]

    def state(self) -> bytes:
        """Prompts and anchors as JSON; pictures are read from the video again."""
        carries = {
            name: {track: _tracker_state(carry) for track, carry in self._trackers[reverse].items()}
            for name, reverse in DIRECTIONS.items()
        }
        prompts = {
            track: [_appearance_state(look) for look in looks.values()] for track, looks in self._prompts.items()
        }
        return json.dumps({"version": OpenCVEngine.version, "prompts": prompts, **carries}).encode()

    def _restore(self, state: bytes) -> None:
        try:
            saved = json.loads(state)
            if saved["version"] != OpenCVEngine.version:
                raise KeyError("version")
            prompts, carries = saved["prompts"], {name: saved[name] for name in DIRECTIONS}
            places = [place for places in prompts.values() for place in places]
            places += [carry["recent"] for tracks in carries.values() for carry in tracks.values()]
            looks = self._read_appearances(places)
            for track, places in prompts.items():
                self._prompts[track] = {place[0]: looks[tuple(place)] for place in places}
            for name, reverse in DIRECTIONS.items():
                for track, carry in carries[name].items():
                    anchor = Anchor(carry["frame"], Box(*carry["box"]), looks[tuple(carry["recent"])], carry["lost"])
                    self._trackers[reverse][track] = BoxTracker(anchor, carry["at"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise StateRefused(
                f"the saved state is not of {OpenCVEngine.name} {OpenCVEngine.version}: run the track again"
            ) from error

    def _read_appearances(self, places: Sequence[Sequence[float]]) -> dict[tuple[float, ...], Appearance]:
        """Read appearances again, each from a frame and a box; every frame is read once."""
        appearances: dict[tuple[float, ...], Appearance] = {}
        picture: FrameImage | None = None
        for place in sorted({tuple(place) for place in places}):
            frame = int(place[0])
            if picture is None or picture.frame != frame:
                picture = FrameImage(frame, self._video.read(frame))
            appearances[place] = picture.appearance(Box(*place[1:]))
        return appearances


class OpenCVEngine:
    """The engine `opencv`; see `backend.engines.base.Engine`."""

    name = "opencv"
    version = "csrt-2"
    status = "ready"

    def memory(self) -> tuple[int, int] | None:
        """Memory of this process."""
        return read_process_memory()

    def cache_use(self) -> CacheUse | None:
        """None: it keeps nothing of a frame."""
        return None

    def open(self, video: Video, state: bytes | None = None) -> OpenCVSession:
        """Start on a video, or continue from a saved state.

        Raises:
            StateRefused: the state is of another engine or version.
        """
        return OpenCVSession(video, state)

    def advance(self, propagations: Sequence[Propagation]) -> list[FrameResult | Exception]:
        """See the contract; its sessions share pictures only."""
        return advance_each(propagations)

    def encode(self, video: Video, frame: int) -> None:
        """See the contract; it needs the picture only."""
        validation.validate_frame_number(frame, video)

    def preview(self, video: Video, prompt: Prompt) -> list[Observation]:
        """See the contract; the mask is the box that a session would track."""
        with self.open(video) as session:
            observations = session.prompt([prompt]).tracks.values()
        return [
            Observation(box, score, Rle.from_mask(mask_from_box(box, video.height, video.width)))
            for box, score, _ in observations
            if box
        ]


def _appearance_state(appearance: Appearance) -> list[float]:
    return [appearance.frame, *appearance.box]


def _tracker_state(tracker: BoxTracker) -> dict[str, object]:
    anchor = tracker.anchor
    return {
        "at": tracker.frame,
        "frame": anchor.frame,
        "box": anchor.box,
        "recent": _appearance_state(anchor.recent_appearance),
        "lost": anchor.is_lost,
    }


def _box_from_prompt(prompt: Prompt, picture: FrameImage) -> Box:
    if prompt.mask is not None and (box := box_from_mask(prompt.mask)):
        return box
    if prompt.is_negative:
        raise BadRequest("negative points alone are not enough: add a positive point or a box")
    if prompt.box is not None and not prompt.points:
        return prompt.box
    return box_from_clicks(picture.rgb, prompt.points, prompt.box)
