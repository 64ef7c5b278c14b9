"""A private Label Studio on loopback: its process and its account.

with LabelStudio(Path(".venv-labelstudio"), folder) as studio:
    studio.start()
    project = studio.create_project("try", config)
    task = studio.create_task(project, {"video": address, "fps": 25})
"""

import json
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import requests
from filelock import FileLock

from backend.demo.processes import Process, free_port
from backend.demo.rest import LabelStudioApi
from backend.settings_loader import program_environment

NO_PROXY = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}

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


class LabelStudio(LabelStudioApi):
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
        self.email, self.password = account["email"], account["password"]
        self.process = Process("Label Studio", self._folder / "log.txt")
        super().__init__("", account["token"])

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
            if self.takes_a_minute:
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

    def check(self) -> None:
        """Check that its process is still running."""
        self.process.check()

    def _answers(self) -> bool:
        try:
            return bool(self._http.get(f"{self.url}/api/current-user/whoami", timeout=5).ok)
        except requests.RequestException:
            return False


def _migrated(venv: Path) -> Path:
    """An empty database to copy into new folders, because Label Studio's 261 migrations take most of a minute."""
    return venv / "empty.sqlite3"


def _migrate(venv: Path) -> None:
    with FileLock(venv / "first-start.lock"):
        if _migrated(venv).exists():  # another one that started meanwhile has made it
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
    ours = {**_SETTINGS, **settings, "BASE_DATA_DIR": str(folder), "DATABASE_NAME": str(folder / _DATABASE)}
    kept = program_environment(without=("LABEL_STUDIO_", "HEARTEX_"))
    return {**kept, **{f"LABEL_STUDIO_{key}": value for key, value in ours.items()}, **NO_PROXY}


def _account(path: Path) -> dict[str, str]:
    """The account, created on the first start and reused later."""
    if not path.exists():
        account = {"email": "demo@example.com", "password": secrets.token_hex(4), "token": secrets.token_hex(20)}
        path.touch(mode=0o600)
        path.write_text(json.dumps(account))
    kept: dict[str, str] = json.loads(path.read_text())
    return kept
