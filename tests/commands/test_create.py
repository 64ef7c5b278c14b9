"""`sam3-backend project create` against a small Label Studio."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import request

from backend.cli import main
from backend.commands.create import run
from backend.errors import BackendError, StudioError
from backend.settings import Settings
from tests.clips import write_clip
from tests.labelstudio.studio import PROJECT, TOKEN, Studio

SHIPPED = Path(__file__).parents[2] / "label_config.xml"
BACKEND = "http://sam3-backend.internal:9090"


@pytest.fixture
def studio() -> Iterator[Studio]:
    """One that has no project yet."""
    with Studio() as studio:
        studio.title = ""
        yield studio


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=12, size=(96, 64)).path


class Creating:
    """The command on one Label Studio; `told` is what it said."""

    def __init__(self, studio: Studio, folder: Path) -> None:
        self.studio, self.folder, self.told = studio, folder, list[str]()

    def __call__(
        self,
        *videos: Path,
        title: str = "try",
        config: Path = SHIPPED,
        backend: str | None = BACKEND,
        browser_url: str | None = None,
        **more: Any,
    ) -> int:
        known = {"label_studio_url": self.studio.url, "label_studio_api_key": TOKEN, "data_dir": self.folder}
        self.told.clear()
        self.studio.seen.clear()
        paths = [str(one) for one in videos]
        return run(Settings(**known | more), title, config, backend, paths, browser_url, self.told.append)


@pytest.fixture
def create(studio: Studio, tmp_path: Path) -> Creating:
    return Creating(studio, tmp_path / "data")


def test_a_project_is_made_connected_and_prepared(studio: Studio, create: Creating, clip: Path) -> None:
    assert create(clip) == 0
    assert (studio.title, studio.label_config) == ("try", SHIPPED.read_text(encoding="utf-8"))
    (connected,) = studio.backends
    assert (connected["project"], connected["url"], connected["is_interactive"]) == (PROJECT, BACKEND, True)
    assert "auth_method" not in connected
    (task,) = studio.tasks.values()
    assert (task["data"]["fps"], len(task["data"]["frames"])) == (25, 12)
    assert create.told[-1] == f"open {studio.url}/projects/{PROJECT}"


def test_a_second_time_changes_nothing(studio: Studio, create: Creating, clip: Path) -> None:
    create(clip)
    assert create(clip, backend=f"{BACKEND}/") == 0
    assert studio.changes == []
    assert create.told[0] == f"try: already exists, project {PROJECT}"


def test_what_a_broken_off_first_time_has_left_out_is_done(studio: Studio, create: Creating, clip: Path) -> None:
    create(backend=None)
    assert (studio.backends, studio.tasks) == ([], {})
    assert create(clip) == 0
    assert (len(studio.backends), len(studio.tasks)) == (1, 1)


def test_a_project_that_is_worked_in_is_only_connected(studio: Studio, create: Creating, clip: Path) -> None:
    create(backend=None)
    for number in range(2):
        studio.add_task({"video": f"http://video.example/{number}.mp4"})
    assert create(clip) == 0
    assert studio.changes == [("POST", "/api/ml")]
    assert "its 2 tasks are unchanged" in create.told[-2]


def test_label_studio_is_told_what_the_backend_wants_to_be_sent(studio: Studio, create: Creating) -> None:
    create(basic_auth_user="studio", basic_auth_pass="p4ss")
    (connected,) = studio.backends
    sent = ("auth_method", "basic_auth_user", "basic_auth_pass")
    assert [connected[key] for key in sent] == ["BASIC_AUTH", "studio", "p4ss"]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (400, "{}", f"does not reach {BACKEND}: start the backend"),
        (403, '{"detail": "URL resolves to a reserved network address (block: 127.0.0.0/8)"}', "guard refuses"),
    ],
)
def test_a_backend_that_label_studio_refuses_is_no_matter_of_the_key(
    studio: Studio, create: Creating, status: int, body: str, told: str
) -> None:
    studio.places["/api/current-user/whoami"] = (200, b"{}")
    studio.failing = lambda: (body, status) if (request.method, request.path) == ("POST", "/api/ml") else None
    with pytest.raises(StudioError, match=told):
        create()


def test_a_key_that_is_refused_is_said_as_such(studio: Studio, create: Creating) -> None:
    with pytest.raises(StudioError, match="refused the key"):
        create(label_studio_api_key="another")
    assert studio.title == ""


@pytest.mark.parametrize("content", [None, b"\xff", b"<View"])
def test_a_label_config_that_cannot_be_used_makes_nothing(
    studio: Studio, create: Creating, tmp_path: Path, content: bytes | None
) -> None:
    config = tmp_path / "config.xml"
    if content is not None:
        config.write_bytes(content)
    with pytest.raises(BackendError, match="label config"):
        create(config=config)
    assert studio.changes == []


def test_the_command(
    studio: Studio, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    words = ["project", "create", "mine", str(clip), "--label-config", str(SHIPPED), "--backend", BACKEND]
    assert main([*words, "--data-dir", str(tmp_path)]) == 0
    assert (studio.title, len(studio.backends), len(studio.tasks)) == ("mine", 1, 1)
    assert "mine: project 7" in capsys.readouterr().err


def test_the_address_for_browsers_is_told(create: Creating) -> None:
    create(browser_url="http://localhost:8081/")
    assert create.told[-1] == f"open http://localhost:8081/projects/{PROJECT}"
