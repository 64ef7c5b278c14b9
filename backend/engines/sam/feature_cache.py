"""Features of frames that were encoded before, on the device and, when its share is full, in the host's memory."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from backend.engines.base import CacheUse

DEVICE_BYTES = 2**31
"""The device's share until another is set: 200 frames of SAM 3 under autocast, 100 in single precision."""

Output = tuple[Tensor, ...]
"""What an image encoder returned for a frame."""


class FeatureCache:
    """What the image encoder returned for frames, so that it runs once for each.

    When the device's share is full, the video that was unused for longest gives up a frame, the one that was unused for
    longest. It moves to the host's memory, in the precision that it has; when that share is full, too, a frame is
    dropped in the same way. One thread may use it.

    Args:
        device_bytes: most bytes on the device.
        host_bytes: most bytes in the host's memory; 0 where the device has no memory of its own.

    Attributes:
        hits, misses: how often a frame was in it, and how often it was not.
    """

    def __init__(self, device_bytes: int = DEVICE_BYTES, host_bytes: int = 0) -> None:
        self._device, self._host = _Tier(device_bytes), _Tier(host_bytes)
        self.hits = self.misses = 0

    def resize(self, device_bytes: int, host_bytes: int) -> None:
        """Set the two shares."""
        self._device.max_bytes, self._host.max_bytes = device_bytes, host_bytes
        self._make_room(device_bytes)

    def get(self, video: Hashable, frame: int) -> Output | None:
        """What is known of a frame, on the device; None: nothing."""
        if entry := self._device.pop(video, frame):
            output = entry.output
        elif entry := self._host.pop(video, frame):
            output = _to_device(entry)
        else:
            self.misses += 1
            return None
        self.hits += 1
        self._put(video, frame, output)
        return output

    def put(self, video: Hashable, frame: int, output: Output) -> None:
        """Keep what the encoder returned for a frame."""
        self._host.pop(video, frame)
        self._put(video, frame, output)

    def give_way(self) -> bool:
        """Free half of what is held on the device, because its memory ran out; False: nothing is held there."""
        if not self._device.bytes:
            return False
        self._make_room(self._device.bytes // 2)
        return True

    def clear(self) -> None:
        """Forget all frames, and what was counted."""
        for tier in (self._device, self._host):
            tier.clear()
        self.hits = self.misses = 0

    def use(self) -> CacheUse:
        """What it holds, and how often it helped."""
        return CacheUse(
            frames=self._device.count + self._host.count,
            hits=self.hits,
            misses=self.misses,
            device_bytes=self._device.bytes,
            max_device_bytes=self._device.max_bytes,
            host_bytes=self._host.bytes,
            max_host_bytes=self._host.max_bytes,
        )

    def _put(self, video: Hashable, frame: int, output: Output) -> None:
        size = sum(tensor.nbytes for tensor in output)
        self._device.put(video, frame, _Entry(output, output[0].device, size))
        self._make_room(self._device.max_bytes)

    def _make_room(self, device_bytes: int) -> None:
        """Move frames until the device holds at most so many bytes."""
        while self._device.bytes > device_bytes:
            video, frame, entry = self._device.pop_oldest()
            if self._host.max_bytes:
                self._host.put(video, frame, _to_host(entry))
        while self._host.bytes > self._host.max_bytes:
            self._host.pop_oldest()


class _Entry(NamedTuple):
    """A frame's features, the device that they belong on, and the bytes that they take where they are."""

    output: Output
    device: torch.device
    size: int


def _to_host(entry: _Entry) -> _Entry:
    """Copy to page-locked memory, while the device goes on with its work."""
    is_pinned, copies, size = entry.device.type == "cuda", [], 0
    for tensor in entry.output:
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=is_pinned)
        copies.append(copy.copy_(tensor, non_blocking=True))
        # torch takes the next power of two of page-locked memory.
        size += 1 << (tensor.nbytes - 1).bit_length() if is_pinned else tensor.nbytes
    return _Entry(tuple(copies), entry.device, size)


def _to_device(entry: _Entry) -> Output:
    return tuple(tensor.to(entry.device, non_blocking=True) for tensor in entry.output)


class _Tier:
    """Frames in one kind of memory, by video; the one that was unused for longest comes first.

    Attributes:
        bytes: of all frames.
        count: how many frames there are.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._videos: OrderedDict[Hashable, OrderedDict[int, _Entry]] = OrderedDict()
        self.bytes = self.count = 0

    def put(self, video: Hashable, frame: int, entry: _Entry) -> None:
        """Add a frame as the newest one, in place of the one that may be there."""
        self.pop(video, frame)
        self._videos.setdefault(video, OrderedDict())[frame] = entry
        self._videos.move_to_end(video)
        self.bytes, self.count = self.bytes + entry.size, self.count + 1

    def pop(self, video: Hashable, frame: int) -> _Entry | None:
        """Take a frame out; None: it is not here."""
        entry = self._videos[video].pop(frame, None) if video in self._videos else None
        if entry is not None:
            self._note_removal(video, entry)
        return entry

    def pop_oldest(self) -> tuple[Hashable, int, _Entry]:
        """Take out the frame that was unused for longest, of the video that was."""
        video, frames = next(iter(self._videos.items()))
        frame, entry = frames.popitem(last=False)
        self._note_removal(video, entry)
        return video, frame, entry

    def clear(self) -> None:
        """Drop all frames."""
        self._videos.clear()
        self.bytes = self.count = 0

    def _note_removal(self, video: Hashable, entry: _Entry) -> None:
        if not self._videos[video]:
            del self._videos[video]
        self.bytes, self.count = self.bytes - entry.size, self.count - 1
