"""A session: tracks prompts and phrases through one video, with memory that does not grow with its length."""

import pickle
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from copy import deepcopy
from functools import partial
from io import BytesIO
from typing import Any, Self

import torch

from backend.engines import validation
from backend.engines.sam.memory_bank import DirectionMemory, is_ahead
from backend.engines.sam.model import SamModel
from backend.engines.sam.object_tracker import ObjectTracker
from backend.engines.sam.phrases import SearchedPhrases
from backend.engines.sam.propagation import SamPropagation, Steps, TrackerCall
from backend.engines.sam.session_state import DirectionState, SessionState, TrackedObject
from backend.engines.sam.thresholds import Thresholds
from backend.errors import BadRequest, StateRefused
from backend.tracks.prompts import Phrase, Prompt
from backend.tracks.track import ABSENT, FrameResult
from backend.video import ReadPicture, Video


class SamSession:
    """Tracks on one video; see `backend.engines.base.Session`."""

    def __init__(self, model: SamModel, video: Video, state: bytes | None = None) -> None:
        self._model = model
        self._video = video
        self._object_tracker = ObjectTracker(model, video)
        self._directions: dict[bool, DirectionState] = {}
        for reverse, start in ((False, -1), (True, len(video))):
            self._directions[reverse] = self._new_direction(reverse, start, start)
        self._active_runs: dict[bool, object] = {}
        if state is not None:
            self._restore(state)

    def keep_masks(self) -> None:
        """See the contract."""
        self._object_tracker.with_masks = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._object_tracker.objects.clear()

    def prompt(self, prompts: Sequence[Prompt | Phrase]) -> FrameResult:
        """Apply prompts, all on one frame; a later prompt of a track on the same frame replaces the earlier one.

        Points on a frame that was tracked or prompted before correct its mask. The memory of the tracked frames
        around it is then dropped, because it contains the error.

        Raises:
            BadRequest: no prompts, several frames, one outside the video or the picture, more objects than
                `max_objects`, negative points alone on a new object, or words that are none or too many.
            Unsupported: there are words or exemplars, and the model does not support them.
        """
        frame = validation.validate_frame(prompts, self._video)
        by_track = validation.merge_prompts((item for item in prompts if isinstance(item, Prompt)), self._video)
        phrases = validation.validate_phrases((item for item in prompts if isinstance(item, Phrase)), self._video)
        with self._model.inference():
            if phrases:
                self._model.require_detector().check_texts([phrase.text for phrase in phrases])
            image = self._object_tracker.encode(frame, partial(self._video.read, frame))
            self._drop_pending_results()
            self._check_object_limit(by_track)
            with self._transaction():
                for item in by_track.values():
                    self._object_tracker.add_prompt(image, item, self._positions())
                detected = self._object_tracker.add_phrases(image, frame, phrases) if phrases else []
            for name in by_track:
                self._forget(name)
            return self._object_tracker.result_at(
                frame, [*by_track, *(name for name in detected if name not in by_track)]
            )

    def remove(self, track: str) -> None:
        """Remove a track; the others do not change. A phrase may find the same object again, as another track."""
        self._object_tracker.objects.pop(track, None)
        self._forget(track)

    def propagate(self, span: range, reverse: bool = False) -> SamPropagation:
        """Propagate the prompts through a span; see the contract.

        While there are phrases, each result is delayed by `hotstart_frames` (until the span ends), so that tracks which
        turn out to be false appear in none of them.

        Raises:
            BadRequest: the span reaches outside the video.
            EngineError: the model returned values that are not finite.
            Unsupported: the device has no memory for a single object.
        """
        return SamPropagation(self._model, self._run(validation.validate_span(span, self._video), reverse))

    def state(self) -> SessionState:
        """The memory as of the last yielded frame. States are stored, so do not change their keys."""
        objects = self._yielded_objects()
        for one in objects.values():
            one.memory_bank.strip(self._positions(), self._object_tracker.window)
        ways = deepcopy(self._directions_state())
        return SessionState({"of": self._identity(), **self._object_tracker.phrases.state(), "ways": ways}, objects)

    def _restore(self, state: bytes) -> None:
        try:
            saved = torch.load(BytesIO(state), weights_only=True)
            if saved["of"] != self._identity():
                raise ValueError("of")
            device = self._model.tracker.device
            self._object_tracker.phrases = SearchedPhrases.from_state(saved)
            self._object_tracker.objects = {
                name: TrackedObject.from_state(one, device) for name, one in saved["objects"].items()
            }
            self._restore_directions(saved["ways"])
        except (LookupError, TypeError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise StateRefused("the saved state is of another video or other weights: run the track again") from error

    def _identity(self) -> list[Any]:
        return [self._model.fingerprint, len(self._video), self._video.width, self._video.height]

    def _check_object_limit(self, names: Iterable[str]) -> None:
        objects = {*names, *self._object_tracker.objects}
        most = self._model.thresholds.max_objects
        if len(objects) > most:
            raise BadRequest(
                f"{len(objects)} objects exceed max_objects ({most}): prompt fewer at a time, or raise max_objects"
            )

    def _run(self, span: range, reverse: bool) -> Steps:
        if not span:
            return
        before, last = (span.stop, span.start) if reverse else (span.start - 1, span.stop - 1)
        if self._directions[reverse].position != before:
            self._restart_direction(before, reverse)
        self._drop_stale_results(last, reverse)
        self._active_runs[reverse] = run = object()
        while (direction := self._directions[reverse]).position != last:
            self._object_tracker.start_objects(direction, direction.position, reverse)
            direction.association.thresholds = self._thresholds(direction, last)
            with closing(self._remaining_frames(direction, last, reverse)) as frames:
                while direction.position != last and direction is self._directions[reverse]:
                    yield from self._compute_ahead(direction, frames, reverse)
                    yield self._next_result(direction, reverse)
                    if self._active_runs[reverse] is not run:
                        raise RuntimeError("another propagation in this direction has started: run one at a time")

    def _restart_direction(self, before: int, reverse: bool) -> None:
        """Restart a direction: drop its tracks and its memory."""
        for name in [name for name, one in self._object_tracker.objects.items() if one.found_reverse is reverse]:
            self.remove(name)
        for one in self._object_tracker.objects.values():
            one.memory_bank.directions[reverse] = DirectionMemory()
        self._directions[reverse] = self._new_direction(reverse, before, before)

    def _new_direction(
        self, reverse: bool, start: int, position: int, association_state: Mapping[str, Any] | None = None
    ) -> DirectionState:
        """A direction from the start, or continued from `association_state`."""

        def elsewhere(phrase: int) -> int:
            other = self._directions.get(not reverse)
            return other.association_state()["begun"].get(phrase, 0) if other else 0

        return DirectionState(self._object_tracker.association(association_state, elsewhere), start, position)

    def _thresholds(self, direction: DirectionState, last: int) -> Thresholds:
        return self._model.thresholds.limit_hotstart(abs(last - direction.start))

    def _drop_stale_results(self, last: int, reverse: bool) -> None:
        """Drop pending results that a session restored from `state` would compute differently."""
        direction, other = self._directions[reverse], self._directions[not reverse]
        beyond = direction.pending_results and is_ahead(direction.pending_results[-1].frame, last, reverse)
        if (
            other.pending_results
            or beyond
            or (direction.pending_results and direction.association.thresholds != self._thresholds(direction, last))
        ):
            self._drop_pending_results()

    def _remaining_frames(
        self, direction: DirectionState, last: int, reverse: bool
    ) -> Generator[tuple[int, ReadPicture], None, None]:
        """Frames of a direction that are not computed yet."""
        done = len(direction.pending_results)
        span = range(last, direction.position - done) if reverse else range(direction.position + 1 + done, last + 1)
        with closing(self._video.follow(span, reverse)) as frames:
            yield from frames

    def _compute_ahead(
        self, direction: DirectionState, frames: Iterator[tuple[int, ReadPicture]], reverse: bool
    ) -> Generator[TrackerCall, Any]:
        """Compute ahead as many frames as the hot start delays results, at least one."""
        most = max(1, direction.association.thresholds.hotstart_frames) if self._object_tracker.phrases else 1
        while len(direction.pending_results) < most and (following := next(frames, None)):
            if not direction.association_states:
                direction.association_states.append(direction.association.state())
            try:
                result = yield from self._object_tracker.track_frame(direction, *following, reverse)
                direction.pending_results.append(result)
            except BaseException:
                # The frame may be half done, so all pending results are computed again.
                self._drop_pending_results()
                raise
            direction.association_states.append(direction.association.state())

    def _next_result(self, direction: DirectionState, reverse: bool) -> FrameResult:
        """The next result, without tracks that were removed since it was computed."""
        result = direction.pending_results.popleft()
        direction.association_states.popleft()
        direction.position = result.frame
        objects = self._object_tracker.objects
        tracks = {
            name: ABSENT if objects[name].memory_bank.directions[reverse].removed_at is not None else seen
            for name, seen in result.tracks.items()
            if name in objects and objects[name].is_known(reverse)
        }
        for name in tracks:
            objects[name].is_yielded = True
        words = self._object_tracker.phrases_by_track(tracks)
        for name, one in list(objects.items()):
            one.memory_bank.prune(direction.position, reverse, self._object_tracker.window)
            if one.found_reverse is reverse and one.memory_bank.directions[reverse].is_over(
                direction.position, reverse
            ):
                self.remove(name)
        return FrameResult(result.frame, tracks, words)

    def _drop_pending_results(self) -> None:
        """Undo what was computed ahead, because a prompt may change it."""
        self._object_tracker.objects = self._yielded_objects()
        self._restore_directions(self._directions_state())

    def _directions_state(self) -> dict[bool, list[Any]]:
        """What `_restore_directions` needs to continue from the last yielded frames."""
        return {
            reverse: [way.association_state(), way.start, way.position] for reverse, way in self._directions.items()
        }

    def _restore_directions(self, directions: Mapping[bool, Sequence[Any]]) -> None:
        for reverse, (past, since, at) in directions.items():
            self._directions[reverse] = self._new_direction(reverse, since, at, past)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Restore objects and phrases if the block raises."""
        objects, phrases = self._yielded_objects(), self._object_tracker.phrases.copy()
        try:
            yield
        except BaseException:
            self._object_tracker.objects, self._object_tracker.phrases = objects, phrases
            raise

    def _forget(self, track: str) -> None:
        """Remove a track from the associations and from their earlier states."""
        for way in self._directions.values():
            way.association.forget(track)
            for past in way.association_states:
                past["tracks"].pop(track, None)

    def _yielded_objects(self) -> dict[str, TrackedObject]:
        """The objects as of the last yielded frames."""
        positions = self._positions()
        objects = {name: one.snapshot(positions) for name, one in self._object_tracker.objects.items()}
        started = {name: one for name, one in objects.items() if one.has_started}
        for way in self._directions.values():
            for name, track in way.association_state()["tracks"].items():
                if name in started:
                    started[name].phrase = track["phrase"]
        return started

    def _positions(self) -> dict[bool, int]:
        return {reverse: way.position for reverse, way in self._directions.items()}
