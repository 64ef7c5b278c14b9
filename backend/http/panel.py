"""The live panel of the labelling page: pictures inside the page that say what the backend does for its task."""

import time
from collections.abc import Callable
from typing import Any

from flask import Flask
from flask.typing import ResponseReturnValue

from backend.http.panel_image import draw_no_frame, draw_panel
from backend.http.streams import End, Streams
from backend.jobs.status import JobStatus
from backend.jobs.task_status import TaskStatus

OPEN_ENDPOINTS = PANEL_ENDPOINT, FRAME_ENDPOINT = "panel", "panel_frame"
_LAST = {
    "stopped": TaskStatus("The backend was stopped. Prompts will not be answered until it runs again.", "failed"),
    "superseded": TaskStatus("Paused: newer tabs show the live panel. To see it here, load this page again."),
}
_FRAME_INTERVAL = 1.0
"""Seconds between two frames: each is decoded and drawn."""


class _PanelSource:
    """The panel of one task."""

    mimetype = "image/png"

    def __init__(self, read_status: Callable[[], TaskStatus]) -> None:
        self._read_status = read_status

    def state(self) -> TaskStatus:
        return self._read_status()

    def content(self, state: Any) -> bytes:
        return draw_panel(state)

    def last_content(self, end: End) -> bytes:
        return draw_panel(_LAST[end], is_last=True)


class _FrameSource:
    """The newest frame of a task's running job, with boxes and masks; after the job, its last one."""

    mimetype = "image/jpeg"

    def __init__(self, read_status: Callable[[], TaskStatus], jobs: JobStatus) -> None:
        self._read_status, self._jobs = read_status, jobs
        self._state: tuple[int, int] | None = None
        self._picture = b""
        self._read_at = 0.0

    def state(self) -> tuple[int, int] | None:
        """The running job and its newest frame."""
        now = time.monotonic()
        if now - self._read_at >= _FRAME_INTERVAL:
            self._read_at = now
            job = self._read_status().running
            if job is not None and (frame := self._jobs.newest_frame(job)) is not None:
                self._state = job, frame
        return self._state

    def content(self, state: Any) -> bytes:
        drawn = self._jobs.picture(state[0]) if state else None
        self._picture = drawn or self._picture or draw_no_frame()
        return self._picture

    def last_content(self, end: End) -> bytes:
        return self._picture


def add_panel_routes(
    app: Flask, streams: Streams, panel: Callable[[str], Callable[[], TaskStatus]], jobs: JobStatus
) -> None:
    """The panel's addresses.

    No login: a browser loads pictures without one. The signature names one task, and nothing else is shown.

    Args:
        panel: returns a function that reads the status of the task that a signed key names; raises BackendError if the
            signature is not valid.
    """

    @app.get("/panel/<key>", endpoint=PANEL_ENDPOINT)
    def show_panel(key: str) -> ResponseReturnValue:
        return streams.respond(key, _PanelSource(panel(key)))

    @app.get("/panel/<key>/frame", endpoint=FRAME_ENDPOINT)
    def show_frame(key: str) -> ResponseReturnValue:
        return streams.respond(f"{key}/frame", _FrameSource(panel(key), jobs))
