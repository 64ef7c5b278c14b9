"""What X-AnyLabeling's client can do: see the model, send pictures, prompt, track."""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from backend.engines import knows_words
from backend.errors import BadRequest
from backend.interactive.session import SessionKey
from backend.interactive.sessions import InteractiveSessions
from backend.jobs.scheduler import Scheduler
from backend.labelstudio.json_values import read_number
from backend.labelstudio.uploads import PREFIX, Uploads
from backend.recent_values import RecentValues
from backend.video import PICTURE_RATE
from backend.xanylabeling.upload_session import PictureTracks, UploadSession, read_params

PROJECT = "x-anylabeling"
"""Stands for a project's id in jobs."""
_MAX_SESSIONS, _MAX_TASKS = 64, 64
_TITLES = {"sam3": "SAM3 video", "sam2": "SAM 2 video", "edgetam": "EdgeTAM video", "opencv": "OpenCV video"}
_WIDGETS = ("button_add_point", "button_remove_point", "button_clear", "button_finish_object")
_WORD_WIDGETS = ("edit_text", "button_send")
_VALUES: dict[str, Any] = {
    "input_conf": None,
    "edit_conf": 0.25,
    "mask_fineness_slider": 10,
    "mask_fineness_value_label": None,
    "toggle_preserve_existing_annotations": False,
}


class UploadSessions:
    """One per process; any thread may use it.

    Args:
        engine: the engine's name, which is the model's.
    """

    def __init__(self, engine: str, uploads: Uploads, sessions: InteractiveSessions, scheduler: Scheduler) -> None:
        self._engine, self._uploads, self._interactive, self._scheduler = engine, uploads, sessions, scheduler
        self._sessions: RecentValues[UploadSession] = RecentValues(_MAX_SESSIONS)
        self._tasks: RecentValues[PictureTracks] = RecentValues(_MAX_TASKS)

    def models(self) -> dict[str, Any]:
        """What the client shows, by the model's name."""
        has_words = knows_words(self._engine)
        names = [*_WIDGETS, *(_WORD_WIDGETS if has_words else ())]
        widgets = [{"name": name, "value": None} for name in names]
        widgets += [{"name": name, "value": value} for name, value in _VALUES.items()]
        info = {
            "display_name": _TITLES.get(self._engine, f"{self._engine} video"),
            "widgets": widgets,
            "params": {},
            "capabilities": {},
            "batch_processing_mode": "video",
        }
        return {self._engine: info}

    def check_model(self, model: object) -> None:
        """Raises BadRequest if there is no such model."""
        if model not in (None, "", self._engine):
            raise BadRequest(f"there is no model {str(model)[:40]!r}: choose {self._engine}")

    def open(self, pictures: Iterable[bytes]) -> UploadSession:
        """Keep the pictures of a folder, and start a session on them.

        Raises:
            BackendError: they are no pictures of one size, or there is no room for them.
        """
        url = self._uploads.add(pictures)
        task = url.removeprefix(PREFIX)[:12]
        session = self._interactive.open(SessionKey(PROJECT, task, url, float(PICTURE_RATE)))
        opened = UploadSession(secrets.token_hex(16), session, self._scheduler)
        self._sessions.put(opened.name, opened)
        return opened

    def find(self, name: object) -> UploadSession:
        """A session.

        Raises:
            BadRequest: there is none of this name.
        """
        session = self._sessions.get(name) if isinstance(name, str) else None
        if session is None:
            raise BadRequest("the session is not known any more: choose the model again, and prompt once more")
        return session

    def prompt(self, body: Mapping[str, Any]) -> tuple[int, list[dict[str, Any]]]:
        """The picture and the shapes that a prompt selects there.

        Raises:
            BackendError: it is none, or cannot be answered now.
        """
        session, frame = self.find(body.get("session_id")), _read_frame(body, "frame_index") or 0
        session.options = read_params(body)
        text = body.get("text_prompt")
        if isinstance(text, str) and text.strip():
            return frame, session.prompt_words(frame, text)
        if body.get("points"):
            return frame, session.prompt_points(frame, body["points"], body.get("point_labels"))
        raise BadRequest("there is no prompt: click on an object, or type words and press Send")

    def propagate(self, body: Mapping[str, Any]) -> PictureTracks:
        """Track what was prompted.

        Raises:
            BackendError: nothing was, or the range is none.
        """
        session = self.find(body.get("session_id"))
        return session.propagate(_read_frame(body, "start_frame"), _read_frame(body, "end_frame"))

    def start_task(self, body: Mapping[str, Any]) -> str:
        """As `propagate`; returns a name under which `task` finds it."""
        name = secrets.token_hex(16)
        self._tasks.put(name, self.propagate(body))
        return name

    def task(self, name: str) -> PictureTracks | None:
        """Tracks that `start_task` has started; None: there are none of this name."""
        return self._tasks.get(name)

    def close(self, name: str) -> None:
        """Forget a session; tracks and pictures are kept.

        Raises:
            BadRequest: there is none of this name.
        """
        self.find(name)
        self._sessions.pop(name)


def _read_frame(body: Mapping[str, Any], key: str) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    number = read_number(value)
    if number is None or not number.is_integer() or number < 0:
        raise BadRequest(f"{key} must be a whole number from 0 on")
    return int(number)
