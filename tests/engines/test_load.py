"""Which engine the settings get; a stand-in for the real SAM3 engine shows how it is made."""

import gc
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from backend import engines
from backend.engines.opencv.engine import OpenCVEngine
from backend.errors import SettingsError
from backend.settings import Settings
from tests.engines.contract import video


class Made:
    def __init__(self, settings: Settings, sharers: int) -> None:
        self.settings, self.sharers = settings, sharers


@pytest.fixture
def sam3(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("backend.engines.sam3.engine")
    monkeypatch.setattr(module, "Sam3Engine", Made, raising=False)
    monkeypatch.setitem(sys.modules, "backend.engines.sam3.engine", module)
    monkeypatch.setattr(engines, "find_spec", lambda name: name)


def test_opencv_is_ready_at_once_and_only_by_its_name() -> None:
    engine = engines.load_engine(Settings(engine="opencv"))
    assert isinstance(engine, OpenCVEngine)
    assert engine.status == "ready"


@pytest.mark.parametrize("name", ["auto", "sam3"])
def test_sam3_is_made_with_the_settings(sam3: None, name: str) -> None:
    settings = Settings(engine=name)
    made = engines.load_engine(settings, 3)
    assert isinstance(made, Made)
    assert (made.settings, made.sharers) == (settings, 3)
    made = engines.load_engine(replace(settings, device="cuda:1,cuda:2"))
    assert isinstance(made, Made)
    assert made.settings.device == "cuda:1"


def test_garbage_is_looked_for_as_before_but_not_in_the_libraries(sam3: None, monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: collected.append(gc.isenabled()))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    engines.load_engine(Settings(engine="sam3"))
    assert (collected, gc.isenabled()) == ([False], True)
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    engines.load_engine(Settings(engine="sam3"))
    assert len(collected) == 1, "what was made since the libraries were imported would stay, too"


@pytest.mark.parametrize("name", ["auto", "sam3"])
@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_without_its_libraries_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, name: str, missing: str) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda library: None if library == missing else library)
    with pytest.raises(SettingsError, match=rf"engine: {name} needs {missing}: .*sam3-backend\[sam3\].*engine: opencv"):
        engines.load_engine(Settings(engine=name))


def test_a_sam3_that_cannot_be_loaded_is_an_error_and_auto_names_the_choice(tmp_path) -> None:
    open_way = (
        "; or set engine: sam2 or edgetam, .*sam3-backend serve --engine sam2; or set engine: opencv for the stand-in"
    )
    for name, choice in (("sam3", "config.json"), ("auto", open_way)):
        engine = engines.load_engine(Settings(engine=name, model_path=str(tmp_path), device="cpu"))
        with pytest.raises(SettingsError, match=choice):
            engine.open(video())
        assert engine.status.startswith("failed: ")


def test_auto_stands_for_every_gpu_that_pytorch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for count, devices in ((0, ("cpu",)), (1, ("cuda:0",)), (3, ("cuda:0", "cuda:1", "cuda:2"))):
        monkeypatch.setattr(engines, "count_gpus", lambda count=count: count)
        assert engines.list_devices(Settings()) == devices
        assert engines.list_devices(Settings(engine="opencv")) == ("cpu",)
        assert engines.list_devices(Settings(device="cuda:1")) == ("cuda:1",)


def test_pytorch_is_asked_only_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engines, "_COUNT", "print(4)")
    assert engines.count_gpus(tmp_path) == 0
    (tmp_path / "nvidia0").touch()
    assert engines.count_gpus(tmp_path) == 4
    monkeypatch.setattr(engines, "_COUNT", "raise SystemExit('no torch')")
    assert engines.count_gpus(tmp_path) == 0


def test_on_another_machine_only_the_same_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    name, version = engines.identify_engine(Settings(engine="opencv"))
    assert engines.load_same_engine(Settings(engine="opencv"), name, version).status == "ready"
    with pytest.raises(
        SettingsError, match=f"the node's model is opencv-{version}, the server's opencv-other: give both"
    ):
        engines.load_same_engine(Settings(engine="opencv"), name, "other")


@pytest.mark.parametrize(
    ("settings", "is_slow"),
    [
        (Settings(engine="sam2", device="cpu"), True),
        (Settings(engine="edgetam", device="cpu:2", image_size=768), True),
        (Settings(engine="edgetam", device="cpu", image_size=512), False),
        (Settings(engine="sam2", device="cuda"), False),
        (Settings(engine="sam3", device="cpu"), False),
    ],
)
def test_on_a_cpu_a_model_for_laptops_is_better_small(settings: Settings, is_slow: bool) -> None:
    assert ("set image_size: 512" in engines.advise_size(settings)) is is_slow


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("facebook/sam2.1-hiera-tiny", "sam2"),
        ("/models/sam2.1_hiera_tiny.pt", "sam2"),
        ("yonigozlan/EdgeTAM-hf", "edgetam"),
        ("checkpoints/edgetam.pt", "edgetam"),
        ("facebook/sam3", "sam3"),
        ("/sam2/of/mine/sam3.pt", "sam3"),
        ("shapes", "sam3"),
    ],
)
def test_the_engine_of_a_model_is_guessed_by_its_name(name: str, engine: str) -> None:
    assert engines.guess_engine(name) == engine
