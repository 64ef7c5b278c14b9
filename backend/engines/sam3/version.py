"""The version of the SAM3 engine, which changes whenever its tracks may; computed without loading torch."""

from pathlib import Path

from backend.engines.sam.version import compute_version
from backend.settings import SHAPES_MODEL, Settings


def resolve_model_path(model_path: str) -> Path:
    """The local path of a `model_path`; it does not exist if the weights are on the hub."""
    return Path(__file__).parent / SHAPES_MODEL if model_path == SHAPES_MODEL else Path(model_path).expanduser()


def engine_version(settings: Settings) -> str:
    """The name of the weights, and six hex digits that change with the files and with settings that affect tracks."""
    return compute_version(settings, resolve_model_path(settings.model_path))
