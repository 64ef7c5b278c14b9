"""Loads EdgeTAM from the disk or the hub. All weights must fit; an error names those that do not."""

from pathlib import Path
from typing import Any

from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

from backend.engines.edgetam.backbone import RepVitConfig, fuse_backbone
from backend.engines.edgetam.checkpoint import convert_checkpoint, published_config
from backend.engines.sam.hub import OnProgress, download
from backend.engines.sam.weights import Family, create_model, read_config, read_folder, read_tensors, set_image_size
from backend.errors import SettingsError

FAMILY = Family(
    label="EdgeTAM",
    hub_id="yonigozlan/EdgeTAM-hf",
    original="edgetam.pt",
    original_setting="edgetam.pt",
)
SIZE_STEP = 256
"""The memory's 16 windows a side have whole numbers of positions, each of 16 pixels."""


def load_model(
    model_path: str,
    model_dir: str = "",
    image_size: int = 0,
    revision: str = "",
    on_progress: OnProgress = lambda done, total: None,
) -> EdgeTamVideoModel:
    """Load the model for inference, on the CPU in float32, with its backbone as `RepVit`.

    Args:
        model_path: a repository of the hub ("yonigozlan/EdgeTAM-hf"), a folder in its layout, or the checkpoint that
            its authors publish (edgetam.pt).
        model_dir: folder for files from the hub, also read offline; empty: the cache of the hub's library.
        image_size: side of the model's input in pixels, a multiple of 256; 0: the model's own, 1024.
        revision: of the hub's repository; empty: its default.
        on_progress: see `download`.

    Raises:
        SettingsError: a file is missing, broken or of another model, a weight is missing or has the wrong shape, the
            hub is unreachable or denies access, or `image_size` does not fit.
    """
    path = Path(model_path).expanduser()
    if path.is_file():
        tensors = convert_checkpoint(read_tensors(path))
        if "spatial_perceiver.latents_1d" not in tensors:
            raise SettingsError(
                f"{path.name} is not a checkpoint of EdgeTAM: use edgetam.pt, or the folder with {path.name} and "
                "config.json"
            )
        config = published_config()
    else:
        folder = path if path.is_dir() else download(model_path, revision, model_dir, FAMILY, on_progress)
        config = read_config(folder, EdgeTamVideoConfig, FAMILY, _name_own_backbone)
        tensors = read_folder(folder, FAMILY)
    if image_size:
        set_image_size(config, image_size, SIZE_STEP, SIZE_STEP)
    return create_model(EdgeTamVideoModel, config, fuse_backbone(tensors), FAMILY)


def _name_own_backbone(values: dict[str, Any]) -> None:
    """Name `RepVit` in the place of timm's, which the library would look for and which has no other size."""
    backbone = values["vision_config"]["backbone_config"]
    if backbone.get("model_type") != RepVitConfig.model_type:
        values["vision_config"]["backbone_config"] = RepVitConfig().to_dict()
