"""Associates detections with tracks, frame by frame: which tracks start and end, and the masks to remember.

The rules are those of SAM 3 (arXiv:2511.16719) as implemented in Transformers (`Sam3VideoModel`): matching, hot start,
reconditioning of memory by confident detections, and no overlap of the memories of one phrase. One rule is added for
several phrases: an object is one track, of the phrase that fits it best.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Self

import torch
from torch import Tensor

from backend.engines.sam.detections import Detections
from backend.engines.sam.phrase_track import PhraseTrack
from backend.engines.sam.postprocess import ABSENT_LOGIT, suppress_shrunk_masks
from backend.engines.sam.thresholds import Thresholds

log = logging.getLogger(__name__)

_PERSON = -1
"""The phrase index of a prompted track."""


@dataclass(frozen=True, slots=True)
class TrackUpdatePlan:
    """What to do on one frame.

    Attributes:
        new_tracks: tracks to start, each with the row of its detection.
        removed: tracks that failed the hot start: to remove from all results.
        ended: tracks to end after this frame: absent for too long.
        hidden: tracks to hide on this frame.
        logits: shape (m, h, w), the tracks' masks; empty where another track occludes them.
        memory_logits: shape (m, h, w), masks to encode into memory.
        reconditioned: tracks for which this frame becomes a conditioning frame, with the row of the detection to show.
    """

    new_tracks: list[tuple[str, int]]
    removed: set[str]
    ended: set[str]
    hidden: set[str]
    logits: Tensor
    memory_logits: Tensor
    reconditioned: dict[str, int]


@dataclass(frozen=True, slots=True)
class _FrameOverlaps:
    """Overlaps of n detections and m tracks on one frame, as small tensors on the CPU.

    Attributes:
        ids: of the tracks.
        phrases: shape (n,), of the detections.
        scores: shape (n,), of the detections.
        detection_ious: shape (n, n), detections with each other.
        ious: shape (n, m), detections with tracks.
        track_ious: shape (m, m), tracks with each other.
    """

    frame: int
    ids: Sequence[str]
    phrases: Tensor
    scores: Tensor
    detection_ious: Tensor
    ious: Tensor
    track_ious: Tensor

    @classmethod
    def from_detections(cls, frame: int, detections: Detections, ids: Sequence[str]) -> Self:
        ious, count = detections.ious, len(detections)
        return cls(
            frame=frame,
            ids=ids,
            phrases=detections.phrases,
            scores=detections.scores,
            detection_ious=ious[:count, :count],
            ious=ious[:count, count:],
            track_ious=ious[count:, count:],
        )

    @property
    def is_present(self) -> Tensor:
        """Shape (m,): whether the track's mask is not empty (an empty mask has IoU 0 with itself)."""
        return self.track_ious.diagonal() > 0

    @property
    def best_first(self) -> list[int]:
        order: list[int] = self.scores.argsort(descending=True, stable=True).tolist()
        return order


class Association:
    """The tracks that phrases found in one direction, and the decisions about them.

    A track that is not in `tracks` was prompted: it blocks new tracks on the same object and is never changed. Only
    distances between frames count, so both directions work alike.

    Args:
        thresholds: may be changed between frames.
        new_id: returns the id of a track, given the index of its phrase and a number from 1 on; None: the id is taken.
        state: of `state`, to continue from.

    Attributes:
        tracks: by id.
    """

    def __init__(
        self, thresholds: Thresholds, new_id: Callable[[int, int], str | None], state: Mapping[str, Any] | None = None
    ) -> None:
        self.thresholds = thresholds
        self.tracks: dict[str, PhraseTrack] = {}
        self._new_id = new_id
        self._limit_reached = False
        # The last number of each phrase. The id of a track that ended is not used again.
        self._last_numbers: dict[int, int] = {}
        if state is not None:
            self.tracks = {track: PhraseTrack.from_state(saved) for track, saved in state["tracks"].items()}
            self._limit_reached = bool(state["full"])
            self._last_numbers = {int(phrase): number for phrase, number in state["begun"].items()}

    def step(
        self,
        frame: int,
        detections: Detections,
        ids: Sequence[str],
        logits: Tensor,
        object_scores: Tensor,
        other_tracks: int = 0,
        unsearched: Collection[int] = (),
    ) -> TrackUpdatePlan:
        """Plan the updates of a frame.

        Args:
            frame: its number; call once for each frame.
            detections: of this frame, beside the m tracks.
            ids: the m tracks on this frame.
            logits: shape (m, h, w), their predicted masks.
            object_scores: shape (m,), the tracker's logits of presence.
            other_tracks: number of other tracks that count towards `max_objects`.
            unsearched: indices of phrases that were not searched for on this frame, so that a missing detection says
                nothing about their tracks.
        """
        overlaps = _FrameOverlaps.from_detections(frame, detections, ids)
        self._change_phrases(overlaps)
        matched, confirmed = self._match(overlaps)
        new_rows = self._select_new(overlaps, other_tracks)
        self._update_counts(overlaps, matched, confirmed, unsearched)
        removed = {track for track in ids if self._fails_hotstart(track, frame)}
        ended = {track for track in ids if self._has_left(track)} - removed
        hidden = {track for track in ids if self._is_hidden(track)} - removed
        reconditioned = self._select_reconditioned(overlaps, object_scores)
        occluded = self._find_occluded(overlaps)
        logits = torch.where(occluded.to(logits.device)[:, None, None], ABSENT_LOGIT, logits)
        memory = self._memory_logits(overlaps, logits, detections, reconditioned)
        for track in removed | ended:
            self.forget(track)
        return TrackUpdatePlan(
            new_tracks=[(self._start_track(overlaps, row), row) for row in new_rows],
            removed=removed,
            ended=ended,
            hidden=hidden,
            logits=logits,
            memory_logits=memory,
            reconditioned={track: row for track, row in reconditioned.items() if track not in removed},
        )

    def add(self, track: str, phrase: int, score: float, frame: int) -> None:
        """Add a track that a phrase found in the other direction or on the prompted frame."""
        self.tracks[track] = PhraseTrack(phrase, score, frame, self.thresholds.keep_alive)

    def forget(self, track: str) -> None:
        """Remove a track: it ended, or a prompt took it over."""
        self.tracks.pop(track, None)

    def state(self) -> dict[str, Any]:
        """What another association needs to continue from here, as plain values."""
        tracks = {name: track.state() for name, track in self.tracks.items()}
        return {"tracks": tracks, "full": self._limit_reached, "begun": dict(self._last_numbers)}

    def _start_track(self, overlaps: _FrameOverlaps, row: int) -> str:
        phrase = int(overlaps.phrases[row])
        numbers = count(self._last_numbers.get(phrase, 0) + 1)
        self._last_numbers[phrase], track = next(
            (number, name) for number in numbers if (name := self._new_id(phrase, number))
        )
        self.add(track, phrase, float(overlaps.scores[row]), overlaps.frame)
        return track

    def _phrases(self, ids: Sequence[str]) -> Tensor:
        """Shape (m,): the index of each track's phrase."""
        return torch.tensor([self.tracks[track].phrase if track in self.tracks else _PERSON for track in ids]).long()

    def _is_young(self, track: PhraseTrack, frame: int) -> bool:
        return abs(frame - track.first_frame) < self.thresholds.hotstart_frames

    def _match(self, overlaps: _FrameOverlaps) -> tuple[Tensor, Tensor]:
        """Which detections match which tracks, shape (n, m), and which tracks are confirmed, shape (m,)."""
        seen = overlaps.ious * (overlaps.phrases[:, None] == self._phrases(overlaps.ids))
        return seen >= self.thresholds.match_iou, (seen >= self.thresholds.confirm_iou).any(0)

    def _is_new(self, overlaps: _FrameOverlaps) -> Tensor:
        """Shape (n,): whether a detection matches no track of its phrase and no prompted track, and its score suffices.

        While there are no tracks, every score is sufficient.
        """
        phrases = self._phrases(overlaps.ids)
        rivals = (overlaps.phrases[:, None] == phrases) | (phrases == _PERSON)
        free = ~((overlaps.ious >= self.thresholds.match_iou) & rivals).any(1)
        return free & (overlaps.scores >= self.thresholds.new_track_score) if (phrases != _PERSON).any() else free

    def _is_known(self, overlaps: _FrameOverlaps) -> Tensor:
        """Shape (n,): whether a detection is the object of any track, also of another phrase."""
        return (overlaps.ious >= self.thresholds.duplicate_iou).any(1)

    def _change_phrases(self, overlaps: _FrameOverlaps) -> None:
        """Move young tracks to a phrase with a better score."""
        fits = self._is_new(overlaps) & self._is_known(overlaps)
        for row in overlaps.best_first:
            if not fits[row]:
                continue
            track = self.tracks[overlaps.ids[int(overlaps.ious[row].argmax())]]
            score = float(overlaps.scores[row])
            if self._is_young(track, overlaps.frame) and score > track.score:
                track.phrase, track.score = int(overlaps.phrases[row]), score

    def _select_new(self, overlaps: _FrameOverlaps, other_tracks: int) -> list[int]:
        """The rows of detections that start a track; the best one where several phrases found one object."""
        new = self._is_new(overlaps) & ~self._is_known(overlaps)
        rivals = (overlaps.detection_ious >= self.thresholds.duplicate_iou) & (
            overlaps.phrases[:, None] != overlaps.phrases
        )
        taken: list[int] = []
        for row in overlaps.best_first:
            if new[row] and not rivals[row, taken].any():
                taken.append(row)
        room = max(0, self.thresholds.max_objects - len(overlaps.ids) - other_tracks)
        if len(taken) > room and not self._limit_reached:
            self._limit_reached = True
            log.warning(
                "more than %d objects: those with the best scores are tracked; use a more specific phrase, or raise "
                "max_objects",
                self.thresholds.max_objects,
            )
        return sorted(taken[:room])

    def _update_counts(
        self, overlaps: _FrameOverlaps, matched: Tensor, confirmed: Tensor, unsearched: Collection[int]
    ) -> None:
        """Update the counters of each track."""
        least, most = self.thresholds.min_keep_alive, self.thresholds.max_keep_alive
        columns = zip(
            overlaps.ids, matched.any(0).tolist(), confirmed.tolist(), overlaps.is_present.tolist(), strict=True
        )
        for name, is_matched, is_confirmed, is_present in columns:
            track = self.tracks.get(name)
            if track is None or track.first_frame == overlaps.frame:  # it starts on this frame
                continue
            track.absent_frames = 0 if is_present else track.absent_frames + 1
            if track.phrase in unsearched:
                continue
            # One detection may match a track and be too far off to confirm it.
            if is_matched:
                track.keep_alive = min(most, track.keep_alive + 1)
            if is_present and not is_confirmed:
                track.unmatched_frames += 1
                track.keep_alive = max(least, track.keep_alive - 1)
            elif not is_present and self.thresholds.empty_lowers_keep_alive:
                track.keep_alive = max(least, track.keep_alive - 1)
        groups = [*matched[matched.sum(1) > 1], *self._same_places(overlaps, unsearched)]
        self._count_overlaps(overlaps, groups)

    def _same_places(self, overlaps: _FrameOverlaps, unsearched: Collection[int]) -> list[Tensor]:
        """Tracks in one place, of phrases that were not searched for: each of shape (m,), bool.

        Without a detection that they share, their own overlap shows that they follow one object.
        """
        phrases = self._phrases(overlaps.ids)
        is_unsearched = torch.tensor([int(phrase) in unsearched for phrase in phrases], dtype=torch.bool)
        same = (overlaps.track_ious >= self.thresholds.duplicate_iou) & (phrases[:, None] == phrases)
        groups = {tuple(group) for group in (same & is_unsearched).tolist()} if is_unsearched.any() else set()
        return [torch.tensor(group) for group in sorted(groups) if sum(group) > 1]

    def _count_overlaps(self, overlaps: _FrameOverlaps, groups: Iterable[Tensor]) -> None:
        """Count, for each track, the frames that it shares with an older track in a group, shape (m,), bool."""
        for row in groups:
            names = [overlaps.ids[column] for column in row.nonzero()[:, 0].tolist()]
            names = [name for name in names if self.tracks[name].first_frame != overlaps.frame]
            if not names:
                continue
            oldest = max(names, key=lambda name: abs(overlaps.frame - self.tracks[name].first_frame))
            for name in names:
                if name != oldest:
                    counts = self.tracks[name].overlaps
                    counts[oldest] = counts.get(oldest, 0) + 1
        for track in self.tracks.values():
            if track.overlaps and not self._is_young(track, overlaps.frame):
                track.overlaps.clear()

    def _fails_hotstart(self, name: str, frame: int) -> bool:
        """Whether the hot start removes a track."""
        track = self.tracks.get(name)
        if track is None or not self._is_young(track, frame):
            return False
        most = max(track.overlaps.values(), default=0)
        return (
            track.unmatched_frames >= self.thresholds.hotstart_unmatched or most >= self.thresholds.hotstart_duplicates
        )

    def _has_left(self, name: str) -> bool:
        track = self.tracks.get(name)
        return track is not None and track.absent_frames >= self.thresholds.max_absent_frames

    def _is_hidden(self, name: str) -> bool:
        track = self.tracks.get(name)
        return (
            self.thresholds.hide_unmatched
            and track is not None
            and track.unmatched_frames > 0
            and track.keep_alive <= 0
        )

    def _select_reconditioned(self, overlaps: _FrameOverlaps, object_scores: Tensor) -> dict[str, int]:
        """On every `recondition_every`-th frame, the tracks that a confident detection confirms, with its row."""
        thresholds = self.thresholds
        if not (
            thresholds.recondition_every
            and overlaps.frame % thresholds.recondition_every == 0
            and overlaps.ious.numel()
        ):
            return {}
        seen = overlaps.ious * (overlaps.phrases[:, None] == self._phrases(overlaps.ids))
        nearest, columns = seen.max(1)
        sure = (overlaps.scores >= thresholds.recondition_score) & (nearest >= thresholds.recondition_iou)
        there = (object_scores.float() > thresholds.recondition_score).tolist()
        return {
            overlaps.ids[column]: row
            for row, (is_sure, column) in enumerate(zip(sure.tolist(), columns.tolist(), strict=True))
            if is_sure and there[column]
        }

    def _find_occluded(self, overlaps: _FrameOverlaps) -> Tensor:
        """Shape (m,): whether a track overlaps one of its phrase that was occluded less recently; records it.

        Both must have been occluded before; otherwise nothing tells which one is right.
        """
        if not self.thresholds.occlusion_iou:
            return torch.zeros(len(overlaps.ids), dtype=torch.bool)
        phrases = self._phrases(overlaps.ids)
        rivals = (phrases[:, None] == phrases) & (overlaps.track_ious >= self.thresholds.occlusion_iou)
        known = [self.tracks.get(name) for name in overlaps.ids]
        ago = torch.tensor(
            [
                torch.inf if track is None or track.last_occluded is None else abs(overlaps.frame - track.last_occluded)
                for track in known
            ]
        )
        behind = (rivals & (ago[:, None] < ago) & ago.isfinite()).any(1)
        for track, is_gone in zip(known, (behind | ~overlaps.is_present).tolist(), strict=True):
            if track is not None and is_gone:
                track.last_occluded = overlaps.frame
        return behind

    def _memory_logits(
        self, overlaps: _FrameOverlaps, logits: Tensor, detections: Detections, reconditioned: Mapping[str, int]
    ) -> Tensor:
        """The masks to encode into memory, shape (m, h, w)."""
        memory = logits.clone()
        if reconditioned and not self.thresholds.recondition_on_track_mask:
            columns = [overlaps.ids.index(track) for track in reconditioned]
            inside = detections.logits[list(reconditioned.values())] > 0
            memory[columns] = torch.where(inside, -ABSENT_LOGIT, ABSENT_LOGIT).to(memory.dtype)
        phrases = self._phrases(overlaps.ids)
        for phrase in set(phrases.tolist()) - {_PERSON}:
            columns = (phrases == phrase).nonzero()[:, 0].to(memory.device)
            if len(columns) > 1:
                memory[columns] = suppress_shrunk_masks(memory[columns])
        return memory
