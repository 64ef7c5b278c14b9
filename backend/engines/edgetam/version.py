"""The version of the EdgeTAM engine, computed without loading torch."""

from pathlib import Path

from backend.engines.sam.version import compute_version
from backend.settings import Settings


def engine_version(settings: Settings) -> str:
    """The name of the weights, and six hex digits that change with the files and with settings that affect tracks."""
    return compute_version(settings, Path(settings.model_path).expanduser())
