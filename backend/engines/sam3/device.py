"""Where the model computes, and in which precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from backend.errors import SettingsError, Unsupported

NO_ROOM = (
    "the device has no memory left for one frame with one object: close what else runs on it, set image_size lower, or "
    "set device: cpu"
)


def chosen(name: str) -> torch.device:
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
def running(device: torch.device, dtype: str) -> Iterator[None]:
    """Compute without gradients: on CUDA in bfloat16 where that is safe, unless `dtype` says otherwise.

    Raises:
        Unsupported: the device has no room for what runs within.
    """
    narrow = dtype == "bfloat16" or (dtype == "auto" and device.type == "cuda")
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=narrow):
            yield
    except torch.OutOfMemoryError as error:
        raise Unsupported(NO_ROOM) from error


def free() -> None:
    """Give back what is cached and not in use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
