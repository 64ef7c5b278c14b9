"""What is kept of frames, within its two budgets."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.engines.sam.feature_cache import FeatureCache, Output

SIZE = 4 * 4 + 8 * 2
"""Bytes of one frame."""


def features(frame: int) -> Output:
    return torch.full((4,), frame, dtype=torch.float32), torch.full((8,), frame, dtype=torch.bfloat16)


def cache_of(frames: int, on_host: int = 0) -> FeatureCache:
    return FeatureCache(frames * SIZE, on_host * SIZE)


def fill(cache: FeatureCache, video: str, frames: range) -> None:
    for frame in frames:
        cache.put(video, frame, features(frame))


def held(cache: FeatureCache, video: str, count: int) -> list[int]:
    """The frames of a video that a cache holds, without using them."""
    tiers = (cache._device, cache._host)
    return [frame for frame in range(count) if any(frame in tier._videos.get(video, ()) for tier in tiers)]


def test_the_frame_that_was_unused_for_longest_goes_first() -> None:
    cache = cache_of(3)
    fill(cache, "a", range(3))
    assert cache.get("a", 0) is not None
    fill(cache, "a", range(3, 4))
    assert held(cache, "a", 4) == [0, 2, 3]
    assert cache.get("a", 1) is None
    assert (cache.hits, cache.misses) == (1, 1)


def test_the_video_that_was_unused_for_longest_goes_first_whatever_its_frames() -> None:
    cache = cache_of(6)
    fill(cache, "a", range(3))
    fill(cache, "b", range(3))
    assert cache.get("a", 2) is not None
    fill(cache, "c", range(3))
    assert (held(cache, "a", 3), held(cache, "b", 3)) == ([0, 1, 2], [])
    fill(cache, "c", range(3, 5))
    assert (held(cache, "a", 3), held(cache, "c", 5)) == ([2], [0, 1, 2, 3, 4])


def test_a_frame_moves_to_the_host_before_it_is_dropped_and_comes_back_unchanged() -> None:
    cache = cache_of(2, on_host=3)
    fill(cache, "a", range(6))
    assert held(cache, "a", 6) == [1, 2, 3, 4, 5]
    use = cache.use()
    assert (use.frames, use.device_bytes, use.host_bytes) == (5, 2 * SIZE, 3 * SIZE)
    found = cache.get("a", 1)
    assert found is not None
    assert [(part.dtype, part.tolist()) for part in found] == [(torch.float32, [1] * 4), (torch.bfloat16, [1] * 8)]
    assert sorted(cache._device._videos["a"]) == [1, 5]
    assert held(cache, "a", 6) == [1, 2, 3, 4, 5]


def test_where_memory_runs_out_half_of_it_is_freed_until_nothing_is_left() -> None:
    cache = cache_of(8, on_host=1)
    fill(cache, "a", range(8))
    left = []
    while cache.give_way():
        left.append(cache.use().device_bytes // SIZE)
    assert left == [4, 2, 1, 0]
    assert held(cache, "a", 8) == [7]
    fill(cache, "a", range(9))
    assert cache.use().device_bytes == 8 * SIZE


def test_without_a_share_it_keeps_nothing() -> None:
    cache = cache_of(0)
    fill(cache, "a", range(2))
    assert cache.use().frames == 0
    assert not cache.give_way()


@given(
    st.integers(0, 4),
    st.integers(0, 4),
    st.lists(st.tuples(st.sampled_from("pgw"), st.sampled_from("ab"), st.integers(0, 5)), max_size=40),
)
def test_whatever_happens_it_knows_what_it_holds_and_holds_no_more_than_it_may(
    frames: int, on_host: int, steps: list[tuple[str, str, int]]
) -> None:
    cache = cache_of(frames, on_host)
    for kind, video, frame in steps:
        if kind == "p":
            cache.put(video, frame, features(frame))
        elif kind == "w":
            cache.give_way()
        elif found := cache.get(video, frame):
            assert all(part.eq(frame).all() for part in found)
        entries = [list(tier._videos.items()) for tier in (cache._device, cache._host)]
        counts = [sum(len(kept) for _, kept in videos) for videos in entries]
        assert not {(v, f) for v, kept in entries[0] for f in kept} & {(v, f) for v, kept in entries[1] for f in kept}
        use = cache.use()
        assert (use.frames, use.device_bytes, use.host_bytes) == (sum(counts), counts[0] * SIZE, counts[1] * SIZE)
        assert use.device_bytes <= use.max_device_bytes
        assert use.host_bytes <= use.max_host_bytes


def test_a_smaller_share_counts_at_once() -> None:
    cache = cache_of(4)
    fill(cache, "a", range(4))
    cache.resize(SIZE, 2 * SIZE)
    assert held(cache, "a", 4) == [1, 2, 3]
