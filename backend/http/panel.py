"""The live panel of the labelling page: a picture inside the page that says what the backend does for its task."""

from collections.abc import Callable
from typing import Any

from flask import Flask
from flask.typing import ResponseReturnValue

from backend.http.panel_image import draw_panel
from backend.http.streams import Streams
from backend.jobs.task_status import TaskStatus

PANEL_ENDPOINT = "panel"
_STOPPED = TaskStatus("The backend was stopped. Prompts will not be answered until it runs again.", "failed")


class _PanelSource:
    """The panel of one task."""

    def __init__(self, read_status: Callable[[], TaskStatus]) -> None:
        self._read_status = read_status

    def state(self) -> TaskStatus:
        return self._read_status()

    def picture(self, state: Any) -> bytes:
        return draw_panel(state)

    def last_picture(self) -> bytes:
        return draw_panel(_STOPPED, is_last=True)


def add_panel_route(app: Flask, streams: Streams, panel: Callable[[str], Callable[[], TaskStatus]]) -> None:
    """The panel's address.

    Args:
        panel: returns a function that reads the status of the task that a signed key names; raises BackendError if the
            signature is not valid.
    """

    @app.get("/panel/<key>", endpoint=PANEL_ENDPOINT)
    def show_panel(key: str) -> ResponseReturnValue:
        # No login: a browser loads pictures without one. The signature names one task, and nothing else is shown.
        return streams.respond(key, _PanelSource(panel(key)))
