"""The corpus of `benchmarks/hostile.py`: servers that misbehave, and cases by class, each hostile or legitimate.

Everything is on loopback addresses: Label Studio on 127.0.0.1, a host in `media_allow` on 127.0.0.3, and on 127.0.0.2 a
host that the backend must never connect to.
"""

import gzip
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.clips import write_clip, write_clips
from tests.labelstudio.bodies import CONFIG, body, drawn, keyframe

TOKEN = "c4nary" + "0" * 34
STUDIO, REFUSED, ALLOWED = "127.0.0.1", "127.0.0.2", "127.0.0.3"
DRIP_SECONDS = 60.0
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers by the first word of the path, from the server's table."""

    server: "Server"
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.seen.append((self.path, dict(self.headers)))
        answer = self.server.answers.get(self.path.split("?")[0])
        with suppress(OSError):
            if answer is None:
                self.reply(404)
            else:
                answer(self)

    def reply(self, status: int, content: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def raw(self, *parts: bytes) -> None:
        for part in parts:
            self.wfile.write(part)
        self.wfile.flush()

    def drip(self, *parts: bytes) -> None:
        """These parts, then a byte every fifth of a second; records when the other side goes away."""
        end = time.monotonic() + DRIP_SECONDS
        try:
            self.raw(*parts)
            while time.monotonic() < end:
                self.raw(b"x")
                time.sleep(0.2)
        except OSError:
            self.server.gone.append((self.path, time.monotonic()))


class Server(ThreadingHTTPServer):
    """Answers from a table, and records the connections, and the requests with their headers."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), Handler)
        self.url = f"http://{address}:{self.server_port}"
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.gone: list[tuple[str, float]] = []
        self.connections = 0
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)


@dataclass(frozen=True)
class Case:
    """One request to the backend: for a frame of the video at `url`, or `raw` bytes.

    Attributes:
        kind: one of the ten classes.
        is_legitimate: it has to work.
    """

    kind: str
    name: str
    url: str = ""
    raw: bytes = b""
    is_legitimate: bool = False


@dataclass
class Corpus:
    """The servers and the cases."""

    folder: Path
    studio: Server = field(default_factory=lambda: Server(STUDIO))
    refused: Server = field(default_factory=lambda: Server(REFUSED))
    allowed: Server = field(default_factory=lambda: Server(ALLOWED))
    cases: list[Case] = field(default_factory=list)

    def add(self, kind: str, name: str, answer: Answer | None = None, *, at: Server | None = None, **more: Any) -> None:
        """A case; with an answer, one whose video `at` gives that answer."""
        if answer is not None:
            server, path = at or self.studio, f"/{kind}/{len(self.cases)}"
            server.answers[path] = answer
            more["url"] = path if server is self.studio else server.url + path
        self.cases.append(Case(kind, name, **more))

    def close(self) -> None:
        """End the servers."""
        for server in (self.studio, self.refused, self.allowed):
            server.shutdown()
            server.server_close()


def make_corpus(folder: Path, seed: int = 0) -> Corpus:
    """All cases, over 250 of them hostile; the same for the same seed."""
    corpus, rng = Corpus(folder), random.Random(seed)
    clip = write_clip(folder / "clip.mp4", frames=40, bframes=2).path.read_bytes()
    for add in (_urls, _redirects, _hosts, _drips, _encodings, _files, _bombs):
        add(corpus, clip, rng)
    _bodies(corpus, rng)
    _lines(corpus)
    _logs(corpus)
    _legitimate(corpus, clip)
    return corpus


def _urls(corpus: Corpus, _clip: bytes, _rng: random.Random) -> None:
    port = corpus.refused.server_port
    hosts = [
        *("127.0.0.2", "2130706434", "0x7f000002", "0177.0.0.2", "127.2", "0x7f.0.0.2", "[::ffff:127.0.0.2]"),
        *(
            "[::ffff:7f00:2]",
            "127.0.0.2.",
            "%31%32%37.0.0.2",
            "①②⑦.0.0.2",
            "127。0。0。2",
            "0",
            "[::]",
            "[::1]",
            "localhost",
        ),
        *(
            "ip6-localhost",
            "169.254.169.254",
            "[fd00:ec2::254]",
            "10.0.0.1",
            "192.168.0.1",
            "100.100.100.200",
            "224.0.0.1",
        ),
    ]
    for host in hosts:
        corpus.add("urls", host, url=f"http://{host}:{port}/a.mp4")
    own = corpus.studio.url.removeprefix("http://")
    for url in (
        *(f"http://{own}@127.0.0.2:{port}/", f"http://user:pw@127.0.0.2:{port}/", f"http://127.0.0.2:{port}\\@{own}/"),
        *(f"http://127.0.0.2:{port}#@{own}/", f"http://{own}\t@127.0.0.2:{port}/", f"//127.0.0.2:{port}/a.mp4"),
        *(
            "file:///etc/passwd",
            "ftp://127.0.0.2/a",
            "gopher://127.0.0.2/",
            "data:video/mp4;base64,AAAA",
            "jar:http://x!/",
        ),
        *(
            "http://",
            "http:///a",
            "http://[",
            "http://x:99999/",
            "http://" + "a" * 5000,
            "http://a..b/",
            "\\\\127.0.0.2\\a",
        ),
        *("/" + "a" * 9000, "/../../etc/passwd", "/data/local-files/?d=../../etc/passwd", "concat:/etc/passwd", " "),
    ):
        corpus.add("urls", url[:60], url=url)


def _redirects(corpus: Corpus, clip: bytes, _rng: random.Random) -> None:
    away = corpus.refused.url
    for status in (301, 302, 303, 307, 308):
        for at in (corpus.studio, corpus.allowed):
            corpus.add("redirects", f"{status}", lambda h, s=status: h.reply(s, Location=f"{away}/a"), at=at)
    for target in (
        "file:///etc/passwd",
        "ftp://127.0.0.2/",
        "//127.0.0.2/",
        "http://[",
        "",
        "http://2130706434/",
        "\\\\x",
    ):
        corpus.add("redirects", f"to {target}", lambda h, t=target: h.reply(302, Location=t))
    corpus.studio.answers["/round"] = lambda h: h.reply(302, Location="/round")
    corpus.add("redirects", "round", url="/round")
    own = corpus.studio.url
    corpus.studio.answers["/api/secret"] = lambda h: (
        h.reply(200, clip) if "Authorization" in h.headers else h.reply(401)
    )
    for count in range(5):
        corpus.add(
            "redirects",
            "into Label Studio, where the token must not act",
            lambda h, n=count: h.reply(302, Location=f"{own}/api/secret?{n}"),
            at=corpus.allowed,
        )


def _hosts(corpus: Corpus, _clip: bytes, _rng: random.Random) -> None:
    names = [
        "evil.example",
        "127.0.0.1.nip.io",
        "localhost.evil.example",
        "169.254.169.254",
        "10.0.0.1",
        "[::2]",
        "",
        "a" * 300,
    ]
    for name in names:
        for method, path in (("GET", "/health"), ("GET", "/jobs"), ("DELETE", "/jobs/1"), ("POST", "/setup")):
            text = f"{method} {path} HTTP/1.1\r\nHost: {name}\r\nX-Sam3-Backend: 1\r\nContent-Length: 0\r\n\r\n"
            corpus.add("hosts", f"{method} {path} {name[:20]}", raw=text.encode())


def _drips(corpus: Corpus, clip: bytes, _rng: random.Random) -> None:
    head, chunked = b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n\r\n"
    for at in (corpus.studio, corpus.allowed):
        corpus.add("drips", "head", lambda h: h.drip(head, b"X: "), at=at)
        corpus.add("drips", "chunk size", lambda h: h.drip(head, chunked, b"1;"), at=at)
        corpus.add("drips", "trailers", lambda h: h.drip(head, chunked, b"1\r\nx\r\n0\r\nX: "), at=at)
        corpus.add("drips", "body", lambda h: h.drip(head, b"\r\n"), at=at)
        corpus.add("drips", "silence", lambda h: time.sleep(8), at=at)
        corpus.add("drips", "status line", lambda h: h.drip(b"HTTP/1.1 2"), at=at)
    for part in (0, 1, 100, len(clip) // 2, len(clip) - 1):
        corpus.add("drips", f"cut at {part}", lambda h, n=part: h.reply(200, clip[:n], length=len(clip)))
        corpus.add("drips", f"chunks cut at {part}", lambda h, n=part: h.raw(head, chunked, b"fffff\r\n", clip[:n]))
    for status in (400, 401, 403, 404, 410, 418, 429, 500, 503):
        corpus.add("drips", f"status {status}", lambda h, s=status: h.reply(s, b"x" * 1000, Retry_After="100000"))
    for junk in (
        b"",
        b"\0" * 100,
        b"SSH-2.0-x\r\n",
        b"HTTP/9.9 999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx",
    ):
        corpus.add("drips", f"junk {junk[:12]!r}", lambda h, j=junk: h.raw(j))


def _encodings(corpus: Corpus, clip: bytes, _rng: random.Random) -> None:
    for name in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "compress", "x-unknown"):
        corpus.add("encodings", name, lambda h, n=name: h.reply(200, gzip.compress(clip), Content_Encoding=n))
    bomb = gzip.compress(bytes(64 << 20))
    corpus.add("encodings", "bomb", lambda h: h.reply(200, bomb, Content_Encoding="gzip"))
    for place in ("bytes 0-9/10", "bytes 5-/x", "bytes 999-1000/1001", "", "items 0-1/2"):
        corpus.add("encodings", f"206 {place}", lambda h, p=place: h.reply(206, clip[:10], Content_Range=p))
    corpus.add("encodings", "304 unasked", lambda h: h.reply(304))


def _files(corpus: Corpus, clip: bytes, rng: random.Random) -> None:
    texts = [
        *(
            b"",
            b"<html>login</html>",
            b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
            b"ffconcat version 1.0\nfile /etc/passwd\n",
        ),
        *(b"v=0\no=- 0 0 IN IP4 127.0.0.2\nm=video 9 RTP/AVP 96\n", b"<MPD><BaseURL>http://127.0.0.2/</BaseURL></MPD>"),
        *(
            b"PK\3\4",
            b"RIFF\xff\xff\xff\xffAVI LIST",
            b"\x1aE\xdf\xa3\x93B\x86",
            b"G" * 188 * 20,
            b"FLV\1\5\0\0\0\t",
            b"OggS" * 99,
        ),
    ]
    for text in texts:
        corpus.add("files", f"{text[:20]!r}", lambda h, t=text: h.reply(200, t))
    for number in range(40):
        damaged = bytearray(clip)
        for _ in range(rng.choice((1, 10, 1000))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        corpus.add("files", f"mutated {number}", lambda h, d=bytes(damaged): h.reply(200, d))


def _bombs(corpus: Corpus, clip: bytes, _rng: random.Random) -> None:
    at = clip.index(b"avc1") + 28  # width and height in the sample entry
    for width, height in ((65535, 65535), (16384, 16384), (0, 0), (1, 65535)):
        claimed = clip[:at] + struct.pack(">HH", width, height) + clip[at + 4 :]
        corpus.add("bombs", f"{width} x {height}", lambda h, c=claimed: h.reply(200, c))
    for box in (b"stts", b"stsz", b"stsc", b"stco", b"ctts", b"stss"):
        if box in clip:
            place = clip.index(box) + 8
            claimed = clip[:place] + b"\x7f\xff\xff\xff" + clip[place + 4 :]
            corpus.add("bombs", f"entries of {box!r}", lambda h, c=claimed: h.reply(200, c))
    for length in (1 << 40, 1 << 62, 10**30):
        corpus.add("bombs", f"length {length}", lambda h, n=length: h.reply(200, clip, length=n))

    def endless(handler: Handler) -> None:
        handler.raw(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            handler.raw(bytes(1 << 20))

    corpus.add("bombs", "endless body", endless)
    corpus.add("bombs", "headers", lambda h: h.raw(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10**5))
    corpus.add("bombs", "one header", lambda h: h.raw(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 10**6))


def post(path: str, content: bytes) -> bytes:
    """A request with a JSON body."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def _bodies(corpus: Corpus, rng: random.Random) -> None:
    good = body(drawn(keyframe(1), keyframe(5)))
    junk: Sequence[Any] = (
        None,
        True,
        -1,
        10**30,
        1e308,
        float("nan"),
        "",
        "x" * 10**5,
        [],
        {},
        [[]],
        {"a": None},
        "\0\n",
    )
    for number in range(60):
        copy = json.loads(json.dumps(good))
        for _ in range(rng.randrange(1, 4)):
            parent, key = rng.choice([*_places(copy)])
            parent[key] = rng.choice(junk)
        corpus.add("bodies", f"changed {number}", raw=post("/predict", json.dumps(copy).encode()))
    for path in ("/predict", "/setup", "/validate", "/webhook"):
        for content in (
            *(b"", b"[", b"null", b"[1]", b'{"a":' * 5000, b"[" * 10**5, b'{"a":[' + b"[]," * 3_000_000 + b"[]]}"),
            *(
                b"\xff\xfe",
                b'{"tasks":[{}]}',
                b'{"tasks":{},"config":[],"project":{}}',
                b'{"project":1' + b"0" * 5000 + b"}",
            ),
        ):
            corpus.add("bodies", f"{path} {content[:12]!r}", raw=post(path, content))
    for frame in (10**6 + 1, 10**7, 4 * 10**7, 10**8, 10**18):
        region = drawn(keyframe(1), keyframe(frame))
        region["value"]["framesCount"] = frame
        corpus.add("bodies", f"frame {frame}", raw=post("/predict", json.dumps(body(region)).encode()))
    bomb = (
        '<!DOCTYPE x [<!ENTITY a "aaaa">'
        + "".join(f'<!ENTITY a{n} "&a{n - 1 or ""};">' for n in range(1, 9))
        + "]><View/>"
    )
    for config in (
        "<View" * 10**4,
        "<a>" * 10**5,
        "x" * (2 << 20),
        bomb,
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
    ):
        corpus.add("bodies", f"config {config[:12]}", raw=post("/validate", json.dumps({"config": config}).encode()))
    for hostname in ("http://x/ok?x=", "http://u:p@x/", "http://x/" + "a" * 4 * 10**6, "file:///etc", "http://x/#"):
        sent = {"project": "9", "schema": CONFIG, "hostname": hostname, "access_token": "x"}
        corpus.add("bodies", f"setup {hostname[:20]}", raw=post("/setup", json.dumps(sent).encode()))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: its container, and key or number."""
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(child, dict | list):
            yield from _places(child)


def _lines(corpus: Corpus) -> None:
    lines = [
        "to 99999999999999999999",
        "from 5 to 1",
        "both" * 10**5,
        "$(reboot)",
        "'; drop table jobs; --",
        "\0",
        "٣ frames",
        "to 1" * 9,
    ]
    for line in [
        *lines,
        "at " * 10**4,
        "from -1 to -2",
        "{}",
        "a, " * 10**4,
        "\u202e",
        "end end end",
        "N frames",
        "<script>",
    ]:
        region = drawn(keyframe(1))
        for name in ("region_prompt", "text_prompt"):
            text = {
                "id": region["id"],
                "type": "textarea",
                "from_name": name,
                "to_name": "video",
                "value": {"text": [line]},
            }
            sent = post("/predict", json.dumps(body(region, text)).encode())
            corpus.add("lines", f"{name} {line[:20]!r}", raw=sent)


def _logs(corpus: Corpus) -> None:
    for text in (
        "%0aERROR%20forged",
        "%0d%0aERROR%20forged",
        "%1b[2J",
        "%00",
        "%e2%80%a8forged",
        "../" * 50,
        "a" * 8000,
    ):
        for path in ("/frames/{}/1.jpg", "/panel/{}", "/jobs/{}", "/web/{}", "/tasks/{}"):
            raw = f"GET {path.format(text)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            corpus.add("logs", f"{path} {text[:20]}", raw=raw.encode())
    for request in (
        b"GET /\r\n\r\n",
        b"\0\0\0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ):
        corpus.add("logs", f"{request[:12]!r}", raw=request)


def _legitimate(corpus: Corpus, clip: bytes) -> None:
    def add(name: str, answer: Answer, at: Server | None = None) -> None:
        corpus.add("legitimate", name, answer, at=at, is_legitimate=True)

    def in_turn(*answers: Answer) -> Answer:
        left = [*answers]
        return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)

    def whole(handler: Handler) -> None:
        handler.reply(200, clip, ETag='"v1"')

    def rest(handler: Handler) -> None:
        start = int(handler.headers["Range"][6:-1])
        handler.reply(206, clip[start:], Content_Range=f"bytes {start}-{len(clip) - 1}/{len(clip)}", ETag='"v1"')

    def chunked(handler: Handler) -> None:
        handler.raw(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            f"{len(clip):x}\r\n".encode(),
            clip,
            b"\r\n0\r\n\r\n",
        )

    def slow(handler: Handler) -> None:
        handler.raw(f"HTTP/1.1 200 OK\r\nContent-Length: {len(clip)}\r\n\r\n".encode())
        for start in range(0, len(clip), 1 + len(clip) // 10):
            handler.raw(clip[start : start + 1 + len(clip) // 10])
            time.sleep(0.1)

    add("with the token", lambda h: whole(h) if h.headers.get("Authorization") == f"Token {TOKEN}" else h.reply(401))
    add("an allowed host", whole, corpus.allowed)
    corpus.allowed.answers["/signed.mp4"] = whole
    add("signed elsewhere", lambda h: h.reply(303, Location=f"{corpus.allowed.url}/signed.mp4?X-Amz-Signature=s1gned"))
    add("busy at first", in_turn(lambda h: h.reply(429, Retry_After="0"), whole))
    add("down at first", in_turn(lambda h: h.reply(503), whole))
    add("cut at first", in_turn(lambda h: h.reply(200, clip[:5000], length=len(clip), ETag='"v1"'), rest))
    add("in chunks", chunked)
    add("without a length", lambda h: h.raw(b"HTTP/1.0 200 OK\r\n\r\n", clip))
    add("slow", slow)
    add("what S3 calls an encoding", lambda h: h.reply(200, clip, Content_Encoding="aws-chunked"))
    for name, made in write_clips(corpus.folder).items():
        content = made.path.read_bytes()
        add(name, lambda h, c=content: h.reply(200, c))
    large = write_clip(corpus.folder / "large.mp4", frames=4, size=(4096, 4096)).path.read_bytes()
    add("4096 x 4096", lambda h: h.reply(200, large))
    for path in ("/health", "/jobs", "/versions"):
        raw = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        corpus.add("legitimate", path, raw=raw, is_legitimate=True)
    config = post("/validate", json.dumps({"config": CONFIG}).encode())
    corpus.add("legitimate", "a label config", raw=config, is_legitimate=True)


def send(port: int, request: bytes, seconds: float = 60.0) -> bytes:
    """The beginning of the answer to a raw request; empty if the connection is closed without one."""
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with suppress(ConnectionError):  # it may answer and close before it has read everything
            connection.sendall(request)
        with suppress(ConnectionError):
            return connection.recv(4096)
    return b""
