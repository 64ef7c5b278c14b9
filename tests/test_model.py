"""The class under hosts that behave as label-studio-ml's two lines do; test_hosting.py uses a real one."""

import importlib
import sys
import types
from collections.abc import Iterator
from typing import ClassVar

import pytest
from flask import Flask

from backend import model
from tests.labelstudio.bodies import CONFIG, body, drawn, keyframe


class TwoLineBase:
    """As LabelStudioMLBase of the 2.x line: made anew for every request, with setup() at the end of the constructor."""

    kept: ClassVar[dict] = {}

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        self._config = label_config
        self.setup()

    @property
    def label_config(self) -> str | None:
        return self._config

    def set(self, key: str, value: str) -> None:
        self.kept[key] = value

    def setup(self) -> None:
        raise AssertionError("to be overridden")


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch, make_service) -> Iterator[types.ModuleType]:
    fake = types.ModuleType("label_studio_ml.model")
    monkeypatch.setattr(fake, "LabelStudioMLBase", TwoLineBase, raising=False)
    monkeypatch.setitem(sys.modules, "label_studio_ml", types.ModuleType("label_studio_ml"))
    monkeypatch.setitem(sys.modules, "label_studio_ml.model", fake)
    module = importlib.reload(model)
    monkeypatch.setattr(module, "_service", make_service())
    yield module
    monkeypatch.undo()
    importlib.reload(model)


def test_the_2x_line_hosts_it(hosted: types.ModuleType) -> None:
    assert issubclass(hosted.Sam3Backend, TwoLineBase)
    request = body(drawn(keyframe(1)))
    results = []
    for _ in range(2):
        instance = hosted.Sam3Backend(project_id="3", label_config=CONFIG)
        results.append(
            instance.predict(request["tasks"], context=request["params"]["context"], login=None, password=None)
        )
        assert instance.fit("ANNOTATION_CREATED", {}) == {}
    assert TwoLineBase.kept["model_version"] == "stub-1"
    assert results[0] == results[1]
    assert results[0][0]["result"][0]["id"] == "fDqJ3pfXOd"


def test_it_stands_alone_without_label_studio_ml() -> None:
    assert model.Sam3Backend.__mro__[1] is object
    model.Sam3Backend().setup()


@pytest.mark.parametrize(("address", "is_known"), [("127.0.0.1", True), ("10.1.2.3", False)])
def test_the_2x_line_learns_where_label_studio_is(hosted: types.ModuleType, address: str, is_known: bool) -> None:
    """It does not hand on what /setup brings, and a video with a path alone could not be fetched."""
    sent = {"project": "3.17", "hostname": "http://ls.example:8080", "access_token": "secret"}
    with Flask("host").test_request_context("/setup", method="POST", json=sent, environ_base={"REMOTE_ADDR": address}):
        hosted.Sam3Backend(project_id="3", label_config=CONFIG)
    client = hosted.shared_service().connections.client("3")
    assert (client and client.url) == ("http://ls.example:8080" if is_known else None)


def test_the_2x_line_starts_a_training(hosted: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list = []
    monkeypatch.setattr(hosted.shared_service().preannotation, "train", trained.append)
    instance = hosted.Sam3Backend(project_id="3", label_config=CONFIG)
    for event in ("ANNOTATION_CREATED", "START_TRAINING"):
        instance.fit(event, {"project": {"id": 3}})
    assert trained == [{"id": 3}]
