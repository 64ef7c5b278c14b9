import base64
import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from backend.errors import MediaError
from backend.labelstudio import download
from backend.labelstudio.addresses import AddressPolicy
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.media import MediaCache
from backend.labelstudio.task_data import file_address

BYTES = bytes(range(256)) * 40
S3_FILE = base64.urlsafe_b64encode(b"s3://clips/a.mp4").decode()


class Server(ThreadingHTTPServer):
    """Answers by path and writes down who came with what token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seen: list[tuple[str, str | None]] = []
        self.other, self.redirects = "", False


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        if self.server.redirects:
            self.send_response(307)
            self.send_header("Location", f"{self.server.other}{self.path}")
            self.end_headers()
        else:
            self.answer(200, b'{"access": "short.lived.one"}')

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", f"{self.server.other}/video.mp4")
            self.end_headers()
        elif self.path == f"/tasks/7/resolve/?fileuri={S3_FILE}":
            self.send_response(303)
            self.send_header("Location", f"{self.server.other}/a.mp4?X-Amz-Signature=signed")
            self.end_headers()
        elif self.path.startswith("/tasks/"):
            self.answer(404, b"")
        elif self.path == "/round":
            self.send_response(302)
            self.send_header("Location", "/round")
            self.end_headers()
        elif self.path == "/cut":
            self.answer(200, BYTES[:100], length=len(BYTES))
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(20):
                self.wfile.write(bytes(1 << 20))
                time.sleep(0.05)
        elif self.path == "/secret" and not self.headers.get("Authorization"):
            self.answer(401, b"")
        elif self.path == "/gone":
            self.answer(404, b"")
        else:
            self.answer(200, BYTES)

    def answer(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    """Label Studio, and somebody else."""
    both = Server(), Server()
    both[0].other, both[1].other = both[1].url, both[0].url
    for server in both:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield both
    for server in both:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FIRST_DELAY", 0.001)


def media(folder: Path, max_bytes: int = 1 << 24, max_seconds: float = 30) -> MediaCache:
    return MediaCache(folder / "media", max_bytes, max_seconds, policy=AddressPolicy(["127.0.0.1"]))


def test_a_file_is_fetched_once_and_whole(servers, tmp_path: Path) -> None:
    ours, _ = servers
    cache = media(tmp_path)
    client = LabelStudioClient(ours.url, "legacy")
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(cache.fetch("/data/a.mp4", client))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == BYTES
    assert ours.seen == [("/data/a.mp4", "Token legacy")]
    record = paths[0].name.partition("-")[0] + ".json"
    assert {path.name for path in paths[0].parent.iterdir()} == {paths[0].name, record}


def test_spaces_are_sent_as_browsers_send_them(servers, tmp_path: Path) -> None:
    ours = servers[0]
    media(tmp_path).fetch("/data/day 1/a.mp4?d=b c", LabelStudioClient(ours.url, "legacy"))
    assert ours.seen == [("/data/day%201/a.mp4?d=b%20c", "Token legacy")]


def test_the_token_goes_to_label_studio_alone(servers, tmp_path: Path) -> None:
    ours, theirs = servers
    client = LabelStudioClient(ours.url, "legacy")
    media(tmp_path).fetch(f"{theirs.url}/video.mp4", client)
    media(tmp_path).fetch("/away", client)
    assert ours.seen == [("/away", "Token legacy")]
    assert theirs.seen == [("/video.mp4", None)] * 2


@pytest.mark.parametrize("url", ["/ls/data/a.mp4", "/data/a.mp4"])
def test_label_studio_below_a_path_may_name_that_path_in_its_uploads(servers, tmp_path: Path, url: str) -> None:
    ours, _ = servers
    media(tmp_path).fetch(url, LabelStudioClient(f"{ours.url}/ls", "legacy"))
    assert ours.seen == [("/ls/data/a.mp4", "Token legacy")]


def test_a_file_in_cloud_storage_comes_from_where_label_studio_signs_it(servers, tmp_path: Path) -> None:
    ours, theirs = servers
    client = LabelStudioClient(ours.url, "legacy")
    address = file_address("s3://clips/a.mp4", 7)
    assert media(tmp_path).fetch(address, client).read_bytes() == BYTES
    assert ours.seen == [(address, "Token legacy")]
    assert theirs.seen == [("/a.mp4?X-Amz-Signature=signed", None)]


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (file_address("s3://other/a.mp4", 7), "answered 404: connect the project to the file's bucket"),
        ("gs://clips/a.mp4", "give the task's number"),
    ],
)
def test_a_file_in_cloud_storage_that_cannot_be_had_names_the_mend(servers, tmp_path, address, sentence) -> None:
    with pytest.raises(MediaError, match=sentence):
        media(tmp_path).fetch(address, LabelStudioClient(servers[0].url, "legacy"))


def test_a_personal_access_token_is_exchanged_once(servers, tmp_path: Path) -> None:
    ours, _ = servers
    client = LabelStudioClient(ours.url, "a.b.c")
    for name in ("/1.mp4", "/2.mp4"):
        media(tmp_path).fetch(name, client)
    assert ours.seen == [
        ("/api/token/refresh", None),
        ("/1.mp4", "Bearer short.lived.one"),
        ("/2.mp4", "Bearer short.lived.one"),
    ]


@pytest.mark.parametrize(
    ("url", "limits", "sentence"),
    [
        ("/cut", {}, "could not be fetched|closed the connection too early"),
        ("/x.mp4", {"max_bytes": 1000}, "larger than 0 MiB: raise limits.bytes"),
        ("/slow", {"max_seconds": 0.1}, "did not arrive in 0.1 s: raise limits.seconds"),
        ("/drip", {"max_seconds": 0.3}, "did not arrive in 0.3 s"),
        ("/slow", {"max_bytes": 3 << 20}, "larger than 3 MiB"),
        ("/secret", {}, "answered 401: set LABEL_STUDIO_API_KEY"),
        ("/gone", {}, "answered 404: check the task's url"),
        ("/round", {}, "answered 302"),
    ],
)
def test_what_cannot_be_fetched_leaves_nothing_and_says_why(servers, tmp_path, url, limits, sentence) -> None:
    ours, _ = servers
    with pytest.raises(MediaError, match=sentence) as error:
        media(tmp_path, **limits).fetch(url, LabelStudioClient(ours.url, ""))
    assert ours.url not in str(error.value)
    assert list((tmp_path / "media").iterdir()) == []


def test_a_broken_download_is_tried_again(servers, tmp_path: Path) -> None:
    ours, _ = servers
    cache, client = media(tmp_path), LabelStudioClient(ours.url, "")
    for _ in range(2):
        with pytest.raises(MediaError):
            cache.fetch("/cut", client)
    assert len(ours.seen) == 2 * (1 + download._MAX_RETRIES)


def test_a_personal_access_token_is_not_carried_to_where_label_studio_redirects(servers, tmp_path: Path) -> None:
    ours, theirs = servers
    ours.redirects = True
    with pytest.raises(MediaError, match="refused the personal access token"):
        media(tmp_path).fetch("/1.mp4", LabelStudioClient(ours.url, "a.b.c"))
    assert theirs.seen == []


def test_a_download_that_nobody_waits_for_is_given_up(servers, tmp_path: Path) -> None:
    ours, _ = servers
    started = time.monotonic()
    with pytest.raises(MediaError, match="the download was cancelled"):
        media(tmp_path).fetch(
            "/drip", LabelStudioClient(ours.url, ""), cancelled=lambda: time.monotonic() > started + 0.2
        )
    assert list((tmp_path / "media").iterdir()) == []


@pytest.mark.parametrize("url", ["http://[bad/x", "http://a..b/x", "http://127.0.0.1:99999/x"])
def test_an_address_that_is_none_is_said_to_be(tmp_path: Path, url: str) -> None:
    with pytest.raises(MediaError, match=r"use http|check the task's url|is its server up"):
        media(tmp_path).fetch(url, LabelStudioClient("http://127.0.0.1:1", "token\n"))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "clip.mp4", "ftp://x/y"])
def test_other_kinds_of_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(MediaError, match="use http or https"):
        media(tmp_path).fetch(url, None)


def test_a_path_of_an_unknown_label_studio_names_the_mend(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="set LABEL_STUDIO_URL"):
        media(tmp_path).fetch("/data/upload/1/a.mp4", None)


def test_a_server_that_is_down_is_said_to_be(tmp_path: Path) -> None:
    server = Server()
    server.server_close()
    with pytest.raises(MediaError, match="is its server up"):
        media(tmp_path).fetch(f"{server.url}/a.mp4", None)
