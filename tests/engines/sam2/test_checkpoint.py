"""The published checkpoint fits Transformers' model: every name finds its place, with its shape."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Sam2VideoModel

from backend.engines.sam2.checkpoint import convert_checkpoint, infer_config
from backend.engines.sam2.weights import FAMILY, load_model
from backend.errors import SettingsError


def listed() -> dict[str, Tensor]:
    """Every tensor of sam2.1_hiera_tiny.pt, without values."""
    lines = Path(__file__).with_name("sam2_pt_shapes.txt").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {name: torch.empty([int(size) for size in shape.split("x")], device="meta") for name, shape in rows}


def test_every_name_of_the_original_has_its_place_and_shape() -> None:
    tensors = convert_checkpoint(listed())
    with torch.device("meta"):
        model = Sam2VideoModel(infer_config(tensors, "sam2.1_hiera_tiny.pt"))
    places = {name: place.shape for name, place in model.state_dict().items()}
    assert places.pop(FAMILY.tied_names[0])
    assert {name: tensor.shape for name, tensor in tensors.items()} == places


def test_the_rows_of_the_point_embeddings_keep_their_order() -> None:
    rows = {f"sam_prompt_encoder.point_embeddings.{n}.weight": torch.full((1, 3), float(n)) for n in (2, 0, 3, 1)}
    assert convert_checkpoint(rows)["prompt_encoder.point_embed.weight"][:, 0].tolist() == [0, 1, 2, 3]


def test_the_original_file_loads_as_it_is(tmp_path: Path) -> None:
    # Of a tensor without strides the file holds one number.
    tensors = {
        name: torch.full((), 0.5 if name == "no_mem_embed" else 0.25).expand(one.shape)
        for name, one in listed().items()
    }
    torch.save({"model": tensors}, tmp_path / "sam2.1_hiera_tiny.pt")
    model = load_model(str(tmp_path / "sam2.1_hiera_tiny.pt"), image_size=512)
    assert model.no_memory_embedding.unique().tolist() == [0.5]
    assert all((tensor == 0.25).all() for name, tensor in model.named_parameters() if name != "no_memory_embedding")
    assert model.prompt_encoder.image_embedding_size == (32, 32)


@pytest.mark.parametrize("drop", ["image_encoder.trunk.pos_embed", "image_encoder.trunk.blocks.3."])
def test_another_file_is_refused_with_the_mend(drop: str) -> None:
    tensors = {name: tensor for name, tensor in listed().items() if not name.startswith(drop)}
    with pytest.raises(SettingsError, match=r"any\.pt is not a checkpoint of SAM 2: use sam2\.1_hiera_tiny\.pt"):
        infer_config(convert_checkpoint(tensors), "any.pt")
