"""Objects go through the tracker together, in as large batches as the device has room for."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import varlen

from backend.engines.sam import memory_attention
from backend.engines.sam.memory_bank import MemorySelection, MemoryWindow
from backend.engines.sam.tracker import MAX_BATCH, Tracker
from tests.engines.sam import scenes
from tests.engines.sam.packed_attention import attend_packed

COUNT = 5


@pytest.fixture(scope="module")
def scene() -> Iterator[SimpleNamespace]:
    """A view, and five objects that look at different numbers of frames and pointers."""
    sam3, video = scenes.engine().model, scenes.short(3)
    tracker = Tracker(sam3.image_encoder._model.tracker_model)
    reach = tracker.memory_window(30)
    with torch.inference_mode():
        views = [sam3.image_encoder.encode(video.key, frame, partial(video.read, frame)) for frame in range(len(video))]
        histories = []
        for index in range(COUNT):
            point, label = torch.tensor([[20.0 * index + 10, 50.0]]), torch.ones(1, dtype=torch.int32)
            shown = [tracker.prompt(view, point, label, None, None, reach) for view in views[: 1 + index % 2]]
            pointers = [masks.object_pointers[0] for masks, _ in shown][: index % 3]
            ages = [0, 1][: len(shown)]
            histories.append(
                MemorySelection(
                    [features[0] for _, features in shown], ages, pointers, [1 + at for at in range(len(pointers))]
                )
            )
        yield SimpleNamespace(model=sam3.image_encoder._model, view=views[2], histories=histories, reach=reach)


@pytest.fixture
def tracker(scene) -> Iterator[Tracker]:
    with torch.inference_mode():
        yield Tracker(scene.model.tracker_model)


def tracked(tracker: Tracker, scene: SimpleNamespace, histories: list[MemorySelection] | None = None) -> list[Tensor]:
    """Everything that the tracker says: masks, scores, pointers and what to remember."""
    found = tracker.track(scene.view, histories or scene.histories, scene.reach)
    return [*found, tracker.encode_memory(scene.view, found.logits, found.object_scores, full_size=True).float()]


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        # Memories are rounded to bfloat16: one step of it for what is as large as 2.
        torch.testing.assert_close(one, other, atol=2e-2, rtol=1e-2)


def test_objects_with_different_histories_equal_each_one_alone(tracker, scene):
    alone = [tracked(tracker, scene, [history]) for history in scene.histories]
    together = tracked(tracker, scene)
    assert_close(together, [torch.cat(parts) for parts in zip(*alone, strict=True)])
    masks = together[0]
    assert all((masks[one] - masks[other]).abs().max() > 0.1 for one in range(COUNT) for other in range(one))


def test_with_flash_attention_objects_of_any_history_attend_in_one_call(tracker, scene, monkeypatch):
    apart, calls = tracked(tracker, scene), list[list[int]]()

    def attend(*arguments: Any, scale: float) -> Tensor:
        calls.append(arguments[4].tolist())
        return attend_packed(*arguments, scale=scale)

    monkeypatch.setattr(memory_attention, "fits_flash", lambda *_: True)
    monkeypatch.setattr(varlen, "varlen_attn", attend)
    tracker.prefers_flash = True
    assert_close(tracked(tracker, scene), apart)
    assert len(calls) == len(scene.model.tracker_model.memory_attention.layers)
    assert len({end - start for start, end in pairwise(calls[0])}) > 2


def test_a_quality_is_the_expected_iou_times_how_sure_it_is_of_the_object(tracker, scene):
    points, labels = torch.tensor([[30.0, 50.0]]), torch.ones(1, dtype=torch.int32)
    masks, _ = tracker.prompt(scene.view, points, labels, None, None, scene.reach)
    said = scene.model.tracker_model._single_frame_forward(
        input_points=points[None, None],
        input_labels=labels[None, None],
        image_embeddings=[*scene.view.fpn_levels[:-1], tracker._add_no_memory(scene.view)],
        multimask_output=True,
    )
    sure = said.object_score_logits.sigmoid() * 2 - 1
    assert sure > 0
    torch.testing.assert_close(masks.eff_iou_scores, (sure * said.iou_scores.amax(-1)).flatten())
    gone = tracker.use_masks(scene.view, torch.zeros(1, tracker.image_size, tracker.image_size))[0]
    assert gone.eff_iou_scores.tolist() == [0.0]


def room_for(patch: pytest.MonkeyPatch, part: Any, most: int, size: Callable[..., int]) -> list[int]:
    """Let a part of the model fail for more than so many objects; the numbers that it was asked for."""
    asked: list[int] = []
    forward = part.forward

    def checked(*args: Any, **kwargs: Any) -> Any:
        asked.append(size(*args, **kwargs))
        if asked[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    patch.setattr(part, "forward", checked)
    return asked


PARTS = {
    "decoder": (lambda model: model.mask_decoder, lambda **inputs: len(inputs["image_embeddings"])),
    "memory encoder": (lambda model: model.memory_encoder, lambda _, masks: len(masks)),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("most", [1, 2])
def test_out_of_memory_it_goes_on_with_fewer_objects_at_a_time(tracker, scene, monkeypatch, caplog, part, most):
    expected = tracked(tracker, scene)
    find, size = PARTS[part]
    asked = room_for(monkeypatch, find(scene.model.tracker_model), most, size)
    # As from the whole batch in one group.
    histories = [scene.histories[1]] * 3
    whole = [tensor[1:2].expand(3, *tensor.shape[1:]) for tensor in expected]
    with caplog.at_level(logging.WARNING):
        assert_close(tracked(tracker, scene, histories), whole)
    assert max(asked) == 3
    assert tracker.batches.size == most
    assert f"continuing with {most} objects at a time" in caplog.text
    asked.clear()
    tracked(tracker, scene, histories)
    assert max(asked) <= most


def test_out_of_memory_what_is_cached_and_not_in_use_is_given_back_before_the_next_try(tracker, scene, monkeypatch):
    find, size = PARTS["decoder"]
    asked, given_back = room_for(monkeypatch, find(scene.model.tracker_model), 1, size), []
    monkeypatch.setattr("backend.engines.sam.device.empty_cache", lambda: given_back.append(asked[-1]))
    tracked(tracker, scene, [scene.histories[1]] * 3)
    assert given_back == [3, 2]


@pytest.mark.parametrize("part", PARTS)
def test_without_room_for_one_object_it_gives_up_and_may_be_asked_again(tracker, scene, monkeypatch, part):
    find, size = PARTS[part]
    with monkeypatch.context() as patch:
        room_for(patch, find(scene.model.tracker_model), 0, size)
        with pytest.raises(torch.OutOfMemoryError):
            tracked(tracker, scene)
    assert len(tracked(tracker, scene)[0]) == COUNT


def test_masks_that_are_given_go_through_in_batches_too(tracker, scene, monkeypatch):
    paper = torch.zeros(3, 112, 112)
    for index in range(3):
        paper[index, 10 * index : 40 + 10 * index, 20:60] = 1
    expected, features = tracker.use_masks(scene.view, paper)
    find, size = PARTS["decoder"]
    room_for(monkeypatch, find(scene.model.tracker_model), 2, size)
    found, again = tracker.use_masks(scene.view, paper)
    assert_close([*found, again.float()], [*expected, features.float()])
    assert found.object_scores.tolist() == [10, 10, 10]
    for mask, painted in zip(found.logits > 0, paper, strict=True):
        assert float(mask.float().mean()) == pytest.approx(float(painted.mean()), rel=0.1)


def test_an_empty_mask_that_is_given_is_of_an_object_that_is_not_there(tracker, scene):
    masks = torch.zeros(2, 112, 112)
    masks[1, 30:60, 30:60] = 1
    found, _ = tracker.use_masks(scene.view, masks)
    nobody = scene.model.tracker_model.no_object_pointer[0]
    assert found.object_scores.tolist() == [-10, 10]
    assert torch.equal(found.object_pointers[0], nobody)
    assert not torch.equal(found.object_pointers[1], nobody)


def test_a_mask_that_is_corrected_is_fed_back_clamped(tracker, scene, monkeypatch):
    fed = []
    encoder = scene.model.tracker_model.prompt_encoder
    forward = encoder.forward

    def spy(**inputs: Any) -> Any:
        fed.append(inputs["input_masks"])
        return forward(**inputs)

    monkeypatch.setattr(encoder, "forward", spy)
    point, label = torch.tensor([[50.0, 50.0]]), torch.ones(1, dtype=torch.int32)
    previous = torch.linspace(-1024, 90, 32 * 32).view(32, 32)
    first, _ = tracker.prompt(scene.view, point, label, None, None, scene.reach)
    second, _ = tracker.prompt(scene.view, point, label, previous, None, scene.reach)
    fed = fed[-1:]
    assert torch.equal(fed[0][0, 0], previous.clamp(-32, 32))
    assert not torch.equal(first.logits, second.logits)


@pytest.mark.parametrize("points", [0, 1, 2])
@pytest.mark.parametrize("is_tracking", [False, True])
def test_where_a_prompt_is_ambiguous_the_best_of_several_masks_is_taken(tracker, scene, points, is_tracking):
    config = scene.model.config.tracker_config
    assert (config.multimask_min_pt_num, config.multimask_max_pt_num) == (0, 1)
    expected = points <= 1 and (not is_tracking or config.multimask_output_for_tracking)
    assert tracker._use_multimask(points, is_tracking=is_tracking) is expected


@pytest.mark.parametrize(("frames", "pointers"), [(4, 4), (16, 16), (500, 16)])
def test_it_looks_no_further_than_the_video_is_long(tracker, frames, pointers):
    assert tracker.memory_window(frames) == MemoryWindow(6, pointers, 4, 0.01, True)


def test_an_object_that_is_not_there_has_an_empty_mask_and_no_pointer(tracker, scene, monkeypatch):
    head = scene.model.tracker_model.mask_decoder.pred_obj_score_head
    monkeypatch.setattr(head, "forward", lambda tokens: -torch.ones(*tokens.shape[:-1], 1))
    found = tracker.track(scene.view, scene.histories, scene.reach)
    assert found.logits.max() == -1024
    assert torch.equal(found.object_pointers, scene.model.tracker_model.no_object_pointer.expand(COUNT, -1))
    assert found.object_scores.tolist() == [-1] * COUNT


def test_batches_start_at_the_published_size(tracker):
    assert tracker.batches.size == MAX_BATCH
