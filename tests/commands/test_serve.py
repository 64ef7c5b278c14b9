"""`sam3-backend serve` as a process: it answers, it stops when told, and it never picks a stand-in by itself."""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from backend.cli import main
from backend.commands import serve
from backend.commands.serve import log_connection, log_status
from backend.errors import BackendError, SettingsError, StudioError
from backend.settings import Settings
from benchmarks.jobs_parts.requests import SERIES, Answered, ask
from benchmarks.jobs_parts.servers import Server, place_clip, until

pytestmark = pytest.mark.slow

PROGRAM = Path(sys.executable).parent / "sam3-backend"
IGNORING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
"""A program that hears no SIGINT, as what a shell starts in the background."""


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_until_it_is_told_to_stop(tmp_path: Path, stop: signal.Signals) -> None:
    words = [PROGRAM, "serve", "--engine", "opencv", "--port", "0", "--data-dir", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        address = re.search(r"on (127\.0\.0\.1:\d+)$", line.strip())
        assert address, line
        health = requests.get(f"http://{address[1]}/health", timeout=5).json()
        assert health["engine"] == "opencv"
        assert health["settings"]["engine"] == "opencv"
        assert str(tmp_path) not in str(health)
        process.send_signal(stop)
        try:
            assert process.wait(10) in (0, 130)
        finally:
            process.kill()


def test_who_waits_when_it_is_told_to_stop_gets_what_is_there(tmp_path: Path) -> None:
    place_clip(tmp_path, 200)
    server = Server.stub(tmp_path, seconds=60.0, within=50.0)
    answers: list[Answered] = []
    waiting = [threading.Thread(target=lambda: answers.append(ask(server.port, SERIES[0]))) for _ in range(5)]
    for thread in waiting:
        thread.start()
    until(lambda: json.loads(ask(server.port, ("/jobs", None))[3])["running"], 20)
    time.sleep(0.3)  # until the others have joined the job
    server.process.terminate()
    for thread in waiting:
        thread.join(20)
    assert [status for _, _, status, _ in answers] == [200] * 5
    assert all(json.loads(text)["results"] for *_, text in answers)
    assert server.process.wait(20) in (0, 130)


def test_started_in_the_background_it_stops_too_and_its_log_tells_of_the_model(tmp_path: Path) -> None:
    words = [PROGRAM, "serve", "--engine", "opencv", "--port", "0", "--data-dir", str(tmp_path)]
    command, log = [sys.executable, "-c", IGNORING, *words], tmp_path / "log"
    out = subprocess.PIPE
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=out, stderr=errors, text=True) as process,
    ):
        assert process.stdout
        try:
            assert " on 127.0.0.1:" in process.stdout.readline()
            until = time.monotonic() + 10
            while "csrt-2: ready" not in log.read_text() and time.monotonic() < until:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) in (0, 130)
        finally:
            process.kill()
    assert "opencv-csrt-2: ready" in log.read_text()


def test_idle_connections_keep_nobody_out(tmp_path: Path) -> None:
    words = [PROGRAM, "serve", "--engine", "opencv", "--port", "0", "--data-dir", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process, contextlib.ExitStack() as idle:
        assert process.stdout
        port = int(process.stdout.readline().rpartition(":")[2])
        serve._allow_open_files()  # for this process, as the server did for itself
        for _ in range(1000):
            idle.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("words", [[], ["--engine", "auto"], ["--engine", "sam3"]])
def test_without_sam3_it_names_the_choices_and_ends(tmp_path: Path, words: list[str]) -> None:
    code = "import sys; sys.modules['torch'] = None; from backend.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", "--port", "0", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "pip install 'sam3-backend[sam3]'" in done.stderr
    assert "set engine: opencv" in done.stderr


def test_the_flags_of_the_model_reach_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Settings] = []
    monkeypatch.setattr("backend.commands.serve.run", served.append)
    assert main(["serve", "--model", "/models/sam3.pt", "--device", "cuda:1"]) == 0
    assert (served[0].model_path, served[0].device) == ("/models/sam3.pt", "cuda:1")


class Loading:
    """A service whose model's status is another one at every look, up to the last."""

    model_version = "stub-1"

    def __init__(self, *told: str) -> None:
        self.told = list(told)

    @property
    def status(self) -> str:
        return self.told.pop(0) if len(self.told) > 1 else self.told[0]


@pytest.mark.parametrize(
    ("told", "last"),
    [
        (["loading", "loading", "loading", "warming up", "warming up", "ready"], (logging.INFO, "stub-1: ready")),
        (["loading", "loading", "failed: set model_path"], (logging.ERROR, "stub-1: failed: set model_path")),
        (["ready"], (logging.INFO, "stub-1: ready")),
    ],
)
def test_the_log_tells_each_change_of_the_models_status_once(caplog, told: list[str], last: tuple) -> None:
    with caplog.at_level(logging.INFO):
        log_status(Loading(*told), seconds=0)
    records = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert records[-1] == last
    assert [message for _, message in records] == [f"stub-1: {status}" for status in dict.fromkeys(told)]


def test_the_log_tells_a_download_by_tenths(caplog: pytest.LogCaptureFixture) -> None:
    told = [f"downloading its weights: {percent} % of 3.4 GB, {99 - percent} s left" for percent in range(100)]
    with caplog.at_level(logging.INFO):
        log_status(Loading("loading", *told, "ready"), seconds=0)
    assert [record.getMessage().partition(" %")[0].rpartition(" ")[2] for record in caplog.records][1:-1] == [
        *("0", "10", "20", "30", "40", "50", "60", "70", "80", "90")
    ]


class Starting:
    """A Label Studio that fails with each of these reasons, then answers."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = [*reasons]

    def release(self) -> str:
        if self.reasons:
            raise StudioError(self.reasons.pop(0))
        return "1.23.2"

    def check_key(self) -> None:
        pass


def test_the_log_tells_once_why_label_studio_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_connection(Starting("start it", "start it", "set the key"), seconds=0)
    told = [record.getMessage().partition(";")[0] for record in caplog.records]
    assert told == ["start it", "set the key", "Label Studio 1.23.2 answers and accepts the key"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gpu"])
def test_other_machines_are_let_in_with_a_password_or_a_word_for_it(host: str, monkeypatch, tmp_path: Path) -> None:
    def start(*_: object) -> None:
        raise BackendError("it would have started")

    monkeypatch.setattr(serve, "Service", start)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    with pytest.raises(SettingsError, match=r"set BASIC_AUTH_USER and BASIC_AUTH_PASS, or insecure: true"):
        serve.run(Settings(host=host, data_dir=tmp_path))
    for more in ({"insecure": True}, {"basic_auth_user": "ann", "basic_auth_pass": "right"}):
        with pytest.raises(BackendError, match="it would have started"):
            serve.run(Settings(host=host, data_dir=tmp_path, **more))
