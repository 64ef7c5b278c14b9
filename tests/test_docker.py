"""The image and the compose files: linted, true to the settings, and their steps run where there is no Docker."""

import json
import os
import re
import shlex
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
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from backend.demo import check, clip
from backend.demo.labelstudio import LabelStudio
from backend.demo.processes import Process, free_port
from backend.model import NOT_STARTED
from backend.settings import Settings
from backend.settings_loader import ALIASES, PREFIX
from backend.tracks.geometry import Box
from tests.labelstudio.studio import Studio
from tests.needs import missing

ROOT = Path(__file__).parent.parent
TOOLS = Path(sys.executable).parent
COMPOSE = ("docker-compose.yml", "docker-compose.gpu.yml")
VARIABLE = re.compile(r"\$\{(\w+):?-([^}]*)\}")
LABEL_STUDIOS = {
    "USE_DEFAULT_BANNED_SUBNETS",
    "USER_ADDITIONAL_BANNED_SUBNETS",
    "ML_TIMEOUT_PREDICT",
    "COLLECT_ANALYTICS",
}


FOLDERS = ("/opt/venv", "/opt/sam3-backend", "/data", "/models")
"""Those of the image; where its steps are run here, they are a temporary folder's."""


def services(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())["services"]


def text(name: str) -> str:
    return (ROOT / name).read_text()


def stage(name: str) -> list[tuple[str, str]]:
    """The instructions of one stage of the Dockerfile: their words and what follows."""
    plain = re.sub(r"^#.*\n", "", text("Dockerfile"), flags=re.MULTILINE).replace("\\\n", " ")
    (body,) = re.findall(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM|\Z)", plain, re.MULTILINE | re.DOTALL)
    return [(word, " ".join(rest.split())) for word, rest in re.findall(r"^([A-Z]+) (.+)$", body, re.MULTILINE)]


def let_in() -> set[str]:
    """What .dockerignore leaves of the checkout."""
    return {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}


@pytest.mark.slow
def test_the_image_is_made_as_images_should_be() -> None:
    done = subprocess.run([TOOLS / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", [*COMPOSE, "docker/beside.yml"])
def test_compose_understands_it(name: str) -> None:
    words = ["--builtin-schema", "vendor.compose-spec", str(ROOT / name)]
    done = subprocess.run([TOOLS / "check-jsonschema", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_both_files_refuse_the_same_networks() -> None:
    networks = re.compile(r"USER_ADDITIONAL_BANNED_SUBNETS: (\"[^\"]+\")")
    lists = [networks.findall(text(name)) for name in ("docker-compose.yml", "docker/beside.yml")]
    assert lists[0] == lists[1] != []


def test_every_variable_is_explained_with_its_default() -> None:
    told = dict(line.split("=", 1) for line in text(".env.example").splitlines() if line and not line.startswith("#"))
    used: dict[str, set[str]] = {}
    for name, default in (pair for file in COMPOSE for pair in VARIABLE.findall(text(file))):
        used.setdefault(name, set()).add(default)
    # Where the files differ it is empty, so that a copy as it is chooses nothing: no toy beside docker-compose.gpu.yml.
    assert told == {name: defaults.pop() if len(defaults) == 1 else "" for name, defaults in used.items()}
    assert text("docker-compose.yml").count("${") == len(VARIABLE.findall(text("docker-compose.yml")))


def test_an_image_for_cpus_is_not_taken_for_the_gpus() -> None:
    usual, other = services("docker-compose.yml"), services("docker-compose.gpu.yml")
    ours = [name for name, told in usual.items() if told["image"].startswith("sam3-backend")]
    assert ours == ["backend", "first-start"] == list(other)
    assert {usual[name]["image"] for name in ours}.isdisjoint({told["image"] for told in other.values()})
    assert usual["backend"]["build"]["args"] != other["backend"]["build"]["args"]


def test_ports_are_those_that_the_backend_and_label_studio_listen_on() -> None:
    told = services("docker-compose.yml")
    assert told["backend"]["ports"][0].endswith(f"${{BACKEND_PORT:-{Settings().port}}}:{Settings().port}")
    assert told["label-studio"]["ports"][0].endswith("${LABEL_STUDIO_PORT:-8080}:8080")
    assert ("EXPOSE", str(Settings().port)) in stage("backend")
    reached, browsed = told["first-start"]["command"][2:]
    assert reached.endswith(f":{Settings().port}")
    assert VARIABLE.sub(r"\2", browsed) == "http://localhost:8080"
    assert told["backend"]["environment"]["LABEL_STUDIO_URL"] == "http://label-studio:8080"
    assert f"127.0.0.1:{Settings().port}/health" in text("docker/healthy.py")
    assert "127.0.0.1:8080/health" in " ".join(told["label-studio"]["healthcheck"]["test"])


def test_what_is_made_does_not_run_as_root_nor_under_a_shell() -> None:
    words = dict(stage("backend"))
    assert words["USER"] == "1000"
    assert json.loads(words["CMD"]) == ["sam3-backend", "serve"]
    assert words["STOPSIGNAL"] == "SIGTERM"
    assert stage("label-studio-ml")[-2] == ("USER", "1000")
    assert json.loads(dict(stage("label-studio-ml"))["CMD"])[0] == "gunicorn"


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
    missing(ROOT / ".venv-labelstudio", "Label Studio in .venv-labelstudio")
    (source,) = (ROOT / ".venv-labelstudio").glob("lib/python*/site-packages/label_studio/core/utils/io.py")
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
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text("Dockerfile"), re.MULTILINE)
    for source in (word for line in copied for word in line.split() if word != "."):
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in let_in()


def installed(*words: str) -> dict[str, str]:
    """The versions that the image installs, each with a hash."""
    command = [
        sys.executable,
        ROOT / "docker/requirements.py",
        ROOT / "pyproject.toml",
        ROOT / "docker/requirements.txt",
    ]
    blocks = re.split(r"^(?=\w)", subprocess.check_output([*command, *words], text=True), flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
    return dict(re.match(r"([\w.-]+)==([\w.]+)", block).groups() for block in blocks)


def test_the_image_has_what_the_package_asks_for() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    found = installed("sam3")
    for wanted in map(Requirement, (*project["dependencies"], *project["optional-dependencies"]["sam3"])):
        assert wanted.specifier.contains(found[canonicalize_name(wanted.name)]), wanted
    pinned = dict(line.split("==") for line in text("constraints.txt").splitlines() if "==" in line)
    for name, version in pinned.items():
        assert found.get(canonicalize_name(name), version) == version, f"{name}: run make requirements"


def test_a_small_image_has_less() -> None:
    everything, cpu, opencv = set(installed("sam3")), set(installed("--cpu", "sam3")), set(installed())
    assert {"torch", "triton", "nvidia-cublas"} <= everything - cpu
    assert {"transformers", "sympy"} <= cpu - opencv
    assert {"flask", "werkzeug", "opencv-contrib-python-headless"} <= opencv < cpu


class Image:
    """The image's steps, run in a folder; what the package depends on is borrowed instead of being installed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(Path(self.here("/opt/venv")), with_pip=False)
        (folder / "src").mkdir()
        for name in let_in():
            copy(ROOT / name, folder / "src" / name)
        (run,) = (rest for word, rest in stage("build") if word == "RUN" and "install.sh package" in rest)
        path = f"{TOOLS}:{os.environ['PATH']}"  # its python3 has pip, as the image's
        env = os.environ | {"PATH": path}
        subprocess.run(self.here(run), shell=True, cwd=folder / "src", env=env, check=True, capture_output=True)
        (site,) = Path(self.here("/opt/venv")).glob("lib/python*/site-packages")
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        for word, rest in stage("backend"):
            if word == "COPY" and not rest.startswith("--from"):
                *sources, target = self.here(rest).split()
                for name in sources:
                    copy(folder / "src" / name, Path(target, Path(name).name) if target.endswith("/") else Path(target))
        told = dict(one.split("=", 1) for word, rest in stage("backend") if word == "ENV" for one in shlex.split(rest))
        self.environment = {name: self.here(value) for name, value in told.items()} | {"HOME": str(folder)}
        self.environment["PATH"] = self.environment["PATH"].replace("$PATH", os.environ["PATH"])
        self.command = json.loads(dict(stage("backend"))["CMD"])

    def here(self, told: str) -> str:
        """The image's folders as those that stand for them."""
        for name in FOLDERS:
            told = re.sub(rf"(?<![\w/]){name}\b", str(self.folder) + name, told)
        return told

    def first_start(self, url: str, given: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """What the compose file's service of this name does, to its end."""
        words = [VARIABLE.sub(r"\2", word) for word in services("docker-compose.yml")["first-start"]["command"]]
        words[2] = url
        told = self.environment | environment("first-start", **given)
        return subprocess.run(words, cwd=self.here("/opt/sam3-backend"), env=told, capture_output=True, text=True)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


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
def test_a_first_start_ends_in_a_project_that_tracks_and_a_second_one_changes_nothing(
    image: Image, studio: LabelStudio
) -> None:
    port = free_port(0)
    url = f"http://127.0.0.1:{port}"
    given = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token}
    given |= {"BASIC_AUTH_USER": "studio", "BASIC_AUTH_PASS": "p4ss", "SAM3_BACKEND_PUBLIC_URL": url}
    with Process("the backend", image.folder / "log.txt") as backend:
        backend.start(image.command, image.environment | environment("backend", **given) | {"PORT": str(port)})
        backend.wait_until(lambda: _health(url)["model"] == "ready", 90)
        assert _health(url)["status"] == "UP"
        healthy = [sys.executable, image.here("/opt/sam3-backend/healthy.py"), f"{url}/health"]
        assert subprocess.run(healthy).returncode == 0
        for _ in range(2):
            done = image.first_start(url, given)
            assert done.returncode == 0, done.stderr
            assert "open http://localhost:8080/projects/" in done.stderr
            assert "The model is shapes, a toy" in done.stdout
            (project,) = studio.call("GET", "/api/projects")["results"]
            (connected,) = studio.call("GET", f"/api/ml?project={project['id']}")
            (task,) = studio.call("GET", f"/api/tasks?project={project['id']}&fields=all")["tasks"]
            assert (connected["url"], connected["state"], connected["is_interactive"]) == (url, "CO", True)
            assert (task["data"]["fps"], len(task["data"]["frames"])) == (25, 100)
            shown = [task["data"]["frames"][0], re.findall(r'src="([^"]+)"', task["data"]["panel"])[0]]
            for one in shown:  # without a password; the panel's answer has no end
                with requests.get(one, timeout=30, stream=True) as answer:
                    assert answer.status_code == 200
            webhooks = studio.call("GET", f"/api/webhooks/?project={project['id']}")
            assert [one["url"] for one in webhooks] == [f"{url}/webhook"]
        boxes, size = clip.truth()["Circle"], (clip.WIDTH, clip.HEIGHT)
        drawn = check.drawn_region("drawn", "Circle", Box(*boxes[0]), size, clip.FRAMES, clip.FPS)
        region, _ = studio.whole_track(connected["id"], task["id"], drawn)
        assert check.faults(region, boxes, size) == []
        assert any(Path(image.here("/data")).iterdir())
        refused = image.first_start(url.replace("127.0.0.1", "127.0.0.2"), given)
        assert refused.returncode == 1
        assert "guard refuses http://127.0.0.2" in refused.stderr


@pytest.mark.slow
def test_label_studio_ml_hosts_what_its_own_stage_starts(tmp_path: Path) -> None:
    python = ROOT / ".venv-lsml/bin/python"
    missing(python, "label-studio-ml in .venv-lsml")
    module, _, name = json.loads(dict(stage("label-studio-ml"))["CMD"])[-1].partition(":")
    shutil.copy(ROOT / "docker/label_studio_ml.py", tmp_path / f"{module}.py")
    asked = f"""
from {module} import {name} as app
client = app.test_client()
print(client.get("/health").json["status"], client.get("/jobs").status_code, client.get("/health/ready").status_code)
input()
"""
    environment = {
        "SAM3_BACKEND_ENGINE": "opencv",
        "SAM3_BACKEND_DATA_DIR": str(tmp_path / "data"),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
    }
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([python, "-c", asked], cwd=tmp_path, text=True, env=environment, **pipes) as first:
        line = first.stdout.readline() if first.stdout else ""
        second = subprocess.run([python, "-c", asked], cwd=tmp_path, env=environment, capture_output=True, text=True)
        _, stderr = first.communicate("\n")
    status, jobs, ready = line.split() or [stderr, "", ""]
    assert (status, jobs) == ("UP", "200")
    assert ready in ("200", "503")
    assert second.returncode == NOT_STARTED, "gunicorn would start it again and again"
    assert len(second.stderr.strip().splitlines()) == 1
    assert "data_dir" in second.stderr


def _health(url: str) -> dict[str, Any]:
    try:
        return requests.get(f"{url}/health", auth=("studio", "p4ss"), timeout=2).json()
    except requests.RequestException:
        return {"model": "starting"}
