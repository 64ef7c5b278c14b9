"""Tracks one box in one direction with CSRT, and searches for the object when its appearance no longer matches.

CSRT hides its state, so a tracker restarts from its own result on every frame whose number is a multiple of 64. A
restored session replays the frames from the last such restart, the anchor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2

from backend.engines.opencv.appearance import Appearance, FrameImage, compute_similarity, refine_box, search_frame
from backend.tracks.geometry import Box
from backend.tracks.track import ABSENT, Observation

RESTART_EVERY = 64
"""Frames between two restarts of a tracker: the most that a restored session replays."""
REFRESH_EVERY = 8
"""Frames between two updates of a track's recent appearance."""
SEARCH_EVERY = 2
"""Frames between two searches for a lost object."""
MAX_DOUBTFUL_FRAMES = 4
"""Doubtful frames in a row after which a tracker is dropped and the search begins."""
TRUSTED_SIMILARITY, LOST_SIMILARITY, MIN_SEARCH_SIMILARITY = 0.65, 0.55, 0.72
"""Similarities: from which on looks are updated and doubts end, below which they begin, that a search has to reach."""
MIN_PROMPT_SIMILARITY = 0.6
"""Similarity with a prompted appearance below which a frame is doubtful, however much the box looks as it did lately:
a box that the object leaves little by little takes on the looks of the background."""
MIN_VISIBLE_SHARE = 0.55
"""Part of a box that has to be in the picture. Not less: CSRT's boxes stop with their middle on the edge."""
MAX_SIDE, MAX_SCALE = 1280, 2.0
"""The side in pixels that a picture is scaled to for CSRT, and the most that it is enlarged by: CSRT answers in whole
pixels, which are jitter in the track and cost keyframes."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a tracker or a search starts; it determines all later results."""

    frame: int
    box: Box
    recent_appearance: Appearance
    is_lost: bool = False


class _CsrtTracker:
    """OpenCV's tracker on one scaled picture after the other, in pixels of the full picture."""

    def __init__(self, picture: FrameImage, box: Box) -> None:
        self._scale = min(MAX_SIDE / max(picture.width, picture.height), MAX_SCALE)
        params = cv2.TrackerCSRT.Params()
        params.admm_iterations, params.template_size, params.use_segmentation = 2, 180, False
        self._tracker = cv2.TrackerCSRT.create(params)
        # CSRT throws on boxes of a pixel or two and cuts to whole pixels: it tracks `start`, and `box` moves along.
        width, height = (max(round(length * self._scale), 12) for length in (box.width, box.height))
        x, y = (box.x0 + box.x1) / 2 * self._scale - width / 2, (box.y0 + box.y1) / 2 * self._scale - height / 2
        self._start, self._box = (round(x), round(y), width, height), box
        self._tracker.init(picture.scaled(self._scale), self._start)

    def update(self, picture: FrameImage) -> Box | None:
        """The box on the next picture; it may reach outside. None where CSRT itself gives up."""
        try:
            found, (x, y, width, height) = self._tracker.update(picture.scaled(self._scale))
        except cv2.error:
            return None
        if not found or width < 1 or height < 1:
            return None
        x0, y0, width0, height0 = self._start
        half_x, half_y = self._box.width * width / width0 / 2, self._box.height * height / height0 / 2
        shift_x, shift_y = x + width / 2 - x0 - width0 / 2, y + height / 2 - y0 - height0 / 2
        middle_x = (self._box.x0 + self._box.x1) / 2 + shift_x / self._scale
        middle_y = (self._box.y0 + self._box.y1) / 2 + shift_y / self._scale
        return Box(middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y)


class BoxTracker:
    """Tracks one object in one direction; `frame` is the last tracked frame."""

    def __init__(self, anchor: Anchor, at: int | None = None) -> None:
        self.anchor, self.frame = anchor, anchor.frame if at is None else at
        self.tracker: _CsrtTracker | None = None
        self._box, self._recent_appearance, self._is_lost, self._misses = (
            anchor.box,
            anchor.recent_appearance,
            anchor.is_lost,
            0,
        )

    @property
    def needs_start(self) -> bool:
        """Whether the CSRT tracker has to start at the anchor first."""
        return self.tracker is None and not self._is_lost

    def move_anchor(self) -> None:
        """Move the anchor to the current frame; a doubtful track becomes a lost one."""
        self._is_lost, self._misses, self.tracker = self._is_lost or self._misses > 0, 0, None
        self.anchor = Anchor(self.frame, self._box, self._recent_appearance, self._is_lost)

    def start(self, picture: FrameImage) -> None:
        """Start the tracker on the picture of the anchor."""
        try:
            self.tracker = _CsrtTracker(picture, self._box)
        except cv2.error:
            self._is_lost = True

    def advance(self, picture: FrameImage, prompts: Sequence[Appearance]) -> Observation:
        """Track the object on the next frame."""
        self.frame = picture.frame
        # A search uses prompted appearances only: the recent one may have drifted before the object was lost.
        seen = self._search(picture, prompts) if self._is_lost else self._track(picture, prompts)
        if self._is_lost or self.frame % RESTART_EVERY == 0:
            self.move_anchor()
            if self.needs_start:
                self.start(picture)
        return seen

    def _track(self, picture: FrameImage, prompts: Sequence[Appearance]) -> Observation:
        box = self.tracker.update(picture) if self.tracker else None
        visible = box.clip(picture.width, picture.height) if box else None
        if box is None or visible is None or visible.area < MIN_VISIBLE_SHARE * box.area:
            self._is_lost = True
            return ABSENT
        appearance = picture.appearance(box)
        prompted = compute_similarity(appearance, prompts)
        recent = compute_similarity(appearance, [self._recent_appearance])
        score = max(prompted, (prompted + recent) / 2)
        if prompted < MIN_PROMPT_SIMILARITY or score < (TRUSTED_SIMILARITY if self._misses else LOST_SIMILARITY):
            self._misses += 1
            self._is_lost = self._misses > MAX_DOUBTFUL_FRAMES
            # For a frame or two the object may look as it did lately, and not as it was prompted.
            return Observation(visible if recent >= TRUSTED_SIMILARITY and self._misses <= 2 else None, score)
        self._box, self._misses = box, 0
        if self.frame % REFRESH_EVERY == 0 and prompted >= TRUSTED_SIMILARITY and visible.area > 0.9 * box.area:
            self._recent_appearance = appearance
        return Observation(visible, score)

    def _search(self, picture: FrameImage, known: Sequence[Appearance]) -> Observation:
        match = search_frame(picture, self._box, known) if self.frame % SEARCH_EVERY == 0 else None
        if match is None or match[1] < MIN_SEARCH_SIMILARITY:
            return Observation(None, min(match[1], LOST_SIMILARITY) if match else 0.0)
        self._box, self._is_lost = refine_box(picture, match[0], known), False
        self.move_anchor()
        self.start(picture)
        return Observation(self._box.clip(picture.width, picture.height), match[1])
