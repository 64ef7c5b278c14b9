"""Models that turn prompts into tracks, each behind the contract of `base`."""

from backend.engines.base import Engine
from backend.errors import SettingsError


def load(name: str) -> Engine:
    """The engine that the setting `engine` names.

    Raises:
        SettingsError: it cannot run here; a stand-in never takes its place by itself.
    """
    if name == "opencv":
        from backend.engines.opencv import OpenCVEngine

        return OpenCVEngine()
    raise SettingsError(
        f"engine: {name} needs SAM3, which this version cannot load yet: set engine: opencv for the stand-in, which "
        "follows boxes and clicks on any machine but knows no words"
    )
