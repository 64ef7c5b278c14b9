"""The engines: models that turn prompts into tracks, behind the contract in `base`."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from backend.engines.base import OPENCV_HINT, Engine
from backend.errors import SettingsError
from backend.settings import Settings


def identify_engine(settings: Settings) -> tuple[str, str]:
    """Name and version of the engine that the settings name, without loading it.

    Raises:
        SettingsError: it cannot run here. Another engine is never chosen instead.
    """
    if settings.engine == "opencv":
        from backend.engines.opencv.engine import OpenCVEngine

        return OpenCVEngine.name, OpenCVEngine.version
    if missing := [name for name in ("torch", "transformers") if find_spec(name) is None]:
        raise SettingsError(
            f"engine: {settings.engine} needs {' and '.join(missing)}: install the extra with "
            f"pip install 'sam3-backend[sam3]', or {OPENCV_HINT}"
        )
    if settings.engine == "sam2":
        from backend.engines.sam2 import version as sam2_version

        return "sam2", sam2_version.engine_version(settings)
    from backend.engines.sam3.version import engine_version

    return "sam3", engine_version(settings)


def knows_words(name: str) -> bool:
    """Whether an engine finds objects by words."""
    return name not in ("opencv", "sam2")


def load_engine(settings: Settings) -> Engine:
    """Load the engine that the settings name. A large model loads in the background; see `Engine.status`.

    Raises:
        SettingsError: as for `named`.
    """
    name, _ = identify_engine(settings)
    if name == "opencv":
        from backend.engines.opencv.engine import OpenCVEngine

        return OpenCVEngine()
    if name == "sam2":
        from backend.engines.sam2.engine import Sam2Engine

        return Sam2Engine(settings)
    from backend.engines.sam3.engine import Sam3Engine

    return Sam3Engine(settings)


def download_weights(settings: Settings, on_progress: Callable[[int, int], None]) -> Path:
    """Download the weights that the settings name; the folder with their files.

    Args:
        on_progress: called with the bytes that are there and the bytes of all files, as they come.

    Raises:
        SettingsError: they cannot be downloaded, are files of this machine, or the engine has none.
    """
    name, _ = identify_engine(settings)
    if name == "opencv":
        raise SettingsError("engine opencv has no weights: choose sam3 or sam2")
    from backend.engines.sam.hub import download
    from backend.engines.sam2 import weights as sam2_weights
    from backend.engines.sam3 import weights as sam3_weights

    family = (sam2_weights if name == "sam2" else sam3_weights).FAMILY
    return download(settings.model_path, settings.revision, settings.model_dir, family, on_progress)
