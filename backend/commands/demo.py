"""`sam3-backend demo`: Label Studio and the backend on this machine, with a sample clip."""

import argparse
import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from backend.child_process import python_command
from backend.commands import prepare
from backend.commands.arguments import Subparsers, add_command
from backend.demo import check, clip, environment
from backend.demo.labelstudio import NO_PROXY, LabelStudio
from backend.demo.processes import DemoError, Process, ended_by_signals, free_port
from backend.demo.rest import answers
from backend.demo.sample import LABEL_CONFIG
from backend.engines import count_gpus, guess_engine, identify_engine
from backend.errors import SettingsError
from backend.labelstudio.client import LabelStudioClient
from backend.settings import OPEN_HUB_IDS, SHAPES_MODEL, Settings
from backend.settings_loader import program_environment, read_settings
from backend.tracks.geometry import Box

FOLDER = "~/.local/share/sam3-backend/demo"
_SERVE = "import sys; from backend.cli import main; sys.exit(main())"
_ANNOTATED = """
{annotated}
    The three shapes, found by their names and tracked."""
_WELCOME = """
{url}
    Draw a box, click it, press 1: it is tracked. Wrong later? Drag it there, press t. Or type words into the blue line.

Log in as {email} with {password}. The model is {model}{remark}.
Everything is kept in {folder}. Ctrl-C ends it.
"""
_DESCRIPTION = """
Start Label Studio and the backend on this machine, with a sample clip to try, and print what to
click. The first time it installs Label Studio in an environment of its own, and says how much
that fetches. Ctrl-C ends both; the next start goes on where you were.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "demo",
        _run,
        summary="try it: Label Studio and the backend with a sample clip",
        description=_DESCRIPTION,
        examples=("sam3-backend demo --check", "sam3-backend demo --model facebook/sam2.1-hiera-tiny --video clip.mp4"),
    )
    parser.add_argument("--check", action="store_true", help="send one prompt, check the track, and end")
    parser.add_argument(
        "--model", default=SHAPES_MODEL, metavar="M", help="a hub id, a folder or a file of SAM3, SAM 2 or EdgeTAM"
    )
    parser.add_argument("--video", type=Path, metavar="FILE", help="a video of your own instead of the sample clip")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, metavar="DIR", help=f"folder for everything (default: {FOLDER})"
    )
    parser.add_argument(
        "--label-studio-venv",
        type=Path,
        metavar="DIR",
        help="virtual environment that has Label Studio, instead of one in the folder",
    )


def _run(options: argparse.Namespace) -> None:
    if options.check and (options.video or options.model != SHAPES_MODEL):
        raise SettingsError("--check knows the sample clip and its model only: leave out --model and --video")
    run(options.folder, options.label_studio_venv, options.model, options.video, options.check)


def run(folder: Path, venv: Path | None, model: str, video: Path | None, checked: bool) -> None:
    """Start both, and wait for the end; `checked`: check one track, and end.

    Args:
        folder: for everything that the demo keeps.
        venv: has Label Studio; None: one is made in the folder.
        model: see `model_path` of the settings.
        video: of the user's; None: the sample clip.

    Raises:
        DemoError: something failed.
        SettingsError: the model cannot run here.
    """
    folder, started = folder.expanduser().absolute(), time.monotonic()
    # Before something is fetched.
    identify_engine(read_settings(flags={"engine": guess_engine(model), "model_path": model}))
    try:
        with ended_by_signals(), _locked(folder):
            _Demo(folder, _label_studio_venv(folder, venv), model, video).run(checked)
    except KeyboardInterrupt:
        if checked:
            raise
        print("\ndemo: ended")
    except OSError as error:
        raise DemoError(str(error)) from error
    else:
        print(f"took {time.monotonic() - started:.0f} s\ndemo: ok")


def _label_studio_venv(folder: Path, given: Path | None) -> Path:
    if given:
        return environment.require(given.expanduser().absolute())
    venv = folder / environment.NAME
    if not environment.is_complete(venv):
        print(environment.ANNOUNCEMENT.format(venv=venv))
        with _step("installing Label Studio"):
            environment.install_label_studio(venv)
    return venv


@dataclass
class DemoSetup:
    """What the first start created, for later starts to reuse."""

    label_studio_port: int = 8080
    backend_port: int = 9090
    contents: str = ""
    project: int = 0
    annotated: int = 0
    task: int = 0
    backend: int = 0
    backend_url: str = ""

    @classmethod
    def load(cls, folder: Path) -> "DemoSetup":
        """The setup saved in `folder`, or a new one."""
        path = folder / "setup.json"
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def save(self, folder: Path) -> None:
        """Save it for the next start."""
        (folder / "setup.json").write_text(json.dumps(asdict(self)))


class _Demo:
    """Label Studio, the backend, and a project that connects them."""

    def __init__(self, folder: Path, venv: Path, model: str, video: Path | None) -> None:
        self._folder, self._model, self._video = folder, model, video
        self._studio = LabelStudio(venv, folder / "label-studio")
        self._backend = Process("the backend", folder / "backend.log")
        self._setup = DemoSetup.load(folder)

    def run(self, checked: bool) -> None:
        studio, setup = self._studio, self._setup
        with studio, self._backend:
            with _step("Label Studio for the first time, about a minute" if studio.takes_a_minute else "Label Studio"):
                studio.start(setup.label_studio_port)
            setup.label_studio_port = int(studio.url.rpartition(":")[2])
            with _step("the backend"):
                self._start_backend()
            with _step("the project with its clip"):
                self._prepare()
            setup.save(self._folder)
            if self._model == SHAPES_MODEL and not self._video and not setup.annotated:
                with _step("three tracks by their names"):
                    self._annotate()
                setup.save(self._folder)
            if checked:
                self._check()
                return
            self._welcome()
            while True:
                studio.process.check()
                self._backend.check()
                time.sleep(0.5)

    def _welcome(self) -> None:
        studio, setup = self._studio, self._setup
        if setup.annotated:
            print(_ANNOTATED.format(annotated=studio.task_url(setup.project, setup.annotated)))
        account = {"email": studio.email, "password": studio.password}
        remark = ", which knows coloured shapes only" if self._model == SHAPES_MODEL else ""
        url = studio.task_url(setup.project, setup.task)
        print(_WELCOME.format(url=url, **account, model=self._model, remark=remark, folder=self._folder), flush=True)

    def _start_backend(self) -> None:
        studio, port = self._studio, free_port(self._setup.backend_port)
        where = ["--host", "127.0.0.1", "--port", str(port), "--data-dir", str(self._folder / "backend")]
        engine = guess_engine(self._model)
        small = {"SAM3_BACKEND_IMAGE_SIZE": "512"} if engine in OPEN_HUB_IDS and not count_gpus() else {}
        device = ["--device", "cpu"] if self._model == SHAPES_MODEL else []
        model = ["--engine", engine, "--model", self._model, *device]
        connection = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token}
        self._backend.start(
            python_command(_SERVE, "serve", *model, *where),
            small | program_environment() | NO_PROXY | connection,
        )
        self._backend.wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), 60)
        self._setup.backend_port = port

    def _prepare(self) -> None:
        """Create project, tasks and connection, or reuse those of an earlier start if the clip and config are the same.

        The sample clip gets a second task, which will be annotated.
        """
        studio, setup, own = self._studio, self._setup, self._video
        video, config = own or self._folder / "clip.mp4", LABEL_CONFIG.read_text(encoding="utf-8")
        config = config if own else clip.label_config(config)
        identity = repr((str(own.absolute()), own.stat().st_size) if own else (clip.CLIP.seed, clip.CLIP.recipe))
        contents = hashlib.sha256(config.encode() + identity.encode()).hexdigest()
        if not own and (setup.contents != contents or not video.exists()):
            clip.make(video)
        url = f"http://127.0.0.1:{setup.backend_port}"
        known = [f"/api/projects/{setup.project}", f"/api/ml/{setup.backend}"]
        known += [f"/api/tasks/{task}" for task in (setup.task, setup.annotated) if task]
        if setup.contents != contents or not all(studio.exists(path) for path in known):
            setup.project = studio.create_project("SAM3 video demo", config)
            self._prepare_project(video)
            (task,) = LabelStudioClient(studio.url, studio.token).tasks(setup.project)
            setup.task, setup.annotated = task["id"], 0
            setup.backend = studio.connect_backend(setup.project, url)
        elif setup.backend_url != url:
            studio.move_backend(setup.backend, url)
            self._prepare_project(video)  # the live panel's address has the port
        setup.contents, setup.backend_url = contents, url

    def _prepare_project(self, video: Path) -> None:
        settings = Settings(
            label_studio_url=self._studio.url,
            label_studio_api_key=self._studio.token,
            data_dir=self._folder / "backend",
            port=self._setup.backend_port,
        )
        prepare.run(settings, self._setup.project, [str(video)], say=lambda _: None)

    def _annotate(self) -> None:
        """Add a task that opens with the tracks of all three shapes."""
        studio, setup = self._studio, self._setup
        data = dict(studio.task(setup.task)["data"])
        data.pop("panel", None)  # the other task's
        task = studio.create_task(setup.project, data)
        self._prepare_project(self._folder / "clip.mp4")
        tracks = studio.whole_search(setup.backend, task, ", ".join(clip.CLASSES).lower())
        studio.call("POST", f"/api/tasks/{task}/annotations/", json={"result": tracks})
        setup.annotated = task

    def _check(self) -> None:
        """Prompt once, as the open page does, and check the returned track.

        Raises:
            DemoError: the track does not follow the circle, or the check would accept a wrong one.
        """
        boxes, size = clip.truth()["Circle"], (clip.WIDTH, clip.HEIGHT)
        prompt = check.drawn_region("demo-check", "Circle", Box(*boxes[0]), size, clip.FRAMES, clip.FPS)
        with _step("one prompt"):
            region, asked = self._studio.whole_track(self._setup.backend, self._setup.task, prompt)
        if found := check.faults(region, boxes, size):
            raise DemoError(f"the track does not follow the circle: {'; '.join(found)}")
        half = (boxes[0, 2:] - boxes[0, :2]) / 2
        if not check.faults(region, boxes + np.tile(half, 2), size):
            raise DemoError("the check is broken: it accepts a track that is half a box off the circle")
        keyframes = len(region["value"]["sequence"])
        print(f"  the track has {keyframes} keyframes, took {asked} requests, and follows the circle")


@contextmanager
def _step(name: str) -> Iterator[None]:
    print(f"  {name} ... ", end="", flush=True)
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:.1f} s", flush=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder: two demos in it would share a database."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError("the demo is already running: stop it first") from None
        yield
