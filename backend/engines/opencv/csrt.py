"""One track on its way through the frames in one direction: CSRT carries it, its looks tell when it is lost.

CSRT hides its state, so a tracker starts anew from its own answer on every frame whose number is a multiple of 64. What
a track can be gone on with is its last such start, the anchor, and silent tracking from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2

from backend.engines.opencv.appearance import Look, Picture, refined, search, similarity
from backend.tracks.geometry import Box
from backend.tracks.track import ABSENT, Observation

RESTART = 64
"""Frames between two restarts of a tracker, hence the most that a restored session repeats."""
REFRESH = 8
"""Frames between two updates of a track's recent look."""
SEARCH = 2
"""Frames between two searches for a lost object."""
PATIENCE = 4
"""Doubtful frames in a row after which a tracker is dropped and the search begins."""
TRUSTED, LOST, FOUND = 0.65, 0.55, 0.72
"""Similarities: from which on looks are updated and doubts end, below which they begin, that a search has to reach."""
INSIDE = 0.55
"""Part of a box that has to be in the picture. Not less: CSRT's boxes stop with their middle on the edge."""
LONGEST, LARGEST_SCALE = 1280, 2.0
"""The side in pixels that a picture is scaled to for CSRT, and the most that it is enlarged by: CSRT answers in whole
pixels, which are jitter in the track and cost keyframes."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """What determines all later answers of a track: a tracker that starts here, or a search."""

    frame: int
    box: Box
    recent: Look
    lost: bool = False


class _Tracker:
    """OpenCV's tracker on one scaled picture after the other, in pixels of the full picture."""

    def __init__(self, picture: Picture, box: Box) -> None:
        self._scale = min(LONGEST / max(picture.width, picture.height), LARGEST_SCALE)
        params = cv2.TrackerCSRT.Params()
        params.admm_iterations, params.template_size, params.use_segmentation = 2, 180, False
        self._tracker = cv2.TrackerCSRT.create(params)
        # CSRT throws on boxes of a pixel or two and cuts to whole pixels: it tracks `start`, and `box` moves along.
        width, height = (max(round(length * self._scale), 12) for length in (box.width, box.height))
        x, y = (box.x0 + box.x1) / 2 * self._scale - width / 2, (box.y0 + box.y1) / 2 * self._scale - height / 2
        self._start, self._box = (round(x), round(y), width, height), box
        self._tracker.init(picture.scaled(self._scale), self._start)

    def update(self, picture: Picture) -> Box | None:
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


class Carry:
    """One track on its way in one direction; `at` is the last frame it answered for."""

    def __init__(self, anchor: Anchor, at: int | None = None) -> None:
        self.anchor, self.at = anchor, anchor.frame if at is None else at
        self.tracker: _Tracker | None = None
        self._box, self._recent, self._lost, self._misses = anchor.box, anchor.recent, anchor.lost, 0

    @property
    def stale(self) -> bool:
        """Whether its tracker has to start at its anchor before it can go on."""
        return self.tracker is None and not self._lost

    def settle(self) -> None:
        """Make the present the anchor, so that nothing before it matters; a doubtful track becomes a lost one."""
        self._lost, self._misses, self.tracker = self._lost or self._misses > 0, 0, None
        self.anchor = Anchor(self.at, self._box, self._recent, self._lost)

    def start(self, picture: Picture) -> None:
        """Start the tracker on the picture of the anchor."""
        try:
            self.tracker = _Tracker(picture, self._box)
        except cv2.error:
            self._lost = True

    def advance(self, picture: Picture, prompts: Sequence[Look]) -> Observation:
        """Answer for the next frame."""
        self.at = picture.frame
        # What a search believes in is what a person showed: the recent look may have drifted before it was lost.
        seen = self._seek(picture, prompts) if self._lost else self._follow(picture, [*prompts, self._recent])
        if self._lost or self.at % RESTART == 0:
            self.settle()
            if self.stale:
                self.start(picture)
        return seen

    def _follow(self, picture: Picture, known: Sequence[Look]) -> Observation:
        box = self.tracker.update(picture) if self.tracker else None
        visible = box.clipped(picture.width, picture.height) if box else None
        if box is None or visible is None or visible.area < INSIDE * box.area:
            self._lost = True
            return ABSENT
        look = picture.look(box)
        score = similarity(look, known)
        if score < (TRUSTED if self._misses else LOST):
            self._misses += 1
            self._lost = self._misses > PATIENCE
            return Observation(None, score)
        self._box, self._misses = box, 0
        if self.at % REFRESH == 0 and score >= TRUSTED and visible.area > 0.9 * box.area:
            self._recent = look
        return Observation(visible, score)

    def _seek(self, picture: Picture, known: Sequence[Look]) -> Observation:
        found = search(picture, self._box, known) if self.at % SEARCH == 0 else None
        if found is None or found[1] < FOUND:
            return Observation(None, min(found[1], LOST) if found else 0.0)
        self._box, self._lost = refined(picture, found[0], known), False
        self.settle()
        self.start(picture)
        return Observation(self._box.clipped(picture.width, picture.height), found[1])
