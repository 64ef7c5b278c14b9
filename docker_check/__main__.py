"""Builds the images, starts them in every documented way and checks what they do: `make docker-check`.

Needs Docker with compose, and about fifteen minutes; it uses whatever images of the names in the Dockerfile and the
compose file are there. The last line printed is one JSON object:

- up_s: seconds of `docker compose up`, with the images built, until the first start has made its project.
- box_iou: mean IoU with the clip's boxes over ten frames of each of three shapes, a box drawn on each; words_found: of
  three shapes, those that words found (mean IoU of 0.5 or more, as usual for detections); words_iou: the IoUs.
- kill_lost: frames that a job lacks after the server was killed (SIGKILL) in its middle; down_up_lost: the same with
  `docker compose down` and `up`.
- env_ok: with an .env file that sets a password with a space, `@` and `$`, other ports, another key and pre-annotation,
  the password is needed and Label Studio is connected with it.
- readonly_ok: it runs with a read-only file system and without capabilities; uid_ok: as any user of group 0.
- memory_said: with less memory than the model needs the log says so.
- beside_iou: mean IoU of a box in the Label Studio of its own compose file (nginx, app, db), with docker/beside.yml.
- image_gb, image_opencv_gb: sizes of the images, the latter without PyTorch. torch: the PyTorch in the former.

Exit status 3: Docker does not answer.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import requests

from backend.demo import check, clip
from backend.demo.processes import DemoError, free_port
from backend.demo.rest import LabelStudioApi
from docker_check.beside_check import beside_iou
from docker_check.tools import docker, drawn, overlaps, say, wait_for

NAME = "sam3-check"
KEY = "0123456789abcdef0123456789abcdef01234567"
FOUND = 0.5
"""Mean IoU from which words have found a shape."""
PASSWORD = "p@ss w$rd"
SHAPES = (
    *("--env", "SAM3_BACKEND_MODEL_PATH=shapes", "--env", "SAM3_BACKEND_DEVICE=cpu"),
    *("--env", "BASIC_AUTH_USER=studio", "--env", f"BASIC_AUTH_PASS={PASSWORD}"),
)
MEMORY = "700m"
"""Less than the shapes model needs."""


class Composed:
    """The services of docker-compose.yml under a name of their own.

    Args:
        variables: what a person would write into .env.

    Attributes:
        studio: Label Studio's REST API.
        backend: the backend's address on this machine.
    """

    def __init__(self, folder: Path, **variables: str) -> None:
        ports = {"LABEL_STUDIO_PORT": str(free_port(0)), "BACKEND_PORT": str(free_port(0)), "SUBNET": "172.29.91.0/24"}
        self.variables = ports | variables
        self._file = folder / "env"
        quoted = (f"{name}='{value}'" for name, value in self.variables.items())
        self._file.write_text("\n".join(quoted), encoding="utf-8")
        key = variables.get("LABEL_STUDIO_API_KEY", KEY)
        self.studio = LabelStudioApi(f"http://127.0.0.1:{ports['LABEL_STUDIO_PORT']}", key)
        self.backend = f"http://127.0.0.1:{ports['BACKEND_PORT']}"
        self._auth = ("studio", PASSWORD) if "BASIC_AUTH_USER" in variables else None

    def __enter__(self) -> "Composed":
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("down", "--volumes", "--timeout", "5")

    def compose(self, *words: str) -> str:
        """The output of a compose command."""
        return docker("compose", "--project-name", NAME, "--env-file", str(self._file), *words)

    def start(self) -> float:
        """Start all services; seconds until the first start has ended."""
        began = time.monotonic()
        self.compose("up", "--detach")
        wait_for("the first start", lambda: self._first_start() == "exited")
        if (code := docker("inspect", "--format", "{{.State.ExitCode}}", f"{NAME}-first-start-1").strip()) != "0":
            raise DemoError(f"the first start ended with {code}: {self.compose('logs', 'first-start')[-500:]}")
        if self._auth is None:  # made at the first start
            self._auth = "sam3", self.compose("exec", "backend", "cat", "/data/password").strip()
        return time.monotonic() - began

    def _first_start(self) -> str:
        return docker("inspect", "--format", "{{.State.Status}}", f"{NAME}-first-start-1").strip()

    def ask(self, path: str) -> Any:
        """A JSON answer of the backend; None while it does not answer."""
        try:
            return requests.get(f"{self.backend}{path}", auth=self._auth, timeout=5).json()
        except (requests.RequestException, ValueError):
            return None

    def wait_until_ready(self) -> None:
        """Wait until the backend answers and its model is ready."""
        wait_for("the model", lambda: (self.ask("/health") or {}).get("model") == "ready")

    @property
    def connection(self) -> dict[str, Any]:
        """The first project's connection to the backend."""
        (project,) = self.studio.call("GET", "/api/projects")["results"]
        (connection,) = self.studio.call("GET", f"/api/ml?project={project['id']}")
        return dict(connection)

    def new_task(self) -> int:
        """Another task with the sample clip; its id."""
        connection = self.connection
        tasks = self.studio.call("GET", f"/api/tasks?project={connection['project']}&fields=all")["tasks"]
        return self.studio.create_task(connection["project"], tasks[0]["data"])


def missing_frames(region: Mapping[str, Any]) -> int:
    """Frames of the clip without a box; the shapes never leave."""
    return sum(check.shown(region["value"]["sequence"], frame) is None for frame in range(1, clip.FRAMES + 1))


def accuracy(services: Composed) -> dict[str, Any]:
    """A box on each shape, then words for each."""
    connection, task = services.connection["id"], services.new_task()
    found = [services.studio.whole_track(connection, task, drawn(name))[0] for name in clip.CLASSES]
    iou = float(np.mean([overlaps(region, name) for region, name in zip(found, clip.CLASSES, strict=True)]))
    task, words = services.new_task(), dict[str, float]()
    for name in clip.CLASSES:
        tracks = services.studio.whole_search(connection, task, name.lower())
        words[name] = round(max(float(np.mean(overlaps(region, name))) for region in tracks), 3)
    return {"box_iou": round(iou, 3), "words_found": sum(iou >= FOUND for iou in words.values()), "words_iou": words}


def interrupted(services: Composed, interrupt: Callable[[], None]) -> int:
    """Frames that a job lacks that was interrupted in its middle."""
    services.compose("restart", "backend")  # with the frames of earlier jobs in its cache it would be too fast
    services.wait_until_ready()
    task, connection = services.new_task(), services.connection["id"]
    request = {"task": task, "context": {"result": [drawn("Circle")]}}

    def ask() -> None:
        with suppress(DemoError):  # nobody waits for the answer
            services.studio.call("POST", f"/api/ml/{connection}/interactive-annotating", json=request, timeout=2.5)

    asking = threading.Thread(target=ask)
    asking.start()

    def is_under_way() -> bool:
        jobs = (services.ask("/jobs") or {}).get("jobs", [])
        return any(job["state"] == "running" and 0 < job["done"] < clip.FRAMES for job in jobs)

    wait_for("a job's first frames", is_under_way, 60)
    interrupt()
    asking.join()
    services.wait_until_ready()
    region, _ = services.studio.whole_track(connection, task, drawn("Circle"))
    return missing_frames(region)


def kill(services: Composed) -> None:
    """Kill the server's process, as a lack of memory would; Docker starts it again."""
    number = docker("inspect", "--format", "{{.State.Pid}}", f"{NAME}-backend-1").strip()
    try:
        os.kill(int(number), signal.SIGKILL)
    except (PermissionError, ProcessLookupError):  # not root, or Docker runs in a virtual machine
        services.compose("kill", "backend")
        services.compose("start", "backend")


def down_and_up(services: Composed) -> None:
    """Stop all services, and start them again."""
    services.compose("down")
    services.start()


@contextmanager
def running(*words: str, image: str = "sam3-backend") -> Iterator[tuple[str, str]]:
    """One container of the backend with the shapes model; its name and its address on this machine."""
    words = (*SHAPES, *words)
    name, port = f"{NAME}-single", free_port(0)
    docker("run", "--detach", "--name", name, "--publish", f"127.0.0.1:{port}:9090", *words, image)
    try:
        yield name, f"http://127.0.0.1:{port}"
    finally:
        docker("rm", "--force", "--volumes", name)


def gets_ready(*words: str) -> bool:
    """Whether a container started with these options gets ready."""
    with running(*words) as (name, url):
        try:
            return bool(wait_for("the model", lambda: model_of(url) == "ready", 120))
        except DemoError:
            say(docker("logs", "--tail", "5", name))
            return False


def model_of(url: str) -> str:
    """The model's status at this address; empty while nothing answers."""
    try:
        return str(requests.get(f"{url}/health", auth=("studio", PASSWORD), timeout=5).json()["model"])
    except (requests.RequestException, ValueError, KeyError):
        return ""


def says_memory() -> bool:
    """Whether the log names a memory limit that is too small."""
    with running("--memory", MEMORY) as (name, _):

        def is_said() -> bool:
            logs = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=False)
            return "memory limit" in logs.stdout + logs.stderr

        try:
            return bool(wait_for("the warning", is_said, 60))
        except DemoError:
            return False


def with_env_file(folder: Path) -> bool:
    """Whether a password, ports, a key and pre-annotation from .env take effect."""
    variables = {
        "BASIC_AUTH_USER": "studio",
        "BASIC_AUTH_PASS": PASSWORD,
        "LABEL_STUDIO_API_KEY": "f" * 40,
        "PRE_ANNOTATE": "labels",
    }
    with Composed(folder, **variables) as services:
        services.start()
        without = requests.get(f"{services.backend}/health", timeout=5).status_code
        settings = services.ask("/health")["settings"]
        connection = services.connection
    expected = (401, "labels", "BASIC_AUTH", "CO")
    return (without, settings["pre_annotate"], connection["auth_method"], connection["state"]) == expected


def size_gb(image: str) -> float:
    """An image's size in units of 10^9 bytes."""
    return round(int(docker("image", "inspect", "--format", "{{.Size}}", image)) / 1e9, 2)


def main() -> None:
    """Run all checks, and print one line of JSON."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        print("Docker does not answer: install and start it, or set DOCKER_HOST", file=sys.stderr)
        sys.exit(3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("building the images")
        with Composed(folder) as services:
            services.compose("build")
            docker("build", "--build-arg", "EXTRAS=", "--target", "backend", "--tag", "sam3-backend:opencv", ".")
            say("docker compose up")
            figures: dict[str, Any] = {"up_s": round(services.start(), 1)}
            say("boxes and words")
            figures |= accuracy(services)
            say("the server is killed in the middle of a job")
            figures["kill_lost"] = interrupted(services, lambda: kill(services))
            say("down and up in the middle of a job")
            figures["down_up_lost"] = interrupted(services, lambda: down_and_up(services))
        say(f"{figures}; with an .env file")
        figures["env_ok"] = with_env_file(folder)
        say("read-only, another user, little memory")
        figures["readonly_ok"] = gets_ready(
            "--read-only",
            "--tmpfs",
            "/tmp",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
        )
        figures["uid_ok"] = gets_ready("--user", "12345:0")
        figures["memory_said"] = says_memory()
        say("beside Label Studio's own compose file")
        figures["beside_iou"] = beside_iou(folder)
        versions = docker("run", "--rm", "sam3-backend", "python", "-c", "import torch; print(torch.__version__)")
        figures |= {"image_gb": size_gb("sam3-backend"), "torch": versions.split()[-1]}
        figures["image_opencv_gb"] = size_gb("sam3-backend:opencv")
    print(json.dumps(figures))


if __name__ == "__main__":
    try:
        main()
    except DemoError as error:
        sys.exit(str(error))
