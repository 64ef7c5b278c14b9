"""The vision encoder runs once for each frame that the cache holds."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from backend.engines.sam3.image_encoder import Sam3ImageEncoder
from tests.engines.sam import scenes
from tests.engines.sam3 import tiny

PICTURE = np.full((40, 60, 3), 90, np.uint8)
SIZE = 4 * 32 * (tiny.IMAGE // tiny.PATCH) ** 2
"""Bytes of one frame."""


@pytest.fixture
def vision() -> Iterator[Sam3ImageEncoder]:
    with torch.inference_mode():
        yield Sam3ImageEncoder(scenes.engine().model.image_encoder._model)


def passes(vision: Sam3ImageEncoder, *frames: int) -> int:
    """How many of these frames it had to encode."""
    before = vision.runs
    for frame in frames:
        vision.encode("video", frame, lambda: PICTURE)
    return vision.runs - before


def test_a_frame_is_seen_once(vision):
    assert passes(vision, 1, 2, 1, 2) == 2
    one, two = (vision.encode("video", frame, lambda: PICTURE).hidden for frame in (1, 2))
    assert torch.equal(one, two)
    assert one.nbytes == SIZE
    assert vision.cache.use().device_bytes == 2 * SIZE


def test_frames_of_different_videos_do_not_mix(vision):
    first, second = object(), object()
    seen = vision.encode(first, 0, lambda: PICTURE).hidden
    assert not torch.equal(vision.encode(second, 0, lambda: 255 - PICTURE).hidden, seen)
    assert torch.equal(vision.encode(first, 0, lambda: PICTURE).hidden, seen)
    assert vision.runs == 2


def test_sessions_that_stand_on_one_frame_share_it_without_a_cache(vision):
    vision.cache.resize(0, 0)
    features = vision.encode("video", 1, lambda: PICTURE)
    assert vision.encode("video", 1, lambda: PICTURE) is features
    assert passes(vision, 2, 1) == 2


def test_cleared_it_starts_anew(vision):
    passes(vision, 1, 2)
    vision.clear()
    assert vision.cache.use().frames == 0
    assert passes(vision, 2) == 1


def failing(times: int, run: Callable) -> Callable:
    """An encoder that is out of memory so many times."""

    def encode(self: Sam3ImageEncoder, picture: np.ndarray) -> tuple[torch.Tensor, ...]:
        nonlocal times
        times -= 1
        if times >= 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, picture)

    return encode


def test_out_of_memory_it_lets_go_of_what_it_has_and_tries_again(vision, monkeypatch):
    passes(vision, 1, 2)
    seen = vision.encode("video", 1, lambda: PICTURE).hidden
    monkeypatch.setattr(Sam3ImageEncoder, "_encode", failing(2, Sam3ImageEncoder._encode))
    assert torch.equal(vision.encode("video", 3, lambda: PICTURE).hidden, seen)
    assert vision.cache.use().frames == 1


def test_without_room_for_one_frame_it_gives_up_and_may_be_asked_again(vision, monkeypatch):
    monkeypatch.setattr(Sam3ImageEncoder, "_encode", failing(1, Sam3ImageEncoder._encode))
    with pytest.raises(torch.OutOfMemoryError):
        vision.encode("video", 1, lambda: PICTURE)
    assert passes(vision, 1) == 1


def test_under_autocast_it_keeps_half_the_bytes(vision):
    with torch.autocast("cpu", torch.bfloat16):
        hidden = vision.encode("video", 1, lambda: PICTURE).hidden
    assert hidden.dtype == torch.bfloat16
    assert vision.cache.use().device_bytes == SIZE // 2
