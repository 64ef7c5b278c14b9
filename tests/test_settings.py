from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from backend.errors import SettingsError
from backend.settings import PLACES, Settings
from backend.settings_loader import ALIASES, read_settings

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALIASES:
        monkeypatch.delenv(name, raising=False)


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


def test_the_shipped_file_holds_every_default() -> None:
    assert read_settings(ROOT / "configs/default.yaml") == Settings()
    assert (Settings().engine, Settings().model_path) == ("auto", "facebook/sam3"), "a stand-in is asked for by name"
    values = yaml.safe_load((ROOT / "configs/default.yaml").read_text())
    assert values.keys() == Settings().shown().keys() | PLACES


@pytest.mark.parametrize("default", ["facebook/sam3", "shapes"])
def test_another_family_has_weights_of_its_own(default: str) -> None:
    """Of the defaults: ENGINE=sam2 alone is enough, with docker compose, too."""
    paths = {engine: Settings(engine=engine, model_path=default).model_path for engine in ("sam3", "sam2", "edgetam")}
    assert paths == {"sam3": default, "sam2": "facebook/sam2.1-hiera-tiny", "edgetam": "yonigozlan/EdgeTAM-hf"}
    assert Settings(engine="sam2", model_path="sam2.1_hiera_tiny.pt").model_path == "sam2.1_hiera_tiny.pt"


def test_the_other_files_are_for_work_and_for_trying_out(monkeypatch: pytest.MonkeyPatch) -> None:
    work, tried = (read_settings(ROOT / f"configs/{name}.yaml") for name in ("sam3", "try-out"))
    assert work == replace(
        Settings(), engine="sam3", device="cuda", host="0.0.0.0", label_studio_url=work.label_studio_url
    )
    laptop = read_settings(ROOT / "configs/sam2.yaml")
    assert laptop == replace(
        Settings(engine="sam2", image_size=512),
        label_studio_url=laptop.label_studio_url,
    )
    # What stands in for the real weights does so by name.
    assert tried == replace(Settings(), engine="sam3", model_path="shapes", device="cpu")


@pytest.mark.parametrize("name", ["default", "sam3", "sam2", "try-out"])
def test_every_line_of_the_shipped_files_says_what_it_does(name: str) -> None:
    lines = (ROOT / f"configs/{name}.yaml").read_text().splitlines()
    assert [line for line in lines if line.strip() and "#" not in line and not line.endswith(":")] == []


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = written(
        tmp_path, "port: 1\nhost: file\nengine: opencv\nkeyframes: {iou: 0.5}\nlimits: {queue: 3, body: 1 MiB}"
    )
    monkeypatch.setenv("SAM3_BACKEND_PORT", "2")
    monkeypatch.setenv("SAM3_BACKEND_HOST", "environment")
    monkeypatch.setenv("SAM3_BACKEND_LIMITS_QUEUE", "4")
    settings = read_settings(config, {"port": 3, "host": None})
    assert (settings.port, settings.host, settings.engine) == (3, "environment", "opencv")
    assert (settings.keyframes.iou, settings.limits.queue, settings.limits.body) == (0.5, 4, 2**20)


def test_names_of_label_studios_own_backends_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_HOST", "http://ls:8080")
    monkeypatch.setenv("LABEL_STUDIO_ACCESS_TOKEN", "secret")
    settings = read_settings()
    assert (settings.label_studio_url, settings.label_studio_api_key) == ("http://ls:8080", "secret")
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://inside:8080")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "other")
    settings = read_settings()
    assert (settings.label_studio_url, settings.label_studio_api_key) == ("http://inside:8080", "other")


def test_names_that_users_expect_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://ls:8080")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "secret")
    monkeypatch.setenv("PORT", "9091")
    monkeypatch.setenv("MODEL_DIR", "/models")
    monkeypatch.setenv("DEVICE", "cuda:1")
    settings = read_settings()
    assert (settings.label_studio_url, settings.port) == ("http://ls:8080", 9091)
    assert (settings.model_dir, settings.device) == ("/models", "cuda:1")
    assert settings.shown()["label_studio_api_key"] == "***"
    assert "secret" not in str(settings.shown())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot: 1", r"no setting prot: did you mean port\?"),
        ("limits: {queu: 1}", r"no setting limits.queu: did you mean limits.queue\?"),
        ("answer_within: 5", "answer_within is now called response_timeout .SAM3_BACKEND_RESPONSE_TIMEOUT in"),
        ("limits: {stall: 9}", r"limits\.stall is now called limits\.worker_timeout"),
        ("limits: {days: 9}", r"limits\.days is now called limits\.retention_days .SAM3_BACKEND_LIMITS_RETENTION_DAYS"),
        ("colour: blue", "no setting colour: The settings are allowed_hosts"),
        ("limits: 5", "limits is a group"),
        ("engine: sam1", "engine is 'sam1': choose one of auto, sam3, sam2, edgetam, opencv"),
        ("port: many", "port is 'many': give a whole number"),
        ("port: 2.5", "port is 2.5: give a whole number"),
        ("port: true", "port is True: give a whole number"),
        ("port: 99999", "0 to 65535"),
        ("response_timeout: -1", "response_timeout is negative"),
        ("keyframes: {iou: 1.5}", "keyframes.iou is 1.5"),
        ("keyframes: {px: -1}", "keyframes.px is -1: give 0 or more"),
        ("keyframes: {budget: -5}", "keyframes.budget is -5: give 0 or more"),
        ("keyframes: {mode: budget}", "keyframes.budget and keyframes.mode: budget go together: set both or neither"),
        ("keyframes: {budget: 9}", "set both or neither"),
        ("keyframes: {mode: few}", "keyframes.mode is 'few': choose one of exact, iou, budget"),
        ("bridge_frames: -1", "bridge_frames is negative"),
        ("limits: {queue: 0}", "limits.queue must be above 0"),
        ("label_studio_api_key: abc", "without label_studio_url"),
        ("basic_auth_user: ann", "go together"),
        ("[1, 2]", "key: value"),
        ("port: [", "cannot be read as YAML"),
        ("host: [a]", "host must be text"),
        ("device: gpu", r"device has 'gpu': choose auto, cpu, cpu:N \(N workers\), mps, cuda or cuda:N"),
        ("device: 'cuda:'", "device has 'cuda:': choose"),
        ("device: []", "device has '': choose"),
        ("device: 'cpu:0'", "device has 'cpu:0': choose"),
        ("device: [cuda:1, cuda:2, cuda:1]", "device names cuda:1 twice: name each device once"),
        ("device: [cuda, cuda:0]", "device names cuda:0 twice: name each device once"),
        ("device: [cpu, cpu]", "device names cpu twice: write cpu:2 for two workers"),
        ("workers: slurm", "workers is 'slurm': choose one of local, ray"),
        ("ray: {address: 'ray://head:10001'}", "cannot stream: run the server on a node"),
        ("ray: {num_gpus: -1}", "ray.num_gpus is -1: give 0 or more"),
        ("ray: {min: 3, max: 2}", "ray.min is 3, ray.max 2: give 1 or more, and max at least min"),
        ("ray: {min: 0}", "give 1 or more"),
        ("ray: {runtime_env: pip}", "ray.runtime_env must be a group of lines"),
        ("{workers: ray, device: [cuda:0, cuda:1]}", "each worker has its own: set ray.max"),
        ("device: [cuda:0, cpu]", "give devices of one kind, which compute equal tracks"),
        ("dtype: float16", "choose one of auto, float32, bfloat16"),
        ("image_size: 1000", "give a multiple of 14"),
        ("image_size: -14", "give a multiple of 14"),
        ("score_threshold: 0", "score_threshold is 0: give a number above 0"),
        ("new_object_threshold: 1.1", "new_object_threshold is 1.1: give a number above 0"),
        ("score_threshold: 0.8", "new_object_threshold is 0.7, below score_threshold, which is 0.8: raise it"),
        ("max_objects: 0", "max_objects is 0: give 1 or more"),
        ("hotstart_frames: -1", "hotstart_frames is negative"),
        ("show_masks: maybe", "show_masks is 'maybe': give true or false"),
        ("show_masks: 2", "show_masks is 2: give true or false"),
        ("model_path: ''", "model_path is empty"),
        ("widgets: []", "the label config says what"),
        ("epsilon_factor: 0.001", "epsilon_factor smooths X-AnyLabeling's polygons, and tracks here are boxes"),
        ("params: {model_path: a}", "params is X-AnyLabeling's group"),
        ("type: segment_anything_3_video", "engine: sam3"),
        ("display_name: SAM 3", "display_name .* model_path names the model"),
        ("model_id: segment_anything_3_video", "model_id .* model_path names the model"),
        ("name: sam3", "name .* model_path names the model"),
        ("provider: facebook", "provider .* model_path names the model"),
        ("enabled_models: [segment_anything_3_video]", "enabled_models .* model_path names the model"),
        ("batch_processing_mode: video", "batch_processing_mode .* every task is a video here"),
        ("auto_clear_cache_label_and_gid: true", "auto_clear_cache_label_and_gid .*: leave it out"),
        ("server: {host: 0.0.0.0, port: 8000, workers: 1}", "server .* write host and port"),
        ("logging: {level: INFO}", "logging .* write log_level"),
        ("security: {api_key: a}", "security .* write basic_auth_user and basic_auth_pass"),
        ("performance: {request_timeout: 300}", "performance .* limits bound"),
        ("concurrency: {max_workers: 4}", r"concurrency .* limits\.queue"),
        ("devices: [cpu]", r"devices is \['cpu'\]: give numbers of GPUs, such as \[0, 1\], or set device"),
        ("show_boxes: false", "set show_masks: true"),
        ("{conf_threshold: 0.4, score_threshold: 0.5}", "conf_threshold and score_threshold are the same setting"),
        ("{device: cpu, devices: [0]}", "devices and device are the same setting"),
    ],
)
def test_a_wrong_setting_is_named_with_its_mend(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        read_settings(written(tmp_path, text))


def test_a_wrong_name_in_the_environment_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM3_BACKEND_PROT", "1")
    with pytest.raises(SettingsError, match="no setting prot"):
        read_settings()


@pytest.mark.parametrize(("old", "new"), [("ANSWER_WITHIN", "RESPONSE_TIMEOUT"), ("LIMITS_STALL", "WORKER_TIMEOUT")])
def test_a_former_name_in_the_environment_is_an_error_too(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    monkeypatch.setenv(f"SAM3_BACKEND_{old}", "1")
    with pytest.raises(SettingsError, match=rf"SAM3_BACKEND_\w*{new} in the environment"):
        read_settings()


def test_a_missing_file_is_named_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.yaml cannot be read") as error:
        read_settings(tmp_path / "gone.yaml")
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("bpe_path: bpe_simple_vocab_16e6.txt.gz", "bpe_path", "bpe_simple_vocab_16e6.txt.gz"),
        ("model_path: sam3.pt", "model_path", "sam3.pt"),
        ("conf_threshold: 0.25", "score_threshold", 0.25),
        ("device: [cuda:0, cuda:1]", "devices", ("cuda:0", "cuda:1")),
        ("device: 'cuda:0, cuda:1'", "devices", ("cuda:0", "cuda:1")),
        ("device: cpu:2", "devices", ("cpu", "cpu")),
        ("device: auto", "devices", ("auto",)),
        ("devices: [0, 1]", "devices", ("cuda:0", "cuda:1")),
        ("devices: [3]", "device", "cuda:3"),
        ("devices: 0", "device", "cuda:0"),
        ("show_boxes: true", "show_masks", False),
        ("image_size: 1008", "image_size", 1008),
        ("image_size: 1400", "image_size", 1400),
        ("show_masks: true", "show_masks", True),
    ],
)
def test_the_keys_of_x_anylabeling_are_understood(tmp_path: Path, text: str, key: str, value: object) -> None:
    assert getattr(read_settings(written(tmp_path, text)), key) == value


def test_either_name_of_a_setting_in_the_environment_beats_the_other_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAM3_BACKEND_SCORE_THRESHOLD", "0.3")
    assert read_settings(written(tmp_path, "conf_threshold: 0.25")).score_threshold == 0.3
    monkeypatch.delenv("SAM3_BACKEND_SCORE_THRESHOLD")
    monkeypatch.setenv("SAM3_BACKEND_CONF_THRESHOLD", "0.4")
    assert read_settings(written(tmp_path, "score_threshold: 0.25")).score_threshold == 0.4


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "false", "FALSE", "0", "no"])
def test_yes_and_no_are_read_from_the_environment_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    meant = text.lower() in ("true", "1", "yes")
    assert read_settings(written(tmp_path, f"show_masks: {text}")).show_masks is meant
    monkeypatch.setenv("SAM3_BACKEND_SHOW_MASKS", text)
    assert read_settings(written(tmp_path, f"show_masks: {not meant}")).show_masks is meant


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("facebook/sam3", "facebook/sam3"),
        ("shapes", "shapes"),
        ("/home/zoe/models/sam3", "sam3"),
        ("~/sam3.pt", "sam3.pt"),
        ("a/b/sam3.pt", "sam3.pt"),
    ],
)
def test_no_folder_of_this_machine_is_shown(path: str, shown: str) -> None:
    settings = Settings(model_path=path, model_dir="/home/zoe/cache", bpe_path="/home/zoe/bpe.txt.gz")
    assert settings.shown()["model_path"] == shown
    assert "zoe" not in str(settings.shown())
