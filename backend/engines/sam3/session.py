"""SAM3 on one video: prompts and words in, a result a frame out, and nothing kept that cannot be looked at any more."""

import pickle
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from io import BytesIO
from typing import Any, Self

import torch

from backend.engines import validation
from backend.engines.sam3.memory_bank import Trail, lies_ahead
from backend.engines.sam3.object_tracker import Sam3, Scene
from backend.engines.sam3.objects import Object, Way
from backend.engines.sam3.thresholds import Thresholds
from backend.errors import BadRequest, Unsupported
from backend.tracks.prompts import Phrase, Prompt
from backend.tracks.track import ABSENT, FrameResult
from backend.video import Picture, Video


class Sam3Session:
    """Tracks on one video; see `backend.engines.base.Session`."""

    def __init__(self, sam3: Sam3, video: Video, state: bytes | None = None) -> None:
        self._sam3 = sam3
        self._video = video
        for part in (sam3.tracker, sam3.detector):
            part.batches.reset()
        self._scene = Scene(sam3, video)
        self._ways: dict[bool, Way] = {}
        for reverse, start in ((False, -1), (True, len(video))):
            self._ways[reverse] = self._way(reverse, start, start)
        self._runs: dict[bool, object] = {}
        if state is not None:
            self._restore(state)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scene.objects.clear()

    def prompt(self, prompts: Sequence[Prompt | Phrase]) -> FrameResult:
        """Take prompts, all on one frame, and answer for it; a later prompt of a track there replaces the earlier one.

        Points on a frame that was tracked or prompted before correct the mask that it has. The tracked frames around
        are then forgotten: they did not know better.

        Raises:
            BadRequest: no prompts, several frames, one outside the video or the picture, more objects than
                `max_objects`, negative points alone on a new object, or words that are none or too many.
        """
        frame = validation.frame_of(prompts, self._video)
        shown = validation.by_track((item for item in prompts if isinstance(item, Prompt)), self._video)
        phrases = [item for item in prompts if isinstance(item, Phrase)]
        with self._sam3.running():
            if phrases:
                self._sam3.detector.words([phrase.text for phrase in phrases])
            view = self._scene.view(frame, self._video.read(frame))
            self._rewind()
            self._check_room(shown)
            with self._all_or_nothing():
                for item in shown.values():
                    self._scene.show(view, item, self._ats())
                found = self._scene.search(view, frame, phrases) if phrases else []
            for name in shown:
                self._forget(name)
            return self._scene.shown(frame, [*shown, *(name for name in found if name not in shown)])

    def remove(self, track: str) -> None:
        """Forget a track; nothing changes about the others. Words may find the same object again, as another track."""
        self._scene.objects.pop(track, None)
        self._forget(track)

    def propagate(self, span: range, reverse: bool = False) -> Generator[FrameResult, None, None]:
        """Carry the prompts through a span; see the contract.

        While words are looked for, the results of `hotstart_frames` are held back until the span ends: a track that
        proves false meanwhile is in none of them.

        Raises:
            BadRequest: the span reaches outside the video.
            EngineError: the model's answer is no number.
            Unsupported: the device has no room for a single object.
        """
        return self._run(validation.checked_span(span, self._video), reverse)

    def state(self) -> bytes:
        """What is remembered as of the last frame that was yielded; pictures are read from the video again."""
        saved = {
            "of": self._of(),
            "phrases": self._scene.phrases,
            "ways": self._come_so_far(),
            "objects": {name: one.saved() for name, one in self._as_yielded().items()},
        }
        buffer = BytesIO()
        torch.save(saved, buffer)
        return buffer.getvalue()

    def _restore(self, state: bytes) -> None:
        try:
            saved = torch.load(BytesIO(state), weights_only=True)
            if saved["of"] != self._of():
                raise ValueError("of")
            device = self._sam3.tracker.device
            self._scene.phrases = saved["phrases"]
            self._scene.objects = {name: Object.restored(one, device) for name, one in saved["objects"].items()}
            self._go_on(saved["ways"])
        except (LookupError, TypeError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise Unsupported("the saved state is not of this video and these weights: run the track again") from error

    def _of(self) -> list[Any]:
        return [self._sam3.fingerprint, len(self._video), self._video.width, self._video.height]

    def _check_room(self, names: Iterable[str]) -> None:
        objects = {*names, *self._scene.objects}
        most = self._sam3.thresholds.max_objects
        if len(objects) > most:
            raise BadRequest(
                f"{len(objects)} objects are more than max_objects, {most}: prompt fewer at a time, or set it higher"
            )

    def _run(self, span: range, reverse: bool) -> Generator[FrameResult, None, None]:
        if not span:
            return
        before, last = (span.stop, span.start) if reverse else (span.start - 1, span.stop - 1)
        if self._ways[reverse].at != before:
            self._begin(before, reverse)
        self._agree(last, reverse)
        self._runs[reverse] = run = object()
        while (way := self._ways[reverse]).at != last:
            self._scene.join(way, way.at, reverse)
            way.association.thresholds = self._thresholds(way, last)
            with closing(self._pictures(way, last, reverse)) as pictures:
                while way.at != last and way is self._ways[reverse]:
                    self._look_ahead(way, pictures, reverse)
                    yield self._next(way, reverse)
                    if self._runs[reverse] is not run:
                        raise RuntimeError("another propagation in this direction has begun: one at a time")

    def _begin(self, before: int, reverse: bool) -> None:
        """Start a way anew: what it had found and remembered goes."""
        for name in [name for name, one in self._scene.objects.items() if one.born is reverse]:
            self.remove(name)
        for one in self._scene.objects.values():
            one.memories.trails[reverse] = Trail()
        self._ways[reverse] = self._way(reverse, before, before)

    def _way(self, reverse: bool, since: int, at: int, past: Mapping[str, Any] | None = None) -> Way:
        """A way that begins, or goes on from the association's state `past`."""

        def elsewhere(phrase: int) -> int:
            other = self._ways.get(not reverse)
            return other.past()["begun"].get(phrase, 0) if other else 0

        return Way(self._scene.association(past, elsewhere), since, at)

    def _thresholds(self, way: Way, last: int) -> Thresholds:
        return self._sam3.thresholds.within(abs(last - way.since))

    def _agree(self, last: int, reverse: bool) -> None:
        """Drop what was computed ahead, where a session that goes on from the state of this one would do otherwise."""
        way, other = self._ways[reverse], self._ways[not reverse]
        beyond = way.ahead and lies_ahead(way.ahead[-1].frame, last, reverse)
        if other.ahead or beyond or (way.ahead and way.association.thresholds != self._thresholds(way, last)):
            self._rewind()

    def _pictures(self, way: Way, last: int, reverse: bool) -> Generator[tuple[int, Picture], None, None]:
        """The frames of a way that are not computed yet."""
        done = len(way.ahead)
        span = range(last, way.at - done) if reverse else range(way.at + 1 + done, last + 1)
        with closing(self._video.frames(span, reverse)) as pictures:
            yield from pictures

    def _look_ahead(self, way: Way, pictures: Iterator[tuple[int, Picture]], reverse: bool) -> None:
        """Compute as many frames as the hot start holds back, one at least, while there are any."""
        most = max(1, way.association.thresholds.hotstart) if self._scene.phrases else 1
        while len(way.ahead) < most and (following := next(pictures, None)):
            if not way.pasts:
                way.pasts.append(way.association.state())
            try:
                with self._sam3.running():
                    way.ahead.append(self._scene.advance(way, *following, reverse))
            except BaseException:
                # The frame may be half done: what was not yielded yet is done again.
                self._rewind()
                raise
            way.pasts.append(way.association.state())

    def _next(self, way: Way, reverse: bool) -> FrameResult:
        """The next result, without what was found to be false since."""
        result = way.ahead.popleft()
        way.pasts.popleft()
        way.at = result.frame
        objects = self._scene.objects
        tracks = {
            name: ABSENT if objects[name].memories.trails[reverse].removed is not None else seen
            for name, seen in result.tracks.items()
            if name in objects and objects[name].is_known(reverse)
        }
        for name in tracks:
            objects[name].is_out = True
        words = self._scene.words_of(tracks)
        for name, one in list(objects.items()):
            one.memories.prune(way.at, reverse, self._scene.reach)
            if one.born is reverse and one.memories.trails[reverse].is_over(way.at, reverse):
                self.remove(name)
        return FrameResult(result.frame, tracks, words)

    def _rewind(self) -> None:
        """Undo what was computed ahead: a prompt may change it."""
        self._scene.objects = self._as_yielded()
        self._go_on(self._come_so_far())

    def _come_so_far(self) -> dict[bool, list[Any]]:
        """Of each way, what `_go_on` needs to go on from the last frame that was yielded."""
        return {reverse: [way.past(), way.since, way.at] for reverse, way in self._ways.items()}

    def _go_on(self, ways: Mapping[bool, Sequence[Any]]) -> None:
        for reverse, (past, since, at) in ways.items():
            self._ways[reverse] = self._way(reverse, since, at, past)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Take all of a request, or leave everything as it was."""
        objects, phrases = self._as_yielded(), {text: list(frames) for text, frames in self._scene.phrases.items()}
        try:
            yield
        except BaseException:
            self._scene.objects, self._scene.phrases = objects, phrases
            raise

    def _forget(self, track: str) -> None:
        """Let the associations know nothing of a track, now and when they are rewound."""
        for way in self._ways.values():
            way.association.forget(track)
            for past in way.pasts:
                past["tracks"].pop(track, None)

    def _as_yielded(self) -> dict[str, Object]:
        """The objects as of the last frames that were yielded."""
        ats = self._ats()
        objects = {name: one.as_of(ats) for name, one in self._scene.objects.items()}
        begun = {name: one for name, one in objects.items() if one.has_begun}
        for way in self._ways.values():
            for name, track in way.past()["tracks"].items():
                if name in begun:
                    begun[name].phrase = track["phrase"]
        return begun

    def _ats(self) -> dict[bool, int]:
        return {reverse: way.at for reverse, way in self._ways.items()}
