"""What is asked of a Label Studio by REST, and what is said where it cannot be."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Response, request

from backend.errors import BackendError, StudioError
from backend.labelstudio.client import LabelStudioClient
from tests.labelstudio.studio import PROJECT, TOKEN, Studio


@pytest.fixture
def studio() -> Iterator[Studio]:
    with Studio() as studio:
        yield studio


@pytest.fixture
def client(studio: Studio) -> LabelStudioClient:
    return LabelStudioClient(studio.url, TOKEN)


def test_a_project_is_had_with_the_token(studio: Studio) -> None:
    for url, token in ((studio.url, TOKEN), (f"{studio.url}/", f" {TOKEN}\n")):
        assert LabelStudioClient(url, token).project(PROJECT)["title"] == "clips"


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
def test_tasks_come_all_and_oldest_first_whatever_their_number(
    studio: Studio, client: LabelStudioClient, count: int
) -> None:
    for number in range(count):
        studio.add_task({"video": f"/{number}.mp4"}, total_annotations=number)
    tasks = list(client.tasks(PROJECT))
    assert [task["id"] for task in tasks] == list(range(1, count + 1))
    assert [task["total_annotations"] for task in tasks] == list(range(count))
    assert len(studio.seen) == max(1, math.ceil(count / 100))


def test_tasks_are_asked_for_as_they_are_needed(studio: Studio, client: LabelStudioClient) -> None:
    for _ in range(250):
        studio.add_task({})
    assert next(client.tasks(PROJECT))["id"] == 1
    assert len(studio.seen) == 1


def test_a_task_is_made_and_had(studio: Studio, client: LabelStudioClient) -> None:
    number = client.add_task(PROJECT, {"video": "/a.mp4", "fps": 25})
    assert studio.tasks[number]["data"] == {"video": "/a.mp4", "fps": 25}
    assert client.task(number) == studio.tasks[number]


def test_data_is_replaced_and_nothing_else(studio: Studio, client: LabelStudioClient) -> None:
    number = studio.add_task({"video": "/a.mp4"}, annotations=[{"id": 3}])
    before = dict(studio.tasks[number])
    client.set_data(number, {"video": "/a.mp4", "fps": 25})
    assert studio.tasks[number] == before | {"data": {"video": "/a.mp4", "fps": 25}}


def test_predictions_are_given_listed_and_taken_away(studio: Studio, client: LabelStudioClient) -> None:
    for number in (3, 3, 4):
        client.add_prediction(number, {"result": [], "model_version": "m", "neighbors": {"phrases": ["car"]}})
    first, second = client.predictions(3)
    assert first["neighbors"] == {"phrases": ["car"]}
    client.delete_prediction(first["id"])
    assert client.predictions(3) == [second]
    with pytest.raises(StudioError) as raised:
        client.delete_prediction(first["id"])
    assert raised.value.is_final


def test_annotations_and_drafts_are_had_without_what_was_skipped(studio: Studio, client: LabelStudioClient) -> None:
    studio.annotations[3] = [{"id": 1}, {"id": 2, "was_cancelled": True}]
    studio.drafts[3] = [{"id": 5}]
    assert (client.annotations(3), client.drafts(3)) == ([{"id": 1}], [{"id": 5}])
    assert client.annotations(4) == client.drafts(4) == []


@pytest.mark.parametrize(("count", "requests"), [(0, []), (1, [1]), (50, [50]), (51, [50, 1]), (120, [50, 50, 20])])
def test_files_are_uploaded_fifty_at_a_time_and_come_back_in_order(
    studio: Studio, client: LabelStudioClient, tmp_path: Path, count: int, requests: list[int]
) -> None:
    sizes = []
    studio.failing = lambda: sizes.append(len(request.files)) if request.method == "POST" else None
    files: list[tuple[str, bytes | Path]] = [(f"{number}.jpg", b"%d" % number) for number in range(count)]
    for number in range(0, count, 7):  # some from files
        path = tmp_path / f"{number}"
        path.write_bytes(b"%d" % number)
        files[number] = f"{number}.jpg", path
    addresses = client.upload(PROJECT, files)
    assert [studio.read(address) for address in addresses] == [b"%d" % number for number in range(count)]
    assert all(address.endswith(f"-{number}.jpg") for number, address in enumerate(addresses))
    assert sizes == requests
    assert studio.tasks == {}


def test_a_file_is_closed_when_it_is_uploaded(client: LabelStudioClient, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    opened: list[io.BufferedReader] = []
    plain = Path.open

    def noted(path: Path, mode: str) -> Any:
        opened.append(plain(path, mode))
        return opened[-1]

    monkeypatch.setattr(Path, "open", noted)
    client.upload(PROJECT, [("a.mp4", tmp_path / "a.mp4")])
    assert [file.closed for file in opened] == [True]


def test_uploads_are_told_with_their_size(studio: Studio, client: LabelStudioClient) -> None:
    studio.keep("a.mp4", b"12345")
    (upload,) = client.uploads(PROJECT)
    assert (upload["size"], f"/data/{upload['file']}") == (
        5,
        next(f"/data/{path}" for path, _ in studio.files.values()),
    )


CALLS = {
    "project": lambda client: client.project(PROJECT),
    "tasks": lambda client: list(client.tasks(PROJECT)),
    "task": lambda client: client.task(1),
    "add_task": lambda client: client.add_task(PROJECT, {}),
    "set_data": lambda client: client.set_data(1, {}),
    "uploads": lambda client: client.uploads(PROJECT),
    "upload": lambda client: client.upload(PROJECT, [("a.jpg", b"a")]),
}
"""Every way to ask."""


def refused(client: LabelStudioClient, call: str = "project") -> str:
    """The sentence that one way of asking ends in; no token and no address is in it."""
    with pytest.raises(StudioError) as error:
        CALLS[call](client)
    assert TOKEN not in str(error.value)
    assert client.url not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "Label Studio refused the key: set LABEL_STUDIO_API_KEY to a key of this Label Studio"),
        (403, "Label Studio answers 403: the key's user may not do this, or a proxy in front refuses it"),
        (404, "check the number"),
        (400, "Label Studio answers 400 to "),
        (302, "Label Studio answers 302 to "),
        (500, "Label Studio answers 500 to "),
    ],
)
def test_an_answer_that_is_none_is_a_sentence_and_holds_no_token(
    studio: Studio, client: LabelStudioClient, call: str, status: int, sentence: str
) -> None:
    studio.failing = lambda: Response(f"no {request.headers['Authorization']}", status, {"Location": "/elsewhere"})
    assert sentence in refused(client, call)
    assert len(studio.seen) == 1


def test_what_is_not_there_is_named(client: LabelStudioClient) -> None:
    with pytest.raises(StudioError, match=r"^Label Studio has no projects/8: check the number$"):
        client.project(8)
    with pytest.raises(StudioError, match=r"^Label Studio has no tasks/3: check the number$"):
        client.task(3)


def test_a_wrong_token_is_refused_and_not_told(studio: Studio) -> None:
    with pytest.raises(StudioError, match="refused the key") as error:
        LabelStudioClient(studio.url, "wr0ng").project(PROJECT)
    assert "wr0ng" not in str(error.value)


def test_the_token_is_not_carried_to_where_label_studio_redirects(studio: Studio, client: LabelStudioClient) -> None:
    with Studio() as other:
        studio.failing = lambda: Response(status=302, headers={"Location": f"{other.url}/api/projects/{PROJECT}"})
        assert "answers 302" in refused(client)
        assert other.seen == []


@pytest.mark.parametrize("body", ["<!doctype html><title>hello</title>", "{"])
@pytest.mark.parametrize("call", ["project", "tasks", "task", "add_task", "uploads", "upload"])
def test_something_else_at_the_address_is_said_to_be_no_label_studio(
    studio: Studio, client: LabelStudioClient, body: str, call: str
) -> None:
    studio.failing = lambda: Response(body)
    assert "not from Label Studio" in refused(client, call)


@pytest.mark.parametrize("token", ["5ecret\n0f1abe1", "5ecret-✓-0f1abe1"])
def test_a_token_that_no_request_can_hold_is_not_told(studio: Studio, token: str) -> None:
    with pytest.raises(BackendError, match="LABEL_STUDIO_API_KEY") as error:
        LabelStudioClient(studio.url, token).project(PROJECT)
    assert "5ecret" not in str(error.value)
    assert studio.seen == []


def test_a_label_studio_that_is_down_is_said_to_be() -> None:
    with Studio() as studio:
        client = LabelStudioClient(studio.url, TOKEN)
    assert refused(client).startswith("Label Studio does not answer: check that it is running")


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://a..b", "nonsense", "ftp://127.0.0.1"])
def test_an_address_that_is_none_is_a_sentence(url: str) -> None:
    assert refused(LabelStudioClient(url, TOKEN)).startswith("Label Studio does not answer: ")


def test_a_personal_access_token_that_is_refused_is_not_told(studio: Studio) -> None:
    with pytest.raises(BackendError, match="refused the personal access token: set LABEL_STUDIO_API_KEY") as error:
        LabelStudioClient(studio.url, f"{TOKEN}.a.b").project(PROJECT)
    assert TOKEN not in str(error.value)
    assert [path for _, path, _ in studio.seen] == ["/api/token/refresh"]


def test_a_personal_access_token_is_exchanged_once_for_many_requests(studio: Studio) -> None:
    studio.places["/api/token/refresh"] = 200, b'{"access": "short.lived.one"}'
    asked: list[str | None] = []

    def answered() -> Response | None:
        asked.append(request.headers.get("Authorization"))
        return None if request.path in studio.places else Response("{}")

    studio.failing = answered
    client = LabelStudioClient(studio.url, f"{TOKEN}.a.b")
    for _ in range(3):
        client.project(PROJECT)
    assert asked == [None, *["Bearer short.lived.one"] * 3]


def test_it_serves_its_own_origin_alone() -> None:
    client = LabelStudioClient("http://studio.example:80/ls/", "")
    assert client.url == "http://studio.example:80/ls"
    for url, ours in {
        "http://studio.example/data/a.mp4": True,
        "http://studio.example:80/": True,
        "https://studio.example/": False,
        "http://studio.example:8080/": False,
        "http://studio.example.org/": False,
        "http://studio.example@evil.org/": False,
    }.items():
        assert client.auth.serves(url) is ours
