"""Reads weights from the disk or the hub. All weights must fit; an error names those that do not."""

import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from backend.errors import SettingsError

log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=PreTrainedConfig)
Model = TypeVar("Model", bound=PreTrainedModel)

ORIGIN_KEYS = frozenset({"transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path"})
"""Keys of a config that describe how it was saved. A dtype would also round tensors that are computed, not loaded."""
ENGINES = {"sam3_video": "sam3", "sam2_video": "sam2", "edgetam_video": "edgetam"}
"""Which engine runs a model, by the `model_type` of its config."""
HUB_FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json")
TIED_NAMES = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)
"""Of a tracker by itself."""
MAX_NAMES = 5
"""Maximum number of names in an error or a warning."""


@dataclass(frozen=True, slots=True)
class Family:
    """What loading and its errors need to know of a family of models.

    Attributes:
        label: its name for people.
        hub_id: its repository on the hub.
        original: the file that its authors publish.
        original_setting: how to set `model_path`, and what goes with it, to use that file.
        hub_files: patterns of the files to fetch from the hub.
        tied_names: one table under two names. The original contains it once, and so do folders that were saved with
            the two tied.
    """

    label: str
    hub_id: str
    original: str
    original_setting: str
    hub_files: tuple[str, ...] = HUB_FILES
    tied_names: tuple[str, str] = TIED_NAMES


def read_config(
    folder: Path, kind: type[Config], family: Family, adapt: Callable[[dict[str, Any]], None] = lambda values: None
) -> Config:
    """Read the config.json of a folder in the hub's layout.

    Args:
        adapt: changes what the file says before it is understood.

    Raises:
        SettingsError: it is missing, broken or of another model.
    """
    path = folder / "config.json"
    values = read_json(path, family)
    if (model_type := values.get("model_type")) != kind.model_type:
        mend = f"use the folder of a model with model_type {kind.model_type}"
        mend += f", or set engine: {ENGINES[model_type]}" if model_type in ENGINES else ""
        raise SettingsError(f"{path.name} has model_type {model_type}: {mend}")
    try:
        adapt(values)
        config: Config = kind.from_dict(strip_origin(values))
    except Exception as error:  # The library raises no narrower class.
        raise SettingsError(
            f"{path.name} is not a config of {family.label} ({type(error).__name__}): copy it again"
        ) from error
    return config


def strip_origin(values: Any) -> Any:
    """A config without `ORIGIN_KEYS`, at any depth."""
    if isinstance(values, dict):
        return {key: strip_origin(value) for key, value in values.items() if key not in ORIGIN_KEYS}
    return values


def read_folder(folder: Path, family: Family) -> dict[str, Tensor]:
    """Read a folder in the hub's layout: one safetensors file, several with an index, or a pickle."""
    index, pickled = folder / "model.safetensors.index.json", folder / "pytorch_model.bin"
    single = folder / "model.safetensors"
    if single.is_file():
        return read_tensors(single)
    if index.is_file():
        shards = read_json(index, family).get("weight_map")
        if not isinstance(shards, dict):
            raise SettingsError(f"{index.name} has no weight_map: copy it again")
        names = {str(name) for name in shards.values()}
        if outside := sorted(name for name in names if name != Path(name).name):
            raise SettingsError(f"{index.name} names {outside[0]}, which is not in its folder: copy the folder again")
        return {name: tensor for shard in sorted(names) for name, tensor in read_tensors(folder / shard).items()}
    if pickled.is_file():
        return read_tensors(pickled)
    raise SettingsError(
        f"the folder {folder.name} contains no model.safetensors: copy it there, or use {family.original} itself"
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
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


def create_model(kind: Callable[[Config], Model], config: Config, tensors: dict[str, Tensor], family: Family) -> Model:
    """Create a model for inference with these weights; see `fill_model`."""
    # Without values, except for computed ones (rope tables, position grids), which no file contains.
    with no_init_weights():
        model = kind(config)
    fill_model(model, tensors, family)
    return model


def fill_model(model: PreTrainedModel, tensors: dict[str, Tensor], family: Family) -> None:
    """Load the weights into the model for inference: all of them, or none.

    Args:
        model: on the CPU; its own values are not used.
        tensors: by name; of tied names one is enough.
        family: of the model, for errors.

    Raises:
        SettingsError: a weight is missing or does not fit.
    """
    places = model.state_dict()
    for name, twin in (family.tied_names, family.tied_names[::-1]):
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
        raise SettingsError(
            f"the weights do not fit {family.label}: {_format_names(wrong, '; ')}: use those of {family.hub_id}"
        )
    if left := sorted(tensors.keys() - places.keys()):
        log.warning(
            "%d of the weights are not part of %s and are ignored: %s", len(left), family.label, _format_names(left)
        )
    fitting = {name: tensors[name].to(torch.float32).contiguous() for name in places}
    model.load_state_dict(fitting, strict=True, assign=True)
    model.requires_grad_(False).train(False)


def set_image_size(config: Any, image_size: int, step: int, least: int) -> None:
    """Change the input size in the config of a video model for clicks; no weight depends on it.

    Args:
        image_size: width and height in pixels.
        step: what it has to be a multiple of.
        least: the smallest.

    Raises:
        SettingsError: it does not fit.
    """
    if image_size % step or image_size < least:
        near = max(least, round(image_size / step) * step)
        raise SettingsError(f"image_size is {image_size}: set a multiple of {step}, such as {near}, or 0")
    grid = image_size // config.prompt_encoder_config.patch_size
    config.image_size = config.prompt_encoder_config.image_size = image_size
    config.vision_config.backbone_feature_sizes = [[scale * grid, scale * grid] for scale in (4, 2, 1)]
    config.memory_attention_rope_feat_sizes = [grid, grid]


def _format_shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _format_names(names: Sequence[str], between: str = ", ") -> str:
    more = f"{between}and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return between.join(names[:MAX_NAMES]) + more


def read_json(path: Path, family: Family) -> dict[str, Any]:
    """Read a JSON object of a model's folder.

    Raises:
        SettingsError: the file is missing or broken.
    """
    if not path.is_file():
        raise SettingsError(
            f"the folder {path.parent.name} contains no {path.name}: copy it there, or use {family.original} itself"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path.name} cannot be read as JSON: copy it again") from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path.name} cannot be read as JSON: copy it again")
    return found
