"""Drives X-AnyLabeling's own client class without a window; runs in an environment that has it, apart from ours.

What an annotator does is one line each on standard input, as JSON: the step's name and its arguments. The result is one
line on standard output.
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from anylabeling.services.auto_labeling.remote_server import RemoteServer
from PyQt6.QtWidgets import QApplication


class Dialog:
    """The progress dialog. Args: cancel: called when so many frames are done."""

    def __init__(self, frames: int, cancel: Any) -> None:
        self._frames, self._cancel = frames, cancel

    def setMaximum(self, count: int) -> None:
        pass

    def setLabelText(self, text: str) -> None:
        pass

    def setValue(self, count: int) -> None:
        if count >= self._frames:
            self._cancel()


class Window:
    """What the client reads of the main window, and what saving a result needs of it."""

    def __init__(self, pictures: list[str]) -> None:
        self.image_list = pictures
        self.output_dir, self._config = None, {"store_data": False}
        self._progress_dialog: Dialog | None = None
        self.cancel_processing = self._batch_processing_active = False
        self._batch_start_index = self._batch_end_index = 0


class Annotator:
    """One client on one folder of pictures."""

    def __init__(self, server: str) -> None:
        self._server = server
        self.messages: list[str] = []

    def log_in(self, key: str) -> list[str]:
        """The names of the models that the client offers."""
        settings = {"remote_server_settings": {"server_url": self._server, "api_key": key}}
        with patch("anylabeling.services.auto_labeling.model.get_config", return_value=settings):
            config = {"type": "remote_server", "display_name": "Remote-Server", "timeout": 60}
            self.client = RemoteServer(config, self.messages.append)
        return list(self.client.get_available_models())

    def open(self, folder: str, model: str) -> str:
        """The kind of widgets that the client shows."""
        self.client._widget = self.window = Window([str(path) for path in sorted(Path(folder).glob("*.jpg"))])
        self.client.set_model_id(model)
        return self.client.get_batch_processing_mode()

    def type_words(self, words: str, frame: int) -> list[Any]:
        """The shapes on the frame."""
        return self._predict(frame, text_prompt=words)

    def click(self, points: list[list[float]], frame: int) -> list[Any]:
        """The shapes on the frame. Points: x, y in pixels, and 1 or 0."""
        marks = [{"type": "point", "data": [x, y], "label": int(sign)} for x, y, sign in points]
        self.client.set_auto_labeling_marks(marks)
        return self._predict(frame)

    def finish(self) -> None:
        """The object is done."""
        self.client.set_auto_labeling_marks([])

    def run(self, begin: int, end: int, cancel_after: int | None = None) -> bool:
        """Whether the session is still there after Auto Run from one frame to another, the last one excluded."""
        window = self.window
        window.cancel_processing, window._progress_dialog = False, None
        if cancel_after is not None:
            window._progress_dialog = Dialog(cancel_after, lambda: setattr(window, "cancel_processing", True))
        window._batch_processing_active, window._batch_start_index, window._batch_end_index = True, begin, end
        self._predict(begin, run_tracker=True)
        window._batch_processing_active = False
        return self.client.video_session_id is not None

    def told(self) -> list[str]:
        """What the client told since it was asked last."""
        messages, self.messages[:] = list(self.messages), []
        return messages

    def _predict(self, frame: int, **words: Any) -> list[Any]:
        result = self.client.predict_shapes(object(), self.window.image_list[frame], **words)
        return [[shape.label, shape.group_id, shape.shape_type] for shape in result.shapes]


def main() -> None:
    """Take steps until standard input ends."""
    application = QApplication([])
    annotator = Annotator(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr  # what the client prints is no answer
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(annotator, name)(*arguments)), file=answers, flush=True)
    del application


if __name__ == "__main__":
    main()
