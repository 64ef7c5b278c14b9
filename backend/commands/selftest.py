"""`sam3-backend selftest`: find the fastest settings that are safe on this machine, and print a report."""

import argparse
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from backend import __version__
from backend.commands.arguments import Subparsers, add_command, add_config_option, add_model_options, load_settings
from backend.commands.console import print_message
from backend.commands.selftest_film import DiscFilm
from backend.commands.selftest_runs import EngineRuns, TimedTracks
from backend.engines import identify_engine, knows_words
from backend.errors import BackendError, SettingsError
from backend.settings import Settings
from backend.video import Video, write_video

_DESCRIPTION = """
Load the model, compare settings of precision and speed on a film of discs, and print a report of
about twenty lines: which settings are the fastest that give the same boxes, frames per second with
1 to 64 objects, memory, and how well the discs were followed. On a GPU it takes under five minutes;
on a CPU it stops then, with what it has. The report has no path and no token: paste it into an issue.
"""
BASE: Mapping[str, Any] = {"dtype": "float32", "attention": "auto", "compile": False}
"""The settings that others are compared with."""
CHOICES: Sequence[Mapping[str, Any]] = (
    {"dtype": "bfloat16"},
    {"attention": "cudnn"},
    {"attention": "flash3"},
    {"attention": "flash"},
    {"compile": True},
)
"""Changes to try, each on top of the best so far. Compiling takes longest, so it comes last."""
SAFE_MEAN, SAFE_LEAST = 0.98, 0.9
"""Settings are safe if their boxes have this IoU with those of `BASE`: on average, and each object on each frame."""
MIN_GAIN = 1.05
"""A change that makes frames less faster than this is not worth its cost, such as minutes of compiling."""
MIN_CLICKS_IOU, MIN_WORDS_IOU = 0.7, 0.5
"""With a lower mean IoU of the discs that clicks and words follow with the drawn ones, something is wrong."""
OBJECTS, FEW = (1, 4, 16, 64), 4
"""Numbers of objects to measure, and the number that settings are compared with: one on each disc."""
_RUN_SECONDS, _ALL_SECONDS = 12.0, 280.0
"""Longest time of one run, and the time after which none is begun."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "selftest",
        _run,
        summary="find the fastest safe settings on this machine, and print a report",
        description=_DESCRIPTION,
        examples=("sam3-backend selftest --config configs/sam3.yaml", "sam3-backend selftest --model shapes"),
    )
    add_model_options(parser)
    add_config_option(parser)


def _run(options: argparse.Namespace) -> None:
    run(load_settings(options, "engine", "model_path", "device"))


def run(
    settings: Settings,
    film: DiscFilm | None = None,
    objects: Sequence[int] = OBJECTS,
    choices: Sequence[Mapping[str, Any]] = CHOICES,
    seconds: float = _ALL_SECONDS,
) -> None:
    """Run all tests, and print the report to standard output.

    Args:
        settings: of the model; what is tried replaces some of them.
        film: to track in; None: in full HD.
        objects: numbers of objects to measure.
        choices: see `CHOICES`.
        seconds: after which nothing more is begun.

    Raises:
        SettingsError: the model cannot be loaded, or has nothing to test.
        BackendError: something is wrong; the report says what.
    """
    if identify_engine(settings)[0] == "opencv":
        raise SettingsError("engine opencv has nothing to test: set engine: sam3, sam2 or edgetam")
    film = film or DiscFilm()
    settings = replace(settings, max_objects=max(settings.max_objects, *objects))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        print_message("drawing a film")
        write_video(path, film.pictures(), 25)
        with Video(path) as video:
            test = _SelfTest(settings, film, video, seconds)
            best = test.compare(choices)
            test.measure(best, objects)
    test.conclude(best)


class _SelfTest:
    """The tests of one model; each prints its lines of the report.

    Args:
        video: the film, from a file.
        seconds: after which nothing more is begun.
    """

    def __init__(self, settings: Settings, film: DiscFilm, video: Video, seconds: float) -> None:
        self._settings, self._film, self._video = settings, film, video
        self._begin, self._seconds = time.monotonic(), seconds
        self._faults: list[str] = []
        self._on_gpu = False

    def compare(self, choices: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Try `BASE` and each choice; returns the fastest settings that give the same boxes."""
        best, base = BASE, self._run_base()
        rate = base.rate
        for choice in choices:
            if "attention" in choice and not self._on_gpu:
                continue
            if self._left < self._seconds / 3:
                _print_line("tried", f"{_format(choice)}: not tried, for lack of time")
                continue
            try:
                tried = self._load({**best, **choice}).track(self._film.points(FEW))
            except BackendError as error:
                _print_line("tried", f"{_format(choice)}: {error}")
                continue
            if _is_safe(_format(choice), tried, base) and tried.rate > MIN_GAIN * rate:
                best, rate = {**best, **choice}, tried.rate
        return best

    def measure(self, best: Mapping[str, Any], objects: Sequence[int]) -> None:
        """Measure speed and memory with the best settings, and how well the discs are followed."""
        runs = self._load(best)
        for count in objects:
            if self._left <= 0:
                _print_line("speed", f"{count} objects: not measured, for lack of time")
                continue
            try:
                tracks = runs.track(self._film.points(count))
            except BackendError as error:
                _print_line("speed", f"{count} objects: {error}")
                continue
            memory = runs.engine.memory()
            used = f", {memory[0] / 2**30:.1f} of {memory[1] / 2**30:.1f} GiB in use" if memory else ""
            _print_line("speed", f"{count} object{'s' * (count > 1)}: {tracks.rate:.2f} frames/s{used}")
            if count == FEW:
                self._check_discs(tracks)
        if knows_words(runs.engine.name) and self._left > 0:
            wanted = [self._film.boxes(frame) for frame in range(self._film.length)]
            found, iou = runs.find("circle", wanted)
            _print_line("words", f"circle: {found} found, {len(wanted[0])} drawn, IoU with the drawn {iou:.3f}")
            if iou < MIN_WORDS_IOU:
                self._faults.append("words did not find the discs: check that the weights are the published ones")

    def conclude(self, best: Mapping[str, Any]) -> None:
        """Print the result.

        Raises:
            BackendError: something is wrong.
        """
        seconds = time.monotonic() - self._begin
        _print_line("result", "; ".join(self._faults) or f"ok, after {seconds:.0f} s")
        _print_line("settings", "the fastest that are safe here:")
        print(yaml.safe_dump(dict(best), sort_keys=False), end="", flush=True)
        if self._faults:
            raise BackendError("; ".join(self._faults))

    @property
    def _left(self) -> float:
        """Seconds."""
        return self._seconds - (time.monotonic() - self._begin)

    def _load(self, changes: Mapping[str, Any]) -> EngineRuns:
        print_message(f"loading the model with {_format(changes)}")
        return EngineRuns(replace(self._settings, **changes), self._video, _RUN_SECONDS)

    def _run_base(self) -> TimedTracks:
        runs, points = self._load(BASE), self._film.points(FEW)
        self._describe(runs)
        self._on_gpu = runs.engine.device_name.startswith("cuda")
        base = runs.track(points)
        _print_line("tried", f"{_format(BASE)}: {base.rate:.2f} frames/s with {FEW} objects")
        if not _is_safe("one object at a time", runs.track_alone(points), base):
            self._faults.append("objects that are tracked together get other boxes than alone: please report this")
        return base

    def _describe(self, runs: EngineRuns) -> None:
        engine, film, begin = runs.engine, self._film, time.perf_counter()
        with closing(self._video.frames(range(film.length))) as pictures:
            count = sum(1 for _ in pictures)
        rate = count / (time.perf_counter() - begin)
        libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
        _print_line("software", f"sam3-backend {__version__}, {libraries}, Python {platform.python_version()}")
        _print_line("machine", f"{engine.device_name}, {platform.system()} {platform.machine()}")
        name = self._settings.shown()["model_path"]
        _print_line("model", f"{name} ({engine.name}-{engine.version}), loaded in {runs.load_seconds:.0f} s")
        _print_line("film", f"{film.width} x {film.height}, {film.length} frames, decoded at {rate:.0f} frames/s")

    def _check_discs(self, tracks: TimedTracks) -> None:
        drawn = np.array([self._film.boxes(frame) for frame in range(len(tracks.boxes))])
        mean, least = tracks.likeness(drawn)
        _print_line("clicks", f"IoU of {FEW} tracks with the drawn discs: mean {mean:.3f}, least {least:.3f}")
        if mean < MIN_CLICKS_IOU:
            self._faults.append("clicks did not follow the discs: check that the weights are the published ones")


def _is_safe(name: str, tried: TimedTracks, base: TimedTracks) -> bool:
    """Whether boxes are as with the base settings; prints a line."""
    mean, least = tried.likeness(base.boxes)
    safe = mean >= SAFE_MEAN and least >= SAFE_LEAST
    mark = "safe" if safe else "NOT SAFE"
    _print_line("tried", f"{name}: {tried.rate:.2f} frames/s, {mark}, IoU mean {mean:.4f}, least {least:.4f}")
    return safe


def _format(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {str(value).lower()}" for name, value in changes.items())


def _print_line(name: str, text: str) -> None:
    print(f"{name:<9} {' '.join(text.split())}", flush=True)
