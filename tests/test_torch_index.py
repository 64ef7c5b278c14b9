"""Which index PyTorch is installed from."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def torch_index(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, on a Linux machine without a driver where PyTorch's index answers."""
    path = Path(__file__).parent.parent / "docker/torch_index.py"
    spec = importlib.util.spec_from_file_location("torch_index", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(module, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(module, "answers", lambda index: True)
    return module


def test_without_a_driver_the_cpu_wheels_are_taken(torch_index: ModuleType) -> None:
    assert torch_index.choose("auto") == torch_index.CPU_INDEX


def test_with_a_driver_pypi_is_taken(torch_index: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_index, "has_nvidia_driver", lambda: True)
    assert torch_index.choose("auto") == ""


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "aarch64"), ("win32", "AMD64")])
def test_where_pypi_has_cpu_wheels_it_is_taken(
    torch_index: ModuleType, monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert torch_index.choose("auto") == ""


def test_an_index_that_does_not_answer_is_told(
    torch_index: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch_index, "answers", lambda index: False)
    assert torch_index.choose("auto") == ""
    assert "does not answer within 5 s: PyTorch comes from PyPI" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["", "https://wheels.example/cu126"])
def test_an_index_that_is_given_is_taken(torch_index: ModuleType, wanted: str) -> None:
    assert torch_index.choose(wanted) == wanted


def test_a_closed_port_does_not_answer(torch_index: ModuleType) -> None:
    module = importlib.util.module_from_spec(torch_index.__spec__)
    torch_index.__spec__.loader.exec_module(module)
    assert not module.answers("http://127.0.0.1:1")
