"""The events of the prompting page."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np

from backend.prompting.progress import PageProgress
from backend.tracks.geometry import Boxes

RAW, REGION = (10.0, 20.0, 30.0, 40.0), (11.0, 21.0, 31.0, 41.0)


class EndingJob(SimpleNamespace):
    """A job of one frame in a picture of 100 x 100, which ends when its progress is read for the second time."""

    number, phase, error, state, has_ended, reads = 1, "", None, "running", False, 0

    def progress(self) -> tuple[int, int]:
        self.reads += 1
        if self.reads == 2:
            self.state, self.has_ended = "done", True
        return 1, 1


class OneFrame(SimpleNamespace):
    """A track with a box."""

    name, job = "one", EndingJob()

    def computed(self) -> tuple[Any, Any, np.ndarray]:
        clock = SimpleNamespace(length=1, source_frames=lambda numbers: numbers - 1)
        x, y, width, height = RAW
        box = np.array([[x, y, x + width, y + height]])
        track = SimpleNamespace(at=lambda sources: (box, np.array([0.9])))
        return SimpleNamespace(clock=clock, size=(100, 100)), track, np.array([True])


def region_boxes(track: Any, length: int) -> Boxes:
    return np.tile(REGION, (length, 1))


def told(event: bytes) -> tuple[str, list[list[float]]]:
    """Of the only track its state and its frames."""
    (track,) = json.loads(event.decode().partition("data: ")[2])["tracks"]
    return track["state"], track["frames"]


def test_a_job_that_ends_meanwhile_is_told_to_have_ended_with_its_last_boxes() -> None:
    track: Any = OneFrame()
    progress = PageProgress(lambda: [track], list, region_boxes, "")
    before = progress.state()
    assert told(progress.content(before)) == ("running", [[1, *RAW, 0.9]])
    assert (after := progress.state()) != before
    assert told(progress.content(after)) == ("done", [[1, *REGION, 0.9]])
