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

    new_track_score: float = 0.7
    match_iou: float = 0.1
    confirm_iou: float = 0.5
    duplicate_iou: float = 0.7
    occlusion_iou: float = 0.7
    hotstart_frames: int = 15
    hotstart_unmatched: int = 8
    hotstart_duplicates: int = 8
    keep_alive: int = 30
    min_keep_alive: int = -1
    max_keep_alive: int = 30
    empty_lowers_keep_alive: bool = False
    hide_unmatched: bool = False
    recondition_every: int = 16
    recondition_score: float = 0.8
    recondition_iou: float = 0.8
    recondition_on_track_mask: bool = True
    max_absent_frames: int = 300
    max_objects: int = 10_000

    @classmethod
    def from_config(cls, config: Sam3VideoConfig) -> Self:
        """Those of a model."""
        return cls(
            new_track_score=config.new_det_thresh,
            match_iou=config.assoc_iou_thresh,
            confirm_iou=config.trk_assoc_iou_thresh,
            occlusion_iou=config.suppress_overlapping_based_on_recent_occlusion_threshold,
            hotstart_frames=config.hotstart_delay,
            hotstart_unmatched=config.hotstart_unmatch_thresh,
            hotstart_duplicates=config.hotstart_dup_thresh,
            keep_alive=config.init_trk_keep_alive,
            min_keep_alive=config.min_trk_keep_alive,
            max_keep_alive=config.max_trk_keep_alive,
            empty_lowers_keep_alive=config.decrease_trk_keep_alive_for_empty_masklets,
            hide_unmatched=not config.suppress_unmatched_only_within_hotstart,
            recondition_every=config.recondition_every_nth_frame,
            recondition_score=config.high_conf_thresh,
            recondition_iou=config.high_iou_thresh,
            recondition_on_track_mask=config.recondition_on_trk_masks,
            max_objects=config.max_num_objects,
        )

    def with_hotstart(self, frames: int) -> Self:
        """With a hot start of so many frames; its counts shrink with it, and do not grow."""
        return self.limit_hotstart(frames) if frames < self.hotstart_frames else replace(self, hotstart_frames=frames)

    def limit_hotstart(self, frames: int) -> Self:
        """With a hot start of so many frames at most, and its counts in proportion.

        A track is judged from its second frame on, so a hot start of n frames has n - 1 occasions.
        """
        if frames >= self.hotstart_frames:
            return self
        before, after = max(1, self.hotstart_frames - 1), max(0, frames - 1)
        return replace(
            self,
            hotstart_frames=frames,
            hotstart_unmatched=max(1, -(-self.hotstart_unmatched * after // before)),
            hotstart_duplicates=max(1, -(-self.hotstart_duplicates * after // before)),
        )
