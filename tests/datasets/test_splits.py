import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.datasets.splits import SPLITS, assign_splits, read_split
from backend.errors import SettingsError

shares = st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(any)


@given(st.lists(st.integers(0, 30), max_size=40), shares, st.integers(0, 9))
def test_a_video_is_in_one_split_and_shares_are_kept(addresses: list[int], shares: list[int], seed: int) -> None:
    videos = [(f"{place}-clip", address) for place, address in enumerate(addresses)]
    splits = assign_splits(videos, shares, seed)
    assert splits == assign_splits(videos, shares, seed)
    by_address = dict(zip(addresses, splits, strict=True))
    assert splits == [by_address[address] for address in addresses]
    total, wanted = len(by_address), [share / sum(shares) for share in shares]
    for split, share in zip(SPLITS, wanted, strict=True):
        count = sum(other == split for other in by_address.values())
        assert abs(count - share * total) <= 2
        assert share or not count
        if share and total >= sum(map(bool, shares)):
            assert count


def test_another_seed_gives_another_split() -> None:
    videos = [(f"{place}-clip", place) for place in range(20)]
    assert assign_splits(videos, (80, 20, 0), 0) != assign_splits(videos, (80, 20, 0), 1)


def test_a_field_names_the_split() -> None:
    assert read_split({"set": "Valid"}, "set") == "val"
    with pytest.raises(SettingsError, match="its field set names no split: set it to train, val or test"):
        read_split({"set": "dev"}, "set")
