"""The REST calls to Label Studio that the demo and its checks need."""

import json
import time
from collections.abc import Mapping
from typing import Any

import requests

from backend.demo.processes import DemoError

Json = Any
QUIET = {"show_collab_predictions": False, "evaluate_predictions_automatically": False}
"""Project settings with which opening a task sends no request to the backend."""
_TIMEOUT = 30.0
_PREDICT_TIMEOUT = 120.0
_PATIENCE = 120.0
"""Seconds to wait for a complete track."""


def answers(url: str) -> bool:
    """Whether a server of this machine answers with success."""
    with requests.Session() as http:
        http.trust_env = False
        try:
            return http.get(url, timeout=2).ok
        except requests.RequestException:
            return False


class LabelStudioApi:
    """A Label Studio server, reached without proxies and .netrc.

    Attributes:
        url: its address.
        token: a legacy token of an account.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token
        self._http = requests.Session()
        self._http.trust_env = False  # no proxy, no .netrc
        self._http.headers["Authorization"] = f"Token {token}"

    def check(self) -> None:
        """Check whether the server has failed; called if it does not answer.

        Raises:
            DemoError: it has.
        """

    def create_project(self, title: str, label_config: str, **settings: Json) -> int:
        """Create a project and return its id; `settings` are fields of Label Studio's API that override `QUIET`."""
        body = {"title": title, "label_config": label_config, **QUIET, **settings}
        return int(self.call("POST", "/api/projects", json=body)["id"])

    def create_task(self, project: int, data: Mapping[str, Json]) -> int:
        """Create a task and return its id."""
        return int(self.call("POST", "/api/tasks", json={"project": project, "data": dict(data)})["id"])

    def task(self, task: int) -> dict[str, Json]:
        """The task with its annotations, drafts and predictions."""
        found: dict[str, Json] = self.call("GET", f"/api/tasks/{task}")
        return found

    def connect_backend(self, project: int, url: str, **settings: Json) -> int:
        """Connect an ML backend, which gets the prompts of the open page, and return its id."""
        body = {"project": project, "url": url, "title": "SAM3 video", "is_interactive": True, **settings}
        return int(self.call("POST", "/api/ml", json=body)["id"])

    def move_backend(self, backend: int, url: str) -> None:
        """Change the address of an ML backend."""
        self.call("PATCH", f"/api/ml/{backend}", json={"url": url})

    def interactive(self, backend: int, task: int, regions: list[dict[str, Json]]) -> list[dict[str, Json]]:
        """Send regions as the open page does, and return the regions of the backend's answer.

        Raises:
            DemoError: Label Studio reports an error, or the answer contains no prediction.
        """
        answer = self.call(
            "POST",
            f"/api/ml/{backend}/interactive-annotating",
            json={"task": task, "context": {"result": regions}},
            timeout=_PREDICT_TIMEOUT,
        )
        if answer.get("errors") or not answer.get("data"):
            raise DemoError(f"Label Studio did not pass on the backend's answer: {json.dumps(answer)[:300]}")
        result: list[dict[str, Json]] = answer["data"]["result"]
        return result

    def whole_track(self, backend: int, task: int, prompt: dict[str, Json]) -> tuple[dict[str, Json], int]:
        """Prompt with a region until its track is complete; return the region and the number of requests.

        Raises:
            DemoError: an answer does not contain the region, or the track takes too long.
        """
        region, asked, end = prompt, 0, time.monotonic() + _PATIENCE
        while asked == 0 or region.get("meta", {}).get("partial"):
            if time.monotonic() > end:
                raise DemoError(f"the track was not complete after {_PATIENCE:.0f} s")
            answer = self.interactive(backend, task, [region])
            same = [item for item in answer if item["id"] == prompt["id"] and item["type"] == "videorectangle"]
            if len(same) != 1:
                raise DemoError(f"the answer contains {len(same)} regions with the prompt's id instead of one")
            region, asked = {**same[0], "origin": "prediction-changed"}, asked + 1
        return region, asked

    def whole_search(self, backend: int, task: int, words: str) -> list[dict[str, Json]]:
        """Ask by words until all tracks are complete; return their regions.

        Raises:
            DemoError: it takes too long.
        """
        line = {"id": "words", "from_name": "text_prompt", "to_name": "video", "type": "textarea", "origin": "manual"}
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            answer = self.interactive(backend, task, [{**line, "value": {"text": [words]}}])
            tracks = [region for region in answer if region["type"] == "videorectangle"]
            if tracks and not any(region.get("meta", {}).get("partial") for region in tracks):
                return tracks
            time.sleep(0.2)
        raise DemoError(f"what {words} names was not tracked after {_PATIENCE:.0f} s")

    def task_url(self, project: int, task: int) -> str:
        """The address of the page for annotating the task."""
        return f"{self.url}/projects/{project}/data?task={task}"

    def exists(self, path: str) -> bool:
        """Whether the REST resource `path` still exists."""
        return self._request("GET", path).status_code != 404

    def call(self, method: str, path: str, **options: Json) -> Json:
        """Make one REST call; return its JSON, or None if it has no body.

        Raises:
            DemoError: Label Studio does not answer, or answers with an error.
        """
        response = self._request(method, path, **options)
        if not response.ok:
            raise DemoError(f"Label Studio answers {response.status_code} to {method} {path}: {response.text[:300]}")
        return response.json() if response.content else None

    def _request(self, method: str, path: str, timeout: float = _TIMEOUT, **options: Json) -> requests.Response:
        try:
            return self._http.request(method, self.url + path, timeout=timeout, **options)
        except requests.RequestException as error:
            self.check()
            raise DemoError(f"Label Studio does not answer {method} {path} ({type(error).__name__})") from error
