"""The version of an engine, which changes whenever its tracks may; computed without loading torch."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from backend.settings import Settings

WHOLE_BYTES = 64 * 2**20
"""Files up to this size are read whole; of larger ones a sample is."""
BLOCKS, BLOCK_BYTES = 8192, 4096
"""Of the sample."""


def compute_version(settings: Settings, path: Path | None = None) -> str:
    """The name of the weights, and six hex digits that change with the weights and with settings that affect tracks.

    The same weights in another folder are the same version. Of weights on the hub the revision counts.

    Args:
        settings: of the engine.
        path: of the weights; it does not exist if they are on the hub. None: `model_path` names it.
    """
    path = path or Path(settings.model_path).expanduser()
    parts: list[object] = [
        digest_files(find_files(path)) if path.exists() else (settings.model_path, settings.revision)
    ]
    parts += [settings.reference, settings.dtype, settings.image_size, settings.max_objects, settings.hotstart_frames]
    parts += [settings.score_threshold, settings.new_object_threshold]
    if settings.compile or settings.attention != "auto":  # else versions are as before there were these two
        parts += [settings.compile, settings.attention]
    name = re.sub(r"\.(pt|pth|safetensors)$", "", path.name)
    return f"{name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:6]}"


def find_files(path: Path) -> list[Path]:
    """The files of a model: its weights, and the config of a folder."""
    if path.is_file():
        return [path]
    return sorted([*path.glob("config.json"), *path.glob("*.safetensors"), *path.glob("*.bin")])


def digest_files(paths: Iterable[Path]) -> str:
    """A digest of the files' content, in their order; their names and times do not count.

    Other weights differ nearly everywhere, so that a sample of a large file tells them apart.
    """
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(b"%d." % size)
        with path.open("rb") as file:
            if size <= WHOLE_BYTES:
                digest.update(file.read())
                continue
            for block in range(BLOCKS):
                file.seek((size - BLOCK_BYTES) * block // (BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()
