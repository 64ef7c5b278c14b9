"""Starts Label Studio and the backend on this machine with a sample clip: `make demo`.

`make demo CHECK=1` checks one track and ends. `make demo MODEL=facebook/sam2.1-hiera-tiny VIDEO=clip.mp4` tries a model
on a video of your own.
"""

import argparse
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import requests

from backend.commands import prepare
from backend.engines import count_gpus, guess_engine
from backend.labelstudio.client import LabelStudioClient
from backend.settings import OPEN_HUB_IDS, Settings
from backend.tracks.geometry import Box
from demo import check, clip
from demo.labelstudio import NO_PROXY, LabelStudio
from demo.processes import DemoError, Process, ended_by_signals, free_port
from demo.sample import SHIPPED

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".demo"
SHAPES = "shapes"
ANNOTATED = """
{annotated}
    The three shapes, found by their names and tracked."""
WELCOME = """
{url}
    Draw a box, click it, press 1: it is tracked. Wrong later? Drag it there, press t. Or type words into the blue line.

Log in as {email} with {password}. The model is {model}{remark}.
Everything is kept in {folder}. Ctrl-C ends it.
"""


@dataclass
class Setup:
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
    def load(cls, folder: Path) -> "Setup":
        """The setup saved in `folder`, or a new one."""
        path = folder / "setup.json"
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def save(self, folder: Path) -> None:
        """Save it for the next start."""
        (folder / "setup.json").write_text(json.dumps(asdict(self)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code is 0, or 1 if something fails."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="send one prompt, check the track, and end")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder for all data")
    parser.add_argument(
        "--model", default=SHAPES, metavar="M", help="a hub id, a folder or a file of SAM3, SAM 2 or EdgeTAM"
    )
    parser.add_argument("--video", type=Path, metavar="FILE", help="a video of your own instead of the sample clip")
    options = parser.parse_args(arguments)
    if options.check and (options.video or options.model != SHAPES):
        parser.error("--check knows the sample clip and its model only: leave out --model and --video")
    started = time.monotonic()
    try:
        with ended_by_signals(), _locked(options.folder):
            _run(options.check, options.folder, options.model, options.video)
    except KeyboardInterrupt:
        if options.check:
            print("demo: interrupted", file=sys.stderr)
            return 1
        print("\ndemo: ended")
    except (DemoError, OSError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    else:
        print(f"took {time.monotonic() - started:.0f} s\ndemo: ok")
    return 0


def _run(checked: bool, folder: Path, model: str, video: Path | None) -> None:
    setup = Setup.load(folder)
    studio = LabelStudio(ROOT / ".venv-labelstudio", folder / "label-studio")
    with studio, Process("the backend", folder / "backend.log") as backend:
        with _step("Label Studio for the first time, about a minute" if studio.takes_a_minute else "Label Studio"):
            studio.start(setup.label_studio_port)
        setup.label_studio_port = int(studio.url.rpartition(":")[2])
        with _step("the backend"):
            setup.backend_port = _start_backend(backend, studio, setup.backend_port, folder / "backend", model)
        with _step("the project with its clip"):
            _prepare(studio, setup, folder, video)
        setup.save(folder)
        if model == SHAPES and not video and not setup.annotated:
            with _step("three tracks by their names"):
                _annotate(studio, setup, folder)
            setup.save(folder)
        if checked:
            _check(studio, setup)
            return
        if setup.annotated:
            print(ANNOTATED.format(annotated=studio.task_url(setup.project, setup.annotated)))
        account = {"email": studio.email, "password": studio.password}
        remark = ", which knows coloured shapes only" if model == SHAPES else ""
        url = studio.task_url(setup.project, setup.task)
        print(WELCOME.format(url=url, **account, model=model, remark=remark, folder=folder), flush=True)
        while True:
            studio.process.check()
            backend.check()
            time.sleep(0.5)


def _start_backend(backend: Process, studio: LabelStudio, port: int, data: Path, name: str) -> int:
    port = free_port(port)
    where = ["--host", "127.0.0.1", "--port", str(port), "--data-dir", str(data)]
    engine = guess_engine(name)
    small = {"SAM3_BACKEND_IMAGE_SIZE": "512"} if engine in OPEN_HUB_IDS and not count_gpus() else {}
    model = ["--engine", engine, "--model", name, *(["--device", "cpu"] if name == SHAPES else [])]
    backend.start(
        [Path(sys.executable).parent / "sam3-backend", "serve", *model, *where],
        {**small, **os.environ, **NO_PROXY, "LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token},
    )
    backend.wait_until(lambda: _healthy(f"http://127.0.0.1:{port}/health"), 60)
    return port


def _healthy(url: str) -> bool:
    with requests.Session() as http:
        http.trust_env = False
        try:
            return http.get(url, timeout=2).ok
        except requests.RequestException:
            return False


def _prepare(studio: LabelStudio, setup: Setup, folder: Path, own: Path | None) -> None:
    """Create project, tasks and connection, or reuse those of an earlier start if the clip and config are the same.

    Args:
        own: a video of the user's; None: the sample clip, with a second task that will be annotated.
    """
    video, config = own or folder / "clip.mp4", SHIPPED.read_text(encoding="utf-8")
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
        _prepare_project(studio, setup, folder, video)
        (task,) = LabelStudioClient(studio.url, studio.token).tasks(setup.project)
        setup.task, setup.annotated = task["id"], 0
        setup.backend = studio.connect_backend(setup.project, url)
    elif setup.backend_url != url:
        studio.move_backend(setup.backend, url)
        _prepare_project(studio, setup, folder, video)  # the live panel's address has the port
    setup.contents, setup.backend_url = contents, url


def _annotate(studio: LabelStudio, setup: Setup, folder: Path) -> None:
    """Add a task that opens with the tracks of all three shapes."""
    data = dict(studio.task(setup.task)["data"])
    data.pop("panel", None)  # the other task's
    task = studio.create_task(setup.project, data)
    _prepare_project(studio, setup, folder, folder / "clip.mp4")
    tracks = studio.whole_search(setup.backend, task, ", ".join(clip.CLASSES).lower())
    studio.call("POST", f"/api/tasks/{task}/annotations/", json={"result": tracks})
    setup.annotated = task


def _prepare_project(studio: LabelStudio, setup: Setup, folder: Path, video: Path) -> None:
    settings = Settings(
        label_studio_url=studio.url,
        label_studio_api_key=studio.token,
        data_dir=folder / "backend",
        port=setup.backend_port,
    )
    prepare.run(settings, setup.project, [str(video)], say=lambda _: None)


def _check(studio: LabelStudio, setup: Setup) -> None:
    """Prompt once, as the open page does, and check the returned track.

    Raises:
        DemoError: the track does not follow the circle, or the check would accept a wrong one.
    """
    boxes, size = clip.truth()["Circle"], (clip.WIDTH, clip.HEIGHT)
    prompt = check.drawn_region("demo-check", "Circle", Box(*boxes[0]), size, clip.FRAMES, clip.FPS)
    with _step("one prompt"):
        region, asked = studio.whole_track(setup.backend, setup.task, prompt)
    if found := check.faults(region, boxes, size):
        raise DemoError(f"the track does not follow the circle: {'; '.join(found)}")
    half = (boxes[0, 2:] - boxes[0, :2]) / 2
    if not check.faults(region, boxes + np.tile(half, 2), size):
        raise DemoError("the check is broken: it accepts a track that is half a box off the circle")
    print(
        f"  the track has {len(region['value']['sequence'])} keyframes, took {asked} requests, and follows the circle"
    )


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


if __name__ == "__main__":
    sys.exit(main())
