"""What is EdgeTAM's own: its features, the tokens of its memory, its settings."""

from pathlib import Path

import pytest
import torch

from backend.engines import identify_engine, knows_words, load_engine
from backend.engines.edgetam.engine import EdgeTamEngine
from backend.errors import SettingsError, Unsupported
from backend.settings import OPEN_HUB_IDS, Settings
from backend.tracks.geometry import Box
from backend.tracks.prompts import Phrase, Prompt
from tests.engines.edgetam import tiny
from tests.engines.sam import scenes
from tests.engines.sam.features import encode_with_both
from tests.engines.sam.tiny_parts import GRID

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("edgetam"))


@pytest.fixture(scope="module")
def engine(folder) -> EdgeTamEngine:
    engine = load_engine(Settings(engine="edgetam", model_path=str(folder), device="cpu", max_objects=2))
    assert isinstance(engine, EdgeTamEngine)
    assert engine.model
    return engine


def test_features_equal_the_librarys_on_pictures_normalized_with_imagenets_statistics(engine) -> None:
    for ours, theirs in encode_with_both(engine):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_memories_equal_the_librarys_for_several_objects_at_once(engine) -> None:
    model, tracker = engine.model.image_encoder._model, engine.model.tracker
    grids = torch.randn(3, model.mem_dim, GRID, GRID)
    with torch.inference_mode():
        ours = tracker._compress_memory(grids)
        positions = model.memory_encoder.position_encoding(grids[:1].shape, grids.device, grids.dtype)
        theirs = [model.spatial_perceiver(grid[None], positions) for grid in grids]
    assert ours.shape == (3, tiny.WHOLE + tiny.WINDOWS**2, model.mem_dim)
    assert torch.allclose(ours, torch.cat([tokens for tokens, _ in theirs]), atol=1e-5)
    assert torch.allclose(tracker._constants.memory_positions, theirs[0][1][0], atol=1e-6)


def test_a_memory_is_as_small_at_any_input_size(folder) -> None:
    engine = EdgeTamEngine(Settings(engine="edgetam", model_path=str(folder), device="cpu", image_size=256))
    with engine.open(scenes.short(4)) as session:
        session.prompt([Prompt("a", 0, box=Box(20, 20, 60, 60))])
        assert len(list(session.propagate(range(1, 4)))) == 3
        memory = session._object_tracker.objects["a"].memory_bank.get(2)
    assert memory is not None
    assert memory.features is not None
    assert memory.features.shape == (tiny.WHOLE + tiny.WINDOWS**2, 64)


def test_words_are_refused_with_the_engine_that_knows_them(engine) -> None:
    assert not knows_words("edgetam")
    with engine.open(scenes.short(4)) as session, pytest.raises(Unsupported, match="or set engine: sam3"):
        session.prompt([Phrase("ball")])


def test_without_a_model_path_it_takes_its_own() -> None:
    settings = Settings(engine="edgetam")
    assert settings.model_path == OPEN_HUB_IDS["edgetam"]
    assert identify_engine(settings)[0] == "edgetam"
    assert identify_engine(settings)[1].startswith("EdgeTAM-hf-")


def test_the_input_size_is_a_multiple_of_256() -> None:
    assert Settings(engine="edgetam", image_size=768).image_size == 768
    with pytest.raises(SettingsError, match="image_size is 640: give a multiple of 256"):
        Settings(engine="edgetam", image_size=640)
