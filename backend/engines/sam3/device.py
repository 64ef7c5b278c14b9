"""Where the model computes, and in which precision."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from backend.errors import SettingsError, Unsupported

log = logging.getLogger(__name__)

OUT_OF_MEMORY = (
    "the device has no memory left for one frame with one object or phrase at a time: close what else runs on it, set "
    "show_masks: false, set image_size lower, or set device: cpu"
)


def select_device(name: str) -> torch.device:
    """The device that the setting `device` names; auto: the best one that is there.

    Raises:
        SettingsError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    there = {
        "cpu": True,
        "mps": torch.backends.mps.is_available(),
        "cuda": (device.index or 0) < torch.cuda.device_count(),
    }
    if not there[device.type]:
        raise SettingsError(f"device: {name} is not there: set device: auto, or cpu")
    return device


@contextmanager
def inference(device: torch.device, dtype: str) -> Iterator[None]:
    """Compute without gradients: on CUDA in bfloat16 where that is safe, unless `dtype` says otherwise.

    Raises:
        Unsupported: the device has no room for what runs within.
    """
    narrow = dtype == "bfloat16" or (dtype == "auto" and device.type == "cuda")
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=narrow):
            yield
    except torch.OutOfMemoryError as error:
        raise Unsupported(OUT_OF_MEMORY) from error


class Batcher:
    """Does as much at a time as the device has room for.

    Args:
        most: how many at a time.
        what: they are, for the log.
    """

    def __init__(self, max_size: int, noun: str) -> None:
        self._max_size, self._noun = max_size, noun
        self.size = max_size

    def reset(self) -> None:
        """Try with as many as at first again: what took the room may be gone."""
        self.size = self._max_size

    def run(self, count: int, work: Callable[[slice], Sequence[Tensor]]) -> list[Tensor]:
        """Work on parts of `count` things, and join what comes of them; where there is no room, on smaller parts.

        Raises:
            torch.OutOfMemoryError: there is no room for one.
        """
        while True:
            size = min(self.size, count)
            try:
                parts = [work(slice(start, start + size)) for start in range(0, count, size)]
                return [torch.cat(tensors) if len(parts) > 1 else tensors[0] for tensors in zip(*parts, strict=True)]
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                self.size = (size + 1) // 2
                log.warning("the device is out of memory: going on with %d %s at a time", self.size, self._noun)
            empty_cache()


def empty_cache() -> None:
    """Give back what is cached and not in use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
