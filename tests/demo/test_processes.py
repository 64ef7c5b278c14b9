"""The demo's children end with it, and ports of others are left alone."""

import os
import signal
import socket
import sys

import pytest

from backend.demo import processes
from backend.demo.processes import DemoError, Process, ended_by_signals, free_port, uninterrupted
from benchmarks.jobs_parts.servers import is_alive, until


def test_a_child_that_ends_is_named_with_its_log(tmp_path):
    with Process("the child", tmp_path / "log.txt") as child:
        child.start([sys.executable, "-c", "print('no luck'); raise SystemExit(3)"], os.environ)
        with pytest.raises(DemoError, match=r"the child ended with exit code 3; its log is .*log.txt:\n  no luck"):
            child.wait_until(lambda: False, 30)


def test_a_child_that_does_not_get_ready_is_given_up(tmp_path):
    with Process("the child", tmp_path / "log.txt") as child:
        child.start(["sleep", "60"], os.environ)
        with pytest.raises(DemoError, match="was not ready within 0 s"):
            child.wait_until(lambda: False, 0)


def test_the_children_of_a_child_end_too(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.5)
    with Process("the child", tmp_path / "log.txt") as child:
        child.start(["sh", "-c", "trap '' TERM; sleep 60 & echo $!; exec sleep 60"], os.environ)
        child.wait_until(lambda: (tmp_path / "log.txt").read_text().endswith("\n"), 10)
    sleeper = int((tmp_path / "log.txt").read_text())
    assert until(lambda: not is_alive(sleeper), 10), "it was killed, and is somebody else's to reap"


def test_a_signal_waits_for_the_end_of_a_start():
    done = []
    with pytest.raises(KeyboardInterrupt), ended_by_signals(), uninterrupted():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("all of it")
    assert done == ["all of it"]


def test_a_taken_port_is_left_alone():
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert free_port(taken) not in (0, taken)
    assert free_port(taken) == taken
