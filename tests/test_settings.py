from pathlib import Path

import pytest
import yaml

from backend.errors import SettingsError
from backend.settings import Settings, load

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "BASIC_AUTH_USER", "BASIC_AUTH_PASS", "LOG_LEVEL", "PORT"):
        monkeypatch.delenv(name, raising=False)


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


def test_the_shipped_file_holds_every_default() -> None:
    assert load(ROOT / "configs/default.yaml") == Settings()
    values = yaml.safe_load((ROOT / "configs/default.yaml").read_text())
    assert values.keys() == Settings().shown().keys() | {"data_dir"}


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = written(
        tmp_path, "port: 1\nhost: file\nengine: opencv\nkeyframes: {iou: 0.5}\nlimits: {queue: 3, body: 1 MiB}"
    )
    monkeypatch.setenv("SAM3_BACKEND_PORT", "2")
    monkeypatch.setenv("SAM3_BACKEND_HOST", "environment")
    monkeypatch.setenv("SAM3_BACKEND_LIMITS_QUEUE", "4")
    settings = load(config, {"port": 3, "host": None})
    assert (settings.port, settings.host, settings.engine) == (3, "environment", "opencv")
    assert (settings.keyframes.iou, settings.limits.queue, settings.limits.body) == (0.5, 4, 2**20)


def test_names_that_users_expect_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://ls:8080")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "secret")
    monkeypatch.setenv("PORT", "9091")
    settings = load()
    assert (settings.label_studio_url, settings.port) == ("http://ls:8080", 9091)
    assert settings.shown()["label_studio_api_key"] == "***"
    assert "secret" not in str(settings.shown())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot: 1", "no setting prot"),
        ("limits: {cue: 1}", "no setting limits.cue"),
        ("limits: 5", "limits holds several"),
        ("engine: sam2", "engine is 'sam2': choose one of auto, sam3, opencv"),
        ("port: many", "port is 'many': give a whole number"),
        ("port: 2.5", "port is 2.5: give a whole number"),
        ("port: true", "port is True: give a whole number"),
        ("port: 99999", "0 to 65535"),
        ("answer_within: -1", "answer_within is negative"),
        ("keyframes: {iou: 1.5}", "keyframes.iou is 1.5"),
        ("limits: {queue: 0}", "limits.queue must be above 0"),
        ("label_studio_api_key: abc", "not label_studio_url"),
        ("basic_auth_user: ann", "go together"),
        ("[1, 2]", "key: value"),
        ("port: [", "cannot be read as YAML"),
        ("host: [a]", "host must be a text"),
    ],
)
def test_a_wrong_setting_is_named_with_its_mend(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load(written(tmp_path, text))


def test_a_wrong_name_in_the_environment_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM3_BACKEND_PROT", "1")
    with pytest.raises(SettingsError, match="no setting prot"):
        load()


def test_a_missing_file_is_named_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.yaml cannot be read") as error:
        load(tmp_path / "gone.yaml")
    assert str(tmp_path) not in str(error.value)
