"""Splits by video: neighbouring frames look alike, so no video may be in two splits."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from backend.errors import SettingsError

SPLITS = ("train", "val", "test")
_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def assign_splits(videos: Sequence[tuple[str, Hashable]], shares: Sequence[float], seed: int) -> list[str]:
    """The split of each video. Each split with a share has a video, if there are enough.

    Args:
        videos: name and address; videos with the same address are in the same split.
        shares: of train, val and test; any sum.
        seed: another seed gives another split.
    """
    first_names: dict[Hashable, str] = {}
    for name, address in videos:
        first_names.setdefault(address, name)
    order = sorted(first_names, key=lambda address: sha256(f"{seed}/{first_names[address]}".encode()).digest())
    counts = _apportion(len(order), shares)
    names = [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    by_address = dict(zip(order, names, strict=True))
    return [by_address[address] for _, address in videos]


def _apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to the shares (largest remainder), at least 1 for each share if possible."""
    exact = [total * share / sum(shares) for share in shares]
    counts = [int(number) for number in exact]
    for place in sorted(range(len(shares)), key=lambda place: counts[place] - exact[place])[: total - sum(counts)]:
        counts[place] += 1
    for place in [place for place, share in enumerate(shares) if share and not counts[place]]:
        largest = max(range(len(shares)), key=lambda other: counts[other])
        if counts[largest] > 1:
            counts[largest], counts[place] = counts[largest] - 1, 1
    return counts


def read_split(data: Mapping[str, Any], field: str) -> str:
    """The split that a task's data names.

    Raises:
        SettingsError: it names none.
    """
    name = _NAMES.get(str(data.get(field, "")).strip().lower())
    if name is None:
        raise SettingsError(f"its field {field} names no split: set it to train, val or test")
    return name


def describe_splits(splits: Sequence[str]) -> str:
    """For a message: how many videos each split has."""
    counts = Counter(splits)
    return ", ".join(f"{split} {counts[split]}" for split in SPLITS if counts[split])
