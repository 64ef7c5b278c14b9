"""The objects of a video on one frame at a time: shown by a person, found by words, found again, and remembered."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from backend.engines.sam3 import masks
from backend.engines.sam3.association import Association, Plan
from backend.engines.sam3.detector import Detections, Detector
from backend.engines.sam3.image_encoder import View, Vision
from backend.engines.sam3.memory_bank import Memory, lies_ahead
from backend.engines.sam3.objects import Object, Seen, Way
from backend.engines.sam3.thresholds import Thresholds
from backend.engines.sam3.tracker import Masks, Tracker
from backend.errors import BadRequest, EngineError
from backend.tracks.geometry import Box
from backend.tracks.masks import Rle
from backend.tracks.prompts import Phrase, Prompt
from backend.tracks.track import ABSENT, FrameResult, Observation
from backend.video import Picture, Video

_SURE = 10.0
"""Logit of "it is there" for a mask that has a pixel, and the negative one for a mask that has none."""


@dataclass(frozen=True, slots=True)
class Sam3:
    """The loaded model, in its parts, and how to use it.

    Attributes:
        running: a context of the precision to compute in.
        speck: pixels of the model's masks up to which holes are filled and specks removed; 0: none are.
        masks: whether masks leave the engine.
        fingerprint: of the weights.
    """

    vision: Vision
    tracker: Tracker
    detector: Detector
    thresholds: Thresholds
    running: Callable[[], AbstractContextManager[None]]
    speck: int
    masks: bool
    fingerprint: str


class Scene:
    """The objects of one video, and the words that are looked for.

    Attributes:
        objects: by track id.
        phrases: in the order of their prompts, each with the frames that it was prompted on.
        reach: how far the model looks in this video.
    """

    def __init__(self, sam3: Sam3, video: Video) -> None:
        self._sam3 = sam3
        self._video = video
        self.reach = sam3.tracker.reach(len(video))
        self.objects: dict[str, Object] = {}
        self.phrases: dict[str, list[int]] = {}

    def view(self, frame: int, picture: Picture) -> View:
        """See a frame."""
        return self._sam3.vision.view((self._video.key, frame), picture)

    def known(self, reverse: bool) -> dict[str, Object]:
        """The objects that a way knows."""
        return {name: one for name, one in self.objects.items() if one.is_known(reverse)}

    def words_of(self, names: Iterable[str]) -> dict[str, str]:
        """The phrases of those objects that phrases have found."""
        texts, found = list(self.phrases), {name: self.objects[name].phrase for name in names}
        return {name: texts[phrase] for name, phrase in found.items() if phrase is not None}

    def association(
        self, state: Mapping[str, Any] | None = None, elsewhere: Callable[[int], int] = lambda _: 0
    ) -> Association:
        """What decides about the tracks that words find, from the start or from a state of it.

        Of a state, the tracks that are still there are known again, and what phrases they answered to.

        Args:
            elsewhere: the last number that another association has given to a track of a phrase.
        """

        def new_name(phrase: int, number: int) -> str | None:
            name = f"{list(self.phrases)[phrase]} {number}"
            return None if name in self.objects or number <= elsewhere(phrase) else name

        association = Association(self._sam3.thresholds, new_name, state)
        for name in association.tracks.keys() - self.objects.keys():
            association.forget(name)
        self._rename(association)
        return association

    def _rename(self, association: Association) -> None:
        """Objects answer to the phrases that the association has them under."""
        for name, track in association.tracks.items():
            self.objects[name].phrase = track.phrase

    # What a person shows

    def show(self, view: View, prompt: Prompt, ats: Mapping[bool, int]) -> None:
        """Take one object's prompt on its frame.

        Args:
            ats: how far the ways have come.

        Raises:
            BadRequest: negative points alone, of an object that is not known.
        """
        one, frame = self.objects.get(prompt.track, Object()), prompt.frame
        known = one.memories.at(frame)
        if prompt.is_negative and not one.memories.given:
            raise BadRequest("negative points alone say nothing of a new object: add a positive point or a box")
        if prompt.mask is not None:
            mask = masks.mask_input(prompt.mask, self._sam3.tracker.side, view.hidden.device)
            found, features = self._sam3.tracker.given(view, mask[:, 0])
        else:
            tracked = [reverse for reverse, at in ats.items() if one.memories.was_tracked(frame, at, reverse)]
            history = None
            if tracked or (prompt.is_negative and known is None):
                history = one.memories.history(frame, tracked[:1] == [True], self.reach)
            points, labels = self._points(prompt, view.hidden.device)
            previous = known.logits if known and prompt.points else None
            found, features = self._sam3.tracker.prompt(view, points, labels, previous, history, self.reach)
        _check_numbers(found.logits, found.scores, frame)
        one.memories.forget_around(frame, self.reach)
        one.memories.given[frame] = Memory(features[0], found.pointers[0], found.logits[0], float(found.scores[0]))
        for trail in one.memories.trails.values():
            trail.removed = trail.ended = None
        self.objects[prompt.track] = replace(one, is_visual=True, born=None)

    def shown(self, frame: int, names: Sequence[str]) -> FrameResult:
        """Objects as they are known on a frame, and no others."""
        seen = self._seen_before(frame, names)
        return self._result(frame, seen, seen.names, names)

    def _points(self, prompt: Prompt, device: torch.device) -> tuple[Tensor, Tensor]:
        """A box's corners and clicks as the model takes them: shape (p, 2), in its own pixels, and labels (p,)."""
        points = [(point.x, point.y, int(point.positive)) for point in prompt.points]
        if prompt.box is not None:
            points = [(prompt.box.x0, prompt.box.y0, 2), (prompt.box.x1, prompt.box.y1, 3), *points]
        side = self._sam3.tracker.side
        scale = torch.tensor([side / self._video.width, side / self._video.height])
        places = torch.tensor([(x, y) for x, y, _ in points]) * scale
        return places.to(device), torch.tensor([label for *_, label in points], dtype=torch.int32, device=device)

    # What words find

    def search(self, view: View, frame: int, phrases: Sequence[Phrase]) -> list[str]:
        """Take phrases, and find what they name on their frame; the names of those tracks."""
        for phrase in phrases:
            self.phrases.setdefault(phrase.text, []).append(frame)
        texts = {phrase.text for phrase in phrases}
        wanted = {index for index, text in enumerate(self.phrases) if text in texts}
        detections = self._detected(view, frame, wanted)
        seen = self._seen_before(frame, self.objects)
        association = self.association()
        for name in seen.names:
            self._introduce(association, name, frame)
        others = len(self.objects) - len(seen.names)
        plan = association.step(frame, detections, seen.names, seen.logits, seen.scores, others)
        self._bear(view, frame, None, detections, plan.born)
        return [name for name in (*seen.names, *(name for name, _ in plan.born)) if self.objects[name].phrase in wanted]

    def _detected(self, view: View, frame: int, wanted: set[int]) -> Detections:
        """What is on a frame of the phrases with these indices."""
        indices, texts = sorted(wanted), list(self.phrases)
        words = self._sam3.detector.words([texts[index] for index in indices])
        found = self._sam3.detector.detect(view.for_detector(), words)
        _check_numbers(found.logits, found.scores, frame)
        return replace(found, phrases=torch.tensor(indices, device=found.phrases.device)[found.phrases])

    def _seen_before(self, frame: int, names: Iterable[str]) -> Seen:
        """Those of the objects of which a mask on this frame is known."""
        known = {name: self.objects[name].memories.at(frame) for name in names}
        there = {name: memory for name, memory in known.items() if memory and memory.logits is not None}
        logits = self._tidied(memory.logits for memory in there.values())
        return Seen(list(there), logits, torch.tensor([memory.score for memory in there.values()]))

    def _introduce(self, association: Association, name: str, frame: int) -> None:
        """Tell an association of a track that begins on this frame; those that a person showed it need not know."""
        one = self.objects[name]
        if one.phrase is not None and not one.is_visual:
            memory = one.memories.at(frame)
            score = torch.tensor(memory.score if memory else 0.0).sigmoid()
            association.add(name, one.phrase, float(score), frame)

    def _bear(
        self, view: View, frame: int, reverse: bool | None, detections: Detections, born: Sequence[tuple[str, int]]
    ) -> list[str]:
        """Begin tracks with the masks of detections; their names."""
        if not born:
            return []
        rows = [row for _, row in born]
        found, features = self._sam3.tracker.given(view, (detections.logits[rows] >= 0.5).float())
        scores = detections.scores[rows].float().logit(1e-6).tolist()
        for index, (name, row) in enumerate(born):
            phrase, is_out = int(detections.phrases[row]), reverse is None
            one = Object(phrase=phrase, first=phrase, is_visual=False, born=reverse, is_out=is_out)
            memory = Memory(features[index], found.pointers[index], detections.logits[row], scores[index])
            # Kept for long, where a view would keep all that were born on this frame.
            one.memories.given[frame] = memory.cloned()
            self.objects[name] = one
        return [name for name, _ in born]

    # One frame

    def advance(self, way: Way, frame: int, picture: Picture, reverse: bool) -> FrameResult:
        """Find every object on the next frame of a way, and remember it."""
        view = self.view(frame, picture)
        names = self._carried(way, frame, reverse)
        lost = [name for name in names if frame not in self.objects[name].memories.given]
        found = self._found(view, frame, lost, reverse)
        seen = self._seen(frame, names, lost, found)
        wanted = {
            index
            for index, frames in enumerate(self.phrases.values())
            if not all(lies_ahead(prompted, frame, reverse) for prompted in frames)
        }
        if not wanted:
            self._remember(view, frame, reverse, lost, found, seen)
            return self._result(frame, seen, names, self.known(reverse))
        detections = self._detected(view, frame, wanted)
        others = sum(one.will_join(frame, reverse) for one in self.known(reverse).values())
        plan = way.association.step(frame, detections, names, seen.logits, seen.scores, others)
        self._remember(view, frame, reverse, lost, found, seen, plan)
        born = self._obey(way, view, frame, reverse, detections, plan)
        seen = self._planned(frame, seen, born, detections, plan)
        shown = set(seen.names) - plan.hidden - plan.removed
        return self._result(frame, seen, shown, self.known(reverse))

    def join(self, way: Way, frame: int, reverse: bool) -> None:
        """Objects that were given on a frame of a way are on it from there."""
        for name, one in self.known(reverse).items():
            trail = one.memories.trails[reverse]
            if frame in one.memories.given and trail.since is None:
                trail.since = frame
                self._introduce(way.association, name, frame)

    def _carried(self, way: Way, frame: int, reverse: bool) -> list[str]:
        """The objects that are on their way, with those that join it on this frame."""
        self.join(way, frame, reverse)
        return [name for name, one in self.known(reverse).items() if one.is_carried(reverse)]

    def _obey(self, way: Way, view: View, frame: int, reverse: bool, detections: Detections, plan: Plan) -> list[str]:
        """Begin and end tracks; the names of those that begin."""
        for name in plan.removed:
            self.objects[name].memories.trails[reverse].removed = frame
        for name in plan.ended:
            self.objects[name].memories.trails[reverse].ended = frame
        born = self._bear(view, frame, reverse, detections, plan.born)
        for name in born:
            self.objects[name].memories.trails[reverse].since = frame
        self._rename(way.association)
        return born

    def _found(self, view: View, frame: int, lost: Sequence[str], reverse: bool) -> Masks | None:
        """The masks of objects that were not given on this frame; None: there are none."""
        if not lost:
            return None
        histories = [self.objects[name].memories.history(frame, reverse, self.reach) for name in lost]
        found = self._sam3.tracker.track(view, histories, self.reach)
        _check_numbers(found.logits, found.scores, frame)
        return found

    def _seen(self, frame: int, names: list[str], lost: Sequence[str], found: Masks | None) -> Seen:
        """All objects of the way on this frame, found or given."""
        rows = {name: row for row, name in enumerate(lost)}
        logits: list[Tensor | None] = []
        scores: list[Tensor] = []
        for name in names:
            if found is not None and name in rows:
                logits.append(found.logits[rows[name]])
                scores.append(found.scores[rows[name]])
            else:
                memory = self.objects[name].memories.given[frame]
                logits.append(memory.logits)
                scores.append(memory.pointer.new_tensor(memory.score, dtype=torch.float32))
        return Seen(names, self._tidied(logits), torch.stack(scores) if scores else torch.zeros(0))

    def _remember(
        self,
        view: View,
        frame: int,
        reverse: bool,
        lost: Sequence[str],
        found: Masks | None,
        seen: Seen,
        plan: Plan | None = None,
    ) -> None:
        """Keep what was found of each object."""
        if found is None:
            return
        features = self._features(view, lost, found, seen, plan)
        numbers = torch.stack([found.scores, found.qualities], 1).tolist()
        for row, (name, (score, quality)) in enumerate(zip(lost, numbers, strict=True)):
            trail = self.objects[name].memories.trails[reverse]
            memory = Memory(features[name], found.pointers[row], found.logits[row], score, quality)
            if plan is not None and name in plan.reconditioned:
                # It is kept for long, and a view would keep all that were found on this frame.
                trail.confirmed[frame] = memory.cloned()
            else:
                trail.tracked[frame] = memory

    def _features(
        self, view: View, lost: Sequence[str], found: Masks, seen: Seen, plan: Plan | None
    ) -> dict[str, Tensor]:
        """What to remember of each object: of those that words have found, what was planned."""
        planned = [name for name in lost if plan is not None and not self.objects[name].is_visual]
        others = [row for row, name in enumerate(lost) if name not in planned]
        features: dict[str, Tensor] = {}
        if others:
            encoded = self._sam3.tracker.encode(view, found.logits[others], found.scores[others], full=True)
            features.update(zip((lost[row] for row in others), encoded, strict=True))
        if plan is not None and planned:
            logits = plan.memory[[seen.names.index(name) for name in planned]]
            # By what is left of the mask, as the library does.
            scores = torch.where((logits > 0).flatten(1).any(1), _SURE, -_SURE)
            features.update(zip(planned, self._sam3.tracker.encode(view, logits, scores, full=False), strict=True))
        return features

    def _planned(self, frame: int, seen: Seen, born: Sequence[str], detections: Detections, plan: Plan) -> Seen:
        """The objects as the plan shows them, with those that were born."""
        logits = plan.logits.clone()
        for name, row in plan.reconditioned.items():
            logits[seen.names.index(name)] = detections.logits[row]
        fresh = self._seen_before(frame, born)
        scores = torch.cat([seen.scores, fresh.scores.to(seen.scores.device)])
        return Seen([*seen.names, *fresh.names], torch.cat([logits, fresh.logits]), scores)

    def _tidied(self, logits: Iterable[Tensor | None]) -> Tensor:
        """Masks one upon the other, shape (m, h, w), without small holes and specks."""
        there = [one for one in logits if one is not None]
        if not there:
            return torch.zeros(0, *self._sam3.tracker.mask_size, device=self._sam3.tracker.device)
        return masks.tidy(torch.stack(there).float(), self._sam3.speck)

    def _result(self, frame: int, seen: Seen, shown: Container[str], named: Iterable[str]) -> FrameResult:
        """Objects as boxes, scores and, where they are asked for, masks, in the picture's pixels.

        Args:
            shown: those of the objects seen that are not hidden.
            named: whom to tell of; who is not shown is absent.
        """
        size = self._video.height, self._video.width
        boxes = masks.boxes(seen.logits, *size)
        scores = seen.scores.float().sigmoid().tolist()
        kept = self._kept(seen) if self._sam3.masks else [None] * len(scores)
        there = {
            name: Observation(Box(*box), score, mask)
            for name, box, score, mask in zip(seen.names, boxes.tolist(), scores, kept, strict=True)
            if name in shown and box[0] == box[0]
        }
        tracks = {name: there.get(name, ABSENT) for name in named}
        return FrameResult(frame, tracks, self.words_of(tracks))

    def _kept(self, seen: Seen) -> list[Rle]:
        objects = [self.objects[name] for name in seen.names]
        phrases = [None if one.is_visual else one.phrase for one in objects]
        whole = masks.claim(masks.enlarge(seen.logits, self._video.height, self._video.width), seen.scores, phrases)
        return [Rle.of(mask) for mask in whole.cpu().numpy()]


def _check_numbers(logits: Tensor, scores: Tensor, frame: int) -> None:
    # The scores, too: where they are none, the masks are those of objects that are not there.
    if not (logits.isfinite().all() and scores.isfinite().all()):
        raise EngineError(
            f"the masks on frame {frame} are no numbers: set dtype: float32, or check that the weights are whole"
        )
