"""Models that turn prompts into tracks, each behind the contract of `base`."""

from importlib.util import find_spec

from backend.engines.base import STAND_IN, Engine
from backend.errors import SettingsError
from backend.settings import Settings


def load(settings: Settings) -> Engine:
    """The engine that the settings name. A large model loads on in the background: `Engine.status` tells.

    Raises:
        SettingsError: it cannot run here; a stand-in never takes its place by itself.
    """
    if settings.engine == "opencv":
        from backend.engines.opencv import OpenCVEngine

        return OpenCVEngine()
    if missing := [name for name in ("torch", "transformers") if find_spec(name) is None]:
        raise SettingsError(
            f"engine: {settings.engine} needs {' and '.join(missing)}: install the extra with "
            f"pip install 'sam3-backend[sam3]', or {STAND_IN}"
        )
    from backend.engines.sam3.engine import Sam3Engine

    return Sam3Engine(settings)
