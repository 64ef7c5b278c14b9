"""Prints the index that PyTorch is best installed from: `python torch_index.py [INDEX]`; an empty line means PyPI.

PyPI's PyTorch for Linux on x86_64 brings gigabytes of CUDA libraries. Without an NVIDIA driver PyTorch's own index of
CPU wheels serves better, if it answers. An INDEX other than `auto` is printed as it is.
"""

import platform
import shutil
import sys
import urllib.request
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SECONDS = 5


def has_nvidia_driver() -> bool:
    """Whether this machine has an NVIDIA driver."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def answers(index: str) -> bool:
    """Whether the index has PyTorch, and answers in time."""
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=SECONDS) as response:  # noqa: S310
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False


def choose(wanted: str) -> str:
    """The index to use; empty: PyPI."""
    if wanted != "auto":
        return wanted
    if (sys.platform, platform.machine()) != ("linux", "x86_64") or has_nvidia_driver():
        return ""
    if answers(CPU_INDEX):
        return CPU_INDEX
    print(f"{CPU_INDEX} does not answer within {SECONDS} s: PyTorch comes from PyPI, with CUDA", file=sys.stderr)
    return ""


if __name__ == "__main__":
    print(choose(sys.argv[1] if len(sys.argv) > 1 else "auto"))
