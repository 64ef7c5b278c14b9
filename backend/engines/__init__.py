"""The engines: models that turn prompts into tracks, behind the contract in `base`."""

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from backend.engines.base import OPENCV_HINT, Engine
from backend.errors import SettingsError
from backend.settings import OPEN_HUB_IDS, Settings

_GPU_FILES = ("nvidia[0-9]*", "dxg", "kfd")
"""What Linux has in /dev where there is a GPU of NVIDIA, one under WSL, or one of AMD."""
_COUNT = "import torch; print(torch.cuda.device_count())"
_COUNT_SECONDS = 120.0


def list_devices(settings: Settings) -> tuple[str, ...]:
    """The devices that the settings name, one for each worker; `auto` stands for all GPUs, or for what there is."""
    if settings.devices != ("auto",):
        return settings.devices
    gpus = count_gpus() if settings.engine != "opencv" and sys.platform == "linux" else 0
    return tuple(f"cuda:{number}" for number in range(gpus)) or ("cpu" if sys.platform == "linux" else "auto",)


def advise_size(settings: Settings) -> str:
    """What to set so that a model for laptops does not take seconds a frame on a CPU; empty: it is set."""
    if settings.engine not in OPEN_HUB_IDS or set(list_devices(settings)) != {"cpu"} or 0 < settings.image_size <= 512:
        return ""
    return "set image_size: 512, which is several times as fast on a CPU"


def count_gpus(folder: Path = Path("/dev")) -> int:
    """How many GPUs PyTorch can use; it looks in a process of its own, because it would stay in this one's memory.

    Args:
        folder: where Linux has its devices; without a GPU there, PyTorch is not asked.
    """
    if not any(next(folder.glob(name), None) for name in _GPU_FILES):
        return 0
    command = [sys.executable, "-c", _COUNT]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_COUNT_SECONDS, check=False).stdout
    except subprocess.TimeoutExpired:
        return 0
    return int(told) if told.strip().isdecimal() else 0


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
    if settings.engine in OPEN_HUB_IDS:
        from backend.engines.sam.version import compute_version

        return settings.engine, compute_version(settings)
    from backend.engines.sam3.version import engine_version

    return "sam3", engine_version(settings)


def guess_engine(model_path: str) -> str:
    """The engine that runs a model, by the name of its repository, folder or file."""
    name = Path(model_path).name.lower()
    return next((engine for engine in ("edgetam", "sam2") if engine in name), "sam3")


def knows_words(name: str) -> bool:
    """Whether an engine finds objects by words."""
    return name not in ("opencv", "sam2", "edgetam")


def load_engine(settings: Settings, sharers: int = 1) -> Engine:
    """Load the engine that the settings name, on the first of their devices.

    A large model loads in the background; see `Engine.status`.

    Args:
        sharers: how many engines share the machine's memory and its cores.

    Raises:
        SettingsError: as for `named`.
    """
    name, _ = identify_engine(settings)
    if name == "opencv":
        from backend.engines.opencv.engine import OpenCVEngine

        return OpenCVEngine()
    with _importing():
        engine = _import_engine(name)
    return engine(replace(settings, device=settings.devices[0]), sharers)


def _import_engine(name: str) -> Callable[[Settings, int], Engine]:
    if name == "sam2":
        from backend.engines.sam2.engine import Sam2Engine

        return Sam2Engine
    if name == "edgetam":
        from backend.engines.edgetam.engine import EdgeTamEngine

        return EdgeTamEngine
    from backend.engines.sam3.engine import Sam3Engine

    return Sam3Engine


@contextmanager
def _importing() -> Iterator[None]:
    """Collect no garbage while PyTorch and transformers are imported, and never look for any in them.

    They bring half a million objects, all of which stay; searching them again and again takes a third of the time.
    """
    if "torch" in sys.modules:  # other objects have been made since, which must not stay
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load_same_engine(settings: Settings, name: str, version: str) -> Engine:
    """Load the engine on another machine than the one that identified it.

    Raises:
        SettingsError: it cannot run here, or is another one, whose tracks may differ.
    """
    own, own_version = identify_engine(settings)
    if (own, own_version) != (name, version):
        raise SettingsError(
            f"the node's model is {own}-{own_version}, the server's {name}-{version}: give both the same version of "
            "sam3-backend and the same weights (model_path, revision)"
        )
    return load_engine(settings)


def download_weights(settings: Settings, on_progress: Callable[[int, int], None]) -> Path:
    """Download the weights that the settings name; the folder with their files.

    Args:
        on_progress: called with the bytes that are there and the bytes of all files, as they come.

    Raises:
        SettingsError: they cannot be downloaded, are files of this machine, or the engine has none.
    """
    name, _ = identify_engine(settings)
    if name == "opencv":
        raise SettingsError("engine opencv has no weights: choose sam3, sam2 or edgetam")
    from backend.engines.edgetam import weights as edgetam_weights
    from backend.engines.sam.hub import download
    from backend.engines.sam2 import weights as sam2_weights
    from backend.engines.sam3 import weights as sam3_weights

    family = {"sam2": sam2_weights.FAMILY, "edgetam": edgetam_weights.FAMILY}.get(name, sam3_weights.FAMILY)
    return download(settings.model_path, settings.revision, settings.model_dir, family, on_progress)
