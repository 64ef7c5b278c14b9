"""Downloads over connections that break, from servers that lie, and from hosts that may not be asked."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from backend.errors import DiskFull, MediaError
from backend.labelstudio import disk, download, media, transport
from backend.labelstudio.addresses import AddressPolicy
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.disk import Disk
from backend.labelstudio.media import MediaCache
from backend.video.reader import hold_file

BODY = bytes(range(256)) * 400
ETAG = '"version-1"'
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.seen.append(dict(self.headers))
        answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        with suppress(OSError):
            answer(self)

    def reply(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    """Gives its answers in turn, the last one for ever, and records the headers of the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seen: list[dict[str, str]] = []
        self.answers: list[Answer] = [whole]


def whole(handler: Handler) -> None:
    handler.reply(200, BODY, ETag=ETAG)


def cut(handler: Handler) -> None:
    handler.reply(200, BODY[:5000], length=len(BODY), ETag=ETAG)


def rest(handler: Handler) -> None:
    start = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
    place = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    handler.reply(206, BODY[start:], Content_Range=place, ETag=ETAG)


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.reply(code, **headers)


def reset(handler: Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(media, "_FRESH_SECONDS", -1.0)


@pytest.fixture
def cache(tmp_path: Path) -> MediaCache:
    return MediaCache(tmp_path, 1 << 24, 30, policy=AddressPolicy(["127.0.0.1"]))


@contextmanager
def held(path: Path) -> Iterator[None]:
    descriptor = hold_file(path)
    yield
    os.close(descriptor)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


# Breaks


@pytest.mark.parametrize("hindrance", [reset, status(429), status(500), status(503, Retry_After="0"), cut])
def test_what_passes_is_tried_again(server: Server, cache: MediaCache, hindrance: Answer) -> None:
    server.answers = [hindrance, hindrance, hindrance, whole]
    assert cache.fetch(server.url, None).read_bytes() == BODY
    assert len(server.seen) == 4


def test_a_download_continues_where_it_was_cut(server: Server, cache: MediaCache) -> None:
    server.answers = [cut, rest]
    assert cache.fetch(server.url, None).read_bytes() == BODY
    assert (server.seen[1]["Range"], server.seen[1]["If-Range"]) == ("bytes=5000-", ETAG)


def test_a_file_that_changed_meanwhile_is_had_from_its_start(server: Server, cache: MediaCache) -> None:
    server.answers = [cut, lambda handler: handler.reply(200, b"short", ETag='"version-2"')]
    assert cache.fetch(server.url, None).read_bytes() == b"short"


@pytest.mark.parametrize(
    "lie",
    [
        lambda handler: handler.reply(206, BODY, Content_Range=f"bytes 0-{len(BODY) - 1}/{len(BODY)}", ETag=ETAG),
        lambda handler: handler.reply(206, BODY[5000:], ETag=ETAG),
        lambda handler: handler.reply(206, BODY[5000:], Content_Range="bytes 5000-/x", ETag=ETAG),
        lambda handler: handler.reply(206, BODY[:9], Content_Range="bytes 5000-5008/5009", ETag='"other"'),
        status(416),
    ],
)
def test_a_part_that_does_not_fit_is_not_joined(server: Server, cache: MediaCache, lie: Answer) -> None:
    server.answers = [cut, lie, whole]
    assert cache.fetch(server.url, None).read_bytes() == BODY
    assert "Range" not in server.seen[2]


def test_without_a_version_a_cut_download_starts_over(server: Server, cache: MediaCache) -> None:
    server.answers = [lambda handler: handler.reply(200, BODY[:5000], length=len(BODY)), whole]
    assert cache.fetch(server.url, None).read_bytes() == BODY
    assert "Range" not in server.seen[1]


def test_a_server_that_asks_to_wait_longer_than_there_is_time_is_named(server: Server, cache: MediaCache) -> None:
    server.answers = [status(503, Retry_After="3600")]
    with pytest.raises(MediaError, match=r"answered 503, and asks to wait 3600 s"):
        cache.fetch(server.url, None)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ([status(500)], r"answered 500: open the video in the browser, it may be deleted$"),
        ([status(429)], r"answered 429: try again later$"),
        ([cut], r"closed the connection too early: try again$"),
    ],
)
def test_what_goes_on_failing_names_the_mend(
    server: Server, cache: MediaCache, answers: list[Answer], sentence: str
) -> None:
    server.answers = answers * 20
    with pytest.raises(MediaError, match=sentence):
        cache.fetch(server.url, None)


def test_what_is_final_is_not_tried_again(server: Server, cache: MediaCache) -> None:
    server.answers = [status(404)]
    with pytest.raises(MediaError, match="answered 404"):
        cache.fetch(server.url, None)
    assert len(server.seen) == 1


# Encodings


def test_a_compressed_body_is_not_kept(server: Server, cache: MediaCache, tmp_path: Path) -> None:
    server.answers = [lambda handler: handler.reply(200, BODY, Content_Encoding="gzip")]
    with pytest.raises(MediaError, match="sends it compressed"):
        cache.fetch(server.url, None)
    assert server.seen[0]["Accept-Encoding"] == "identity"
    assert names(tmp_path) == []


def test_what_s3_calls_an_encoding_is_none(server: Server, cache: MediaCache) -> None:
    server.answers = [lambda handler: handler.reply(200, BODY, Content_Encoding="aws-chunked")]
    assert cache.fetch(server.url, None).read_bytes() == BODY


# Versions


def test_a_file_that_has_not_changed_is_not_sent_again(server: Server, cache: MediaCache) -> None:
    first = cache.fetch(server.url, None)
    server.answers = [status(304)]
    assert cache.fetch(server.url, None) == first
    assert server.seen[1]["If-None-Match"] == ETAG


def test_a_file_that_was_replaced_is_fetched_under_another_name(server: Server, cache: MediaCache) -> None:
    first = cache.fetch(server.url, None)
    server.answers = [lambda handler: handler.reply(200, b"new", ETag='"version-2"')]
    second = cache.fetch(server.url, None)
    assert second != first
    assert (first.read_bytes(), second.read_bytes()) == (BODY, b"new")


@pytest.mark.parametrize("hindrance", [reset, status(403), status(500), cut])
def test_a_file_that_cannot_be_checked_is_kept(server: Server, cache: MediaCache, hindrance: Answer) -> None:
    first = cache.fetch(server.url, None)
    server.answers = [hindrance]
    assert cache.fetch(server.url, None) == first
    assert first.read_bytes() == BODY
    assert len(server.seen) == 2, "nobody waits for retries while the file is here"


def test_a_file_that_was_checked_just_now_is_not_checked_again(server, cache, monkeypatch) -> None:
    monkeypatch.setattr(media, "_FRESH_SECONDS", 60.0)
    cache.fetch(server.url, None)
    cache.fetch(server.url, None)
    assert len(server.seen) == 1


# Drips


def drip_head(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    drip(handler)


def drip_chunk_size(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
    drip(handler)


def drip_trailers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ")
    drip(handler)


def drip_body(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    drip(handler)


def drip(handler: Handler) -> None:
    for _ in range(2000):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.02)


DRIPS = [drip_head, drip_chunk_size, drip_trailers, drip_body]


@pytest.mark.parametrize("slow", DRIPS)
def test_a_drip_ends_when_it_is_cancelled(server: Server, cache: MediaCache, slow: Answer) -> None:
    server.answers = [slow]
    with pytest.raises(MediaError, match="the download was cancelled"):
        cache.fetch(server.url, None, cancelled=lambda: bool(server.seen))


@pytest.mark.parametrize("slow", DRIPS)
def test_a_drip_ends_at_the_deadline(server: Server, tmp_path: Path, slow: Answer) -> None:
    server.answers = [slow]
    cache = MediaCache(tmp_path, 1 << 24, 0.2, policy=AddressPolicy(["127.0.0.1"]))
    with pytest.raises(MediaError, match=r"did not arrive in 0.2 s"):
        cache.fetch(server.url, None)
    assert names(tmp_path) == []


@pytest.mark.parametrize("slow", DRIPS)
def test_a_drip_below_the_lowest_rate_ends(server, cache, monkeypatch, slow: Answer) -> None:
    monkeypatch.setattr(transport, "_RATE_SECONDS", 0.3)
    server.answers = [slow]
    with pytest.raises(MediaError, match="less than 1024 bytes a second"):
        cache.fetch(server.url, None)


def test_one_that_waits_for_anothers_download_can_be_cancelled(server: Server, cache: MediaCache) -> None:
    server.answers = [drip_body]
    is_over = threading.Event()

    def fetch_first() -> None:
        with suppress(MediaError):
            cache.fetch(server.url, None, cancelled=is_over.is_set)

    first = threading.Thread(target=fetch_first)
    first.start()
    while not server.seen:
        time.sleep(0.01)
    with pytest.raises(MediaError, match="the download was cancelled"):
        cache.fetch(server.url, None, cancelled=lambda: True)
    is_over.set()
    first.join()
    assert len(server.seen) == 1


# Hosts


def test_a_private_address_is_never_connected_to_and_the_setting_is_named(server: Server, tmp_path: Path) -> None:
    cache = MediaCache(tmp_path, 1 << 24, 30)
    port = server.server_port
    hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]", "0", "127.1"]
    for host in hosts:
        with pytest.raises(MediaError, match=r"add .+ to media_allow"):
            cache.fetch(f"http://{host}:{port}/a.mp4", None)
    assert server.seen == []


def test_a_refused_host_and_one_that_is_down_are_told_in_the_same_words(server: Server, tmp_path: Path) -> None:
    closed = Server()
    closed.server_close()
    texts = set()
    for policy, url in ((AddressPolicy(), server.url), (AddressPolicy(["127.0.0.1"]), closed.url)):
        with pytest.raises(MediaError) as raised:
            MediaCache(tmp_path, 1 << 24, 30, policy=policy).fetch(url, None)
        texts.add(str(raised.value))
    assert len(texts) == 1


def test_an_entry_of_media_allow_opens_the_host(server: Server, tmp_path: Path) -> None:
    for entry in ("127.0.0.1", "127.0.0.0/8"):
        cache = MediaCache(tmp_path / entry[-1], 1 << 24, 30, policy=AddressPolicy([entry]))
        assert cache.fetch(f"{server.url}/a.mp4", None).read_bytes() == BODY


def test_label_studio_itself_needs_no_entry_but_what_else_its_machine_serves_does(
    server: Server, tmp_path: Path
) -> None:
    other = Server()
    cache = MediaCache(tmp_path, 1 << 24, 30)
    client = LabelStudioClient(server.url, "token")
    assert cache.fetch("/a.mp4", client).read_bytes() == BODY
    with pytest.raises(MediaError, match="media_allow"):
        cache.fetch(f"{other.url}/a.mp4", client)
    other.server_close()


def test_a_redirect_to_a_private_address_is_refused(server: Server, tmp_path: Path) -> None:
    other = Server()
    threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
    server.answers = [status(302, Location=f"{other.url}/a.mp4")]
    with pytest.raises(MediaError, match=r"add 127.0.0.1 to media_allow"):
        MediaCache(tmp_path, 1 << 24, 30).fetch("/a.mp4", LabelStudioClient(server.url, "token"))
    assert other.seen == []
    other.shutdown()
    other.server_close()


def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to(server, tmp_path, monkeypatch) -> None:
    """A name server that answers with a public address first, and then with this machine's."""
    asked: list[str] = []
    connected: list[object] = []
    lookup = socket.getaddrinfo

    def rebinding(host: str, port: int, *args: object, **options: object) -> object:
        asked.append(host)
        return lookup("1.2.3.4" if len(asked) == 1 else "127.0.0.1", port, *args, **options)

    def connect(self: socket.socket, address: object) -> None:
        connected.append(address)
        raise OSError("not from a test")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(MediaError, match="is its server up"):
        MediaCache(tmp_path, 1 << 24, 30).fetch(f"http://rebind.example:{server.server_port}/", None)
    assert asked == ["rebind.example"]
    assert connected == [("1.2.3.4", server.server_port)]


def test_the_token_is_gone_after_a_hop_elsewhere(server: Server, cache: MediaCache) -> None:
    """A foreign server that redirects into Label Studio must not act with Label Studio's token."""
    other = Server()
    threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
    other.answers = [status(302, Location=f"{server.url}/api/projects/1/")]
    cache.fetch(f"{other.url}/a.mp4", LabelStudioClient(server.url, "token"))
    assert [seen.get("Authorization") for seen in server.seen] == [None]
    other.shutdown()
    other.server_close()


def test_no_more_than_three_redirects_are_followed(server: Server, cache: MediaCache) -> None:
    server.answers = [*(status(302, Location="/next"),) * 3, whole]
    assert cache.fetch(server.url, None).read_bytes() == BODY
    server.answers = [status(302, Location="/next")]
    with pytest.raises(MediaError, match="answered 302"):
        cache.fetch(f"{server.url}/other", None)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/", "http://[bad/", "gopher://127.0.0.1/"])
def test_a_redirect_to_no_web_address_is_refused(server: Server, cache: MediaCache, target: str) -> None:
    server.answers = [status(302, Location=target)]
    with pytest.raises(MediaError, match=r"that is not http|use http or https|check the task's url"):
        cache.fetch(server.url, None)


def test_the_environments_proxy_is_used_only_if_it_is_asked_for(server: Server, tmp_path: Path, monkeypatch) -> None:
    proxy = Server()
    threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy.url)
    allowed = AddressPolicy(["127.0.0.1"])
    MediaCache(tmp_path / "1", 1 << 24, 30, policy=allowed).fetch(server.url, None)
    assert (len(server.seen), len(proxy.seen)) == (1, 0)
    MediaCache(tmp_path / "2", 1 << 24, 30, use_proxy=True).fetch("http://far.example/a.mp4", None)
    assert (len(server.seen), len(proxy.seen)) == (1, 1)
    proxy.shutdown()
    proxy.server_close()


# The disk


def test_the_least_recently_used_videos_make_room(server: Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(disk, "_USED_JUST_NOW", 0.0)
    monkeypatch.setattr(disk, "_LOOK_EVERY", 1)
    room = Disk(tmp_path, max_bytes=int(3.5 * len(BODY)))
    cache = MediaCache(tmp_path, 1 << 24, 30, disk=room, policy=AddressPolicy(["127.0.0.1"]))
    first, second, third = (cache.fetch(f"{server.url}/{number}", None) for number in range(3))
    disk.touch(first)
    cache.fetch(f"{server.url}/4", None)
    assert (first.exists(), second.exists(), third.exists()) == (True, False, True)
    with held(third), held(first):
        cache.fetch(f"{server.url}/5", None)  # in place of the fourth
        assert third.exists()
        assert first.exists()
    assert cache.fetch(f"{server.url}/1", None).read_bytes() == BODY, "what was removed is fetched again"


def test_videos_in_use_are_not_removed_and_the_setting_is_named(server: Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(disk, "_USED_JUST_NOW", 0.0)
    room = Disk(tmp_path, max_bytes=int(1.5 * len(BODY)))
    cache = MediaCache(tmp_path, 1 << 24, 30, disk=room, policy=AddressPolicy(["127.0.0.1"]))
    with held(cache.fetch(f"{server.url}/1", None)), pytest.raises(DiskFull, match=r"raise it"):
        cache.fetch(f"{server.url}/2", None)
    assert DiskFull.status == 507


def test_a_reserve_of_the_disk_stays_free(server: Server, tmp_path: Path) -> None:
    cache = MediaCache(tmp_path, 1 << 24, 30, disk=Disk(tmp_path, reserve=1 << 62), policy=AddressPolicy(["127.0.0.1"]))
    with pytest.raises(DiskFull, match=r"full up to limits.reserve: free some"):
        cache.fetch(server.url, None)
    assert names(tmp_path) == []


def test_a_disk_that_is_full_is_told_and_nothing_stays(server, cache, tmp_path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache._disk, "_make_room", fail)
    with pytest.raises(DiskFull, match="the disk of data_dir is full: free some"):
        cache.fetch(server.url, None)
    assert names(tmp_path) == []


def test_parts_of_a_killed_process_are_removed_but_not_those_of_one_that_runs(server: Server, tmp_path: Path) -> None:
    (tmp_path / "stale.part").write_bytes(b"x")
    server.answers = [drip_body]
    is_over = threading.Event()
    cache = MediaCache(tmp_path, 1 << 24, 30, policy=AddressPolicy(["127.0.0.1"]))
    assert names(tmp_path) == []

    def fetch() -> None:
        with suppress(MediaError):
            cache.fetch(server.url, None, cancelled=is_over.is_set)

    thread = threading.Thread(target=fetch)
    thread.start()
    while not server.seen:
        time.sleep(0.01)
    (part,) = names(tmp_path)
    Disk(tmp_path)
    assert names(tmp_path) == [part]
    is_over.set()
    thread.join()


def test_only_the_user_can_read_what_was_fetched(server: Server, tmp_path: Path) -> None:
    cache = MediaCache(tmp_path / "media", 1 << 24, 30, policy=AddressPolicy(["127.0.0.1"]))
    path = cache.fetch(server.url, None)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
