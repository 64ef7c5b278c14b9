"""The thresholds of the association of detections with tracks."""

from dataclasses import dataclass, replace
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds of the association; the defaults are those of the published model.

    Attributes:
        new_track_score: minimum score of a detection to start a track; ignored while there are no tracks.
        match_iou: IoU from which a detection matches a track and starts none.
        confirm_iou: IoU from which a detection confirms a track.
        duplicate_iou: IoU from which objects of different phrases are the same object.
        occlusion_iou: IoU from which a track is occluded by another of its phrase, occluded less recently; 0: never.
        hotstart_frames: frames within which a new track may be removed as false.
        hotstart_unmatched: frames without a detection, within the hot start, that remove a track.
        hotstart_duplicates: frames on one detection with an older track, within the hot start, that remove a track.
        keep_alive: initial counter of a track. A matched frame adds one, an unmatched frame subtracts one.
        min_keep_alive, max_keep_alive: bounds of the counter.
        empty_lowers_keep_alive: whether frames with an empty mask subtract one as well.
        hide_unmatched: whether tracks with a counter of 0 or less are hidden.
        recondition_every: interval in frames of reconditioning by detections; 0: never.
        recondition_score: minimum score of the detection and logit of the track for it.
        recondition_iou: minimum IoU for it.
        recondition_on_track_mask: encode the track's own mask instead of the detection's.
        max_absent_frames: frames in a row with an empty mask that end a track. Not in Transformers, where objects that
            left a long video go on using time and count towards `max_objects`.
        max_objects: maximum number of tracks at a time.
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
    def from_config(cls, config: Any) -> Self:
        """Read the configuration of a SAM 3 model, `transformers.Sam3VideoConfig`."""
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
        """With a hot start of so many frames; a shorter one lowers its counts as well, a longer one keeps them."""
        return self.limit_hotstart(frames) if frames < self.hotstart_frames else replace(self, hotstart_frames=frames)

    def limit_hotstart(self, frames: int) -> Self:
        """With a hot start of at most so many frames, and its counts in proportion.

        A track is checked from its second frame on, so a hot start of n frames has n - 1 checks.
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
