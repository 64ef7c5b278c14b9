"""A small hub on this machine: the routes that the hub's library calls, and what can go wrong with them."""

import hashlib
import threading
import time
from collections.abc import Iterator

from flask import Flask, Response, abort, jsonify, request
from werkzeug.serving import make_server

SHA = "a" * 40
WEIGHTS = bytes(range(256)) * 4 * 24_000
"""Several of the pieces that are written at once."""
_PIECES, _PIECE = 6, 20_000
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "sam3.pt": b"not fetched"}


class Hub:
    """The hub's routes for one repository, `facebook/sam3`.

    Attributes:
        status: if above 0, every answer is this error.
        hangs_at: requests of this kind ("revision", "tree", "resolve") get no answer until `go_on` is set.
        hangs_after: if above 0, a response stops after so many bytes until `go_on` is set.
        trickle: if above 0, a response ends in six small pieces, so many seconds apart.
        etag: what it names the files by; empty: their hashes.
        cut_after: if above 0, the connection ends after so many bytes of a response, once.
        redirects: files come from another host, as large ones of the real hub do.
        tokens: the Authorization header of each request, by path.
        is_damaged: the weights that it sends are not those that it names.
        ranges: the Range header of each request for the weights.
        asked: set when a request hangs.
    """

    def __init__(self) -> None:
        self.status = self.cut_after = self.hangs_after = 0
        self.hangs_at = self.etag = ""
        self.trickle = 0.0
        self.is_damaged = self.redirects = False
        self.tokens: dict[str, str | None] = {}
        self.ranges: list[str | None] = []
        self.go_on, self.asked = threading.Event(), threading.Event()
        app = Flask("hub")

        @app.before_request
        def trouble() -> None:
            self.tokens[request.path] = request.headers.get("Authorization")
            if self.status:
                abort(self.status)
            if self.hangs_at and f"/{self.hangs_at}/" in request.path:
                self._hang()

        @app.get("/api/models/facebook/sam3/revision/<revision>")
        def revision(revision: str) -> Response:
            return jsonify({"id": "facebook/sam3", "sha": SHA, "siblings": [{"rfilename": name} for name in FILES]})

        @app.get("/api/models/facebook/sam3/tree/<revision>")
        def tree(revision: str) -> Response:
            entries = [
                {"type": "file", "path": name, "size": len(file), "oid": "b" * 40} for name, file in FILES.items()
            ]
            return jsonify(entries)

        @app.get("/facebook/sam3/resolve/<revision>/<name>")
        def resolve(revision: str, name: str) -> Response:
            content, headers = FILES[name], {"X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
            etag = f'"{self.etag or hashlib.sha256(content).hexdigest()}"'
            if self.redirects:
                headers |= {"X-Linked-ETag": etag, "X-Linked-Size": str(len(content))}
                headers["Location"] = f"http://localhost:{self._server.port}/cdn/{name}"
                return Response("", 302, headers)
            return send(name, headers | {"ETag": etag})

        @app.get("/cdn/<name>")
        def cdn(name: str) -> Response:
            return send(name, {"Accept-Ranges": "bytes"})

        def send(name: str, headers: dict[str, str]) -> Response:
            content, status = FILES[name], 200
            if request.method == "GET" and name == "model.safetensors":
                self.ranges.append(request.headers.get("Range"))
                content = content[::-1] if self.is_damaged else content
            if wanted := request.headers.get("Range"):
                start = int(wanted.removeprefix("bytes=").partition("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                content, status = content[start:], 206
            headers["Content-Length"] = str(len(content))
            return Response(self._send(content), status, headers)

        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def _hang(self) -> None:
        self.asked.set()
        self.go_on.wait()

    def _send(self, content: bytes) -> Iterator[bytes]:
        if 0 < self.cut_after < len(content):
            yield content[: self.cut_after]
            self.cut_after = 0
            raise ConnectionError
        if 0 < self.hangs_after < len(content):
            yield content[: self.hangs_after]
            self._hang()
            content = content[self.hangs_after :]
        if self.trickle and len(content) > _PIECES * _PIECE:
            yield content[: -_PIECES * _PIECE]
            content = content[-_PIECES * _PIECE :]
            for start in range(0, len(content), _PIECE):
                time.sleep(self.trickle)
                yield content[start : start + _PIECE]
            return
        yield content

    def close(self) -> None:
        """End the server."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
