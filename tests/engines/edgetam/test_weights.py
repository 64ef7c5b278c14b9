"""EdgeTAM's weights: the authors' file, a folder in the hub's layout, the size of its input, errors with the mend."""

import json
from pathlib import Path

import pytest
import torch
from transformers import EdgeTamVideoModel

from backend.engines.edgetam.backbone import BACKBONE, fuse_backbone
from backend.engines.edgetam.checkpoint import convert_checkpoint, published_config
from backend.engines.edgetam.weights import FAMILY, load_model
from backend.errors import SettingsError
from tests.engines.edgetam import tiny
from tests.engines.edgetam.test_backbone import listed
from tests.engines.sam2 import tiny as sam2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("edgetam"))


def test_every_name_of_the_original_has_its_place_and_shape() -> None:
    published = {name: torch.zeros(shape) for name, shape in listed().items()}
    tensors = fuse_backbone(convert_checkpoint(published))
    with torch.device("meta"):
        model = EdgeTamVideoModel(published_config())
    places = {name: place.shape for name, place in model.state_dict().items()}
    assert places.pop(FAMILY.tied_names[0])
    assert {name: tensor.shape for name, tensor in tensors.items()} == places


def test_keys_and_values_of_the_perceiver_are_told_apart() -> None:
    both = {"spatial_perceiver.layers.1.self_attn.to_kv.weight": torch.arange(4.0)[:, None]}
    halves = convert_checkpoint(both)
    assert halves["spatial_perceiver.layers.1.self_attention.k_proj.weight"].flatten().tolist() == [0, 1]
    assert halves["spatial_perceiver.layers.1.self_attention.v_proj.weight"].flatten().tolist() == [2, 3]


def test_the_original_file_loads_as_it_is(tmp_path: Path) -> None:
    # Of a tensor without strides the file holds one number.
    tensors = {
        name: torch.full((), 0.5 if name == "no_mem_embed" else 0.25).expand(shape) for name, shape in listed().items()
    }
    torch.save({"model": tensors}, tmp_path / "edgetam.pt")
    model = load_model(str(tmp_path / "edgetam.pt"), image_size=512)
    assert model.no_memory_embedding.unique().tolist() == [0.5]
    assert model.prompt_encoder.image_embedding_size == (32, 32)


def test_a_folder_loads_to_the_bit(folder) -> None:
    model, expected = load_model(str(folder)), tiny.build().state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert not model.training


def test_a_folder_as_the_hub_has_it_needs_no_timm(folder, tmp_path) -> None:
    values = json.loads((folder / "config.json").read_text())
    values["vision_config"]["backbone_config"] = {
        "model_type": "timm_wrapper",
        "architecture": "repvit_m1",
        "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(SettingsError) as caught:  # the tiny backbone has not timm's size
        load_model(str(tmp_path))
    assert f"the weights do not fit EdgeTAM: {BACKBONE}stages" in str(caught.value)
    assert str(caught.value).endswith("use those of yonigozlan/EdgeTAM-hf")


def test_a_size_that_does_not_fit_names_one_that_does(folder) -> None:
    with pytest.raises(SettingsError, match="image_size is 600: set a multiple of 256, such as 512, or 0"):
        load_model(str(folder), image_size=600)


def test_another_model_is_refused_with_the_engine_that_runs_it(tmp_path) -> None:
    sam2.config().save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match=r"model_type edgetam_video, or set engine: sam2"):
        load_model(str(tmp_path))
    torch.save({"no_mem_embed": torch.zeros(1)}, tmp_path / "any.pt")
    with pytest.raises(SettingsError, match=r"any\.pt is not a checkpoint of EdgeTAM: use edgetam\.pt"):
        load_model(str(tmp_path / "any.pt"))
