"""The memory limit of this process's container, and whether the model fits in it."""

from pathlib import Path

from backend.settings import SAM3_HUB_ID, Settings

_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Of cgroup v2 and v1."""
_NO_LIMIT = 2**60
_NEEDED = {"shapes": 0.8 * 2**30, SAM3_HUB_ID: 5.0 * 2**30}
"""Bytes that the server with one worker was measured to need on a CPU, by `model_path`."""


def memory_limit(files: tuple[str, ...] = _FILES) -> int | None:
    """Bytes that this process and its children may use; None: as many as the machine has."""
    for name in files:
        try:
            limit = int(Path(name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such file, or "max"
            continue
        return limit if limit < _NO_LIMIT else None
    return None


def explain_memory_limit(settings: Settings, limit: int | None) -> str | None:
    """Why the model will probably not run with this limit; None if it may."""
    one = _NEEDED.get(settings.model_path, 0.0) if settings.engine in ("auto", "sam3") else 0.0
    needed = one * len(settings.devices)
    if limit is None or limit >= needed:
        return None
    model = settings.shown()["model_path"]
    return (
        f"the memory limit of this container is {limit / 2**30:.1f} GiB, but the model {model} "
        f"needs about {needed / 2**30:.1f}: raise it (docker run --memory, mem_limit), or jobs may stand still"
    )
