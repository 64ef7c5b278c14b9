"""Loads SAM 2 from the disk or the hub. All weights must fit; an error names those that do not."""

from pathlib import Path
from typing import Any

from transformers import Sam2VideoConfig, Sam2VideoModel

from backend.engines.sam.hub import OnProgress, download
from backend.engines.sam.weights import Family, create_model, read_config, read_folder, read_tensors, set_image_size
from backend.engines.sam2.checkpoint import convert_checkpoint, infer_config

FAMILY = Family(
    label="SAM 2",
    hub_id="facebook/sam2.1-hiera-tiny",
    original="sam2.1_hiera_tiny.pt",
    original_setting="sam2.1_hiera_tiny.pt",
)
STRIDE = 32
"""The coarsest grid of the image encoder has one position for so many pixels."""


def load_model(
    model_path: str,
    model_dir: str = "",
    image_size: int = 0,
    revision: str = "",
    on_progress: OnProgress = lambda done, total: None,
) -> Sam2VideoModel:
    """Load the model for inference, on the CPU in float32.

    Args:
        model_path: a repository of the hub ("facebook/sam2.1-hiera-tiny"), a folder in its layout, or a checkpoint as
            its authors publish it (sam2.1_hiera_tiny.pt).
        model_dir: folder for files from the hub, also read offline; empty: the cache of the hub's library.
        image_size: side of the model's input in pixels, a multiple of 32; 0: the model's own, 1024.
        revision: of the hub's repository; empty: its default.
        on_progress: see `download`.

    Raises:
        SettingsError: a file is missing, broken or of another model, a weight is missing or has the wrong shape, the
            hub is unreachable or denies access, or `image_size` does not fit.
    """
    path = Path(model_path).expanduser()
    if path.is_file():
        tensors = convert_checkpoint(read_tensors(path))
        config = infer_config(tensors, path.name)
    else:
        folder = path if path.is_dir() else download(model_path, revision, model_dir, FAMILY, on_progress)
        config, tensors = read_config(folder, Sam2VideoConfig, FAMILY), read_folder(folder, FAMILY)
    if image_size:
        set_image_size(config, image_size, STRIDE, 2 * STRIDE)
        vision: Any = config.vision_config  # the library declares it with a type too wide to use
        vision.backbone_config.image_size = [image_size, image_size]
    return create_model(Sam2VideoModel, config, tensors, FAMILY)
