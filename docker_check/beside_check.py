"""docker/beside.yml with a compose file as Label Studio ships it, on stand-ins for its images.

The stand-ins are Debian's nginx and PostgreSQL; Label Studio is the image of docker-compose.yml. `make docker-check`
runs it; `python -m docker_check.beside_check` runs it alone, with the image sam3-backend that is there.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import requests

from backend.demo.processes import DemoError, free_port
from backend.demo.rest import LabelStudioApi
from docker_check.tools import ROOT, docker, drawn, overlaps, say, wait_for

NAME = "sam3-beside"
FOLDER = ROOT / "docker_check" / "beside"
BACKEND = "http://sam3-backend.internal:9090"
ACCOUNT = {"email": "somebody@example.com", "password": "Passw0rd!", "allow_newsletters": "false"}


class SignedUp(LabelStudioApi):
    """A new Label Studio, with the account that a person makes on its first page.

    Attributes:
        key: a personal access token.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, "")
        session = self._http
        del session.headers["Authorization"]
        session.headers["Referer"] = url
        page = session.get(f"{url}/user/signup/", timeout=30).text
        token = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[0]
        session.post(f"{url}/user/signup/", data={**ACCOUNT, "csrfmiddlewaretoken": token}, timeout=30)
        session.headers["X-CSRFToken"] = session.cookies["csrftoken"]
        self.key = str(self.call("POST", "/api/token/")["token"])


class Beside:
    """The services of Label Studio's compose file and of beside.yml, in a folder as a person would have them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "beside"
        shutil.copytree(FOLDER, self._folder)
        shutil.copy(ROOT / "docker" / "beside.yml", self._folder)
        self.url = f"http://127.0.0.1:{free_port(0)}"
        self._environment = {**os.environ, "PORT": self.url.rpartition(":")[2], "BACKEND_PORT": str(free_port(0))}

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("down", "--volumes", "--timeout", "5")

    def compose(self, *words: str, **variables: str) -> str:
        """The output of a compose command; with an API key both files are used, as from then on.

        Raises:
            DemoError: it failed.
        """
        self._environment |= variables
        files = ["docker-compose.yml"]
        if "LABEL_STUDIO_API_KEY" in self._environment:
            files.append("beside.yml")
        command = ["docker", "compose", "--project-name", NAME, *(f"--file={name}" for name in files), *words]
        run = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False
        )
        if run.returncode:
            raise DemoError(f"docker compose {words[0]} failed: {' '.join((run.stdout + run.stderr).split())[-500:]}")
        return run.stdout

    def is_up(self) -> bool:
        """Whether Label Studio answers."""
        try:
            return requests.get(f"{self.url}/health", timeout=5).ok
        except requests.RequestException:
            return False


def beside_iou(folder: Path) -> float:
    """The mean IoU of a box in Label Studio with its object; the image sam3-backend has to be there."""
    for target in ("studio", "db"):
        docker("build", "--target", target, "--tag", f"sam3-beside-{target}", str(FOLDER))
    with Beside(folder) as services:
        services.compose("up", "--detach")
        wait_for("Label Studio behind nginx", services.is_up)
        studio = SignedUp(services.url)
        services.compose("up", "--detach", LABEL_STUDIO_API_KEY=studio.key)
        wait_for("Label Studio's return", services.is_up)
        inside = ("exec", "-T", "backend", "sh", "with_password.sh")
        say(services.compose(*inside, "sh", "first_start.sh", BACKEND, services.url))
        say(services.compose(*inside, "sam3-backend", "doctor", "--task", "1"))
        return _track(studio)


def _track(studio: LabelStudioApi) -> float:
    (project,) = studio.call("GET", "/api/projects")["results"]
    (connection,) = studio.call("GET", f"/api/ml?project={project['id']}")
    task: dict[str, Any] = studio.call("GET", f"/api/tasks?project={project['id']}")["tasks"][0]
    region, _ = studio.whole_track(connection["id"], task["id"], drawn("Circle"))
    return round(float(np.mean(overlaps(region, "Circle"))), 3)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        try:
            print(beside_iou(Path(name)))
        except DemoError as error:
            sys.exit(str(error))
