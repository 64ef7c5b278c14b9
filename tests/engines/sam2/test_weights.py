"""SAM 2's weights: a folder in the hub's layout, the size of its input, and errors that name the mend."""

from pathlib import Path

import pytest
import torch

from backend.engines.sam2.weights import load_model
from backend.errors import SettingsError
from tests.engines.sam.tiny_parts import PATCH
from tests.engines.sam2 import tiny
from tests.engines.sam3 import tiny as sam3


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("sam2"))


def test_a_folder_loads_to_the_bit(folder):
    model, expected = load_model(str(folder)), tiny.build().state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("size", [64, 256])
def test_another_input_size_fits_the_same_weights(folder, size):
    model = load_model(str(folder), image_size=size)
    grid = size // PATCH
    with torch.inference_mode():
        levels = model.vision_encoder(torch.zeros(1, 3, size, size)).fpn_hidden_states
    assert [tuple(level.shape[2:]) for level in levels] == [(scale * grid, scale * grid) for scale in (4, 2, 1)]
    assert model.prompt_encoder.mask_input_size == (4 * grid, 4 * grid)


def test_a_size_that_does_not_fit_names_one_that_does(folder):
    with pytest.raises(SettingsError, match="image_size is 500: set a multiple of 32, such as 512, or 0"):
        load_model(str(folder), image_size=500)


def test_the_folder_of_another_model_is_refused(tmp_path):
    sam3.config().save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match="model_type sam3_video: use the folder of a model with model_type sam2_"):
        load_model(str(tmp_path))


def test_what_is_nowhere_names_where_weights_are(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match=r"set model_path to facebook/sam2.1-hiera-tiny, .* sam2.1_hiera_tiny.pt"):
        load_model(str(tmp_path / "nothing.pt"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SettingsError, match=r"facebook/sam2\.1-hiera-tiny could not be fetched") as caught:
        load_model("facebook/sam2.1-hiera-tiny", model_dir=str(tmp_path))
    assert "bpe" not in str(caught.value)
