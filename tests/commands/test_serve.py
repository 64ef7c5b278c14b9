"""`sam3-backend serve` as a process: it answers, it stops when told, and it never picks a stand-in by itself."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

PROGRAM = Path(sys.executable).parent / "sam3-backend"


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


def test_idle_connections_keep_nobody_out(tmp_path: Path) -> None:
    words = [PROGRAM, "serve", "--engine", "opencv", "--port", "0", "--data-dir", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process, contextlib.ExitStack() as idle:
        assert process.stdout
        port = int(process.stdout.readline().rpartition(":")[2])
        for _ in range(200):
            idle.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("words", [[], ["--engine", "auto"], ["--engine", "sam3"]])
def test_without_sam3_it_names_the_choices_and_ends(tmp_path: Path, words: list[str]) -> None:
    done = subprocess.run([PROGRAM, "serve", "--port", "0", *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "set engine: opencv" in done.stderr
