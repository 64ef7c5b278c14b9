"""`sam3-backend selftest`: the report, and which settings it calls the fastest safe ones."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from backend.cli import main
from backend.commands import selftest
from backend.commands.selftest_film import DiscFilm
from backend.commands.selftest_runs import TimedTracks
from backend.errors import BackendError, SettingsError
from backend.settings import Settings
from backend.settings_loader import read_settings

pytestmark = pytest.mark.slow

FILM = DiscFilm(160, 90, 6)
BFLOAT16 = ({"dtype": "bfloat16"},)
DRAWN = np.array([FILM.boxes(frame) for frame in range(FILM.length)])


def settings_of(report: str) -> dict[str, object]:
    """What the report says to set."""
    found = yaml.safe_load(report.partition("safe here:\n")[2])
    return {name: value for name, value in found.items() if value != selftest.BASE.get(name) or name == "dtype"}


def test_the_report_of_the_shapes_model(capsys, tmp_path):
    torch.set_num_threads(1)
    selftest.run(Settings(model_path="shapes", device="cpu"), DiscFilm(320, 180, 8), (1, 4), BFLOAT16)
    report = capsys.readouterr().out
    lines = report.splitlines()
    names = [line.split()[0] for line in lines]
    assert names == [
        *("software", "machine", "model", "film", "tried", "tried", "tried", "speed", "speed", "clicks", "words"),
        *("result", "settings", "dtype:", "attention:", "compile:"),
    ]
    assert "one object at a time" in lines[5]
    assert ", safe, IoU mean 1.0000" in lines[5]
    assert ", safe, " in lines[6]
    assert "result    ok, after" in report
    assert str(tmp_path) not in report
    (tmp_path / "found.yaml").write_text(report.partition("safe here:\n")[2])
    assert read_settings(tmp_path / "found.yaml").dtype in ("float32", "bfloat16")


class Runs:
    """In place of `EngineRuns`: each choice of settings has a rate and a shift of the boxes, in pixels."""

    by_dtype: dict[str, tuple[float, float]]
    alone_shift = 0.0
    device_name = "cuda:0, a GPU"

    def __init__(self, settings, video, seconds):
        if settings.image_size == 14:
            raise SettingsError("image_size is 14: set a multiple of 28")
        self.rate, self.shift = self.by_dtype[settings.dtype]
        if settings.max_frames:
            self.rate *= settings.max_frames
        self.engine = SimpleNamespace(
            name="sam3", version="weights-abc", device_name=self.device_name, memory=lambda: (2**30, 2**32)
        )
        self.load_seconds = 1.0

    def track(self, points):
        boxes = DRAWN[:, [number % 4 for number in range(len(points))]]
        return TimedTracks(boxes + self.shift, self.rate / len(points))

    def track_alone(self, points):
        return TimedTracks(DRAWN + self.alone_shift, 1.0)

    def find(self, text, wanted):
        return 4, 0.9


@pytest.fixture
def runs(monkeypatch):
    monkeypatch.setattr(Runs, "by_dtype", {"float32": (10.0, 0.0), "bfloat16": (20.0, 0.01)}, raising=False)
    monkeypatch.setattr(selftest, "EngineRuns", Runs)
    return Runs


def test_the_fastest_safe_settings_are_named(runs, capsys):
    choices = ({"dtype": "bfloat16"}, {"image_size": 14}, {"max_frames": 3}, {"max_frames": 2})
    selftest.run(Settings(), FILM, choices=choices)
    report = capsys.readouterr().out
    assert settings_of(report) == {"dtype": "bfloat16", "max_frames": 3}
    assert "image_size: 14: image_size is 14: set a multiple of 28" in report
    assert "64 objects: 0.94 frames/s, 1.0 of 4.0 GiB in use" in report


@pytest.mark.parametrize(("rate", "shift"), [(20.0, 3.0), (10.2, 0.0)])
def test_what_is_not_safe_or_slower_is_not_named(runs, capsys, rate, shift):
    runs.by_dtype["bfloat16"] = rate, shift
    selftest.run(Settings(), FILM, choices=BFLOAT16)
    report = capsys.readouterr().out
    assert settings_of(report) == {"dtype": "float32"}
    assert ("NOT SAFE" in report) == (shift > 0)


def test_without_time_it_reports_what_it_has(runs, capsys):
    selftest.run(Settings(), FILM, seconds=0)
    report = capsys.readouterr().out
    assert settings_of(report) == {"dtype": "float32"}
    assert report.count("for lack of time") == 9


def test_implementations_of_attention_are_for_a_gpu(runs, monkeypatch, capsys):
    selftest.run(Settings(), FILM)
    on_gpu = capsys.readouterr().out
    monkeypatch.setattr(runs, "device_name", "cpu, 2 threads")
    selftest.run(Settings(), FILM)
    assert on_gpu.count("attention: ") - capsys.readouterr().out.count("attention: ") == 3


@pytest.mark.parametrize(("alone", "shift", "fault"), [(3.0, 0.0, "alone"), (60.0, 60.0, "follow the discs")])
def test_a_fault_is_the_result_and_an_error(runs, monkeypatch, capsys, alone, shift, fault):
    monkeypatch.setattr(runs, "alone_shift", alone)
    monkeypatch.setattr(runs, "by_dtype", dict.fromkeys(runs.by_dtype, (10.0, shift)))
    with pytest.raises(BackendError, match=fault):
        selftest.run(Settings(), FILM)
    assert fault in capsys.readouterr().out.partition("\nresult ")[2]


def test_the_stand_in_has_nothing_to_test(capsys):
    assert main(["selftest", "--engine", "opencv"]) == 2
    assert "set engine: sam3, sam2 or edgetam" in capsys.readouterr().err


def test_an_object_that_only_one_run_has_counts_as_unlike():
    boxes = DRAWN.copy()
    boxes[2, 1] = np.nan
    assert TimedTracks(boxes, 1.0).likeness(boxes) == (1.0, 1.0)
    mean, least = TimedTracks(boxes, 1.0).likeness(DRAWN[:5])
    assert (round(mean, 4), least) == (0.95, 0.0)


@pytest.mark.parametrize("frame", [0, 5])
def test_discs_are_where_the_film_says(frame):
    pictures = list(FILM.pictures())
    is_coloured = np.ptp(pictures[frame].astype(int), axis=2) > 60
    for x0, y0, x1, y1 in FILM.boxes(frame):
        around = is_coloured[int(y0) - 2 : int(y1) + 4, int(x0) - 2 : int(x1) + 4]
        rows, columns = np.flatnonzero(around.any(1)), np.flatnonzero(around.any(0))
        assert abs(np.ptp(rows) + 1 - (y1 - y0)) < 2
        assert abs(np.ptp(columns) + 1 - (x1 - x0)) < 2
        assert abs(rows[0] + int(y0) - 2 - y0) <= 1
