"""The shapes checkpoint, as it comes with the package: loaded as any other, and good at what it learned.

The bars of the slow part lie a little below what `benchmarks/shapes_accuracy.py` measures on these clips.
"""

import pytest
import torch

from backend.engines.sam3 import weights
from backend.engines.sam3.version import engine_version, resolve_model_path
from backend.settings import SHAPES_MODEL, Settings
from backend.shapes import HELD_OUT
from benchmarks import shapes_accuracy
from tests.needs import THOROUGH

EASY = range(HELD_OUT, HELD_OUT + 20) if THOROUGH else range(HELD_OUT + 16, HELD_OUT + 20)
CROWDED = range(HELD_OUT, HELD_OUT + 10) if THOROUGH else (HELD_OUT + 3, HELD_OUT + 8)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.slow
def test_it_loads_by_its_name_as_a_folder_does():
    model, tokens = weights.load_model(SHAPES_MODEL)
    same, _ = weights.load_model(str(resolve_model_path(SHAPES_MODEL)))
    assert all(torch.equal(tensor, same.state_dict()[name]) for name, tensor in model.state_dict().items())
    ids, attention = tokens.encode(["red circle"])
    assert attention.sum() == 4
    assert ids.max() < model.config.detector_config.text_config.vocab_size


def test_it_is_small_and_says_what_it_is():
    folder = resolve_model_path(SHAPES_MODEL)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 20e6
    assert engine_version(Settings(model_path="shapes")).startswith("shapes-")


def test_a_folder_called_shapes_is_not_in_its_way(tmp_path, monkeypatch):
    (tmp_path / "shapes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert weights.load_model("shapes")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_follows_what_is_clicked_on():
    easy = shapes_accuracy.measure("easy", EASY, "shapes", full=False)
    crowded = shapes_accuracy.measure("crowded", CROWDED, "shapes", full=False)
    assert shapes_accuracy.mean(easy, "click_easy") >= (0.8 if THOROUGH else 0.88)
    assert shapes_accuracy.mean(crowded, "click_crowded") >= (0.53 if THOROUGH else 0.7)
    assert shapes_accuracy.mean(easy + crowded, "absence") >= (0.6 if THOROUGH else 0.7)
