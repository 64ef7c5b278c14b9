"""What a healthy project has beside its code: workflows, forms and citations that are well-formed and agree with it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import backend

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()


def files(pattern: str) -> list[str]:
    """Their names below the root."""
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "name"),
    [
        *(("vendor.github-workflows", name) for name in files(".github/workflows/*.yml")),
        *(("vendor.github-issue-forms", name) for name in files(".github/ISSUE_TEMPLATE/[!c]*.yml")),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("vendor.dependabot", ".github/dependabot.yml"),
        ("vendor.citation-file-format", "CITATION.cff"),
    ],
)
def test_it_keeps_to_its_schema(schema: str, name: str) -> None:
    tool = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run([tool, "--builtin-schema", schema, ROOT / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", files(".github/workflows/*.yml"))
def test_each_step_runs_what_a_developer_runs(name: str) -> None:
    jobs = yaml.safe_load((ROOT / name).read_text())["jobs"].values()
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert commands or name.endswith("publish.yml")
    for command in commands:
        target = re.fullmatch(r"make ([\w-]+)( \w+=\w+)*", command)
        assert command == "bash .ci/run" or (target and re.search(rf"^{target[1]}:", MAKEFILE, re.MULTILINE)), command


def test_each_hook_runs_a_tool_of_make_lint() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repository["hooks"]:
        command = hook["entry"].removesuffix(" --fix")
        assert f"\t{command}" in MAKEFILE, command


def test_the_version_is_the_same_everywhere() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == backend.__version__
