"""The documentation followed to the letter: its links lead somewhere, its commands run, its help is what they say.

What cannot run here is looked at: that targets, files and flags exist. `RUN` and `LOOKED_AT` say which is which.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from backend import __version__, cli
from backend.settings import Settings
from backend.settings_loader import ALIASES, PREFIX
from backend.video import write_video
from tests import generated_docs

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "CONTRIBUTING.md")
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)

RUN = [
    "sam3-backend track clip.mp4 --engine opencv",
    "sam3-backend project export tasks.json",
    "sam3-backend project tracks tasks.json",
]
"""Beginnings of what runs here, in this order, in one folder with a clip in it."""

# --- links ---


def prose(text: str) -> str:
    """A page without its code: no link in there is one."""
    return re.sub(r"`[^`\n]*`", "", FENCED.sub("", text))


def anchors(text: str) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def faults(page: Path, text: str) -> list[str]:
    """The links inside the project that lead nowhere."""
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            continue  # elsewhere: nobody can say here what is there
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        if not there.exists():
            wrong.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(text if there == page else there.read_text(encoding="utf-8")):
            wrong.append(f"{target}: no such heading")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_leads_somewhere(page: Path) -> None:
    assert faults(page, page.read_text(encoding="utf-8")) == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = "# One, two\n[a](#one-two) [b](#three) [c](gone.md) [d](docs/gone.png) `[e](no)` [f](https://x.org/y)"
    assert faults(ROOT / "README.md", text) == [
        "#three: no such heading",
        "gone.md: no such file",
        "docs/gone.png: no such file",
    ]


def test_the_readme_leads_to_every_page() -> None:
    """Or the site's menu does; the README has the ones that a newcomer looks for."""
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f": {page.name}" not in menu] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "annotate" / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="https?://(?!squidfunk)', page), "nothing is loaded from elsewhere"


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"`((?:\w[\w-]*/)+[\w.-]+\.(?:py|ya?ml|md|xml|txt|png))`", ALL))
    assert len(named) >= 5
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_every_variable_and_setting_that_is_named_is_one() -> None:
    keys = {field.name for field in fields(Settings)}
    keys |= {f"{group}_{field.name}" for group in ("keyframes", "limits") for field in fields(_group(group))}
    named = re.findall(r"SAM3_BACKEND_([A-Z_]+)\b", ALL)
    assert [name for name in named if name.lower() not in keys] == []
    set_to = re.findall(r"`([a-z][a-z_]*(?:\.[a-z]+)?): ", ALL)
    assert {"model_path", "pre_annotate"} <= set(set_to)
    assert [name for name in set_to if name.replace(".", "_") not in keys] == []


def _group(name: str) -> type:
    return type(getattr(Settings(), name))


@pytest.mark.parametrize("row", ["", "| `port` | 1 | |\n| `port` | 1 | |\n", "| `prt` | 1 | |\n"])
def test_a_setting_that_is_missing_twice_there_or_none_is_noticed(row: str) -> None:
    page = generated_docs.SETTINGS.read_text(encoding="utf-8")
    right = next(line for line in page.splitlines(keepends=True) if line.startswith("| `port` |"))
    wrong = page.replace(right, row)
    assert generated_docs.with_table(wrong) == page != wrong


# --- help ---

same_argparse = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse of 3.11 lays out the help")


@same_argparse
def test_the_help_is_what_the_commands_say() -> None:
    assert generated_docs.commands() == generated_docs.COMMANDS.read_text(encoding="utf-8"), "make docs"


def test_every_argument_is_explained() -> None:
    """But choices, which explain themselves."""
    silent = [
        f"{one.prog} {'/'.join(action.option_strings) or action.dest}"
        for one in generated_docs.parsers()
        for action in one._actions
        if not action.help and not action.choices
    ]
    assert silent == []


@pytest.mark.parametrize("command", [one.prog for one in generated_docs.parsers()])
def test_every_command_helps(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*command.split()[1:], "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {command} ")


# --- commands ---


def commands() -> list[str]:
    """Every command in the pages' blocks for bash, one a line."""
    return [
        command
        for indent, language, block in FENCED.findall(ALL)
        if language == "bash"
        for line in re.sub(r"\\\n\s*", "", block).splitlines()
        if (command := re.sub(r"(^|\s)#.*$", "", line.removeprefix(indent)).strip())
    ]


def split(command: str) -> tuple[dict[str, str], list[str]]:
    """What is set in the environment, and the words."""
    words, variables = shlex.split(command), {}
    if words[0] == "export":
        words = words[1:]
    while words and (setting := re.fullmatch(r"([A-Z][A-Z_0-9]*)=(.*)", words[0])):
        variables[setting[1]] = setting[2]
        words = words[1:]
    return variables, words


def _make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        if "=" in word:
            assert f"$({word.partition('=')[0]})" in makefile, word
        else:
            assert re.search(rf"^{re.escape(word)}:", makefile, re.M), word


def _pip(words: list[str]) -> None:
    assert words[0] == "install"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words[1:]:
        if ours := re.fullmatch(r"\.(?:\[([\w,]+)\])?", word):
            assert set((ours[1] or "").split(",")) - {""} <= set(project["optional-dependencies"])


def _copy(words: list[str]) -> None:
    assert (ROOT / words[0]).is_file(), words[0]


def _docker(words: list[str]) -> None:
    """Its files exist, and what is set for a build is an argument of it."""
    for option, value in pairwise(words):
        if option in ("-f", "--file"):
            assert (ROOT / value).is_file() or (ROOT / "docker" / value).is_file(), value
        if option == "--build-arg":
            assert re.search(rf"^ARG {value.partition('=')[0]}\b", (ROOT / "Dockerfile").read_text(), re.M), value
    if words[0] == "compose" and "-f" not in words:
        assert (ROOT / "docker-compose.yml").is_file()
    if words[0] == "build":
        assert (ROOT / "Dockerfile").is_file()


def _another(words: list[str]) -> None:
    """Another project's program, or the shell's; `tests/datasets` hands what we write to the libraries themselves."""
    assert words


def _wheel(words: list[str]) -> None:
    """The wheel has this version."""
    assert f"sam3_backend-{__version__}-py3-none-any.whl" in words[-1]
    assert "install" in words


def _ours(words: list[str]) -> None:
    cli.build_parser().parse_args([word for word in words if not re.fullmatch(r"\[.*…\]", word)])


LOOKED_AT: dict[str, Callable[[list[str]], None]] = {
    "make": _make,
    "pip": _pip,
    "docker": _docker,
    "cp": _copy,
    "sam3-backend": _ours,
    "yolo": _another,
    "cd": _another,
    "pipx": _wheel,
    "uv": _wheel,
}
"""Programs by what is checked of their words: their own tests run most of them."""
ELSEWHERE = {"HF_TOKEN", "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN", "ML_BLOCK_LOCAL_IP", "SSRF_PROTECTION_ENABLED"}
"""Variables that others read."""


@pytest.mark.parametrize("command", commands())
def test_every_command_is_one(command: str) -> None:
    variables, words = split(command)
    ours = set(ALIASES) | {f"{PREFIX}{field.name.upper()}" for field in fields(Settings)}
    assert set(variables) <= ours | ELSEWHERE
    if words:
        assert words[0] in LOOKED_AT, f"say how {words[0]} is to be checked"
        LOOKED_AT[words[0]](words[1:])


def moving_square() -> Iterator[np.ndarray]:
    """The box of the page without Label Studio is on it in frame 0."""
    rng = np.random.default_rng(1)
    ground, square = (rng.integers(0, 255, (*size, 3), np.uint8) for size in ((180, 320), (40, 40)))
    for index in range(20):
        picture = ground // 4
        picture[60:100, 20 + 2 * index : 60 + 2 * index] = square
        yield picture


@pytest.mark.slow
def test_what_needs_no_label_studio_runs_in_the_order_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "clip.mp4", moving_square(), 25)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAM3_BACKEND_DATA_DIR", str(tmp_path / "data"))
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    chosen = [command for command in commands() if command.startswith(tuple(RUN))]
    assert [begin for begin in RUN if not any(command.startswith(begin) for command in chosen)] == []
    for command in chosen:
        assert cli.main(split(command)[1][1:]) == 0, (command, capsys.readouterr().err)
    assert {"tasks.json", "out.mp4", "tracks.csv"} <= {path.name for path in tmp_path.iterdir()}
    assert '"Van"' in (tmp_path / "tasks.json").read_text()
    rows = (tmp_path / "tracks.csv").read_text().splitlines()
    assert len(rows) > 1


@pytest.mark.slow
def test_words_run_on_the_toy(tmp_path: Path) -> None:
    """The command for SAM3, on the weights that are there."""
    (tmp_path / "videos").mkdir()
    for name in ("clip.mp4", "videos/a.mp4", "videos/b.mp4"):
        write_video(tmp_path / name, moving_square(), 25)
    program, tasks = Path(sys.executable).parent / "sam3-backend", list[int]()
    environment = os.environ | {"SAM3_BACKEND_DATA_DIR": str(tmp_path / "data")}
    for command in (command for command in commands() if "--engine sam3 --text" in command):
        given = [str(path) for word in split(command)[1][1:] for path in sorted(tmp_path.glob(word)) or [word]]
        words = [program, *given, "--model", "shapes", "--device", "cpu", "--span", "0..4"]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        tasks.append(len(json.loads((tmp_path / "tasks.json").read_text())))
    assert tasks == [1, 2]
    assert (tmp_path / "out.mp4").is_file()
