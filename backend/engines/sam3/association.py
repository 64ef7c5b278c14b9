"""Which detection is which track, frame by frame: births, deaths, and what each track remembers of the frame.

The rules are those that SAM 3 was published with (arXiv:2511.16719), as transformers' `Sam3VideoModel` has them: the
association of detections with tracks, the hot start in which a track must prove itself, the memory refreshed by
confident detections, and no two memories of one phrase on the same pixels. What is added holds for several phrases: one
object is one track, of the phrase that fits it best.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any, Self

import torch
from torch import Tensor

from backend.engines.sam3.detector import Detections
from backend.engines.sam3.masks import NOTHING, iou, without_shrunk
from backend.engines.sam3.thresholds import Thresholds

log = logging.getLogger(__name__)

_PERSON = -1
"""Stands for the phrase of a track that no phrase found."""


@dataclass(slots=True)
class Track:
    """What is remembered of a track that a phrase found; its size does not grow with time.

    Attributes:
        phrase: index of the phrase.
        score: of the detection that it began with.
        began: the frame that it began on.
        patience: see `Thresholds`.
        unmatched: frames without a detection so far.
        absent: the last frames, of which none had a pixel of it.
        overlaps: how often it was on one detection with an older track, by that track; kept during the hot start.
        gone: the frame on which it was last empty or hidden behind another; None: never yet.
    """

    phrase: int
    score: float
    began: int
    patience: int
    unmatched: int = 0
    absent: int = 0
    overlaps: dict[str, int] = field(default_factory=dict)
    gone: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done on one frame.

    Attributes:
        born: tracks to begin, and the detections whose masks they begin with.
        removed: tracks to drop with all that was seen of them: the hot start has found them out.
        ended: tracks to drop after this frame: they have been gone for too long.
        hidden: tracks not to be shown on this frame.
        logits: shape (m, h, w), the tracks' masks, less those that are hidden behind another track.
        memory: shape (m, h, w), logits to remember of the tracks.
        reconditioned: tracks for which this becomes a conditioning frame, and the detections to show of them.
    """

    born: list[tuple[str, int]]
    removed: set[str]
    ended: set[str]
    hidden: set[str]
    logits: Tensor
    memory: Tensor
    reconditioned: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame, of n detections and m tracks, as small tensors on the CPU.

    Attributes:
        ids: of the tracks.
        phrases: shape (n,), of the detections.
        scores: shape (n,), of the detections.
        found: shape (n, n), IoU of detections.
        seen: shape (n, m), IoU of detections with tracks.
        known: shape (m, m), IoU of tracks.
    """

    number: int
    ids: Sequence[str]
    phrases: Tensor
    scores: Tensor
    found: Tensor
    seen: Tensor
    known: Tensor

    @classmethod
    def of(cls, number: int, detections: Detections, ids: Sequence[str], logits: Tensor) -> Self:
        masks = torch.cat([detections.logits > 0, logits > 0])
        ious, first = iou(masks, masks).cpu(), len(detections.scores)
        return cls(
            number=number,
            ids=ids,
            phrases=detections.phrases.cpu(),
            scores=detections.scores.float().cpu(),
            found=ious[:first, :first],
            seen=ious[:first, first:],
            known=ious[first:, first:],
        )

    @property
    def present(self) -> Tensor:
        """Shape (m,): whether the track's mask has any pixel; an empty one does not even overlap with itself."""
        return self.known.diagonal() > 0

    @property
    def best_first(self) -> list[int]:
        order: list[int] = self.scores.argsort(descending=True, stable=True).tolist()
        return order


class Association:
    """What one direction's way through a video knows of the tracks that phrases found, and the decisions of a frame.

    A track that it does not know is a person's: no detection on it begins another one, and nothing is decided about it.
    Only distances between frames count, so that one way is as good as the other.

    Args:
        thresholds: may be changed between frames.
        new_id: names the track of the phrase with an index that has a number, from 1 on; None: the name is taken.
        state: of `state`, to go on from.

    Attributes:
        tracks: by id.
    """

    def __init__(
        self, thresholds: Thresholds, new_id: Callable[[int, int], str | None], state: Mapping[str, Any] | None = None
    ) -> None:
        self.thresholds = thresholds
        self.tracks: dict[str, Track] = {}
        self._new_id = new_id
        self._full = False
        # The last number of each phrase: a track that is gone leaves its name to no other.
        self._begun: dict[int, int] = {}
        if state is not None:
            self.tracks = {track: Track(**saved) for track, saved in state["tracks"].items()}
            self._full = bool(state["full"])
            self._begun = {int(phrase): number for phrase, number in state["begun"].items()}

    def step(
        self,
        frame: int,
        detections: Detections,
        ids: Sequence[str],
        logits: Tensor,
        scores: Tensor,
        elsewhere: int = 0,
    ) -> Plan:
        """Decide about a frame.

        Args:
            frame: its number; every frame on the way is told once.
            detections: of this frame.
            ids: the m tracks that were carried to this frame.
            logits: shape (m, h, w), their masks as the tracker sees them.
            scores: shape (m,), the tracker's logits of "it is there".
            elsewhere: how many more tracks there are, that count among `max_objects`.
        """
        now = _Frame.of(frame, detections, ids, logits)
        self._change_phrases(now)
        matched, confirmed = self._matches(now)
        newcomers = self._newcomers(now, elsewhere)
        self._remember(now, matched, confirmed)
        removed = {track for track in ids if self._fails(track, frame)}
        ended = {track for track in ids if self._is_gone(track)} - removed
        hidden = {track for track in ids if self._is_hidden(track)} - removed
        reconditioned = self._reconditioned(now, scores)
        behind = self._behind(now)
        logits = torch.where(behind.to(logits.device)[:, None, None], NOTHING, logits)
        memory = self._memory(now, logits, detections, reconditioned)
        for track in removed | ended:
            self.forget(track)
        return Plan(
            born=[(self._begin(now, row), row) for row in newcomers],
            removed=removed,
            ended=ended,
            hidden=hidden,
            logits=logits,
            memory=memory,
            reconditioned={track: row for track, row in reconditioned.items() if track not in removed},
        )

    def add(self, track: str, phrase: int, score: float, frame: int) -> None:
        """Know a track that a phrase found elsewhere: the other way, or on the frame of the prompt."""
        self.tracks[track] = Track(phrase, score, frame, self.thresholds.patience)

    def forget(self, track: str) -> None:
        """Know a track no more: it is gone, or a person's from now on."""
        self.tracks.pop(track, None)

    def state(self) -> dict[str, Any]:
        """What the next association needs to go on from here, as JSON has it."""
        tracks = {name: asdict(track) for name, track in self.tracks.items()}
        return {"tracks": tracks, "full": self._full, "begun": dict(self._begun)}

    def _begin(self, now: _Frame, row: int) -> str:
        phrase = int(now.phrases[row])
        numbers = count(self._begun.get(phrase, 0) + 1)
        self._begun[phrase], track = next(
            (number, name) for number in numbers if (name := self._new_id(phrase, number))
        )
        self.add(track, phrase, float(now.scores[row]), now.number)
        return track

    def _phrases(self, ids: Sequence[str]) -> Tensor:
        """Shape (m,): the index of each track's phrase."""
        return torch.tensor([self.tracks[track].phrase if track in self.tracks else _PERSON for track in ids]).long()

    def _is_young(self, track: Track, frame: int) -> bool:
        return abs(frame - track.began) < self.thresholds.hotstart

    def _matches(self, now: _Frame) -> tuple[Tensor, Tensor]:
        """Which detections are of which tracks, shape (n, m), and which tracks they confirm, shape (m,)."""
        seen = now.seen * (now.phrases[:, None] == self._phrases(now.ids))
        return seen >= self.thresholds.match, (seen >= self.thresholds.confirm).any(0)

    def _is_new(self, now: _Frame) -> Tensor:
        """Shape (n,): whether a detection is of no track of its phrase, nor of a person's, and is sure enough.

        While there is no track at all, every detection is sure enough.
        """
        phrases = self._phrases(now.ids)
        rivals = (now.phrases[:, None] == phrases) | (phrases == _PERSON)
        free = ~((now.seen >= self.thresholds.match) & rivals).any(1)
        return free & (now.scores >= self.thresholds.new) if (phrases != _PERSON).any() else free

    def _is_known(self, now: _Frame) -> Tensor:
        """Shape (n,): whether a detection is some track's object. One that is new has this track in another phrase."""
        return (now.seen >= self.thresholds.duplicate).any(1)

    def _change_phrases(self, now: _Frame) -> None:
        """Young tracks change over to another phrase that fits them better."""
        fits = self._is_new(now) & self._is_known(now)
        for row in now.best_first:
            if not fits[row]:
                continue
            track = self.tracks[now.ids[int(now.seen[row].argmax())]]
            score = float(now.scores[row])
            if self._is_young(track, now.number) and score > track.score:
                track.phrase, track.score = int(now.phrases[row]), score

    def _newcomers(self, now: _Frame, elsewhere: int) -> list[int]:
        """The detections that begin a track, by index; of one object in several phrases the best, if it is new."""
        new = self._is_new(now) & ~self._is_known(now)
        rivals = (now.found >= self.thresholds.duplicate) & (now.phrases[:, None] != now.phrases)
        taken: list[int] = []
        for row in now.best_first:
            if new[row] and not rivals[row, taken].any():
                taken.append(row)
        room = max(0, self.thresholds.max_objects - len(now.ids) - elsewhere)
        if len(taken) > room and not self._full:
            self._full = True
            log.warning(
                "more than %d objects: the surest ones are tracked; name the objects more closely, or set max_objects "
                "higher",
                self.thresholds.max_objects,
            )
        return sorted(taken[:room])

    def _remember(self, now: _Frame, matched: Tensor, confirmed: Tensor) -> None:
        """Count the frame for or against each track."""
        least, most = self.thresholds.patience_least, self.thresholds.patience_most
        columns = zip(now.ids, matched.any(0).tolist(), confirmed.tolist(), now.present.tolist(), strict=True)
        for name, is_matched, is_confirmed, is_present in columns:
            track = self.tracks.get(name)
            if track is None or track.began == now.number:  # it began with what is on this frame
                continue
            track.absent = 0 if is_present else track.absent + 1
            # One detection may do both: match a track, and be too far off to confirm it.
            if is_matched:
                track.patience = min(most, track.patience + 1)
            if is_present and not is_confirmed:
                track.unmatched += 1
                track.patience = max(least, track.patience - 1)
            elif not is_present and self.thresholds.patience_empty:
                track.patience = max(least, track.patience - 1)
        self._count_overlaps(now, matched)

    def _count_overlaps(self, now: _Frame, matched: Tensor) -> None:
        for row in matched[matched.sum(1) > 1]:
            names = [now.ids[column] for column in row.nonzero()[:, 0].tolist()]
            names = [name for name in names if self.tracks[name].began != now.number]
            if not names:
                continue
            oldest = max(names, key=lambda name: abs(now.number - self.tracks[name].began))
            for name in names:
                if name != oldest:
                    overlaps = self.tracks[name].overlaps
                    overlaps[oldest] = overlaps.get(oldest, 0) + 1
        for track in self.tracks.values():
            if track.overlaps and not self._is_young(track, now.number):
                track.overlaps.clear()

    def _fails(self, name: str, frame: int) -> bool:
        """Whether a track does not come through its hot start."""
        track = self.tracks.get(name)
        if track is None or not self._is_young(track, frame):
            return False
        most = max(track.overlaps.values(), default=0)
        return track.unmatched >= self.thresholds.unmatched or most >= self.thresholds.duplicates

    def _is_gone(self, name: str) -> bool:
        track = self.tracks.get(name)
        return track is not None and track.absent >= self.thresholds.absent

    def _is_hidden(self, name: str) -> bool:
        track = self.tracks.get(name)
        return self.thresholds.hide_unmatched and track is not None and track.unmatched > 0 and track.patience <= 0

    def _reconditioned(self, now: _Frame, scores: Tensor) -> dict[str, int]:
        """Tracks that a confident detection confirms on a frame whose turn it is, and the detection."""
        thresholds = self.thresholds
        if not (thresholds.refresh_every and now.number % thresholds.refresh_every == 0 and now.seen.numel()):
            return {}
        seen = now.seen * (now.phrases[:, None] == self._phrases(now.ids))
        nearest, columns = seen.max(1)
        sure = (now.scores >= thresholds.refresh_score) & (nearest >= thresholds.refresh_iou)
        there = (scores.float() > thresholds.refresh_score).tolist()
        return {
            now.ids[column]: row
            for row, (is_sure, column) in enumerate(zip(sure.tolist(), columns.tolist(), strict=True))
            if is_sure and there[column]
        }

    def _behind(self, now: _Frame) -> Tensor:
        """Shape (m,): whether a track is where another of its phrase is that came back earlier; takes note of it.

        Both must have been gone before: of tracks that never were, nothing tells which one is right.
        """
        if not self.thresholds.overlap:
            return torch.zeros(len(now.ids), dtype=torch.bool)
        phrases = self._phrases(now.ids)
        rivals = (phrases[:, None] == phrases) & (now.known >= self.thresholds.overlap)
        known = [self.tracks.get(name) for name in now.ids]
        ago = torch.tensor(
            [torch.inf if track is None or track.gone is None else abs(now.number - track.gone) for track in known]
        )
        behind = (rivals & (ago[:, None] < ago) & ago.isfinite()).any(1)
        for track, is_gone in zip(known, (behind | ~now.present).tolist(), strict=True):
            if track is not None and is_gone:
                track.gone = now.number
        return behind

    def _memory(self, now: _Frame, logits: Tensor, detections: Detections, reconditioned: Mapping[str, int]) -> Tensor:
        """What to remember of the tracks: shape (m, h, w)."""
        memory = logits.clone()
        if reconditioned and not self.thresholds.refresh_by_track:
            columns = [now.ids.index(track) for track in reconditioned]
            memory[columns] = (detections.logits[list(reconditioned.values())] >= 0.5).to(memory.dtype)
        phrases = self._phrases(now.ids)
        for phrase in set(phrases.tolist()) - {_PERSON}:
            columns = (phrases == phrase).nonzero()[:, 0].to(memory.device)
            if len(columns) > 1:
                memory[columns] = without_shrunk(memory[columns])
        return memory
