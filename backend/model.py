"""The ML backend class, to host with label-studio-ml instead of `sam3-backend serve`."""

import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flask import Flask, has_request_context, request

from backend.errors import BackendError
from backend.http.app import create_app
from backend.http.security import is_trusted_client
from backend.service import Service
from backend.settings_loader import read_settings

try:
    from label_studio_ml.model import LabelStudioMLBase as _Base  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    _Base = object

NOT_STARTED = 3
"""The exit status that makes gunicorn end instead of starting a worker again and again."""
_lock = threading.Lock()
_service: Service | None = None


def shared_service() -> Service:
    """The service of this process, made when it is first needed; settings come from the environment.

    Raises:
        SettingsError: the settings are invalid, or their engine cannot run here.
    """
    global _service
    with _lock:
        if _service is None:
            _service = Service(read_settings())
        return _service


def add_pages(app: Flask) -> None:
    """Serve our own addresses, such as the status page and /health/ready, beside the routes of label-studio-ml's `app`.

    Ends the process with one sentence if the service cannot start, as when another worker process has it.
    """
    try:
        ours = create_app(shared_service())
    except BackendError as error:
        print(f"sam3-backend: {error}", file=sys.stderr)
        sys.exit(NOT_STARTED)
    theirs, known = app.wsgi_app, app.url_map.bind("localhost")

    def choose(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path, method = str(environ.get("PATH_INFO", "")), str(environ.get("REQUEST_METHOD", "GET"))
        is_theirs = path not in ("/", "/metrics") and known.test(path, method)
        return theirs(environ, start_response) if is_theirs else ours(environ, start_response)

    app.wsgi_app = choose  # type: ignore[method-assign]


class Sam3Backend(_Base):  # type: ignore[misc, unused-ignore]
    """An adapter: label-studio-ml 1.x and 2.x need a subclass, and 2.x makes a new object for every request."""

    def setup(self) -> None:
        """Set the model version; 2.x calls this at the end of its constructor."""
        if hasattr(self, "set"):
            self.set("model_version", shared_service().model_version)
        self._connect()

    def _connect(self) -> None:
        """Read Label Studio's address and token from the request to /setup, because 2.x does not pass them on."""
        if not has_request_context() or not request.path.rstrip("/").endswith("/setup"):
            return
        body = request.get_json(silent=True)
        if isinstance(body, Mapping) and is_trusted_client(shared_service().settings):
            project = str(body.get("project") or "").partition(".")[0]
            hostname, token = (str(body.get(key) or "") for key in ("hostname", "access_token"))
            shared_service().connections.connect(project, hostname, token)

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """As `Service.predict`, for the label config and project of the host."""
        xml, project, hostname, token = (
            str(getattr(self, name, None) or "") for name in ("label_config", "project_id", "hostname", "access_token")
        )
        # 1.x passes on the address and token from /setup; of 2.x `_connect` has read them.
        shared_service().connections.connect(project, hostname, token)
        return shared_service().predict(tasks, context, xml, project)

    def fit(self, event: Any = None, data: Any = None, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Find the labels of a project's tasks when its training is started, as `serve` does; other events: nothing."""
        project = data.get("project") if isinstance(data, Mapping) else None
        if event == "START_TRAINING" and isinstance(project, Mapping):
            shared_service().preannotation.train(project)
        return {}
