"""Loads SAM3 from the disk or the hub. All weights must fit; an error names those that do not."""

import hashlib
import json
import logging
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import safe_open
from torch import Tensor
from transformers import Sam3VideoConfig, Sam3VideoModel
from transformers.initialization import no_init_weights

from backend.engines.sam3.checkpoint import convert_checkpoint, is_original
from backend.engines.sam3.tokenizer import Tokenizer
from backend.engines.sam3.version import resolve_model_path
from backend.errors import SettingsError

log = logging.getLogger(__name__)

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WEIGHT_FILE = re.compile(r"\.(pt|pth|bin|safetensors)$")
"""The suffix of a weights file; no repository has it."""
HUB_FILES = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*.json",
    "vocab.json",
    "merges.txt",
)
"""The files to fetch from the hub. The same repository also contains sam3.pt, another 3.4 GB."""
TIED_NAMES = (
    "tracker_model.shared_image_embedding.positional_embedding",
    "tracker_model.prompt_encoder.shared_embedding.positional_embedding",
)
"""One table under two names. The original contains it once, and so do folders that were saved with the two tied."""
ORIGIN_KEYS = frozenset({"transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path"})
"""Keys of a config that describe how it was saved. A dtype would also round tensors that are computed, not loaded."""
DOUBLE_PREFIX = "tracker_model.tracker_model."
"""The prefix of the tracker's names as `save_pretrained` of transformers 5 writes them; the hub's files differ."""
MAX_NAMES = 5
"""Maximum number of names in an error or a warning."""
FINGERPRINT_SAMPLES = 8
"""Approximate number of values of each tensor in the fingerprint."""


def load_model(
    model_path: str, bpe_path: str = "", model_dir: Path | None = None, image_size: int = 0
) -> tuple[Sam3VideoModel, Tokenizer]:
    """Load the model for inference, on the CPU in float32, and its tokenizer.

    The weights stay memory-mapped, so they are in memory once.

    Args:
        model_path: a repository of the hub ("facebook/sam3"), a folder in its layout, the original sam3.pt, or
            "shapes".
        bpe_path: bpe_simple_vocab_16e6.txt.gz. Required with sam3.pt; otherwise it replaces the folder's tokenizer.
        model_dir: folder for files from the hub, also read offline; None: the cache of the hub's library.
        image_size: side of the model's input in pixels, a multiple of the patch size (14); 0: the model's own.

    Raises:
        SettingsError: a file is missing, broken or of another model, a weight is missing or has the wrong shape, the
            hub is unreachable or denies access, or `image_size` does not fit.
    """
    path = resolve_model_path(model_path)
    if path.is_file():
        config, tensors = Sam3VideoConfig(), _read_original(path, bpe_path)
        tokens = None
    else:
        folder = path if path.is_dir() else _download(model_path, model_dir)
        config = _read_config(folder)
        tokens = None if bpe_path else Tokenizer.from_folder(folder, _context_length(config))
        tensors = {
            name.replace(DOUBLE_PREFIX, "tracker_model."): tensor for name, tensor in _read_folder(folder).items()
        }
    if tokens is None:
        tokens = Tokenizer.from_bpe(Path(bpe_path).expanduser(), _context_length(config))
    if tokens.size > (known := _detector_config(config).text_config.vocab_size):
        raise SettingsError(
            f"the tokenizer has {tokens.size} tokens, but the model knows {known}: use the model's own tokenizer"
        )
    if image_size:
        _set_image_size(config, image_size)
    # Created without values, except for computed ones (rope tables, position grids), which no file contains.
    with no_init_weights():
        model = Sam3VideoModel(config)
    _fill_model(model, tensors)
    model.requires_grad_(False).train(False)
    return model, tokens


def fingerprint(model: Sam3VideoModel) -> str:
    """Eight hex digits that change with the model's weights or configuration; a sample of each tensor is read.

    Call it right after `load_model`: in another precision a model has another fingerprint.
    """
    config = _strip_origin(json.loads(model.config.to_json_string(use_diff=False)))
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().flatten()
        sample = values[:: max(1, values.numel() // FINGERPRINT_SAMPLES)].to("cpu", torch.float32)
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:8]


def _download(repository: str, model_dir: Path | None) -> Path:
    """The folder of a repository's files; the copy on disk if the hub is unreachable or denies access."""
    if not HUB_NAME.fullmatch(repository) or WEIGHT_FILE.search(repository) or Path(repository).parent.is_dir():
        raise SettingsError(
            f"there is no file or folder {Path(repository).name}: set model_path to facebook/sam3, to a folder in the "
            "hub's layout, or to sam3.pt"
        )
    try:
        return Path(snapshot_download(repository, allow_patterns=list(HUB_FILES), cache_dir=model_dir))
    except Exception as error:  # The network's errors have no common class.
        try:
            kept = snapshot_download(
                repository, allow_patterns=list(HUB_FILES), cache_dir=model_dir, local_files_only=True
            )
        except Exception:
            raise _hub_error(repository, error) from error
        log.warning("the hub cannot be reached (%s): loading the copy of %s on disk", type(error).__name__, repository)
        return Path(kept)


def _hub_error(repository: str, error: BaseException) -> SettingsError:
    status = None
    cause: BaseException | None = error
    while cause is not None and status is None:
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        cause = cause.__cause__
    if status in (401, 403):
        return SettingsError(
            f"you have no access to {repository}: request it at huggingface.co/{repository}, then set "
            "HF_TOKEN to your token (huggingface.co/settings/tokens)"
        )
    if status == 404:
        return SettingsError(f"the hub has no {repository}: set model_path to facebook/sam3")
    return SettingsError(
        f"{repository} could not be fetched ({type(error).__name__}): connect to huggingface.co once, or set "
        "model_path to a folder that holds its files, or to sam3.pt with bpe_path to bpe_simple_vocab_16e6.txt.gz"
    )


def _read_config(folder: Path) -> Sam3VideoConfig:
    path = folder / "config.json"
    values = _read_json(path)
    kind = values.get("model_type")
    if kind != "sam3_video":
        raise SettingsError(f"{path.name} has model_type {kind}: use the folder of a model with model_type sam3_video")
    try:
        return Sam3VideoConfig.from_dict(_strip_origin(values))
    except Exception as error:  # The library raises no narrower class.
        raise SettingsError(f"{path.name} is not a config of SAM3 ({type(error).__name__}): copy it again") from error


def _context_length(config: Sam3VideoConfig) -> int:
    return int(_detector_config(config).text_config.max_position_embeddings)


def _detector_config(config: Sam3VideoConfig) -> Any:
    """The detector's config, which the library declares with a type too wide to use."""
    return config.detector_config


def _strip_origin(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _strip_origin(value) for key, value in values.items() if key not in ORIGIN_KEYS}
    return values


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


def _read_folder(folder: Path) -> dict[str, Tensor]:
    """Read a folder in the hub's layout: one safetensors file, several with an index, or a pickle."""
    index, pickled = folder / "model.safetensors.index.json", folder / "pytorch_model.bin"
    single = folder / "model.safetensors"
    if single.is_file():
        return _read_tensors(single)
    if index.is_file():
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise SettingsError(f"{index.name} has no weight_map: copy it again")
        return {
            name: tensor
            for shard in sorted(set(shards.values()))
            for name, tensor in _read_tensors(folder / shard).items()
        }
    if pickled.is_file():
        return _read_tensors(pickled)
    raise SettingsError(f"the folder {folder.name} contains no model.safetensors: copy it there, or use sam3.pt itself")


def _read_original(path: Path, bpe_path: str) -> dict[str, Tensor]:
    if not bpe_path:
        raise SettingsError(f"{path.name} contains no tokenizer: set bpe_path to bpe_simple_vocab_16e6.txt.gz")
    tensors = _read_tensors(path)
    if not is_original(tensors):
        raise SettingsError(
            f"{path.name} is not the original sam3.pt: use that, or the folder with {path.name} and config.json"
        )
    return convert_checkpoint(tensors)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of one file by name, memory-mapped if the format allows."""
    if not path.is_file():
        raise SettingsError(f"{path.name} is missing: copy the model's folder again")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # The libraries raise no narrower class.
        raise SettingsError(
            f"{path.name} is broken or contains more than weights ({type(error).__name__}): copy it again"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict):
        raise SettingsError(f"{path.name} contains no weights: copy it again")
    return {str(name): tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}


def _fill_model(model: Sam3VideoModel, tensors: dict[str, Tensor]) -> None:
    """Load the weights into the model: all of them, or none."""
    places = model.state_dict()
    for name, twin in (TIED_NAMES, TIED_NAMES[::-1]):
        if name not in tensors and twin in tensors:
            tensors[name] = tensors[twin].clone()
    wrong = [f"{name} is missing" for name in sorted(places.keys() - tensors.keys())]
    for name in sorted(places.keys() & tensors.keys()):
        place, tensor = places[name], tensors[name]
        if place.shape != tensor.shape:
            wrong.append(f"{name} is {_format_shape(tensor)}, not {_format_shape(place)}")
        elif not tensor.is_floating_point():
            wrong.append(f"{name} holds {str(tensor.dtype).removeprefix('torch.')}, not floats")
    if wrong:
        raise SettingsError(f"the weights do not fit SAM3: {_format_names(wrong, '; ')}: use those of facebook/sam3")
    if left := sorted(tensors.keys() - places.keys()):
        log.warning("%d of the weights are not part of SAM3 and are ignored: %s", len(left), _format_names(left))
    fitting = {name: tensors[name].to(torch.float32).contiguous() for name in places}
    model.load_state_dict(fitting, strict=True, assign=True)


def _format_shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _format_names(names: Sequence[str], between: str = ", ") -> str:
    more = f"{between}and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return between.join(names[:MAX_NAMES]) + more


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SettingsError(
            f"the folder {path.parent.name} contains no {path.name}: copy it there, or use sam3.pt itself"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path.name} cannot be read as JSON: copy it again") from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path.name} cannot be read as JSON: copy it again")
    return found
