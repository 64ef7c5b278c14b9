"""A private Label Studio on loopback: its process, its account, and the REST calls that the demo needs.

with LabelStudio(Path(".venv-labelstudio"), folder) as studio:
    studio.start()
    project = studio.create_project("try", config)
    task = studio.create_task(project, {"video": address, "fps": 25})
"""

import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import requests

from demo.processes import DemoError, Process, free_port

Json = Any
QUIET = {"show_collab_predictions": False, "evaluate_predictions_automatically": False}
"""Project settings with which opening a task sends no request to the backend."""

NO_PROXY = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}

_TIMEOUT = 30.0
_PREDICT_TIMEOUT = 120.0
_PATIENCE = 120.0
"""Seconds to wait for a complete track."""
_DATABASE = "label_studio.sqlite3"
_SETTINGS = {
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "LATEST_VERSION_CHECK": "false",
    "DEBUG": "false",
    "DJANGO_DB": "sqlite",
    # otherwise Label Studio refuses to connect a backend on loopback, or to create its webhook
    "ML_BLOCK_LOCAL_IP": "false",
    "SSRF_PROTECTION_ENABLED": "false",
}


class LabelStudio:
    """Label Studio from the virtual environment `venv`, with all of its data in `folder`.

    Args:
        settings: additional environment variables, without the prefix LABEL_STUDIO_.

    Attributes:
        url: its address, once started.
        email, password: of its only account.
        token: the account's legacy token, also for backends.
        process: the child process; its log is `folder`/log.txt.
    """

    def __init__(self, venv: Path, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self._venv, self._folder, self._settings = venv.absolute(), folder.absolute(), dict(settings or {})
        self._folder.mkdir(parents=True, exist_ok=True)
        account = _account(self._folder / "account.json")
        self.email, self.password, self.token = account["email"], account["password"], account["token"]
        self.process = Process("Label Studio", self._folder / "log.txt")
        self.url = ""
        self._http = requests.Session()
        self._http.trust_env = False  # no proxy, no .netrc
        self._http.headers["Authorization"] = f"Token {self.token}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def takes_a_minute(self) -> bool:
        """Whether `start` has to create a database first: once per installation."""
        return not (self._folder / _DATABASE).exists() and not _migrated(self._venv).exists()

    def start(self, port: int = 8080) -> None:
        """Start it on `port`, or on a free one if that is taken, and wait until it accepts the account.

        Raises:
            DemoError: it exited or did not answer.
        """
        database = self._folder / _DATABASE
        if not database.exists():
            _migrate(self._venv)
            unfinished = database.with_suffix(".unfinished")
            shutil.copyfile(_migrated(self._venv), unfinished)
            unfinished.replace(database)
        port = free_port(port)
        self.url = f"http://127.0.0.1:{port}"
        words = ["start", "--no-browser", "--data-dir", str(self._folder), "--port", str(port)]
        words += ["--internal-host", "127.0.0.1", "--enable-legacy-api-token", "--log-level", "INFO"]
        account = {"USERNAME": self.email, "PASSWORD": self.password, "USER_TOKEN": self.token, "HOST": self.url}
        self.process.start(
            [self._venv / "bin" / "label-studio", *words], _environment(self._folder, self._settings | account)
        )
        self.process.wait_until(self._answers, 240)

    def stop(self) -> None:
        """Stop it; its data stays in the folder."""
        self.process.stop()

    def create_project(self, title: str, label_config: str, **settings: Json) -> int:
        """Create a project and return its id; `settings` are fields of Label Studio's API that override `QUIET`."""
        body = {"title": title, "label_config": label_config, **QUIET, **settings}
        return int(self.call("POST", "/api/projects", json=body)["id"])

    def create_task(self, project: int, data: Mapping[str, Json]) -> int:
        """Create a task and return its id."""
        return int(self.call("POST", "/api/tasks", json={"project": project, "data": dict(data)})["id"])

    def task(self, task: int) -> dict[str, Json]:
        """The task with its annotations, drafts and predictions."""
        found: dict[str, Json] = self.call("GET", f"/api/tasks/{task}")
        return found

    def connect_backend(self, project: int, url: str, **settings: Json) -> int:
        """Connect an ML backend, which gets the prompts of the open page, and return its id."""
        body = {"project": project, "url": url, "title": "SAM3 video", "is_interactive": True, **settings}
        return int(self.call("POST", "/api/ml", json=body)["id"])

    def move_backend(self, backend: int, url: str) -> None:
        """Change the address of an ML backend."""
        self.call("PATCH", f"/api/ml/{backend}", json={"url": url})

    def interactive(self, backend: int, task: int, regions: list[dict[str, Json]]) -> list[dict[str, Json]]:
        """Send regions as the open page does, and return the regions of the backend's answer.

        Raises:
            DemoError: Label Studio reports an error, or the answer contains no prediction.
        """
        answer = self.call(
            "POST",
            f"/api/ml/{backend}/interactive-annotating",
            json={"task": task, "context": {"result": regions}},
            timeout=_PREDICT_TIMEOUT,
        )
        if answer.get("errors") or not answer.get("data"):
            raise DemoError(f"Label Studio did not pass on the backend's answer: {json.dumps(answer)[:300]}")
        result: list[dict[str, Json]] = answer["data"]["result"]
        return result

    def whole_track(self, backend: int, task: int, prompt: dict[str, Json]) -> tuple[dict[str, Json], int]:
        """Prompt with a region until its track is complete; return the region and the number of requests.

        Raises:
            DemoError: an answer does not contain the region, or the track takes too long.
        """
        region, asked, end = prompt, 0, time.monotonic() + _PATIENCE
        while asked == 0 or region.get("meta", {}).get("partial"):
            if time.monotonic() > end:
                raise DemoError(f"the track was not complete after {_PATIENCE:.0f} s")
            answer = self.interactive(backend, task, [region])
            same = [item for item in answer if item["id"] == prompt["id"] and item["type"] == "videorectangle"]
            if len(same) != 1:
                raise DemoError(f"the answer contains {len(same)} regions with the prompt's id instead of one")
            region, asked = {**same[0], "origin": "prediction-changed"}, asked + 1
        return region, asked

    def task_url(self, project: int, task: int) -> str:
        """The address of the page for annotating the task."""
        return f"{self.url}/projects/{project}/data?task={task}"

    def exists(self, path: str) -> bool:
        """Whether the REST resource `path` still exists."""
        return self._request("GET", path).status_code != 404

    def call(self, method: str, path: str, **options: Json) -> Json:
        """Make one REST call; return its JSON, or None if it has no body.

        Raises:
            DemoError: Label Studio does not answer, or answers with an error.
        """
        response = self._request(method, path, **options)
        if not response.ok:
            raise DemoError(f"Label Studio answers {response.status_code} to {method} {path}: {response.text[:300]}")
        return response.json() if response.content else None

    def _request(self, method: str, path: str, timeout: float = _TIMEOUT, **options: Json) -> requests.Response:
        try:
            return self._http.request(method, self.url + path, timeout=timeout, **options)
        except requests.RequestException as error:
            self.process.check()
            raise DemoError(f"Label Studio does not answer {method} {path} ({type(error).__name__})") from error

    def _answers(self) -> bool:
        try:
            return bool(self._http.get(f"{self.url}/api/current-user/whoami", timeout=5).ok)
        except requests.RequestException:
            return False


def _migrated(venv: Path) -> Path:
    """An empty database to copy into new folders, because Label Studio's 261 migrations take most of a minute."""
    return venv / "empty.sqlite3"


def _migrate(venv: Path) -> None:
    if _migrated(venv).exists():
        return
    with (
        tempfile.TemporaryDirectory(dir=venv) as name,
        Process("Label Studio's first start", venv / "first-start.txt") as setup,
    ):
        folder = Path(name)
        setup.start([venv / "bin" / "label-studio", "version", "--data-dir", folder], _environment(folder, {}))
        setup.wait(600)
        (folder / _DATABASE).replace(_migrated(venv))


def _environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """The environment for Label Studio, without variables that the user set for another one."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LABEL_STUDIO_", "HEARTEX_"))}
    ours = {**_SETTINGS, **settings, "BASE_DATA_DIR": str(folder), "DATABASE_NAME": str(folder / _DATABASE)}
    return {**kept, **{f"LABEL_STUDIO_{key}": value for key, value in ours.items()}, **NO_PROXY}


def _account(path: Path) -> dict[str, str]:
    """The account, created on the first start and reused later."""
    if not path.exists():
        account = {"email": "demo@example.com", "password": secrets.token_hex(4), "token": secrets.token_hex(20)}
        path.touch(mode=0o600)
        path.write_text(json.dumps(account))
    kept: dict[str, str] = json.loads(path.read_text())
    return kept
