"""When detections and tracks are taken for each other, as the model's configuration has it."""

from dataclasses import dataclass, replace
from typing import Self

from transformers import Sam3VideoConfig


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When detections and tracks are taken for each other, and for what.

    Attributes:
        new: score from which a detection may begin a track beside others; while there are none, every detection may.
        match: IoU from which a detection is of a track, and begins none.
        confirm: IoU from which a detection confirms a track.
        duplicate: IoU from which objects of different phrases are one.
        overlap: IoU from which a track hides behind another of its phrase that has been seen for longer; 0: never.
        hotstart: frames in which a track must prove itself.
        unmatched: frames without a detection, within the hot start, that end a track.
        duplicates: frames on one detection with an older track, within the hot start, that end a track.
        patience: of a new track. Every matched frame adds one, every unmatched frame takes one.
        patience_least, patience_most: bounds of it.
        patience_empty: whether frames on which the mask is empty take one, too.
        hide_unmatched: whether tracks without patience are hidden.
        refresh_every: frames from one refreshing of memories by detections to the next; 0: never.
        refresh_score: score of a detection, and logit of a track, from which it may.
        refresh_iou: IoU from which it may.
        refresh_by_track: remember the track's own mask, instead of the detection's.
        absent: frames in a row without a pixel of it that end a track. Ours: the library goes on with it for ever, so
            that on a long video those that have left take the time and the places of those that come.
        max_objects: tracks at a time at most.
    """

    new: float = 0.7
    match: float = 0.1
    confirm: float = 0.5
    duplicate: float = 0.7
    overlap: float = 0.7
    hotstart: int = 15
    unmatched: int = 8
    duplicates: int = 8
    patience: int = 30
    patience_least: int = -1
    patience_most: int = 30
    patience_empty: bool = False
    hide_unmatched: bool = False
    refresh_every: int = 16
    refresh_score: float = 0.8
    refresh_iou: float = 0.8
    refresh_by_track: bool = True
    absent: int = 300
    max_objects: int = 10_000

    @classmethod
    def of(cls, config: Sam3VideoConfig) -> Self:
        """Those of a model."""
        return cls(
            new=config.new_det_thresh,
            match=config.assoc_iou_thresh,
            confirm=config.trk_assoc_iou_thresh,
            overlap=config.suppress_overlapping_based_on_recent_occlusion_threshold,
            hotstart=config.hotstart_delay,
            unmatched=config.hotstart_unmatch_thresh,
            duplicates=config.hotstart_dup_thresh,
            patience=config.init_trk_keep_alive,
            patience_least=config.min_trk_keep_alive,
            patience_most=config.max_trk_keep_alive,
            patience_empty=config.decrease_trk_keep_alive_for_empty_masklets,
            hide_unmatched=not config.suppress_unmatched_only_within_hotstart,
            refresh_every=config.recondition_every_nth_frame,
            refresh_score=config.high_conf_thresh,
            refresh_iou=config.high_iou_thresh,
            refresh_by_track=config.recondition_on_trk_masks,
            max_objects=config.max_num_objects,
        )

    def lasting(self, frames: int) -> Self:
        """With a hot start of so many frames; its counts shrink with it, and do not grow."""
        return self.within(frames) if frames < self.hotstart else replace(self, hotstart=frames)

    def within(self, frames: int) -> Self:
        """With a hot start of so many frames at most, and its counts in proportion.

        A track is judged from its second frame on, so a hot start of n frames has n - 1 occasions.
        """
        if frames >= self.hotstart:
            return self
        before, after = max(1, self.hotstart - 1), max(0, frames - 1)
        return replace(
            self,
            hotstart=frames,
            unmatched=max(1, -(-self.unmatched * after // before)),
            duplicates=max(1, -(-self.duplicates * after // before)),
        )
