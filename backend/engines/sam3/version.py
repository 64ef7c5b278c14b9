"""The version of the SAM3 engine, which changes whenever its tracks may; computed without loading torch."""

import hashlib
import re
from pathlib import Path

from backend.settings import Settings

SHAPES_MODEL = "shapes"
"""The `model_path` of a tiny model in the package, which knows only coloured shapes."""


def resolve_model_path(model_path: str) -> Path:
    """The local path of a `model_path`; it does not exist if the weights are on the hub."""
    return Path(__file__).parent / SHAPES_MODEL if model_path == SHAPES_MODEL else Path(model_path).expanduser()


def engine_version(settings: Settings) -> str:
    """The name of the weights, and six hex digits that change with the files and with settings that affect tracks."""
    path = resolve_model_path(settings.model_path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path] if path.is_file() else []
    parts: list[object] = [
        settings.model_path,
        *((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files),
    ]
    parts += [settings.dtype, settings.image_size, settings.max_objects, settings.hotstart_frames]
    parts += [settings.score_threshold, settings.new_object_threshold]
    name = re.sub(r"\.(pt|pth|safetensors)$", "", path.name)
    return f"{name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:6]}"
