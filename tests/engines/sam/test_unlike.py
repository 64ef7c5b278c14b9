"""What negative exemplars leave out."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from backend.engines.sam.detections import Detections, Query
from backend.engines.sam.unlike import drop_unlike
from backend.tracks.geometry import Box
from backend.tracks.prompts import Exemplar

PLACES = (0, 4, 8, 12)
LIKE, UNLIKE = Exemplar(Box(0, 0.25, 0.25, 0.75)), Exemplar(Box(0.5, 0.25, 0.75, 0.75), positive=False)


def detections(phrases: Sequence[int] = (0, 0, 0, 0)) -> Detections:
    """A square at each of the four places in a row."""
    logits = torch.full((4, 8, 16), -5.0)
    for row, x in enumerate(PLACES):
        logits[row, 2:6, x : x + 4] = 5
    return Detections.select(logits, torch.full((4,), 0.9), torch.tensor(phrases), logits[:2])


def looks(*angles: float) -> Callable[[Tensor], Tensor]:
    """Describes the four objects, then the exemplars, by angles."""

    def describe(masks: Tensor) -> Tensor:
        assert len(masks) == len(angles)
        assert masks.any(2).any(1).all()
        angle = torch.tensor(angles)
        return 3 * torch.stack([angle.cos(), angle.sin()], 1)

    return describe


def places(found: Detections) -> list[int]:
    return [int(mask.any(0).nonzero()[0, 0]) // 4 for mask in found.logits > 0]


def test_what_looks_more_like_a_negative_exemplar_goes() -> None:
    query = Query("", (LIKE, UNLIKE))
    assert places(drop_unlike(detections(), [query], looks(0.0, 0.4, 1.0, 0.6, 0.0, 1.0))) == [0, 1]
    assert places(drop_unlike(detections(), [query], looks(0.0, 0.6, 1.0, 0.4, 0.0, 1.0))) == [0, 3]


def test_the_nearest_of_several_exemplars_counts() -> None:
    query = Query("", (LIKE, UNLIKE, Exemplar(Box(0.75, 0.25, 1, 0.75))))
    assert places(drop_unlike(detections(), [query], looks(0.0, 0.7, 1.0, 0.6, 0.0, 1.0, 0.6))) == [0, 1, 3]
    assert places(drop_unlike(detections(), [query], looks(0.0, 0.9, 1.0, 0.6, 0.0, 1.0, 0.6))) == [0, 3]


def test_the_object_of_a_positive_exemplar_stays_and_that_of_a_negative_one_goes() -> None:
    query = Query("", (LIKE, UNLIKE))
    assert places(drop_unlike(detections(), [query], looks(1.0, 1.0, 0.0, 0.0, 0.0, 1.0))) == [0, 3]


def test_words_without_a_positive_exemplar_lose_only_what_is_marked() -> None:
    assert places(drop_unlike(detections(), [Query("ball", (UNLIKE,))], looks(*[1.0] * 5))) == [0, 1, 3]


def test_another_query_is_not_changed() -> None:
    queries = [Query("", (LIKE, UNLIKE)), Query("ball")]
    found = drop_unlike(detections((0, 0, 1, 1)), queries, looks(0.0, 1.0, 1.0, 1.0, 0.0, 1.0))
    assert places(found) == [0, 2, 3]
    assert found.phrases.tolist() == [0, 1, 1]
    kept = [0, 2, 3, 4, 5]
    assert found.ious.tolist() == detections().ious[kept][:, kept].tolist()


@pytest.mark.parametrize("exemplars", [(), (LIKE,)])
def test_without_a_negative_exemplar_nothing_is_looked_at(exemplars: tuple[Exemplar, ...]) -> None:
    found = detections()
    assert drop_unlike(found, [Query("ball", exemplars)], lambda _: pytest.fail("it was")) is found


def test_a_box_smaller_than_a_pixel_at_the_edge_is_one_of_a_pixel() -> None:
    tiny = Exemplar(Box(0.999, 0.999, 1, 1), positive=False)
    assert places(drop_unlike(detections(), [Query("", (LIKE, tiny))], looks(*[0.0] * 5, 1.0))) == [0, 1, 2, 3]
