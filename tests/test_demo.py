"""The demo's own judgement and manners; that it runs, too, where Label Studio is installed."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from backend.tracks.geometry import Box, box_iou
from benchmarks.jobs_parts.servers import is_alive, until
from demo import check, clip, processes
from demo.__main__ import main
from demo.processes import DemoError, Process, ended_by_signals, free_port, uninterrupted
from tests.needs import THOROUGH, missing

ROOT = Path(__file__).parent.parent
SIZE = (clip.WIDTH, clip.HEIGHT)


def keyframe(frame, x, enabled=True):
    return {"frame": frame, "enabled": enabled, "x": x, "y": 20.0, "width": 10.0, "height": 10.0, "rotation": 0}


def track(boxes, frames):
    """The region that has a keyframe on each of the 0-based `frames`, for boxes in pixels."""
    sequence = []
    for frame in frames:
        region = check.drawn_region("a", "Circle", Box(*boxes[frame]), SIZE, clip.FRAMES, clip.FPS)
        sequence.append(region["value"]["sequence"][0] | {"frame": frame + 1})
    region["value"]["sequence"] = sequence
    return region


def test_the_check_accepts_the_truth():
    boxes = clip.truth()["Circle"]
    assert check.faults(track(boxes, range(clip.FRAMES)), boxes, SIZE) == []


def test_the_check_accepts_the_truth_thinned():
    boxes = clip.truth()["Circle"]
    assert check.faults(track(boxes, [*range(0, clip.FRAMES, 5), clip.FRAMES - 1]), boxes, SIZE) == []


@pytest.mark.parametrize("direction", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_the_check_refuses_the_truth_half_a_box_aside(direction):
    boxes = clip.truth()["Circle"]
    half = (boxes[0, 2:] - boxes[0, :2]) / 2 * direction
    assert len(check.faults(track(boxes, range(clip.FRAMES)), boxes + np.tile(half, 2), SIZE)) == check.CHECKED_FRAMES


def test_the_check_refuses_a_track_that_stands_still():
    boxes = clip.truth()["Circle"]
    assert check.faults(track(boxes, [0]), boxes, SIZE)


def test_the_check_refuses_a_track_that_ends_early():
    boxes = clip.truth()["Circle"]
    region = track(boxes, range(60))
    region["value"]["sequence"][-1]["enabled"] = False
    assert [fault.partition(":")[2] for fault in check.faults(region, boxes, SIZE)] == [" no box"] * 4


@pytest.mark.parametrize(
    ("frame", "x"),
    [(4, None), (5, 10), (10, 20), (15, 30), (16, None), (19, None), (20, 50), (30, 50)],
)
def test_shown_is_what_label_studio_shows(frame, x):
    sequence = [keyframe(20, 50.0), keyframe(5, 10.0), keyframe(15, 30.0, enabled=False)]
    box = check.shown(sequence, frame)
    assert box == (None if x is None else Box(x, 20, x + 10, 30))


def test_the_clips_objects_keep_apart_and_inside():
    boxes = list(clip.truth().values())
    for number, one in enumerate(boxes):
        assert all(box_iou(one, other).max() == 0 for other in boxes[:number])
        assert one.min() > 0
        assert (one[:, 2:] < SIZE).all()


def test_the_demo_has_a_class_for_every_object_of_its_clip():
    config = clip.label_config((ROOT / "label_config.xml").read_text())
    assert set(re.findall('Label value="([A-Z][a-z]+)"', config)) == set(clip.truth())


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


@pytest.mark.parametrize("words", [["--video", "a.mp4"], ["--model", "facebook/sam3"]])
def test_the_check_takes_the_sample_clip_and_its_model_only(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--check", *words])
    assert "leave out --model and --video" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not THOROUGH, reason="only in THOROUGH: .ci/run ends with make demo CHECK=1")
def test_the_demo_checks_itself_and_ends_on_a_signal(tmp_path):
    missing(ROOT / ".venv-labelstudio" / "bin" / "label-studio", "Label Studio")
    missing(Path(sys.executable).parent / "sam3-backend", "sam3-backend")
    demo = [sys.executable, "-m", "demo", "--folder", tmp_path]
    first = subprocess.run([*demo, "--check"], cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert (first.returncode, first.stdout.splitlines()[-1:]) == (0, ["demo: ok"]), first.stdout + first.stderr
    for number in (signal.SIGINT, signal.SIGTERM):
        with (tmp_path / "out.txt").open("w") as out, subprocess.Popen(demo, cwd=ROOT, stdout=out) as running:
            said = wait_for(tmp_path / "out.txt", "Ctrl-C ends it", running)
            port = int(re.search(r"http://127\.0\.0\.1:(\d+)/projects/1/data\?task=1", said)[1])
            socket.create_connection(("127.0.0.1", port)).close()
            second = subprocess.run(demo, cwd=ROOT, capture_output=True, text=True)
            assert (second.returncode, second.stderr) == (1, "\ndemo: the demo is already running: stop it first\n")
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
