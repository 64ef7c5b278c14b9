"""A client of Label Studio's REST API. It sends the token to Label Studio's own origin only."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import requests
from urllib3.exceptions import HTTPError

from backend.errors import MediaError, SettingsError, StudioError
from backend.labelstudio.addresses import origin_of
from backend.labelstudio.auth import TokenAuth, no_auth
from backend.labelstudio.connection_errors import explain_failure, explain_refused_backend, explain_response, origin
from backend.labelstudio.transport import AnswerTooLarge, TransferGuard, open_session, read_answer
from backend.settings import Settings

_REFUSED = "Label Studio refused the key: set LABEL_STUDIO_API_KEY to a key of this Label Studio"
_SILENT = "Label Studio does not answer: check that it is running; sam3-backend doctor names the cause"
"""Says no more, because others than this machine's user may have chosen the address."""
_FORBIDDEN = "Label Studio answers 403: the key's user may not do this, or a proxy in front refuses it"
_LEGACY = (
    "Label Studio has legacy tokens disabled: set LABEL_STUDIO_API_KEY to a personal access token, or enable them "
    "under Organization → API Tokens Settings"
)
_TIMEOUT = (5.0, 30.0)
_SHORT_TIMEOUT = (1.0, 10.0)
"""Seconds to connect to a backend (Label Studio waits as long), and to wait for its response."""
_UPLOAD_TIMEOUT = (5.0, 600.0)
_SECONDS = 60.0
"""Within which an answer has to be complete."""
_MAX_ANSWER = 64 << 20
"""Bytes of an answer; pages of tasks become shorter where they do not fit."""
_MAX_HEALTH = 1 << 20
_AS_STORED = {"resolve_uri": "false"}
"""Tasks with the addresses that their data has; by default Label Studio replaces those of cloud storage."""
_PAGE = 100
_FILES = 50
"""Files per upload request; Label Studio accepts at most 100."""


def fetch_backend_health(url: str, user: str = "", password: str = "") -> Mapping[str, Any] | None:
    """The response of a backend's `/health`; empty if it is not this backend, None if nothing answers.

    Args:
        url: the backend's address.
        user, password: credentials for Basic authentication, if the backend requires them.
    """
    auth = (user, password) if user else no_auth
    try:
        with TransferGuard(_SECONDS, "") as guard, open_session(guard, origin_of(url)) as http:
            response = http.get(
                f"{url.rstrip('/')}/health", auth=auth, timeout=_SHORT_TIMEOUT, allow_redirects=False, stream=True
            )
            health = json.loads(read_answer(response, guard, _MAX_HEALTH))
    except (ValueError, RecursionError, AnswerTooLarge):
        return {}
    except (requests.RequestException, HTTPError, MediaError):
        return None
    return health if isinstance(health, Mapping) and response.ok else {}


class LabelStudioClient:
    """A Label Studio server and a token for it.

    Args:
        url: its address, including a path prefix if it is served below one.
        token: a legacy token or a personal access token; empty: requests are sent without one.
        use_proxy: use the proxy that the environment names.
    """

    def __init__(self, url: str, token: str, use_proxy: bool = False) -> None:
        self.url = url.rstrip("/")
        self.auth = TokenAuth(self.url, token, use_proxy)
        self._use_proxy = use_proxy

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """A client for the address and key in the settings, once Label Studio has answered there.

        Raises:
            SettingsError: the settings have no address.
            StudioError: Label Studio does not answer; the message names the cause.
        """
        if not settings.label_studio_url:
            raise SettingsError("label_studio_url is not set: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        client = cls(settings.label_studio_url, settings.label_studio_api_key, settings.use_proxy)
        client.release()
        return client

    def release(self) -> str:
        """Label Studio's version, requested without the token.

        Raises:
            StudioError: nothing answers at the address, or it is not Label Studio; the message names the cause.
        """
        try:
            response, body = self._request("GET", "/api/version/", _TIMEOUT, auth=no_auth)
        except (requests.RequestException, HTTPError) as error:
            raise StudioError(explain_failure(self.url, error)) from error
        if reason := explain_response(self.url, response):
            raise StudioError(reason)
        if response.status_code in (401, 403):
            raise StudioError(
                f"{origin(self.url)} answers {response.status_code} without Label Studio's own check: a proxy in front "
                "asks for a password: give label_studio_url an address behind it"
            )
        try:
            return str(json.loads(body)["release"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StudioError(
                f"{self.url} is not Label Studio: set label_studio_url to its address, such as http://localhost:8080"
            ) from error

    def check_key(self) -> None:
        """Check that Label Studio accepts the token.

        Raises:
            BackendError: it does not.
        """
        self._call("GET", "/api/current-user/whoami")

    def has_legacy_tokens(self) -> bool | None:
        """Whether legacy tokens are enabled; None: the key has no permission to read this."""
        try:
            return bool(self._call("GET", "/api/jwt/settings")["legacy_api_tokens_enabled"])
        except (StudioError, KeyError, TypeError):
            return None

    def backends(self, project: int) -> list[dict[str, Any]]:
        """A project's ML backends; on this call Label Studio checks whether it reaches them."""
        backends: list[dict[str, Any]] = self._call("GET", "/api/ml", params={"project": project})
        return backends

    def add_backend(self, project: int, url: str, user: str = "", password: str = "") -> None:
        """Connect a project to an interactive ML backend.

        Args:
            user, password: credentials for Basic authentication, if the backend requires them.

        Raises:
            StudioError: Label Studio does not reach it.
        """
        body = {"project": project, "url": url, "title": "SAM3 video", "is_interactive": True}
        if user:
            body |= {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}
        try:
            self._call("POST", "/api/ml", json=body)
        except StudioError as error:
            self.check_key()  # Label Studio responds the same way to a bad address and to a bad key
            raise StudioError(explain_refused_backend(url, error.response), is_final=True) from error

    def projects(self) -> Iterator[dict[str, Any]]:
        """All projects that the key has access to."""
        return self._pages("/api/projects", {}, "results", "count")

    def add_project(self, title: str, xml: str) -> int:
        """Create a project and return its id."""
        return int(self._call("POST", "/api/projects", json={"title": title, "label_config": xml})["id"])

    def project(self, project: int) -> dict[str, Any]:
        """A project's fields.

        Raises:
            StudioError: there is no such project, or Label Studio does not answer; as for all methods below.
        """
        fields: dict[str, Any] = self._call("GET", f"/api/projects/{project}")
        return fields

    def set_label_config(self, project: int, xml: str) -> None:
        """Replace a project's label config."""
        self._call("PATCH", f"/api/projects/{project}", json={"label_config": xml})

    def tasks(self, project: int, view: int | None = None) -> Iterator[dict[str, Any]]:
        """All tasks of a project, or of a tab (view) of its Data Manager, oldest first."""
        params: dict[str, Any] = {"project": project, "fields": "all", "ordering": "tasks:id", **_AS_STORED}
        return self._pages("/api/tasks", params | ({"view": view} if view else {}), "tasks", "total")

    def task(self, task: int) -> dict[str, Any]:
        """One task."""
        fields: dict[str, Any] = self._call("GET", f"/api/tasks/{task}", params=_AS_STORED)
        return fields

    def add_task(self, project: int, data: Mapping[str, Any]) -> int:
        """Create a task and return its id."""
        return int(self._call("POST", "/api/tasks", json={"project": project, "data": dict(data)})["id"])

    def set_data(self, task: int, data: Mapping[str, Any]) -> None:
        """Replace a task's data; annotations are not changed."""
        self._call("PATCH", f"/api/tasks/{task}", json={"data": dict(data)})

    def predictions(self, task: int) -> list[dict[str, Any]]:
        """A task's predictions."""
        response = self._call("GET", "/api/predictions", params={"task": task})
        predictions: list[dict[str, Any]] = response["results"] if isinstance(response, dict) else response
        return predictions

    def add_prediction(self, task: int, prediction: Mapping[str, Any]) -> None:
        """Add a prediction to a task; annotations and drafts are not changed."""
        self._call("POST", "/api/predictions", json={"task": task, **prediction}, timeout=_UPLOAD_TIMEOUT)

    def delete_prediction(self, number: int) -> None:
        """Delete a prediction; annotations that were made from it stay (seen in 1.23.2)."""
        self._call("DELETE", f"/api/predictions/{number}")

    def annotations(self, task: int) -> list[dict[str, Any]]:
        """A task's annotations, without skipped ones. Unlike `task`, this requests no predictions from backends."""
        annotations: list[dict[str, Any]] = self._call("GET", f"/api/tasks/{task}/annotations/")
        return annotations

    def drafts(self, task: int) -> list[dict[str, Any]]:
        """A task's drafts, of all users."""
        drafts: list[dict[str, Any]] = self._call("GET", f"/api/tasks/{task}/drafts")
        return drafts

    def set_result(self, kind: str, number: int, result: Sequence[Mapping[str, Any]]) -> None:
        """Replace the result of an annotation or a prediction.

        Args:
            kind: `annotations` or `predictions`.
        """
        self._call("PATCH", f"/api/{kind}/{number}/", json={"result": list(result)}, timeout=_UPLOAD_TIMEOUT)

    def uploads(self, project: int) -> list[dict[str, Any]]:
        """The files that were uploaded to a project: `file` is the path, `size` is in bytes."""
        uploads: list[dict[str, Any]] = self._call(
            "GET", f"/api/projects/{project}/file-uploads", params={"all": "true"}
        )
        return uploads

    def upload(self, project: int, files: Sequence[tuple[str, bytes | Path]]) -> list[str]:
        """Upload files to a project without creating tasks.

        Args:
            files: names and contents.

        Returns:
            The addresses to use in a task's data, in the same order.
        """
        addresses = []
        for start in range(0, len(files), _FILES):
            part = files[start : start + _FILES]
            with _opened(part) as streams:
                ids = self._call(
                    "POST",
                    f"/api/projects/{project}/import",
                    params={"commit_to_project": "false"},
                    files=streams,
                    timeout=_UPLOAD_TIMEOUT,
                )["file_upload_ids"]
            uploads = self._call("GET", f"/api/projects/{project}/file-uploads", params={"ids": json.dumps(ids)})
            paths = {upload["id"]: upload["file"] for upload in uploads}
            addresses += [f"/data/{paths[file_id]}" for file_id in ids]
        return addresses

    def _pages(self, path: str, params: Mapping[str, Any], key: str, total: str) -> Iterator[dict[str, Any]]:
        """The items of a paginated list: `key` is the field of the items, `total` that of their number."""
        size, seen, count = _PAGE, 0, 1
        while seen < count:
            try:
                response = self._call("GET", path, params={**params, "page": seen // size + 1, "page_size": size})
            except _TooLarge:
                if size == 1:
                    raise
                size //= 10  # `seen` stays a multiple of it
                continue
            yield from response[key]
            seen, count = seen + size, response[total]

    def _call(self, method: str, path: str, timeout: tuple[float, float] = _TIMEOUT, **options: Any) -> Any:
        try:
            response, body = self._request(method, path, timeout, **options)
        except (requests.RequestException, HTTPError) as error:
            raise StudioError(_SILENT) from error
        except ValueError:  # requests puts the invalid header, and with it the token, into this error
            raise StudioError(
                "the key contains invalid characters: set LABEL_STUDIO_API_KEY to a key of this Label Studio"
            ) from None
        if response.status_code == 401:
            raise StudioError(_LEGACY if b"legacy token" in body else _REFUSED)
        if response.status_code == 403:
            raise StudioError(_FORBIDDEN, response=body.decode(errors="replace"))
        if response.status_code == 404:
            raise StudioError(f"Label Studio has no {path.removeprefix('/api/')}: check the number", is_final=True)
        if not response.ok or response.is_redirect:
            is_final = response.status_code in range(400, 500) and response.status_code not in (408, 429)
            message = f"Label Studio answers {response.status_code} to {method} {path}"
            raise StudioError(message, is_final, body.decode(errors="replace"))
        try:
            return json.loads(body) if body else None
        except (ValueError, RecursionError) as error:
            raise StudioError("the response is not from Label Studio: check LABEL_STUDIO_URL") from error

    def _request(
        self, method: str, path: str, timeout: tuple[float, float], **options: Any
    ) -> tuple[requests.Response, bytes]:
        """A response and its body, which is read within bounds of size and time."""
        seconds = max(_SECONDS, timeout[1])
        guard = TransferGuard(seconds, f"Label Studio's answer takes over {seconds:.0f} s: is it overloaded?")
        own = {"auth": self.auth, "allow_redirects": False, "stream": True}
        try:
            with guard, open_session(guard, self.auth.origin, use_proxy=self._use_proxy) as http:
                response = http.request(method, self.url + path, timeout=timeout, **{**own, **options})
                return response, read_answer(response, guard, _MAX_ANSWER)
        except MediaError as error:
            raise StudioError(str(error)) from error
        except AnswerTooLarge as error:
            raise _TooLarge(
                f"Label Studio's answer to {path} is larger than {_MAX_ANSWER >> 20} MiB: split the project"
            ) from error


class _TooLarge(StudioError):
    """An answer is too large; a page with fewer items may not be."""


@contextmanager
def _opened(files: Sequence[tuple[str, bytes | Path]]) -> Iterator[list[tuple[str, tuple[str, Any]]]]:
    """Open the files for a multipart request."""
    with ExitStack() as stack:
        yield [
            (f"file{at}", (name, stack.enter_context(what.open("rb")) if isinstance(what, Path) else what))
            for at, (name, what) in enumerate(files)
        ]
