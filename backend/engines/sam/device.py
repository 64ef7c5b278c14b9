"""The device and the precision that the model runs with."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import attention as torch_attention
from torch.nn.attention import SDPBackend, sdpa_kernel

from backend.engines.base import read_process_memory
from backend.errors import SettingsError, Unsupported
from backend.memory_limit import memory_limit
from backend.settings import CacheSettings

log = logging.getLogger(__name__)

OUT_OF_MEMORY = (
    "the device has no memory left for one frame with one object or phrase: close other programs on it, set "
    "show_masks: false, lower image_size, or set device: cpu"
)
COMPILER = "inductor"
"""The backend of `torch.compile`."""
_FLASH3 = "FA3"
"""PyTorch's name of flash attention 3."""
_ATTENTION = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "flash3": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
"""By values of the setting `attention`."""
_DEVICE_SHARE, _HOST_SHARE = 2, 4
"""What part of the free memory the cache may take by itself: half of a GPU's, a quarter of the machine's."""
_UNKNOWN_FREE = 4 * 2**30


def select_device(name: str) -> torch.device:
    """The device of the setting `device`; auto: the best one that is available.

    Raises:
        SettingsError: the device is not available.
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
        raise SettingsError(f"device: {name} is not available: set device: auto or cpu")
    return device


def describe_device(device: torch.device) -> str:
    """The device and what it is, for people."""
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return f"{device}, {torch.cuda.get_device_name(device)} with {memory / 2**30:.0f} GiB"
    return f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)


def is_narrow(device: torch.device, dtype: str) -> bool:
    """Whether products are computed in bfloat16."""
    return dtype == "bfloat16" or (dtype == "auto" and device.type == "cuda")


def narrow_weights(model: nn.Module) -> None:
    """Round the weights that autocast rounds, once: it would do so for every frame."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.to(torch.bfloat16)


@cache
def share_cores(sharers: int) -> None:
    """Take a part of the cores, and leave one to decoding and HTTP, once: threads that wait for each other are slow.

    With two busy cores, one thread gave 20 to 26 frames/s with the shapes model, two gave 4 to 6.
    """
    torch.set_num_threads(max(1, (torch.get_num_threads() - 1) // sharers))


def select_attention(name: str) -> list[SDPBackend]:
    """The implementations of attention for the setting `attention`, the preferred one first; none: PyTorch's choice.

    Those after the first are for products that it cannot do. Flash attention 3 counts for the whole process.

    Raises:
        SettingsError: it is not installed.
    """
    has_flash3 = hasattr(torch_attention, "activate_flash_attention_impl")
    if name == "flash3":
        try:
            if not has_flash3:
                raise ImportError("PyTorch is too old")
            torch_attention.activate_flash_attention_impl(_FLASH3)
        except (ImportError, RuntimeError, ValueError) as error:
            raise SettingsError(
                f"attention: flash3 is not available ({type(error).__name__}): install flash-attention 3 and PyTorch "
                "2.11 or newer for CUDA, or set attention: auto"
            ) from error
    elif has_flash3 and torch_attention.current_flash_attention_impl() is not None:
        torch_attention.restore_flash_attention_impl()
    if name == "auto":
        return []
    return list(dict.fromkeys([_ATTENTION[name], *_ATTENTION.values(), SDPBackend.MATH]))


def compile_part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a part of the model as one graph; it is compiled when it is called, once for each kind of input.

    The first dimension may vary: sizes above 1 are one kind.
    """
    compiled: Callable[..., Any] = torch.compile(function, fullgraph=True, backend=COMPILER)
    return compiled


@contextmanager
def inference(device: torch.device, dtype: str, attention: Sequence[SDPBackend] = ()) -> Iterator[None]:
    """Run without gradients, on CUDA in bfloat16 autocast unless `dtype` says otherwise.

    Args:
        attention: see `select_attention`.

    Raises:
        Unsupported: the device runs out of memory.
    """
    chosen = sdpa_kernel(list(attention), set_priority=True) if attention else nullcontext()
    narrow = torch.autocast(device.type, torch.bfloat16, enabled=is_narrow(device, dtype))
    try:
        with torch.inference_mode(), narrow, chosen:
            yield
    except torch.OutOfMemoryError as error:
        raise Unsupported(OUT_OF_MEMORY) from error


def cache_sizes(cache: CacheSettings, device: torch.device, sharers: int = 1) -> tuple[int, int]:
    """Most bytes of cached frames on the device, and in the host's memory beside it; see the settings.

    Args:
        sharers: how many engines share the host's memory; each GPU is one engine's own.
    """
    is_gpu, host = device.type == "cuda", _free_host_memory() // _HOST_SHARE
    on_device = torch.cuda.mem_get_info(device)[0] // _DEVICE_SHARE if is_gpu else host
    most_on_device = on_device if cache.device == "auto" else cache.device
    most_on_host = host if cache.host == "auto" else cache.host
    return (most_on_device, most_on_host // sharers) if is_gpu else (most_on_device // sharers, 0)


def _free_host_memory() -> int:
    """Bytes that programs can still take; a guess where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return _UNKNOWN_FREE
    used, _ = read_process_memory() or (0, 0)
    limit = memory_limit()
    return free if limit is None else max(0, min(free, limit - used))


class Batcher:
    """Runs work in batches that fit the device's memory.

    Args:
        max_size: of a batch.
        noun: what the items are, for the log.

    Attributes:
        give_way: frees memory that can be done without; whether there was any.
    """

    def __init__(self, max_size: int, noun: str) -> None:
        self._max_size, self._noun = max_size, noun
        self.size = max_size
        self.give_way: Callable[[], bool] = lambda: False

    def reset(self) -> None:
        """Start with full batches again: memory may be free by now."""
        self.size = self._max_size

    def run(self, count: int, work: Callable[[slice], Sequence[Tensor]]) -> list[Tensor]:
        """Run `work` on slices of `count` items and concatenate the results; smaller slices if memory runs out.

        Raises:
            torch.OutOfMemoryError: there is no memory for one item.
        """
        while True:
            size = min(self.size, count)
            try:
                parts = [work(slice(start, start + size)) for start in range(0, count, size)]
                return [torch.cat(tensors) if len(parts) > 1 else tensors[0] for tensors in zip(*parts, strict=True)]
            except torch.OutOfMemoryError:
                if not self.give_way():
                    if size == 1:
                        raise
                    self.size = (size + 1) // 2
                    log.warning("the device is out of memory: continuing with %d %s at a time", self.size, self._noun)
            empty_cache()


def empty_cache() -> None:
    """Free cached memory that is not in use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
