"""`sam3-backend doctor`: every line that it tells, what mends what failed, and the exit code."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from backend import engines
from backend.cli import main
from backend.commands import doctor, doctor_checks
from backend.errors import MediaError, SettingsError, StudioError
from backend.labelstudio.client import LabelStudioClient, fetch_backend_health
from backend.labelstudio.connection_errors import LOOSEN_GUARD
from backend.labelstudio.media import MediaCache
from backend.settings import Settings
from backend.settings_loader import ALIASES
from tests.clips import write_clip
from tests.fakes import StubEngine

URL, KEY = "http://localhost:8080", "very-secret-key"
HERE = "http://127.0.0.1:9090"
PREPARE = "run sam3-backend project prepare --project 7"
CONFIG = """<View>
  <Labels name="labels" toName="video"><Label value="Car"/></Labels>
  <Video name="video" value="$video" framerate="$fps"/>
  <VideoRectangle name="box" toName="video"/>
  <TextArea name="text_prompt" toName="video"/>
  <KeyPointLabels name="points" toName="frames"><Label value="object 1"/></KeyPointLabels>
  <Image name="frames" valueList="$frames"/>
<HyperText name="panel" value="" Value="$panel"/></View>"""
UNDERSTOOD = [
    "ok    label config: boxes: box",
    "ok    label config: words: text_prompt",
    "ok    label config: clicks: points",
]
SERVED = {"model_class": "Sam3Backend", "model_version": "stub-1", "model": "ready"}
VIDEO = "ok    video: 192 x 128, 20 frames, 25 frames/s"
FAR = ("ok    video: from far", "ok    video: fetched, 3.2 kB")
PICTURES = ["/data/upload/7/frame-1.jpg", "/data/upload/7/frame-20.jpg"]


class Studio:
    """What the fake Label Studio holds, and which of its methods fail with what."""

    def __init__(self) -> None:
        self.config = CONFIG
        self.task: dict[str, Any] = {
            "id": 3,
            "project": 7,
            "data": {
                "video": "/data/upload/7/clip.mp4",
                "fps": 25,
                "frames": PICTURES,
                "frame_numbers": [1, 20],
                "panel": f'<img src="{HERE}/panel/key">',
            },
        }
        self.backends: list[dict[str, Any]] = [
            {"url": HERE, "state": "CO", "readable_state": "Connected", "is_interactive": True, "auth_method": "NONE"}
        ]
        self.legacy: bool | None = True
        self.failing: dict[str, Exception] = {}

    @property
    def data(self) -> dict[str, Any]:
        return self.task["data"]

    def answer(self, method: str, value: Any) -> Callable[..., Any]:
        def answered(client: LabelStudioClient, *_: object) -> Any:
            assert client.url == URL
            if method in self.failing:
                raise self.failing[method]
            return value() if callable(value) else value

        return answered


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with room, an engine that is ready and served, and no Label Studio."""
    for name in ALIASES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAM3_BACKEND_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=5 * 2**30))
    monkeypatch.setattr(engines, "load_engine", lambda settings: StubEngine())
    monkeypatch.setattr(doctor_checks, "packages_distributions", lambda: {"cv2": ["opencv-contrib-python-headless"]})
    monkeypatch.setattr(doctor_checks, "fetch_backend_health", lambda url, *_: SERVED if url == HERE else None)
    monkeypatch.setattr(doctor, "_POLL_SECONDS", 0)
    return tmp_path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=20).path.read_bytes()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, clip: bytes) -> dict[str, bytes]:
    """What can be fetched, by address."""
    held = {"/data/upload/7/clip.mp4": clip, "http://far/clip.mp4": clip, PICTURES[0]: b"jpeg"}

    def fetch(media: MediaCache, url: str, client: LabelStudioClient | None, *_: object) -> Path:
        if url not in held:
            raise MediaError("the video's server answered 404: check the task's url")
        path = media._folder / url.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(held[url])
        return path

    monkeypatch.setattr(MediaCache, "fetch", fetch)
    return held


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> Studio:
    """A Label Studio where everything is right."""
    monkeypatch.setenv("LABEL_STUDIO_URL", URL)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", KEY)
    held = Studio()
    for method, value in {
        "release": "1.23.2",
        "check_key": None,
        "has_legacy_tokens": lambda: held.legacy,
        "task": lambda: held.task,
        "backends": lambda: held.backends,
        "project": lambda: {"label_config": held.config},
    }.items():
        monkeypatch.setattr(LabelStudioClient, method, held.answer(method, value))
    return held


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], places: Path) -> Callable[..., list[str]]:
    """Runs doctor, checks that the exit code is what its lines say and that they hold no secret: the lines."""

    def run(*words: str) -> list[str]:
        code = main(["doctor", *words])
        out, err = capsys.readouterr()
        lines = out.splitlines()
        assert all(line[:6] in ("ok    ", "warn  ", "FAIL  ") for line in lines)
        failures = sum(line.startswith("FAIL") for line in lines)
        assert code == (1 if failures else 0)
        assert (f"{failures} checks failed" in err) == (failures > 0)
        for secret in (KEY, str(places), "Traceback"):
            assert secret not in out + err
        return lines

    return run


def test_with_nothing_to_look_at_it_tells_of_the_model_the_folder_and_the_missing_label_studio(told) -> None:
    assert told("--model", "shapes", "--device", "cpu") == [
        "ok    settings: engine auto, model shapes (demo model for coloured shapes), device cpu",
        "ok    model: stub-1 is ready",
        "ok    data_dir: writable, 5.0 GiB free",
        "ok    environment: one OpenCV, from opencv-contrib-python-headless",
        "ok    server: stub-1 on port 9090 is ready",
        "warn  Label Studio: label_studio_url is not set: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, or "
        "enable legacy tokens, which Label Studio then sends",
    ]


def test_a_task_that_lacks_nothing(told, studio: Studio, places: Path) -> None:
    assert told("--task", "3")[5:] == [
        "ok    Label Studio: version 1.23.2 answers",
        "ok    Label Studio: accepts the key, a legacy token",
        "ok    task: 3 in project 7",
        *UNDERSTOOD,
        "ok    connection: Label Studio reaches http://127.0.0.1:9090 and sends prompts to it",
        "ok    live panel: browsers load it from http://127.0.0.1:9090",
        "ok    video: an upload to Label Studio",
        "ok    video: fetched, 3.2 kB",
        VIDEO,
        "ok    frame rate: 25, as in the file",
        "ok    frames: 2 to click on, the first was fetched",
    ]
    assert [path.name for path in (places / "data" / "media").iterdir()] == ["clip.mp4"]


def test_settings_that_cannot_be_read_end_it(told, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("port: many")
    assert told("--config", str(config)) == ["FAIL  settings: port is 'many': give a whole number"]


def test_opencv_has_no_model_and_a_models_folder_is_not_shown(told, tmp_path: Path) -> None:
    assert told("--engine", "opencv")[0] == "ok    settings: engine opencv (no model, no text prompts)"
    assert told("--model", str(tmp_path / "sam3.pt"))[0] == "ok    settings: engine auto, model sam3.pt, device auto"


def test_a_model_that_loads_is_waited_for(told, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loading(StubEngine):
        coming = iter(["loading", "loading", "warming up", "ready"])
        status = property(lambda self: next(self.coming), lambda self, value: None)

    monkeypatch.setattr(engines, "load_engine", lambda settings: Loading())
    assert told()[1] == "ok    model: stub-1 is ready"


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (SettingsError("set engine: opencv"), "set engine: opencv"),
        (
            OSError("/home/me/sam3.pt"),
            "internal error, OSError at backend.commands.doctor:",
        ),
        (None, "set model_path"),
    ],
)
def test_a_model_that_cannot_be_loaded(told, monkeypatch, failure: Exception | None, sentence: str) -> None:
    def load(settings: object) -> StubEngine:
        if failure:
            raise failure
        return StubEngine(status="failed: set model_path")

    monkeypatch.setattr(engines, "load_engine", load)
    lines = told()
    assert lines[1].startswith(f"FAIL  model: {sentence}")
    assert "/home/me" not in lines[1]
    assert lines[2].startswith("ok    data_dir")  # the rest is looked at all the same


def test_weights_that_do_not_come_are_no_model(told, monkeypatch: pytest.MonkeyPatch) -> None:
    status = "waiting for its weights: hub.example has sent nothing for 60 s; what has come is kept"
    monkeypatch.setattr(engines, "load_engine", lambda settings: StubEngine(status=status))
    assert told()[1] == (
        "FAIL  model: waiting for its weights: hub.example has sent nothing for 60 s: see whether this machine reaches "
        "it, or set HF_ENDPOINT"
    )


def test_little_room_is_a_warning_and_a_folder_that_cannot_be_written_a_failure(told, monkeypatch, places) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * 2**30 - 1))
    room = "writable, 2.0 GiB free: free some space, because downloaded videos are stored there"
    assert told()[2] == f"warn  data_dir: {room}"
    (places / "data").rmdir()
    (places / "data").write_text("a file")
    assert told()[2] == (
        "FAIL  data_dir: not writable (File exists): give a folder that the backend may write to, on a disk with "
        "free space"
    )


def test_a_second_opencv_fails(told, monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"cv2": ["opencv-python", "opencv-python-headless", "opencv-python"]}
    monkeypatch.setattr(doctor_checks, "packages_distributions", lambda: both)
    assert told()[3] == (
        "FAIL  environment: opencv-python and opencv-python-headless overwrite each other: pip uninstall "
        "opencv-python opencv-python-headless, then pip install opencv-contrib-python-headless"
    )


EDIT = "Project 7 → Settings → Model → Edit"
REACHES = "use an address that Label Studio's machine can reach"
AWAY: dict[str, Any] = {"state": "DI", "readable_state": "Disconnected"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"url": "http://127.0.0.1:9091"},
            "warn  connection: Label Studio reaches http://127.0.0.1:9091 and sends prompts to it; but this "
            "server's port is 9090: is the address right?",
        ),
        (
            {"url": "http://user:very-secret-key@backend:9090/"},
            "ok    connection: Label Studio reaches http://backend:9090/ and sends prompts to it; doctor "
            "cannot tell whether it is this server",
        ),
        (
            {"is_interactive": False},
            f"FAIL  connection: prompts are not sent to {HERE}: {EDIT} → turn on Interactive preannotations",
        ),
        (
            {"state": "ER", "readable_state": "Error", "error_message": "500 Server Error"},
            f"FAIL  connection: Label Studio reaches {HERE}, which fails with: 500 Server Error: see its log",
        ),
        (
            AWAY | {"error_message": "of an hour ago"},
            f"FAIL  connection: Label Studio reports Disconnected for {HERE}, which answers here: "
            f"its guard may refuse this private address: {LOOSEN_GUARD}; or {REACHES}",
        ),
        (
            AWAY | {"url": "http://backend.example.com"},
            "FAIL  connection: Label Studio reports Disconnected for http://backend.example.com, which answers here: "
            f"{REACHES}",
        ),
        (
            AWAY | {"url": "http://127.0.0.1:1"},
            "FAIL  connection: Label Studio reports Disconnected for http://127.0.0.1:1, and it does not answer here, "
            f"either: start sam3-backend serve, or correct the address: {EDIT}",
        ),
    ],
)
def test_what_label_studio_says_of_the_connection(told, studio: Studio, monkeypatch, changes, line: str) -> None:
    here = {HERE: SERVED, "http://backend.example.com": SERVED}
    monkeypatch.setattr(doctor_checks, "fetch_backend_health", lambda url, *_: here.get(url))
    studio.backends = [studio.backends[0] | changes]
    lines = told("--task", "3")
    assert [one for one in lines if "connection" in one] == [line]
    assert lines[-1].startswith("ok    frames")  # the rest is looked at all the same


def test_every_model_of_a_project_has_its_line_and_none_is_a_failure(told, studio: Studio) -> None:
    studio.backends = [studio.backends[0] | {"is_interactive": False}, studio.backends[0]]
    assert [line[:17] for line in told("--task", "3") if "connection" in line] == [
        "FAIL  connection:",
        "ok    connection:",
    ]
    studio.backends = []
    assert (
        "FAIL  connection: no model is connected: Project 7 → Settings → Model → Connect Model, with this server's "
        "address" in told("--task", "3")
    )


def test_from_afar_no_address_is_known_to_be_this_server(told, studio: Studio, monkeypatch) -> None:
    monkeypatch.setattr(doctor_checks, "is_loopback", lambda host: host == "127.0.0.1")  # Label Studio is no longer
    (line,) = (line for line in told("--task", "3") if "connection" in line)
    assert line.endswith("doctor cannot tell whether it is this server")


def test_a_connection_that_gives_no_password(told, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASIC_AUTH_USER", "ann")
    monkeypatch.setenv("BASIC_AUTH_PASS", KEY)
    studio.backends[0] |= AWAY
    assert (
        f"FAIL  connection: Label Studio reports Disconnected for {HERE}, which needs a user and a password: {EDIT} → "
        "Basic Authentication" in told("--task", "3")
    )


def test_without_a_task_no_connection_is_known(told, studio: Studio) -> None:
    assert told()[7:] == [
        "warn  connection: not checked: add --task N to check whether Label Studio reaches this server"
    ]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (None, "warn  server: no server on port 9090: start sam3-backend serve with the same settings"),
        (SERVED | {"model": "loading"}, "ok    server: stub-1 on port 9090 is loading"),
        (SERVED | {"model": "failed: set device: cpu"}, "FAIL  server: stub-1 on port 9090: set device: cpu"),
        (
            {},
            "FAIL  server: port 9090 is used by another program, or by a sam3-backend with another user and "
            "password: use the same settings for both, or set another port",
        ),
    ],
)
def test_what_answers_where_the_server_listens(told, monkeypatch, answer: dict | None, line: str) -> None:
    monkeypatch.setattr(doctor_checks, "fetch_backend_health", lambda *_: answer)
    assert told()[4] == line


@pytest.mark.parametrize(
    ("host", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "localhost"), ("::", "localhost"), ("::1", "[::1]"), ("gpu", "gpu")],
)
def test_the_server_is_asked_where_it_listens_with_its_password(monkeypatch, host: str, asked: str) -> None:
    seen = []
    monkeypatch.setattr(doctor_checks, "fetch_backend_health", lambda *words: seen.append(words))
    doctor_checks.check_server(Settings(host=host, basic_auth_user="ann", basic_auth_pass="pass"))
    assert seen == [(f"http://{asked}:9090", "ann", "pass")]


@pytest.mark.parametrize(
    ("model", "device", "memory", "line"),
    [
        ("shapes", "cpu", (1, 2), "ok    device: cpu"),
        (
            "facebook/sam3",
            "cpu",
            (1, 2),
            "warn  device: cpu, which takes over a minute per frame: set device: cuda on a machine with a GPU",
        ),
        ("facebook/sam3", "cuda:1", (2**30, 24 * 2**30), "ok    device: cuda:1, 23.0 of 24.0 GiB free"),
        ("facebook/sam3", "mps", None, "ok    device: mps"),
    ],
)
def test_the_device_of_sam3(told, monkeypatch, model: str, device: str, memory: tuple | None, line: str) -> None:
    devices = pytest.importorskip("backend.engines.sam.device")
    monkeypatch.setattr(devices, "select_device", lambda name: name)

    class Sam3(StubEngine):
        name = "sam3"

        def memory(self) -> tuple[int, int] | None:
            return memory

    monkeypatch.setattr(engines, "load_engine", lambda settings: Sam3())
    assert told("--model", model, "--device", device)[1:3] == [line, "ok    model: sam3-1 is ready"][::-1]


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (512, "ok    device: cpu"),
        (0, "warn  device: cpu: set image_size: 512, which is several times as fast on a CPU"),
    ],
)
def test_the_device_of_sam2(told, monkeypatch, size: int, line: str) -> None:
    pytest.importorskip("backend.engines.sam.device")

    class Sam2(StubEngine):
        name = "sam2"

    monkeypatch.setattr(engines, "load_engine", lambda settings: Sam2())
    monkeypatch.setenv("SAM3_BACKEND_IMAGE_SIZE", str(size))
    lines = told("--engine", "sam2", "--device", "cpu")
    assert lines[0].endswith("engine sam2, model facebook/sam2.1-hiera-tiny (no text prompts), device cpu")
    assert line in lines[1:3]


@pytest.mark.parametrize(
    ("legacy", "more"),
    [(True, "; legacy tokens are enabled, too"), (False, "; legacy tokens are disabled, which is fine"), (None, "")],
)
def test_the_kind_of_key_is_told(told, studio: Studio, monkeypatch, legacy: bool | None, more: str) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "ey.very-secret-key.sig")
    studio.legacy = legacy
    assert f"ok    Label Studio: accepts the key, a personal access token{more}" in told()


def test_a_task_needs_label_studio(told) -> None:
    assert told("--task", "3")[5:] == [
        "FAIL  Label Studio: label_studio_url is not set: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
    ]


@pytest.mark.parametrize("method", ["release", "check_key"])
def test_a_label_studio_that_cannot_be_asked_is_told_once(told, studio: Studio, method: str) -> None:
    studio.failing[method] = StudioError("mend it")
    lines = told("--task", "3")[5:]
    assert lines[-1] == "FAIL  Label Studio: mend it"
    assert len(lines) == (1 if method == "release" else 2)


def test_a_task_that_is_not_there(told, studio: Studio) -> None:
    studio.failing["task"] = StudioError("Label Studio has no tasks/3: check the number")
    assert told("--task", "3")[7:] == ["FAIL  task: Label Studio has no tasks/3: check the number"]


def test_what_cannot_be_prompted_is_a_warning(told, studio: Studio) -> None:
    studio.config = CONFIG.replace("<VideoRectangle", '<VideoRectangle smart="false"')
    assert 'warn  label config: "box" sends no requests: replace its smart="false" by smartOnly="true"' in told(
        "--task", "3"
    )


def test_a_label_config_that_cannot_be_used_ends_it(told, studio: Studio) -> None:
    studio.config = "<View/>"
    lines = told("--task", "3")
    assert lines[-1].startswith("FAIL  label config: the label config has no Video tag: add <Video")


def test_a_video_that_cannot_be_had(told, studio: Studio, files: dict[str, bytes], places: Path) -> None:
    files["/data/upload/7/clip.mp4"] = b"no video"
    lines = told("--task", "3")
    assert lines[-1].startswith("FAIL  video: this file holds no video that can be decoded")
    assert list((places / "data" / "media").iterdir()) == []  # the next try fetches it anew
    del files["/data/upload/7/clip.mp4"]
    assert told("--task", "3")[-1] == "FAIL  video: the video's server answered 404: check the task's url"
    del studio.data["video"]
    assert told("--task", "3")[-1] == 'FAIL  video: the task has no video: its data needs the field "video"'


@pytest.mark.parametrize(
    ("framerate", "fps", "more", "line"),
    [
        ("$fps", "25", {}, "ok    frame rate: 25, as in the file"),
        ("$fps", 25.001, {}, "ok    frame rate: 25.001, as in the file"),
        ("25", None, {}, "ok    frame rate: 25, as in the file"),
        ("$fps", None, {}, f"FAIL  frame rate: fps is missing: {PREPARE}"),
        ("$fps", "", {}, f"FAIL  frame rate: fps is missing: {PREPARE}"),
        ("$fps", 30, {}, f"FAIL  frame rate: fps is 30, but the file has 25 frames/s: {PREPARE}"),
        ("$fps", "nan", {}, f"FAIL  frame rate: fps is 24, but the file has 25 frames/s: {PREPARE}"),
        (
            "$fps",
            30,
            {"total_annotations": 1},
            "FAIL  frame rate: fps is 30, but the file has 25 frames/s, and existing boxes depend on it: import it as "
            f"a new task, then {PREPARE}",
        ),
        (
            "",
            25,
            {},
            "FAIL  frame rate: the label config gives 24, but the file has 25 frames/s: set "
            f'framerate="$fps" in it, then {PREPARE}',
        ),
    ],
)
def test_the_frame_rate(told, studio: Studio, framerate: str, fps: object, more: dict[str, Any], line: str) -> None:
    studio.config = CONFIG.replace("$fps", framerate)
    studio.data["fps"] = fps
    studio.task |= more
    lines = told("--task", "3")
    assert lines[lines.index(VIDEO) + 1] == line


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"frames": None}, f"FAIL  frames: frames or frame_numbers is missing: {PREPARE}"),
        ({"frame_numbers": []}, f"FAIL  frames: frames or frame_numbers is missing: {PREPARE}"),
        ({"frame_numbers": [1]}, f"FAIL  frames: frames has 2 pictures, frame_numbers has 1 numbers: {PREPARE}"),
        (
            {"frame_numbers": [20, 1]},
            f"FAIL  frames: frame_numbers do not fit the video, which has frames 1 to 20: {PREPARE}",
        ),
        (
            {"frame_numbers": [1, 21]},
            f"FAIL  frames: frame_numbers do not fit the video, which has frames 1 to 20: {PREPARE}",
        ),
        (
            {"frame_numbers": ["1", 2]},
            f"FAIL  frames: frame_numbers do not fit the video, which has frames 1 to 20: {PREPARE}",
        ),
        (
            {"frames": PICTURES[::-1]},
            f"FAIL  frames: the first cannot be fetched: delete frame_numbers from the task's data, then {PREPARE}",
        ),
        (
            {"frames": [f"{URL}/data/gone.jpg"] * 2},
            f"FAIL  frames: the first cannot be fetched: delete frame_numbers from the task's data, then {PREPARE}",
        ),
        (
            {"frames": ["http://backend:9090/frames/key/1.jpg"] * 2},
            "ok    frames: 2 to click on, not stored in Label Studio, so not fetched",
        ),
    ],
)
def test_the_strip_of_frames(told, studio: Studio, changed: dict[str, Any], line: str) -> None:
    studio.data.update(changed)
    assert told("--task", "3")[-1] == line


@pytest.mark.parametrize(
    ("panel", "host", "line"),
    [
        (None, "127.0.0.1", f"warn  live panel: the task does not show that of http://127.0.0.1:9090: {PREPARE}"),
        ("<b>", "127.0.0.1", f"warn  live panel: the task does not show that of http://127.0.0.1:9090: {PREPARE}"),
        (None, "0.0.0.0", "warn  live panel: not shown: set public_url to this server's address for browsers"),
    ],
)
def test_a_task_without_the_live_panel(
    told, studio: Studio, monkeypatch, panel: str | None, host: str, line: str
) -> None:
    studio.data["panel"] = panel
    monkeypatch.setenv("SAM3_BACKEND_HOST", host)
    assert line in told("--task", "3")


def test_a_frame_rate_that_cannot_be_is_told_of_the_frames_too(told, studio: Studio) -> None:
    studio.data["fps"] = -5
    assert [line[:16] for line in told("--task", "3")[-2:]] == ["FAIL  frame rate", "FAIL  frames: th"]


def test_without_clicks_no_strip_is_looked_for(told, studio: Studio) -> None:
    studio.config = CONFIG.replace("KeyPointLabels", "Choices")
    lines = told("--task", "3")
    assert "ok    label config: no clicks: there is no strip of frames" in lines
    assert lines[-1] == "ok    frame rate: 25, as in the file"


def test_an_address_is_fetched_and_opened(told, files: dict[str, bytes]) -> None:
    assert told("--url", "http://far/clip.mp4")[6:] == [*FAR, VIDEO]
    assert told("--url", "http://far/gone.mp4?token=1")[6:] == [
        FAR[0],
        "FAIL  video: the video's server answered 404: check the task's url",
    ]


def test_an_address_is_looked_at_where_label_studio_is_down(told, studio: Studio) -> None:
    studio.failing["release"] = StudioError("mend it")
    assert told("--url", "http://far/clip.mp4")[5:] == ["FAIL  Label Studio: mend it", *FAR, VIDEO]


def test_a_task_and_an_address_do_not_go_together() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["doctor", "--task", "3", "--url", "http://far/clip.mp4"])


def answering(monkeypatch: pytest.MonkeyPatch, status: int, body: bytes) -> list[requests.PreparedRequest]:
    """Every request gets this answer: the requests."""
    sent = []

    def send(session: requests.Session, request: requests.PreparedRequest, **_: object) -> requests.Response:
        sent.append(request)
        answer = requests.Response()
        answer.status_code, answer.raw = status, io.BytesIO(body)
        return answer

    monkeypatch.setattr(requests.Session, "send", send)
    return sent


def test_label_studios_version_is_asked_for_without_the_key_and_the_key_is_tried(monkeypatch) -> None:
    sent = answering(monkeypatch, 200, b'{"release": "1.23.2"}')
    client = LabelStudioClient(f"{URL}/below", KEY)
    assert client.release() == "1.23.2"
    client.check_key()
    assert [(request.url, request.headers.get("Authorization")) for request in sent] == [
        (f"{URL}/below/api/version/", None),
        (f"{URL}/below/api/current-user/whoami", f"Token {KEY}"),
    ]


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (200, b"[]"), (404, b"{}"), (200, b'{"version": 1}')])
def test_what_is_no_label_studio_is_told(monkeypatch, status: int, body: bytes) -> None:
    answering(monkeypatch, status, body)
    with pytest.raises(StudioError, match="is not Label Studio: set label_studio_url"):
        LabelStudioClient(URL, KEY).release()


def test_an_address_without_http_is_no_label_studio() -> None:
    with pytest.raises(StudioError, match="label_studio_url is not an address"):
        LabelStudioClient("localhost:8080", KEY).release()


def test_a_label_studio_that_is_down_and_a_key_that_it_refuses(monkeypatch) -> None:
    with pytest.raises(StudioError, match=r"nothing listens at http://127\.0\.0\.1:1"):
        LabelStudioClient("http://127.0.0.1:1", KEY).release()
    answering(monkeypatch, 401, b"{}")
    with pytest.raises(StudioError, match="refused the key: set LABEL_STUDIO_API_KEY"):
        LabelStudioClient(URL, KEY).check_key()


def test_legacy_tokens_that_are_disabled_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio 1.23.2's own words."""
    says = b'{"detail":"Authentication token no longer valid: legacy token authentication has been disabled for this"}'
    answering(monkeypatch, 401, says)
    with pytest.raises(StudioError, match="has legacy tokens disabled: set LABEL_STUDIO_API_KEY to a personal access"):
        LabelStudioClient(URL, KEY).check_key()


@pytest.mark.parametrize(
    ("status", "body", "has"),
    [
        (200, b'{"api_tokens_enabled": true, "legacy_api_tokens_enabled": true}', True),
        (200, b'{"api_tokens_enabled": true, "legacy_api_tokens_enabled": false}', False),
        (403, b"{}", None),
        (200, b"[]", None),
    ],
)
def test_whether_legacy_tokens_are_enabled_is_asked(monkeypatch, status: int, body: bytes, has: bool | None) -> None:
    (sent,) = [answering(monkeypatch, status, body)]
    assert LabelStudioClient(URL, KEY).has_legacy_tokens() is has
    assert [request.url for request in sent] == [f"{URL}/api/jwt/settings"]


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b'{"model_class": "Sam3Backend"}', {"model_class": "Sam3Backend"}),
        (401, b'{"error": "a user and password are needed"}', {}),
        (200, b"<html>", {}),
        (200, b"[]", {}),
    ],
)
def test_a_backend_says_what_it_is(monkeypatch, status: int, body: bytes, says: dict[str, str]) -> None:
    sent = answering(monkeypatch, status, body)
    assert fetch_backend_health(f"{HERE}/", "ann", "pass") == says
    assert fetch_backend_health(HERE) == says
    assert [request.url for request in sent] == [f"{HERE}/health"] * 2
    assert [request.headers.get("Authorization") for request in sent] == ["Basic YW5uOnBhc3M=", None]


def test_where_nothing_answers_there_is_no_backend() -> None:
    assert fetch_backend_health("http://127.0.0.1:1") is None


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("/data/local-files/?d=a.mp4", "a local file of Label Studio"),
        ("http://ls/data/upload/1/a.mp4", "an upload to Label Studio"),
        ("/tasks/3/resolve/?fileuri=czM6", "in cloud storage, through Label Studio"),
        ("https://cdn.example/a.mp4?X-Amz-Signature=secret", "from cdn.example"),
    ],
)
def test_where_a_video_comes_from_is_told(url: str, where: str) -> None:
    assert doctor_checks.describe_address(url, "http://ls") == where
