"""The cache of what the vision encoder has seen."""

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
def vision() -> Iterator[Callable[..., Sam3ImageEncoder]]:
    with torch.inference_mode():
        yield lambda frames=9, room=9: Sam3ImageEncoder(
            scenes.engine().model.image_encoder._model, frames, int(room * SIZE)
        )


def passes(vision: Sam3ImageEncoder, *keys: object) -> int:
    """How many of these keys it had to encode."""
    before = vision.runs
    for key in keys:
        vision.encode(key, PICTURE)
    return vision.runs - before


def test_a_frame_is_seen_once(vision):
    one = vision()
    assert passes(one, 1, 2, 1, 2) == 2
    assert torch.equal(one.encode(1, PICTURE).hidden, one.encode(2, PICTURE).hidden)
    assert one.encode(1, PICTURE).hidden.nbytes == SIZE


def test_frames_of_different_videos_do_not_mix(vision):
    one, first, second = vision(), object(), object()
    seen = one.encode((first, 0), PICTURE).hidden
    assert not torch.equal(one.encode((second, 0), 255 - PICTURE).hidden, seen)
    assert torch.equal(one.encode((first, 0), PICTURE).hidden, seen)
    assert one.runs == 2


@pytest.mark.parametrize("bounds", [{"frames": 3}, {"room": 3}], ids=str)
def test_the_longest_unused_goes_first(vision, bounds):
    one = vision(**bounds)
    assert passes(one, 1, 2, 3, 1, 4) == 4
    assert passes(one, 1, 3, 4) == 0
    assert passes(one, 2) == 1


def test_it_takes_no_more_bytes_than_it_may_and_keeps_one_frame_at_least(vision):
    one = vision(room=2.5)
    passes(one, *range(9))
    assert one._bytes == sum(hidden.nbytes for (hidden,) in one._outputs.values()) == 2 * SIZE
    one = vision(room=0)
    assert passes(one, 1, 1) == 1
    assert passes(one, 2, 1) == 2


def test_a_frame_that_two_look_at_at_once_is_counted_once(vision, monkeypatch):
    one, run = vision(), Sam3ImageEncoder._encode

    def meanwhile(self: Sam3ImageEncoder, picture: np.ndarray) -> tuple[torch.Tensor, ...]:
        monkeypatch.setattr(Sam3ImageEncoder, "_encode", run)
        one.encode(1, PICTURE)
        return run(self, picture)

    monkeypatch.setattr(Sam3ImageEncoder, "_encode", meanwhile)
    one.encode(1, PICTURE)
    assert one.runs == 2
    assert one._bytes == SIZE


def test_cleared_it_starts_anew(vision):
    one = vision()
    passes(one, 1, 2)
    one.clear()
    assert one._bytes == 0
    assert passes(one, 1) == 1


def failing(times: int, run: Callable) -> Callable:
    """An encoder that is out of memory so many times."""

    def encode(self: Sam3ImageEncoder, picture: np.ndarray) -> tuple[torch.Tensor, ...]:
        nonlocal times
        times -= 1
        if times >= 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, picture)

    return encode


def test_out_of_memory_it_lets_go_of_what_it_has_and_tries_once_more(vision, monkeypatch):
    one = vision()
    passes(one, 1, 2)
    seen = one.encode(1, PICTURE).hidden
    monkeypatch.setattr(Sam3ImageEncoder, "_encode", failing(1, Sam3ImageEncoder._encode))
    assert torch.equal(one.encode(3, PICTURE).hidden, seen)
    assert list(one._outputs) == [3]
    assert one._bytes == SIZE


def test_without_room_for_one_frame_it_gives_up_and_may_be_asked_again(vision, monkeypatch):
    one = vision()
    monkeypatch.setattr(Sam3ImageEncoder, "_encode", failing(2, Sam3ImageEncoder._encode))
    with pytest.raises(torch.OutOfMemoryError):
        one.encode(1, PICTURE)
    assert passes(one, 1) == 1


def test_under_autocast_it_keeps_half_the_bytes(vision):
    one = vision()
    with torch.autocast("cpu", torch.bfloat16):
        hidden = one.encode(1, PICTURE).hidden
    assert hidden.dtype == torch.bfloat16
    assert one._bytes == SIZE // 2
