"""The image and the compose files: linted, true to the settings, and their steps run where there is no Docker."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from backend.settings import ALIASES, PREFIX, Settings
from demo.labelstudio import LabelStudio
from demo.processes import Process, free_port
from tests.labelstudio.studio import Studio
from tests.needs import missing

ROOT = Path(__file__).parent.parent
TOOLS = Path(sys.executable).parent
COMPOSE = ("docker-compose.yml", "docker-compose.gpu.yml")
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
LABEL_STUDIOS = {
    "USE_DEFAULT_BANNED_SUBNETS",
    "USER_ADDITIONAL_BANNED_SUBNETS",
    "ML_TIMEOUT_PREDICT",
    "DEBUG",
    "COLLECT_ANALYTICS",
}


def services(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())["services"]


def text(name: str) -> str:
    return (ROOT / name).read_text()


def test_the_image_is_made_as_images_should_be() -> None:
    done = subprocess.run([TOOLS / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_understands_it(name: str) -> None:
    words = ["--builtin-schema", "vendor.compose-spec", ROOT / name]
    done = subprocess.run([TOOLS / "check-jsonschema", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_variable_is_explained_with_its_default() -> None:
    told = dict(line.split("=", 1) for line in text(".env.example").splitlines() if line and not line.startswith("#"))
    used = dict(VARIABLE.findall(text("docker-compose.yml")))
    more = dict(VARIABLE.findall(text("docker-compose.gpu.yml")))
    assert told == {**more, **used}


@pytest.mark.parametrize("name", COMPOSE)
def test_what_is_set_means_something(name: str) -> None:
    settings = {PREFIX + key.upper() for key in Settings.__dataclass_fields__} | set(ALIASES) | {"HF_TOKEN"}
    for service, told in services(name).items():
        known = settings if service != "label-studio" else LABEL_STUDIOS
        for variable in told.get("environment", {}):
            assert variable in known or (service == "label-studio" and variable.startswith("LABEL_STUDIO_")), variable


def test_nobody_else_reaches_what_has_a_password_that_everybody_knows() -> None:
    ports = [port for one in services("docker-compose.yml").values() for port in one.get("ports", ())]
    assert len(ports) == 2
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in ports)


def test_label_studio_makes_a_webhook_for_the_name_of_the_backend() -> None:
    (address,) = re.findall(r"http://([^:]+):9090", " ".join(services("docker-compose.yml")["first-start"]["command"]))
    assert "." in address
    assert services("docker-compose.yml")["backend"]["networks"]["default"]["aliases"] == [address]


def test_only_dockers_networks_are_taken_out_of_those_that_label_studio_refuses() -> None:
    (source,) = (ROOT / ".venv-labelstudio").glob("lib/python*/site-packages/label_studio/core/utils/io.py") or [None]
    missing(source, "Label Studio in .venv-labelstudio")
    listed = re.search(r"default_banned_subnets = \[(.*?)\]", source.read_text(), re.DOTALL)
    refused = re.findall(r"'([^']+)',", listed[1])
    assert set(environment("label-studio")["USER_ADDITIONAL_BANNED_SUBNETS"].split(",")) == set(refused) - {
        "172.16.0.0/12"
    }


@pytest.mark.parametrize(("status", "code"), [(200, 0), (401, 0), (500, 1), (None, 1)])
def test_what_answers_is_healthy(status: int | None, code: int) -> None:
    with Studio() as server:
        server.places["/health"] = (status or 200, b"{}")
        url = f"{server.url}/health" if status else f"http://127.0.0.1:{free_port(0)}/health"
        assert subprocess.run([sys.executable, ROOT / "docker/healthy.py", url]).returncode == code


def test_the_image_is_made_of_files_that_are_here_and_not_ignored() -> None:
    let_in = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text("Dockerfile"), re.MULTILINE)
    for source in (word for line in copied for word in line.split() if word != "."):
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in let_in
    assert {"backend", "README.md"} <= let_in


def test_the_image_has_what_the_package_asks_for() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    words = [sys.executable, ROOT / "docker/requirements.py", ROOT / "pyproject.toml", "sam3"]
    listed = subprocess.check_output(words, text=True).splitlines()
    assert listed == [*project["dependencies"], *project["optional-dependencies"]["sam3"]]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder as the image has it: its package in an environment of its own, which borrows what that depends on."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    site = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    subprocess.run(["sh", ROOT / "docker/install.sh", "package", tmp_path / "venv"], check=True, capture_output=True)
    Path(site.strip(), "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name in ("demo", "shapes"):
        shutil.copytree(ROOT / name, tmp_path / "app" / name)
    for name in ("label_config.xml", "docker/first_start.sh"):
        shutil.copy(ROOT / name, tmp_path / "app")
    return tmp_path


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[LabelStudio]:
    """Label Studio as the compose file starts it; 127.0.0.1 is what a private network of Docker's is there."""
    missing(ROOT / ".venv-labelstudio", "Label Studio in .venv-labelstudio")
    told = {name: value for name, value in environment("label-studio").items() if "LABEL_STUDIO" not in name}
    told["USER_ADDITIONAL_BANNED_SUBNETS"] = told["USER_ADDITIONAL_BANNED_SUBNETS"].replace("127.0.0.0/8", OTHER)
    guards = {"ML_BLOCK_LOCAL_IP": "true", "SSRF_PROTECTION_ENABLED": "true"}  # as they are where nothing is said
    with LabelStudio(ROOT / ".venv-labelstudio", tmp_path / "labelstudio", guards | told) as studio:
        studio.start(0)
        yield studio


def environment(service: str, **changes: str) -> dict[str, str]:
    """A service's, with every default."""
    told = services("docker-compose.yml")[service]["environment"]
    return {name: VARIABLE.sub(r"\2", str(value)) for name, value in told.items()} | changes


OTHER = "127.0.0.2/32"
"""Of this machine, too, but refused."""


@pytest.mark.slow
def test_a_first_start_ends_in_a_project_that_is_ready_and_a_second_one_changes_nothing(
    image: Path, studio: LabelStudio
) -> None:
    port, path = free_port(0), f"{image}/venv/bin:{os.environ['PATH']}"
    url = f"http://127.0.0.1:{port}"
    given = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token, "PATH": path, "HOME": str(image)}
    given |= {"BASIC_AUTH_USER": "studio", "BASIC_AUTH_PASS": "p4ss"}
    own = {"SAM3_BACKEND_HOST": "0.0.0.0", "SAM3_BACKEND_DATA_DIR": str(image / "data"), "PORT": str(port)}
    serving = environment("backend", **given | own)
    with Process("the backend", image / "log.txt") as backend:
        backend.start([image / "venv/bin/sam3-backend", "serve"], serving)
        backend.wait_until(lambda: _health(url)["model"] == "ready", 90)
        assert _health(url)["status"] == "UP"
        assert subprocess.run([sys.executable, ROOT / "docker/healthy.py", f"{url}/health"]).returncode == 0
        for _ in range(2):
            done = first_start(image, url, given)
            assert done.returncode == 0, done.stderr
            (project,) = studio.call("GET", "/api/projects")["results"]
            (connected,) = studio.call("GET", f"/api/ml?project={project['id']}")
            (task,) = studio.call("GET", f"/api/tasks?project={project['id']}&fields=all")["tasks"]
            assert (connected["url"], connected["state"], connected["is_interactive"]) == (url, "CO", True)
            assert (task["data"]["fps"], len(task["data"]["frames"])) == (25, 100)
            webhooks = studio.call("GET", f"/api/webhooks/?project={project['id']}")
            assert [one["url"] for one in webhooks] == [f"{url}/webhook"]
        refused = first_start(image, url.replace("127.0.0.1", "127.0.0.2"), given)
        assert refused.returncode == 1
        assert "Label Studio does not reach http://127.0.0.2" in refused.stderr


def first_start(image: Path, url: str, given: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What the compose file's service of this name does, to its end."""
    told = environment("first-start", **given)
    return subprocess.run(["sh", "first_start.sh", url], cwd=image / "app", env=told, capture_output=True, text=True)


def _health(url: str) -> dict[str, Any]:
    try:
        return requests.get(f"{url}/health", auth=("studio", "p4ss"), timeout=2).json()
    except requests.RequestException:
        return {"model": "starting"}
