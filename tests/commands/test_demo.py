"""The command `demo`: what it refuses before anything is fetched, and that it runs where Label Studio is installed."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend import cli, engines
from tests.needs import THOROUGH, missing

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("words", [["--video", "a.mp4"], ["--model", "facebook/sam3"]])
def test_the_check_takes_the_sample_clip_and_its_model_only(words, capsys):
    assert cli.main(["demo", "--check", *words]) == 2
    assert "leave out --model and --video" in capsys.readouterr().err


def test_nothing_is_fetched_for_a_model_that_cannot_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert cli.main(["demo", "--folder", str(tmp_path / "demo")]) == 2
    assert "needs torch and transformers: install the extra" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_an_environment_that_is_given_has_label_studio(tmp_path, capsys):
    assert cli.main(["demo", "--folder", str(tmp_path / "demo"), "--label-studio-venv", str(tmp_path)]) == 1
    assert "has no Label Studio: run" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not THOROUGH, reason="only in THOROUGH: .ci/run ends with make demo CHECK=1")
def test_the_demo_checks_itself_and_ends_on_a_signal(tmp_path):
    missing(ROOT / ".venv-labelstudio" / "bin" / "label-studio", "Label Studio")
    program = Path(sys.executable).with_name("sam3-backend")
    missing(program, "sam3-backend")
    venv = ROOT / ".venv-labelstudio"
    demo = [program, "demo", "--folder", tmp_path, "--label-studio-venv", venv]
    first = subprocess.run([*demo, "--check"], cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert (first.returncode, first.stdout.splitlines()[-1:]) == (0, ["demo: ok"]), first.stdout + first.stderr
    for number in (signal.SIGINT, signal.SIGTERM):
        with (tmp_path / "out.txt").open("w") as out, subprocess.Popen(demo, cwd=ROOT, stdout=out) as running:
            said = wait_for(tmp_path / "out.txt", "Ctrl-C ends it", running)
            port = int(re.search(r"http://127\.0\.0\.1:(\d+)/projects/1/data\?task=1", said)[1])
            socket.create_connection(("127.0.0.1", port)).close()
            second = subprocess.run(demo, cwd=ROOT, capture_output=True, text=True)
            told = "sam3-backend: the demo is already running: stop it first\n"
            assert (second.returncode, second.stderr) == (1, told)
            running.send_signal(number)
            assert running.wait(30) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def wait_for(path, words, process):
    for _ in range(600):
        if words in path.read_text():
            return path.read_text()
        assert process.poll() is None, path.read_text()
        time.sleep(0.2)
    raise AssertionError(path.read_text())
