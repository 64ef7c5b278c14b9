"""What is SAM 2's own: pictures as its models expect them, no words, its settings."""

from pathlib import Path

import pytest
import torch

from backend.engines import identify_engine
from backend.engines.sam2.engine import Sam2Engine
from backend.errors import SettingsError, Unsupported
from backend.settings import OPEN_HUB_IDS, Settings
from backend.tracks.geometry import Box
from backend.tracks.prompts import Phrase, Prompt
from tests.engines.sam import scenes
from tests.engines.sam.features import encode_with_both
from tests.engines.sam2 import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def engine(folder) -> Sam2Engine:
    engine = Sam2Engine(Settings(engine="sam2", model_path=str(folder), device="cpu", max_objects=2))
    assert engine.model
    return engine


def test_features_equal_the_librarys_on_pictures_normalized_with_imagenets_statistics(engine):
    for ours, theirs in encode_with_both(engine):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_words_are_refused_with_the_engine_that_knows_them_and_change_nothing(engine):
    with engine.open(scenes.short(4)) as session:
        session.prompt([Prompt("a", 0, box=Box(20, 20, 60, 60))])
        with pytest.raises(Unsupported, match="draw a box or click on each object, or set engine: sam3"):
            session.prompt([Phrase("ball"), Prompt("b", 0, box=Box(20, 20, 60, 60))])
        assert [list(result.tracks) for result in session.propagate(range(1, 3))] == [["a"], ["a"]]


def test_every_prompted_frame_is_used_however_many(engine):
    assert engine.model.tracker.memory_window(99).cond_frames is None
    assert engine.model.tracker.memory_window(99).min_eff_iou is None


def test_a_state_of_another_input_size_is_refused(engine, folder):
    with engine.open(scenes.short(4)) as session:
        session.prompt([Prompt("a", 0, box=Box(20, 20, 60, 60))])
        state = bytes(session.state())
    other = Sam2Engine(Settings(engine="sam2", model_path=str(folder), device="cpu", image_size=64))
    assert other.model.tracker.image_size == 64
    with pytest.raises(Unsupported, match="run the track again"):
        other.open(scenes.short(4), state)


def test_without_a_model_path_it_takes_its_own():
    settings = Settings(engine="sam2")
    assert settings.model_path == OPEN_HUB_IDS["sam2"]
    assert identify_engine(settings)[0] == "sam2"
    assert identify_engine(settings)[1].startswith("sam2.1-hiera-tiny-")


def test_the_input_size_is_a_multiple_of_32():
    assert Settings(engine="sam2", image_size=512).image_size == 512
    with pytest.raises(SettingsError, match="image_size is 500: give a multiple of 32"):
        Settings(engine="sam2", image_size=500)
