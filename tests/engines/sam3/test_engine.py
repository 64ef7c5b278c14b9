"""The engine loads in the background, says how far it is, and hears its settings."""

import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.engines.sam import version
from backend.engines.sam3 import weights
from backend.engines.sam3.engine import Sam3Engine
from backend.engines.sam3.version import engine_version
from backend.errors import SettingsError
from backend.settings import Settings
from backend.tracks.geometry import Box
from backend.tracks.prompts import Phrase, Prompt
from tests.engines.sam import scenes
from tests.engines.sam3 import tiny

A, B = Prompt("a", 0, box=Box(20, 20, 70, 80)), Prompt("b", 0, box=Box(90, 20, 140, 60))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return tiny.save(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def settings(folder) -> Settings:
    return Settings(model_path=str(folder), device="cpu")


class Gate:
    """Holds a function back until it is let through."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        function = getattr(owner, name)

        def held(*args, **kwargs):
            self.reached.set()
            assert self.opened.wait(60)
            return function(*args, **kwargs)

        patch.setattr(owner, name, held)


def test_it_says_how_far_it_is_and_open_waits(settings, monkeypatch):
    loading = Gate(monkeypatch, weights, "load_model")
    warming = Gate(monkeypatch, Sam3Engine, "_warm_up")
    engine = Sam3Engine(settings)
    assert loading.reached.wait(60)
    assert engine.status == "loading"
    sessions = []
    opening = threading.Thread(target=lambda: sessions.append(engine.open(scenes.short(2))))
    opening.start()
    loading.opened.set()
    assert warming.reached.wait(60)
    assert engine.status == "warming up"
    assert not sessions
    warming.opened.set()
    opening.join(60)
    assert engine.status == "ready"
    assert len(sessions) == 1
    assert engine.name == "sam3"


def test_warming_up_runs_everything_once_and_keeps_nothing(settings):
    engine = Sam3Engine(settings)
    vision = engine.model.image_encoder
    assert vision.runs == 1
    assert (vision.cache.use().frames, vision.cache.use().misses) == (0, 0)
    assert engine.cache_use().max_device_bytes > 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SettingsError("the file is not whole: fetch it again"), "the file is not whole: fetch it again"),
        (RuntimeError("/secret/path"), "the model could not be loaded (RuntimeError): check model_path and device"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_an_error_of_every_open(settings, monkeypatch, caplog, error, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(weights, "load_model", fail)
    engine = Sam3Engine(settings)
    for _ in range(2):
        with pytest.raises(SettingsError) as caught:
            engine.open(scenes.short(2))
        assert str(caught.value).startswith(said)
        assert "/secret" not in str(caught.value) + caplog.text
        assert engine.status == f"failed: {caught.value}"


@pytest.mark.parametrize(("path", "name"), [("sam3.pt", "sam3"), ("sam3.1", "sam3.1"), ("a/b.safetensors", "b")])
def test_the_version_begins_with_the_models_name_without_the_files_ending(path, name):
    assert re.fullmatch(f"{name}-[0-9a-f]{{6}}", engine_version(Settings(model_path=path)))


def test_the_version_changes_with_the_weights_and_with_what_changes_tracks(settings, folder):
    others = [{"image_size": 224}, {"dtype": "bfloat16"}, {"score_threshold": 0.3}, {"max_objects": 3}]
    others += [
        {"reference": "transformers"},
        {"new_object_threshold": 0.8},
        {"hotstart_frames": 3},
        {"model_path": "facebook/sam3"},
    ]
    others += [{"model_path": "facebook/sam3", "revision": "v2"}]
    versions = [engine_version(replace(settings, **other)) for other in ({}, {"port": 1}, {"device": "auto"}, *others)]
    assert versions[0] == versions[1] == versions[2]
    assert len({*versions}) == 1 + len(others)


def test_the_version_is_of_what_the_files_hold_wherever_they_are(settings, folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / folder.name))
    elsewhere = replace(settings, model_path=str(copy))
    assert engine_version(elsewhere) == engine_version(settings)
    for name in ("config.json", "model.safetensors"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert engine_version(elsewhere) != engine_version(settings)
        (copy / name).write_bytes(content)


def test_of_large_files_the_version_is_of_samples(settings, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(version, "WHOLE_BYTES", 2**16)
    before = version.digest_files(version.find_files(folder))
    assert before == version.digest_files(version.find_files(folder))
    copy = Path(shutil.copytree(folder, tmp_path / folder.name)) / "model.safetensors"
    content = np.frombuffer(copy.read_bytes(), np.uint8).copy()
    content[-5000:] ^= 1
    copy.write_bytes(content.tobytes())
    assert before != version.digest_files(version.find_files(copy.parent))


def test_a_model_that_is_not_there_is_an_error(tmp_path):
    engine = Sam3Engine(Settings(model_path=str(tmp_path / "nothing"), device="cpu"))
    with pytest.raises(SettingsError, match="model_path"):
        engine.open(scenes.short(2))
    assert engine.status.startswith("failed: ")
    assert str(tmp_path) not in engine.status


def test_a_device_that_is_not_there_is_an_error_at_once(settings, folder):
    with pytest.raises(SettingsError, match="device: cuda:9 is not available"):
        Sam3Engine(Settings(model_path=str(folder), device="cuda:9"))


def seen(engine: Sam3Engine, stop: int = 3) -> Iterator[tuple[Box | None, float, torch.Tensor]]:
    """Box, score and mask of two objects on the first frames."""
    video = scenes.short(stop)
    with engine.open(video) as session:
        session.prompt([A, B])
        for result in session.propagate(range(stop)):
            for name, one in result.tracks.items():
                memory = session._object_tracker.objects[name].memory_bank.get(result.frame)
                assert memory
                assert memory.logits is not None
                yield one.box, one.score, memory.logits


def test_in_bfloat16_it_sees_about_the_same(settings, folder):
    wide = list(seen(Sam3Engine(settings), 1))
    narrow = list(seen(Sam3Engine(Settings(model_path=str(folder), device="cpu", dtype="bfloat16")), 1))
    assert [score for _, score, _ in narrow] != [score for _, score, _ in wide]
    for (_, score, mask), (_, other_score, other) in zip(narrow, wide, strict=True):
        assert score == pytest.approx(other_score, abs=0.02)
        assert float(((mask > 0) == (other > 0)).float().mean()) > 0.95
    assert all(mask.isfinite().all() for *_, mask in narrow)


def test_words_and_tracks_work_in_bfloat16(folder):
    engine = Sam3Engine(
        Settings(model_path=str(folder), device="cpu", dtype="bfloat16", score_threshold=0.1, new_object_threshold=0.1)
    )
    with engine.open(scenes.short(4)) as session:
        session.prompt([Phrase("circle"), A])
        results = list(session.propagate(range(4)))
    assert results[-1].phrases
    assert results[-1].tracks["a"].box
    assert all(0 <= one.score <= 1 for result in results for one in result.tracks.values())


def test_another_image_size_runs(folder):
    side = 2 * tiny.IMAGE
    engine = Sam3Engine(Settings(model_path=str(folder), device="cpu", image_size=side))
    assert engine.model.tracker.image_size == side
    assert engine.model.tracker.mask_size == (8 * tiny.GRID, 8 * tiny.GRID)
    assert any(box for box, *_ in seen(engine))


def test_settings_reach_the_thresholds_and_the_masks(folder):
    engine = Sam3Engine(
        Settings(
            model_path=str(folder),
            device="cpu",
            score_threshold=0.25,
            new_object_threshold=0.45,
            max_objects=3,
            hotstart_frames=7,
            show_masks=True,
        )
    )
    thresholds = engine.model.thresholds
    assert (thresholds.new_track_score, thresholds.max_objects, thresholds.hotstart_frames) == (0.45, 3, 7)
    assert engine.model.image_encoder._model.config.score_threshold_detection == 0.25
    assert engine.model.with_masks
    with engine.open(scenes.short(2)) as session:
        masks = [one.mask for one in session.prompt([A, B]).tracks.values() if one.box]
    assert masks
    assert all((mask.height, mask.width) == (120, 160) for mask in masks)


def test_a_longer_hot_start_than_the_models_asks_for_as_much_evidence(folder):
    own = Sam3Engine(Settings(model_path=str(folder), device="cpu", hotstart_frames=15)).model.thresholds
    longer = Sam3Engine(Settings(model_path=str(folder), device="cpu", hotstart_frames=40)).model.thresholds
    assert (own.hotstart_frames, longer.hotstart_frames) == (15, 40)
    assert (longer.hotstart_unmatched, longer.hotstart_duplicates) == (own.hotstart_unmatched, own.hotstart_duplicates)


def test_small_specks_are_no_part_of_an_object(settings):
    mask = np.zeros((120, 160), bool)
    mask[40:100, 60:140] = True
    speckled = mask.copy()
    speckled[4:12, 5:15] = True
    with Sam3Engine(settings).open(scenes.short(2)) as session:
        found = session.prompt([Prompt("a", 0, mask=mask), Prompt("b", 0, mask=speckled)]).tracks
    assert found["a"].box == found["b"].box


def test_without_show_masks_none_leave_the_engine(settings):
    with Sam3Engine(settings).open(scenes.short(2)) as session:
        assert {one.mask for one in session.prompt([A, B]).tracks.values()} == {None}
