"""Loads SAM3 from the disk or the hub. All weights must fit; an error names those that do not."""

import logging
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Sam3VideoConfig, Sam3VideoModel

from backend.engines.sam.hub import OnProgress, download
from backend.engines.sam.weights import (
    HUB_FILES,
    TIED_NAMES,
    Family,
    create_model,
    read_config,
    read_folder,
    read_tensors,
)
from backend.engines.sam3.checkpoint import convert_checkpoint, is_original, is_sam_3_1
from backend.engines.sam3.tokenizer import Tokenizer
from backend.engines.sam3.version import resolve_model_path
from backend.errors import SettingsError

log = logging.getLogger(__name__)

DOUBLE_PREFIX = "tracker_model.tracker_model."
"""The prefix of the tracker's names as `save_pretrained` of transformers 5 writes them; the hub's files differ."""
TRACKER_MEMORY = "tracker_model.memory_"
"""Of names of the tracker's memory, without which it finds objects but cannot track them."""
FAMILY = Family(
    label="SAM3",
    hub_id="facebook/sam3",
    original="sam3.pt",
    original_setting="sam3.pt with bpe_path to bpe_simple_vocab_16e6.txt.gz",
    # The same repository also contains sam3.pt, another 3.4 GB.
    hub_files=(*HUB_FILES, "tokenizer*.json", "vocab.json", "merges.txt"),
    tied_names=(f"tracker_model.{TIED_NAMES[0]}", f"tracker_model.{TIED_NAMES[1]}"),
)


def load_model(
    model_path: str,
    bpe_path: str = "",
    model_dir: str = "",
    image_size: int = 0,
    revision: str = "",
    on_progress: OnProgress = lambda done, total: None,
) -> tuple[Sam3VideoModel, Tokenizer]:
    """Load the model for inference, on the CPU in float32, and its tokenizer.

    The weights stay memory-mapped, so they are in memory once.

    Args:
        model_path: a repository of the hub ("facebook/sam3"), a folder in its layout, the original sam3.pt, or
            "shapes".
        bpe_path: bpe_simple_vocab_16e6.txt.gz. Required with sam3.pt; otherwise it replaces the folder's tokenizer.
        model_dir: folder for files from the hub, also read offline; empty: the cache of the hub's library.
        image_size: side of the model's input in pixels, a multiple of the patch size (14); 0: the model's own.
        revision: of the hub's repository; empty: its default.
        on_progress: see `download`.

    Raises:
        SettingsError: a file is missing, broken or of another model, a weight is missing or has the wrong shape, the
            hub is unreachable or denies access, or `image_size` does not fit.
    """
    path = resolve_model_path(model_path)
    if path.is_file():
        config, tensors = Sam3VideoConfig(), _read_original(path, bpe_path)
        tokens = None
    else:
        folder = path if path.is_dir() else download(model_path, revision, model_dir, FAMILY, on_progress)
        config = read_config(folder, Sam3VideoConfig, FAMILY)
        tokens = None if bpe_path else Tokenizer.from_folder(folder, _context_length(config))
        tensors = {
            name.replace(DOUBLE_PREFIX, "tracker_model."): tensor
            for name, tensor in read_folder(folder, FAMILY).items()
        }
    if tokens is None:
        tokens = Tokenizer.from_bpe(Path(bpe_path).expanduser(), _context_length(config))
    if tokens.size > (known := _detector_config(config).text_config.vocab_size):
        raise SettingsError(
            f"the tokenizer has {tokens.size} tokens, but the model knows {known}: use the model's own tokenizer"
        )
    if image_size:
        _set_image_size(config, image_size)
    return create_model(Sam3VideoModel, config, tensors, FAMILY), tokens


def _context_length(config: Sam3VideoConfig) -> int:
    return int(_detector_config(config).text_config.max_position_embeddings)


def _detector_config(config: Sam3VideoConfig) -> Any:
    """The detector's config, which the library declares with a type too wide to use."""
    return config.detector_config


def _set_image_size(config: Sam3VideoConfig, image_size: int) -> None:
    """Change the input size in a config; no weight depends on it."""
    vision = _detector_config(config).vision_config
    patch = int(vision.backbone_config.patch_size)
    grid, rest = divmod(image_size, patch)
    if rest or grid < 2:
        near = max(2, round(image_size / patch)) * patch
        raise SettingsError(f"image_size is {image_size}: set a multiple of {patch}, such as {near}, or 0")
    # Sets the backbones, the prompt encoder, the memory's rope and the tracker's feature sizes, but not these two.
    config.image_size = image_size
    vision.backbone_feature_sizes = [[scale * grid, scale * grid] for scale in (4, 2, 1)]
    config.low_res_mask_size = 4 * grid


def _read_original(path: Path, bpe_path: str) -> dict[str, Tensor]:
    if not bpe_path:
        raise SettingsError(f"{path.name} contains no tokenizer: set bpe_path to bpe_simple_vocab_16e6.txt.gz")
    tensors = read_tensors(path)
    if not is_original(tensors):
        raise SettingsError(
            f"{path.name} is not the original sam3.pt: use that, or the folder with {path.name} and config.json"
        )
    converted = convert_checkpoint(tensors)
    if is_sam_3_1(tensors):
        if not any(name.startswith(TRACKER_MEMORY) for name in converted):
            raise SettingsError(
                f"{path.name} is SAM 3.1, whose tracker of many objects at once is not supported: use sam3.pt, or "
                f"set model_path to {FAMILY.hub_id}"
            )
        log.warning("SAM 3.1's tracker of many objects at once is left out: SAM 3's tracks them")
    return converted
