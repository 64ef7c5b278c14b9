"""Shapes as X-AnyLabeling draws them, in pixels of the picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.datasets.polygons import mask_polygons, simplify_polygon
from backend.labelstudio.json_values import read_number
from backend.tracks.track import Observation


@dataclass(frozen=True, slots=True)
class ShapeOptions:
    """What the client's sliders and switches say.

    Attributes:
        min_score: shapes with a lower score are left out.
        epsilon: how far a polygon may leave the mask's outline, as a share of its length.
        polygons: false: rectangles.
    """

    min_score: float = 0.0
    epsilon: float = 0.001
    polygons: bool = True

    @classmethod
    def from_params(cls, params: object) -> "ShapeOptions":
        """Read the field `params` of a request; what is missing or no number has its default."""
        values = params if isinstance(params, Mapping) else {}
        score, epsilon = read_number(values.get("conf_threshold")), read_number(values.get("epsilon_factor"))
        return cls(
            0.0 if score is None else min(max(score, 0.0), 1.0),
            0.001 if epsilon is None else min(max(epsilon, 0.0), 0.1),
            values.get("show_masks") is not False,
        )


def build_shapes(seen: Observation, label: str, group_id: int, options: ShapeOptions) -> list[dict[str, Any]]:
    """The shapes of one object on one frame: a polygon for each part of its mask, or a rectangle."""
    if seen.box is None or seen.score < options.min_score:
        return []
    shape = {"label": label, "score": round(float(seen.score), 4), "group_id": group_id}
    outlines = mask_polygons(seen.mask) if seen.mask and options.polygons else []
    if not outlines:
        x0, y0, x1, y1 = map(float, seen.box)
        return [shape | {"shape_type": "rectangle", "points": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]}]
    polygons = [simplify_polygon(outline, options.epsilon).round(2).tolist() for outline in outlines]
    return [shape | {"shape_type": "polygon", "points": [*points, points[0]]} for points in polygons]
