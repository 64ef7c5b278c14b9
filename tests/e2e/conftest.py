"""A Label Studio, a backend and a Chromium for the browser tests; each test gets a task of its own."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser

from backend.commands import prepare
from backend.demo import clip
from backend.demo.labelstudio import LabelStudio
from backend.demo.processes import Process, free_port
from backend.labelstudio.client import LabelStudioClient
from backend.settings import Settings
from tests.e2e.browser import CHROMIUM, LabelingPage, chromium, login_state, profile, quit_chromium
from tests.needs import missing

ROOT = Path(__file__).parent.parent.parent
SHOTS = ROOT / "screenshots"
DEMO = {"SAM3_BACKEND_ENGINE": "sam3", "SAM3_BACKEND_MODEL_PATH": "shapes", "SAM3_BACKEND_DEVICE": "cpu"}
LABEL_STUDIO = Path(os.environ.get("LABEL_STUDIO_VENV", ROOT / ".venv-labelstudio"))
"""The environment of the Label Studio to test with: 1.23.2, or another that was installed by hand."""
STAND_IN = {"SAM3_BACKEND_ENGINE": "opencv"}


@pytest.fixture(scope="session", autouse=True)
def _quit_chromium() -> Iterator[None]:
    yield
    quit_chromium()


@pytest.fixture(scope="session")
def local_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose files Label Studio serves as local files."""
    return tmp_path_factory.mktemp("local-files")


@pytest.fixture(scope="session")
def studio(local_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    """A fresh Label Studio."""
    for path, what in ((CHROMIUM, "Chromium"), (LABEL_STUDIO, f"Label Studio in {LABEL_STUDIO.name}")):
        missing(path, what)
    serves = {"LOCAL_FILES_SERVING_ENABLED": "true", "LOCAL_FILES_DOCUMENT_ROOT": str(local_files)}
    with LabelStudio(LABEL_STUDIO, tmp_path_factory.mktemp("labelstudio"), serves) as studio:
        studio.start(0)  # tests beside these, in another process, take and leave the usual ports
        yield studio


@contextmanager
def serving(studio: LabelStudio, folder: Path, **settings: str) -> Iterator[str]:
    """The address of `sam3-backend serve` as a user starts it; `settings` by their names in the environment."""
    with Process("the backend", folder / "log.txt") as process:
        yield start_backend(process, studio, folder, **settings)


def start_backend(process: Process, studio: LabelStudio, folder: Path, **settings: str) -> str:
    """Start `sam3-backend serve`; its address, once the model is ready."""
    port = free_port(0)
    url = f"http://127.0.0.1:{port}"
    words = ["serve", "--port", str(port), "--data-dir", str(folder)]
    known = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token}
    process.start([Path(sys.executable).parent / "sam3-backend", *words], {**os.environ, **known, **settings})
    process.wait_until(lambda: is_ready(url), 240)
    return url


def is_ready(url: str, login: tuple[str, str] | None = None) -> bool:
    """Whether the server answers and its model is loaded."""
    try:
        return bool(requests.get(f"{url}/health", auth=login, timeout=2).json()["model"] == "ready")
    except requests.RequestException:
        return False


@dataclass(frozen=True)
class Project:
    """A project with the demo's label config, connected to the backend; `data` is of a task of the demo's clip.

    Without `settings` of its backend, the live panel is empty.
    """

    studio: LabelStudio
    id: int
    data: dict[str, Any]
    settings: Settings | None = None

    def new_task(self, **changes: Any) -> int:
        """A task of the clip; of `changes` to its data those that are None are left out."""
        data = {key: value for key, value in (self.data | {"panel": ""} | changes).items() if value is not None}
        task = self.studio.create_task(self.id, data)
        if self.settings:
            panel = prepare.panel_html(self.settings, self.id, task)
            LabelStudioClient(self.studio.url, self.studio.token).set_data(task, data | {"panel": panel})
        return task


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    clip.make(path)
    return path


@pytest.fixture(scope="session")
def project(studio: LabelStudio, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose backend is the demo's."""
    folder = tmp_path_factory.mktemp("backend")
    with serving(studio, folder, **DEMO) as url:
        yield connected(studio, video, url, data_dir=folder)


@pytest.fixture(scope="session")
def stand_in_project(studio: LabelStudio, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose backend runs the stand-in engine."""
    folder = tmp_path_factory.mktemp("backend")
    with serving(studio, folder, **STAND_IN) as url:
        yield connected(studio, video, url, data_dir=folder)


@pytest.fixture
def hasty_project(studio: LabelStudio, video: Path, tmp_path: Path) -> Iterator[Project]:
    """A project whose backend answers after a second, with what is there."""
    with serving(studio, tmp_path, **DEMO, SAM3_BACKEND_RESPONSE_TIMEOUT="1") as url:
        yield connected(studio, video, url, data_dir=tmp_path)


def connected(
    studio: LabelStudio,
    video: Path,
    backend: str | None,
    classes: Sequence[str] = clip.CLASSES,
    data_dir: Path | None = None,
) -> Project:
    """A project with a prepared task; without a backend one is alone with Label Studio.

    Args:
        data_dir: the backend's; None: the live panel is empty.
    """
    config = clip.label_config((ROOT / "label_config.xml").read_text(), classes)
    number = studio.create_project("browser tests", config)
    if backend:
        studio.connect_backend(number, backend)
    settings = Settings(
        label_studio_url=studio.url,
        label_studio_api_key=studio.token,
        data_dir=data_dir or video.parent / "data",
        port=int(backend.rpartition(":")[2]) if backend else 0,
    )
    assert prepare.run(settings, number, [str(video)], say=lambda _: None) == 0
    (task,) = LabelStudioClient(studio.url, studio.token).tasks(number)
    return Project(studio, number, task["data"], settings if data_dir else None)


@pytest.fixture
def page(project: Project) -> Iterator[LabelingPage]:
    with opened(project) as page:
        yield page


@contextmanager
def opened(
    project: Project,
    task: int | None = None,
    start: Callable[[], AbstractContextManager[Browser]] = chromium,
    **changes: Any,
) -> Iterator[LabelingPage]:
    """A browser on a task; None: on a new one, as `Project.new_task` makes it."""
    studio = project.studio
    login = studio.url, studio.email, studio.password
    with start() as browser, profile(browser, login_state(browser, *login)) as context:
        page = LabelingPage(context.new_page(), studio.url, SHOTS)
        page.open(project.id, task or project.new_task(**changes))
        yield page
    assert page.errors == []
