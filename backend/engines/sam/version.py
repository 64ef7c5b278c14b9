"""The version of an engine, which changes whenever its tracks may; computed without loading torch."""

import hashlib
import re
from pathlib import Path

from backend.settings import Settings


def compute_version(settings: Settings, path: Path) -> str:
    """The name of the weights, and six hex digits that change with the files and with settings that affect tracks.

    Args:
        settings: of the engine.
        path: of the weights; it does not exist if they are on the hub.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path] if path.is_file() else []
    parts: list[object] = [
        settings.model_path,
        *((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files),
    ]
    parts += [settings.reference, settings.dtype, settings.image_size, settings.max_objects, settings.hotstart_frames]
    parts += [settings.score_threshold, settings.new_object_threshold]
    name = re.sub(r"\.(pt|pth|safetensors)$", "", path.name)
    return f"{name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:6]}"
