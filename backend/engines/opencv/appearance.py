"""Compares, searches and segments objects by appearance, without weights.

Pictures are RGB, boxes in pixels of the full picture.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.tracks.geometry import Box
from backend.tracks.prompts import Point

Pixels = NDArray[np.uint8]
"""Shape (height, width, 3)."""

PATCH_SIDE, VECTOR_SIDE = 48, 16
"""Sides of a look's picture and of what is correlated, which is coarse because real objects bend."""
MARGIN = 0.1
"""Part of the box added on each side: an evenly coloured object is known by its outline."""
SEARCH_OBJECT_SIDE, SEARCH_FRAME_SIDE = 20, 400
"""Pixels: a search shrinks the object to the one and the picture at least to the other."""
SEARCH_SCALES = (0.7, 0.85, 1.0, 1.18, 1.4)
"""Sizes relative to the last that a search tries."""
COLOUR_WEIGHT = 0.7
"""Weight of the colours in a similarity; the rest is the pattern's."""
GRABCUT_SIDE = 240
"""Pixels: GrabCut works on a picture of this longest side."""
MIN_SIDE = 3
"""Pixels: a smaller cut is just the click itself."""
CLICK_RADIUS, LIKELY_RADIUS = 0.012, 0.06
"""Radii, in parts of that side, of what a click makes sure and of what a positive one makes likely."""


@dataclass(frozen=True, slots=True, eq=False)
class Appearance:
    """The content of a box on a frame: a small picture, its correlation vector and its colour histogram."""

    frame: int
    box: Box
    patch: Pixels
    vector: NDArray[np.float64]
    histogram: NDArray[np.float64]


class FrameImage:
    """One frame, with the scaled copies that its tracks share."""

    def __init__(self, frame: int, rgb: Pixels) -> None:
        self.frame, self.rgb = frame, rgb
        self.height, self.width = rgb.shape[:2]
        self._scaled: dict[float, Pixels] = {}

    def scaled(self, scale: float) -> Pixels:
        """A copy as BGR, `scale` times as large."""
        if scale not in self._scaled:
            self._scaled[scale] = np.asarray(cv2.cvtColor(_resize(self.rgb, scale), cv2.COLOR_RGB2BGR), np.uint8)
        return self._scaled[scale]

    def appearance(self, box: Box) -> Appearance:
        """The appearance of a box; outside the picture, edge pixels are repeated."""
        grown = _grow(box)
        x0, y0 = int(np.floor(grown.x0)), int(np.floor(grown.y0))
        x1, y1 = max(int(np.ceil(grown.x1)), x0 + 1), max(int(np.ceil(grown.y1)), y0 + 1)
        rows = np.clip(np.arange(y0, y1), 0, self.height - 1)
        columns = np.clip(np.arange(x0, x1), 0, self.width - 1)
        inside = self.rgb[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if len(rows) > inside.shape[0] or len(columns) > inside.shape[1]:
            inside = inside[np.ix_(rows - rows[0], columns - columns[0])]
        patch = np.asarray(cv2.resize(inside, (PATCH_SIDE, PATCH_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
        small = cv2.resize(patch, (VECTOR_SIDE, VECTOR_SIDE), interpolation=cv2.INTER_AREA).astype(float)
        vector = (small - small.mean(axis=(0, 1))).ravel()
        norm = np.linalg.norm(vector)
        # Noise on an even patch would correlate with anything: below one grey level it counts as nothing.
        return Appearance(self.frame, box, patch, vector / max(norm, VECTOR_SIDE * 3**0.5), _colour_histogram(patch))


def compute_similarity(appearance: Appearance, known: Iterable[Appearance]) -> float:
    """The best similarity with any of the known appearances, 0..1."""
    return max(_compare(appearance, other) for other in known)


def search_frame(picture: FrameImage, last_box: Box, known: Sequence[Appearance]) -> tuple[Box, float] | None:
    """Search the picture for the box most similar to the known appearances, about as large as `last_box`.

    None where the object cannot fit into the picture.
    """
    scale = min(
        SEARCH_OBJECT_SIDE / max(last_box.width, last_box.height),
        SEARCH_FRAME_SIDE / max(picture.width, picture.height),
        1.0,
    )
    thumb = picture.scaled(scale)
    candidates = []
    for appearance in known:
        template = cv2.cvtColor(appearance.patch, cv2.COLOR_RGB2BGR)
        for factor in SEARCH_SCALES:
            wide, high = (
                max(round(side * (1 + 2 * MARGIN) * scale * factor), 4) for side in (last_box.width, last_box.height)
            )
            if high > thumb.shape[0] or wide > thumb.shape[1]:
                continue
            scaled = cv2.resize(template, (wide, high), interpolation=cv2.INTER_AREA)
            match = cv2.matchTemplate(thumb, scaled, cv2.TM_CCOEFF_NORMED)
            _, value, _, (x, y) = cv2.minMaxLoc(np.nan_to_num(match, posinf=0, neginf=0))
            middle_x, middle_y = (x + wide / 2) / scale, (y + high / 2) / scale
            half_x, half_y = last_box.width * factor / 2, last_box.height * factor / 2
            box = Box(middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y)
            candidates.append((value, box))
    candidates.sort(reverse=True)
    scored = [(compute_similarity(picture.appearance(box), known), box) for _, box in candidates[:4]]
    if not scored:
        return None
    score, box = max(scored)
    return box, score


def refine_box(picture: FrameImage, box: Box, known: Sequence[Appearance]) -> Box:
    """Refine a box locally, because a search runs on a small picture."""
    best = _correlate(picture, box, known)
    for step in (0.08, 0.04, 0.02):
        x, y = box.width * step, box.height * step
        moves = [(x, 0, x, 0), (-x, 0, -x, 0), (0, y, 0, y), (0, -y, 0, -y), (-x, -y, x, y), (x, y, -x, -y)]
        for _ in range(4):
            tries = [Box(*(edge + move for edge, move in zip(box, moved, strict=True))) for moved in moves]
            score, closer = max((_correlate(picture, near, known), near) for near in tries)
            if score <= best:
                break
            best, box = score, closer
    return box


def box_from_clicks(rgb: Pixels, points: Sequence[Point], around: Box | None = None) -> Box:
    """Segment the object under the positive points and not under the negative ones, inside a box if given.

    If nothing is found, it is the box itself, or a small one at the positive points.
    """
    height, width = rgb.shape[:2]
    window = _grow(around, 0.25).clip(width, height) if around else Box(0, 0, width, height)
    box = _run_grabcut(rgb, window, points, around)
    if around is None:
        if max(box.width, box.height) <= 4 * CLICK_RADIUS * max(width, height):
            # Little more than the click: a larger guess helps, where it does not take in half the picture.
            wider = _run_grabcut(rgb, window, points, None, 2 * LIKELY_RADIUS)
            box = wider if wider.area <= width * height / 4 else box
        # Once more, close up: the first cut saw the whole picture, and small objects in a few pixels.
        closer = _run_grabcut(rgb, _grow(box, 0.5).clip(width, height), points, _grow(box, 0.1))
        box = closer if min(closer.width, closer.height) >= MIN_SIDE else box
    return box.clip(width, height)


def box_from_mask(mask: NDArray[np.bool_]) -> Box | None:
    """The box around the true pixels; None if there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def mask_from_box(box: Box, height: int, width: int) -> NDArray[np.bool_]:
    """Shape (height, width): true in the box, at least on one pixel."""
    mask = np.zeros((height, width), bool)
    x0, y0 = min(int(max(box.x0, 0)), width - 1), min(int(max(box.y0, 0)), height - 1)
    mask[y0 : max(round(box.y1), y0 + 1), x0 : max(round(box.x1), x0 + 1)] = True
    return mask


def _resize(rgb: Pixels, scale: float) -> Pixels:
    if scale == 1:
        return rgb
    size = tuple(max(round(side * scale), 1) for side in (rgb.shape[1], rgb.shape[0]))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(rgb, size, interpolation=interpolation).astype(np.uint8, copy=False)


def _correlate(picture: FrameImage, box: Box, known: Iterable[Appearance]) -> float:
    vector = picture.appearance(box).vector
    return max(float(vector @ look.vector) for look in known)


def _compare(a: Appearance, b: Appearance) -> float:
    """0..1, mostly by colours: a bent object keeps them, and a horizon alone can correlate at 0.9.

    Bhattacharyya coefficients of unrelated places in one video hardly fall below 0.5, so that is where it starts.
    """
    colours, pattern = (float(a.histogram @ b.histogram) - 0.5) / 0.5, float(a.vector @ b.vector)
    return min(COLOUR_WEIGHT * max(colours, 0.0) + (1 - COLOUR_WEIGHT) * max(pattern, 0.0), 1.0)


def _grow(box: Box, part: float = MARGIN) -> Box:
    x, y = box.width * part, box.height * part
    return Box(box.x0 - x, box.y0 - y, box.x1 + x, box.y1 + y)


def _run_grabcut(
    rgb: Pixels, window: Box, points: Sequence[Point], around: Box | None, near: float = LIKELY_RADIUS
) -> Box:
    """Run GrabCut in a window of the picture; whole pixels of the full picture, more coarse the larger the window."""
    x0, y0, x1, y1 = int(window.x0), int(window.y0), int(np.ceil(window.x1)), int(np.ceil(window.y1))
    scale = min(GRABCUT_SIDE / max(x1 - x0, y1 - y0), 1.0)
    small = np.ascontiguousarray(_resize(rgb[y0:y1, x0:x1], scale))
    spots = [(int((p.x - x0) * scale), int((p.y - y0) * scale), p.positive) for p in points]
    inner = Box(*((edge - start) * scale for edge, start in zip(around, (x0, y0) * 2, strict=True))) if around else None
    mask = _grabcut_seeds(small.shape[0], small.shape[1], spots, inner, near)
    cv2.setRNGSeed(0)  # GrabCut clusters colours from random starts
    try:
        cv2.grabCut(small, mask, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # no pixel is left for the background
        return around or window
    found = _select_clicked_parts(np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)), spots)
    box = box_from_mask(found)
    if box is None:
        return around or window
    return Box(box.x0 / scale + x0, box.y0 / scale + y0, box.x1 / scale + x0, box.y1 / scale + y0)


def _grabcut_seeds(
    height: int, width: int, spots: Sequence[tuple[int, int, bool]], inner: Box | None, near: float
) -> NDArray[np.uint8]:
    """What GrabCut starts from: discs at the clicks are sure, what is near them or in the box is likely."""
    mask = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    side = max(height, width)
    if inner:
        mask[:] = cv2.GC_BGD
        rows, columns = (
            slice(max(round(a), 0), max(round(b), 0)) for a, b in ((inner.y0, inner.y1), (inner.x0, inner.x1))
        )
        mask[rows, columns] = cv2.GC_PR_FGD
    else:
        for x, y, positive in spots:
            if positive:
                cv2.circle(mask, (x, y), round(side * near), cv2.GC_PR_FGD, -1)
    for x, y, positive in spots:
        cv2.circle(mask, (x, y), round(side * CLICK_RADIUS), cv2.GC_FGD if positive else cv2.GC_BGD, -1)
    return mask


def _select_clicked_parts(found: NDArray[np.bool_], spots: Sequence[tuple[int, int, bool]]) -> NDArray[np.bool_]:
    """The connected parts that were clicked on, without whiskers; all of them if none was."""
    opened = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    for parts in (opened, found.astype(np.uint8)):
        _, labels = cv2.connectedComponents(parts)
        height, width = labels.shape
        clicked = {int(labels[min(y, height - 1), min(x, width - 1)]) for x, y, positive in spots if positive} - {0}
        if clicked:
            return np.isin(labels, list(clicked))
    return opened.astype(bool)


def _colour_histogram(patch: Pixels) -> NDArray[np.float64]:
    """Root of the colour histogram in Lab, so that the product of two is their Bhattacharyya coefficient."""
    edge = round(PATCH_SIDE * MARGIN / (1 + 2 * MARGIN))
    lab = cv2.cvtColor(patch[edge:-edge, edge:-edge], cv2.COLOR_RGB2Lab).reshape(-1, 3).astype(int)
    light, red, yellow = lab[:, 0] // 43, *(np.clip((lab[:, channel] - 80) // 8, 0, 11) for channel in (1, 2))
    counts = np.bincount((light * 12 + red) * 12 + yellow, minlength=6 * 12 * 12)
    return np.asarray(np.sqrt(counts / counts.sum()))
