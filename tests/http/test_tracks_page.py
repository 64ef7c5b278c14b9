"""The routes of a task's tracks: the page, JSON, pictures, what an edit has to be, and no change for another site."""

import copy
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.errors import BackendError, BadRequest
from backend.http.app import create_app
from backend.settings import Settings
from backend.track_editor.edits import Edit
from tests.http.test_jobs_page import BROWSER, JPEG, OURS, FakeBoard

EDITS: list[dict[str, Any]] = [
    {"do": "rename", "tracks": [3, 7], "label": "Van", "frames": None},
    {"do": "rename", "tracks": "all", "label": "Van", "frames": [100, 200]},
    {"do": "renumber", "tracks": [3], "to": 5, "frames": None},
    {"do": "merge", "tracks": [3, 7], "to": 3},
    {"do": "split", "tracks": [3], "at": 120},
    {"do": "delete", "tracks": "all", "frames": None},
]


def plain(edit: Edit) -> dict[str, Any]:
    """As the page sends it."""
    told = {"tracks": edit.tracks if edit.tracks == "all" else sorted(edit.tracks), "label": edit.label, "to": edit.to}
    told |= {"at": edit.at, "frames": edit.frames and [*edit.frames]}
    parts = {"rename": ("label", "frames"), "renumber": ("to", "frames"), "merge": ("to",), "split": ("at",)}
    return {"do": edit.do, **{name: told[name] for name in ("tracks", *parts.get(edit.do, ("frames",)))}}


class Conflict(BackendError):
    """Somebody else was faster."""

    status = 409


def track(number: int, label: str, *spans: list[int], **changes: Any) -> dict[str, Any]:
    """A track as the manager tells it, with a keyframe about every twenty-fifth frame; it stands still."""
    frames = sorted({frame for first, last in spans for frame in (*range(first, last, 25), last)})
    human = changes.pop("human", frames[:1])
    ends = [last for _, last in spans]
    keyframes = [[frame, frame not in ends, 10.0, 20.0, 12.0, 16.0, 0.0, frame in human] for frame in frames]
    known = {"id": number, "label": label, "score": 0.9, "spans": list(spans), "keyframes": keyframes}
    return {**known, "frames": sum(last - first + 1 for first, last in spans), **changes}


class FakeManager:
    """Tracks that are edited for good; `asked` is what the routes asked for."""

    def __init__(self, *tracks: dict[str, Any], image: bytes = JPEG, **changes: Any) -> None:
        about = {"task": 7, "project": "1", "url": "http://studio.example/projects/1/data?task=7", "video": "clip.mp4"}
        about |= {"of": "annotation 12", "by": "anna@x.org, 2026-11-25 21:03", "frames": 1500, "rate": 25.0}
        self.state: dict[str, Any] = {
            **about,
            "labels": ["Car", "Person", "Van"],
            "proposals": [],
            "undo": None,
            **changes,
        }
        self.tracks = list(tracks)
        self.image = image
        self.number = 1
        self.before: list[dict[str, Any]] = []
        self.asked: list[tuple[Any, ...]] = []
        self.error: BackendError | None = None

    def overview(self, task: int, project: str) -> dict[str, Any]:
        self._ask("overview", task, project)
        return self._now()

    def preview(self, task: int, project: str, edit: Edit) -> dict[str, Any]:
        self._ask("preview", task, project, plain(edit))
        tracks, said = self._edited(plain(edit))
        return {"changes": [said], "tracks": tracks, "version": f"v{self.number}"}

    def apply(self, task: int, project: str, edit: Edit, version: str) -> dict[str, Any]:
        self._ask("apply", task, project, plain(edit), version)
        self._check(version)
        self.before = self.tracks
        self.tracks, self.state["undo"] = self._edited(plain(edit))
        self.number += 1
        return self._now()

    def undo(self, task: int, project: str, version: str) -> dict[str, Any]:
        self._ask("undo", task, project, version)
        self._check(version)
        self.tracks, self.state["undo"] = self.before, None
        self.number += 1
        return self._now()

    def frame(self, project: str, task: str, number: int) -> bytes:
        """As the prompting page has it."""
        self._ask("frame", project, task, number)
        return self.image

    def _ask(self, *what: Any) -> None:
        self.asked.append(what)
        if self.error and what[0] != "overview":
            raise self.error

    def _check(self, version: str) -> None:
        if version != f"v{self.number}":
            raise Conflict("the annotation was saved by somebody else: load the tracks again")

    def _now(self) -> dict[str, Any]:
        return {**self.state, "version": f"v{self.number}", "tracks": self.tracks}

    def _edited(self, edit: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
        """As much of the manager's work as the tests look at."""
        known = {track["id"]: copy.deepcopy(track) for track in self.tracks}
        chosen = [known[one] for one in (known if edit["tracks"] == "all" else edit["tracks"])]
        names = " and ".join(str(one["id"]) for one in chosen)
        match edit["do"]:
            case "rename":
                for one in chosen:
                    one["label"] = edit["label"]
                said = f"rename {names} to {edit['label']}"
            case "renumber":
                if edit["to"] in known:
                    raise BadRequest(f"there is a track {edit['to']} already: merge the two, or take another number")
                known[edit["to"]] = {**known.pop(chosen[0]["id"]), "id": edit["to"]}
                said = f"renumber {names} to {edit['to']}"
            case "split":
                (one,), new, spans = chosen, max(known) + 1, chosen[0]["spans"]
                early = [[first, min(last, edit["at"] - 1)] for first, last in spans if first < edit["at"]]
                late = [[max(first, edit["at"]), last] for first, last in spans if last >= edit["at"]]
                if not early or not late:
                    raise BadRequest(f"track {names} cannot be split at {edit['at']}: name a frame within it")
                known[one["id"]], known[new] = track(one["id"], one["label"], *early), track(new, one["label"], *late)
                said = f"split {names} at frame {edit['at']}: the second part becomes track {new}"
            case "merge":
                spans = sorted(span for one in chosen for span in one["spans"])
                label = known[edit["to"]]["label"]
                for one in chosen:
                    del known[one["id"]]
                known[edit["to"]] = track(edit["to"], label, *spans)
                said = f"merge {names} into {edit['to']}"
            case _:
                for one in chosen:
                    del known[one["id"]]
                said = f"delete {names}"
        return list(known.values()), said


def make_app(manager: FakeManager, board: FakeBoard | None = None, **settings: Any) -> Flask:
    """The real app, which speaks for a service that knows tracks and jobs alone."""
    known: Any = SimpleNamespace(
        settings=Settings(**settings),
        track_editor=manager,
        job_status=board or FakeBoard(),
        downloads=None,
        prompting=Mock(frame=manager.frame),
        signer=Mock(key="-".join, page=lambda key: key.split("-")),
    )
    return create_app(known)


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager(track(3, "Car", [1, 90], [120, 300]), track(7, "Car", [310, 400]))


@pytest.fixture
def client(manager: FakeManager) -> FlaskClient:
    return make_app(manager).test_client()


def sent(edit: object, apply: object = False, **changes: Any) -> dict[str, Any]:
    return {"edit": edit, "version": "v1", "apply": apply, **changes}


def test_browsers_get_the_page_and_programs_the_state(client: FlaskClient, manager: FakeManager) -> None:
    page = client.get("/tasks/7?project=1", headers={"Accept": BROWSER})
    assert (page.status_code, page.mimetype, page.headers["Vary"]) == (200, "text/html", "Accept")
    assert manager.asked == []
    state = client.get("/tasks/7?project=1")
    assert (state.json["version"], state.headers["Vary"]) == ("v1", "Accept")
    assert manager.asked == [("overview", 7, "1")]


def test_the_page_is_closed_and_names_only_files_that_are_served(client: FlaskClient) -> None:
    page = client.get("/tasks/7", headers={"Accept": BROWSER})
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    named = {part.partition('"')[0] for part in page.text.split('"../web/')[1:]}
    assert named == {"base.css", "tracks.css", "tracks.js", "icon.svg"}
    for name in (*named, "axis.js", "base.js", "frames.js", "painter.js", "player.js", "track_row.js"):
        assert client.get(f"/web/{name}").status_code == 200
    for word in ("http", "style=", "onclick", 'src="/', 'href="/'):
        assert word not in page.text


def test_the_state(client: FlaskClient, manager: FakeManager) -> None:
    answer = client.get("/tasks/7/tracks?project=2")
    assert answer.json["tracks"] == manager.tracks
    assert answer.headers["Cache-Control"] == "no-store"
    client.get("/tasks/8/tracks")
    assert manager.asked == [("overview", 7, "2"), ("overview", 8, "")]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit["do"])
def test_a_preview_changes_nothing_and_an_edit_does(client: FlaskClient, manager: FakeManager, edit: Any) -> None:
    before = copy.deepcopy(manager.tracks)
    shown = client.post("/tasks/7/tracks?project=1", json=sent(edit), headers=OURS)
    assert shown.status_code == 200
    assert shown.json["changes"]
    assert manager.tracks == before
    done = client.post("/tasks/7/tracks?project=1", json=sent(edit, True), headers=OURS)
    assert done.json["tracks"] == shown.json["tracks"] != before
    assert manager.asked == [("preview", 7, "1", edit), ("apply", 7, "1", edit, "v1")]
    back = client.post("/tasks/7/tracks/undo?project=1", json={"version": "v2"}, headers=OURS)
    assert (back.json["tracks"], manager.asked[-1]) == (before, ("undo", 7, "1", "v2"))


def test_what_may_be_left_out_is_none(client: FlaskClient, manager: FakeManager) -> None:
    client.post("/tasks/7/tracks", json=sent({"do": "delete", "tracks": [3]}), headers=OURS)
    assert manager.asked == [("preview", 7, "", {"do": "delete", "tracks": [3], "frames": None})]


@pytest.mark.parametrize(
    ("body", "mend"),
    [
        (sent(None), "do is one of rename, renumber, merge, split, delete"),
        (sent([]), "do is one of"),
        (sent({"do": "paint"}), "do is one of"),
        (sent({"do": ["rename"]}), "do is one of"),
        (sent(EDITS[0] | {"tracks": []}), "tracks of rename must be a list of track numbers"),
        (sent(EDITS[0] | {"tracks": ["3"]}), "tracks of rename"),
        (sent(EDITS[0] | {"tracks": [True]}), "tracks of rename"),
        (sent(EDITS[0] | {"label": ""}), "label of rename must be the name of a label"),
        (sent(EDITS[0] | {"label": 4}), "label of rename"),
        (sent(EDITS[0] | {"frames": [200, 100]}), "frames of rename must be the first and the last frame"),
        (sent(EDITS[0] | {"frames": [0, 100]}), "frames of rename"),
        (sent(EDITS[0] | {"frames": [None, 100]}), "frames of rename"),
        (sent(EDITS[0] | {"frames": [1, 2, 3]}), "frames of rename"),
        (sent(EDITS[0] | {"frames": "1-2"}), "frames of rename"),
        (sent(EDITS[0] | {"to": 4}), "rename knows no to: it has tracks, label, frames"),
        (sent(EDITS[2] | {"to": 0}), "to of renumber must be a track number"),
        (sent(EDITS[2] | {"to": 5.5}), "to of renumber"),
        (sent(EDITS[2] | {"to": None}), "to of renumber"),
        (sent(EDITS[3] | {"tracks": "all"}), "tracks of merge"),
        (sent(EDITS[3] | {"frames": [1, 2]}), "merge knows no frames"),
        (sent(EDITS[4] | {"at": "120"}), "at of split must be the frame"),
        (sent(EDITS[0], "yes"), "apply must be true, or false for a preview"),
        (sent(EDITS[0], version=None), "version must be the text"),
        ([], "the body must be a JSON object"),
    ],
)
def test_what_is_no_edit_is_refused_with_its_mend(
    client: FlaskClient, manager: FakeManager, body: object, mend: str
) -> None:
    answer = client.post("/tasks/7/tracks", json=body, headers=OURS)
    assert answer.status_code == 400
    assert mend in answer.json["error"]
    assert manager.asked == []


@pytest.mark.parametrize("path", ["/tasks/7/tracks", "/tasks/7/tracks/undo"])
@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null", "{}", '{"version": 1}'])
def test_what_is_no_json_is_refused(client: FlaskClient, manager: FakeManager, path: str, text: str) -> None:
    answer = client.post(path, data=text, content_type="application/json", headers=OURS)
    assert (answer.status_code, manager.asked) == (400, [])
    assert answer.json["error"]


def test_its_pictures_are_those_of_the_prompting_page(client: FlaskClient, manager: FakeManager) -> None:
    shown = client.get("/tasks/7/tracks?project=1").json["prompting"]
    applied = client.post("/tasks/7/tracks?project=1", json=sent(EDITS[0], True), headers=OURS).json["prompting"]
    assert applied == shown
    answer = client.get(f"{shown.removeprefix('..')}frames/120.jpg")
    assert (answer.status_code, answer.mimetype, answer.data) == (200, "image/jpeg", JPEG)
    assert manager.asked[-1] == ("frame", "1", "7", 120)


def test_the_managers_sentence_and_status_are_told(client: FlaskClient, manager: FakeManager) -> None:
    manager.error = Conflict("load the tracks again")
    asks = [
        client.post("/tasks/7/tracks", json=sent(EDITS[0]), headers=OURS),
        client.post("/tasks/7/tracks", json=sent(EDITS[0], True), headers=OURS),
        client.post("/tasks/7/tracks/undo", json={"version": "v1"}, headers=OURS),
    ]
    for answer in asks:
        assert (answer.status_code, answer.json) == (409, {"error": "load the tracks again"})


@pytest.mark.parametrize("path", ["/tasks/7/tracks", "/tasks/7/tracks/undo"])
@pytest.mark.parametrize(
    "headers",
    [{}, OURS | {"Sec-Fetch-Site": "cross-site"}, OURS | {"Origin": "http://evil.example"}, OURS | {"Origin": "null"}],
)
def test_other_pages_may_change_nothing(
    client: FlaskClient, manager: FakeManager, path: str, headers: dict[str, str]
) -> None:
    answer = client.post(path, json=sent(EDITS[0], True), headers=headers)
    assert (answer.status_code, manager.asked) == (403, [])


@pytest.mark.parametrize("path", ["/tasks/x", "/tasks/-1/tracks", "/tasks/7/", "/tasks/7/tracks/redo"])
def test_other_addresses_are_not_there(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.mimetype) == (404, "application/json")


def test_a_user_and_password_guard_it_all(manager: FakeManager) -> None:
    client = make_app(manager, basic_auth_user="ann", basic_auth_pass="right").test_client()
    for path in ("/tasks/7", "/tasks/7/tracks", "/web/tracks.js"):
        assert client.get(path).status_code == 401
    for path in ("/tasks/7/tracks", "/tasks/7/tracks/undo"):
        assert client.post(path, json=sent(EDITS[0], True), headers=OURS).status_code == 401
    assert manager.asked == []
    assert client.get("/tasks/7/tracks", auth=("ann", "right")).status_code == 200
