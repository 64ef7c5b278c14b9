"""A small Label Studio that answers over HTTP what `sam3-backend project prepare` asks of 1.23.2.

with Studio(label_config) as studio:
    studio.add_task({"video": studio.keep("clip.mp4", clip.read_bytes())})
    run(Settings(label_studio_url=studio.url, label_studio_api_key=TOKEN), PROJECT, [])
    studio.tasks[1]["data"]
"""

import itertools
import json
import re
import secrets
import threading
from collections.abc import Callable
from typing import Any, Self

from flask import Flask, Response, abort, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.serving import WSGIRequestHandler, make_server

TOKEN = "5ecret0f1abe15tudi0"
PROJECT = 7
_FILES = 100
"""What one request may bring; Django refuses more."""
_LONGEST = 100
"""Letters of an upload's path; Django cuts what is longer."""


class _Silent(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


class Studio:
    """One project, its tasks and uploads.

    Attributes:
        url: where it answers.
        title: the project's; empty: there is none yet.
        label_config: the project's.
        backends: what the project is connected to.
        tasks: by id, as its REST gives them.
        files: what was uploaded, by id: the path, and the bytes.
        predictions: as they were posted, each with its id.
        annotations, drafts: by task; a skipped annotation is not told.
        places: answers to other paths than its own, by path: a status and a body.
        seen: method, path and query of all that was asked, in order.
        failing: where it returns an answer, that is the answer to everything.
    """

    def __init__(self, label_config: str = "<View/>") -> None:
        self.title = "clips"
        self.label_config = label_config
        self.backends: list[dict[str, Any]] = []
        self.tasks: dict[int, dict[str, Any]] = {}
        self.files: dict[int, tuple[str, bytes]] = {}
        self.predictions: list[dict[str, Any]] = []
        self.annotations: dict[int, list[dict[str, Any]]] = {}
        self.drafts: dict[int, list[dict[str, Any]]] = {}
        self._serial = itertools.count(1)
        self.places: dict[str, tuple[int, bytes]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.failing: Callable[[], ResponseReturnValue | None] = lambda: None
        self._server = make_server("127.0.0.1", 0, self._app(), threaded=True, request_handler=_Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def changes(self) -> list[tuple[str, str]]:
        """Method and path of all that was asked to change something."""
        return [(method, path) for method, path, _ in self.seen if method != "GET"]

    def add_task(self, data: dict[str, Any], **more: Any) -> int:
        """A new task's id."""
        number = len(self.tasks) + 1
        work = {"total_annotations": 0, "cancelled_annotations": 0, "total_predictions": 0, "draft_exists": False}
        self.tasks[number] = {"id": number, "data": data, "project": PROJECT, **work, **more}
        return number

    def keep(self, name: str, content: bytes) -> str:
        """An upload's address as a task's data has it."""
        return f"/data/{self.files[self._keep(name, content)][0]}"

    def read(self, address: str) -> bytes:
        """What lies behind an upload's address."""
        return {f"/data/{path}": content for path, content in self.files.values()}[address]

    def _keep(self, name: str, content: bytes) -> int:
        # As Django's get_valid_filename and get_available_name do.
        valid = re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))
        path = f"upload/{PROJECT}/{secrets.token_hex(4)}-{valid}"
        if len(path) > _LONGEST:
            root, dot, ending = path.rpartition(".")
            tail = f"_{secrets.token_hex(4)[:7]}{dot}{ending}"
            path = root[: _LONGEST - len(tail)] + tail
        number = len(self.files) + 1
        self.files[number] = path, content
        return number

    def _app(self) -> Flask:
        app = Flask("studio")
        app.before_request(self._look)

        @app.get("/api/projects/<int:number>")
        def project(number: int) -> ResponseReturnValue:
            self._check(number)
            return jsonify({"id": number, "title": self.title, "label_config": self.label_config})

        @app.get("/api/projects")
        def projects() -> ResponseReturnValue:
            found = [{"id": PROJECT, "title": self.title}] if self.title else []
            return jsonify({"count": len(found), "results": found})

        @app.post("/api/projects")
        def add_project() -> ResponseReturnValue:
            self.title, self.label_config = request.get_json()["title"], request.get_json()["label_config"]
            return jsonify({"id": PROJECT}), 201

        @app.get("/api/ml")
        def backends() -> ResponseReturnValue:
            self._check(request.args.get("project", type=int))
            return jsonify(self.backends)

        @app.post("/api/ml")
        def add_backend() -> ResponseReturnValue:
            self._check(request.get_json()["project"])
            self.backends.append({"id": next(self._serial), **request.get_json()})
            return jsonify(self.backends[-1]), 201

        @app.get("/api/predictions")
        def predictions() -> ResponseReturnValue:
            return jsonify([one for one in self.predictions if one["task"] == request.args.get("task", type=int)])

        @app.post("/api/predictions")
        def add_prediction() -> ResponseReturnValue:
            self.predictions.append({"id": next(self._serial), **request.get_json()})
            return jsonify(self.predictions[-1]), 201

        @app.delete("/api/predictions/<int:number>")
        def delete_prediction(number: int) -> ResponseReturnValue:
            if number not in [one.get("id") for one in self.predictions]:
                abort(404)
            self.predictions[:] = [one for one in self.predictions if one.get("id") != number]
            return "", 204

        @app.get("/api/tasks/<int:number>/annotations/")
        def annotations(number: int) -> ResponseReturnValue:
            given = self.annotations.get(number, [])
            return jsonify([one for one in given if not one.get("was_cancelled")])

        @app.get("/api/tasks/<int:number>/drafts")
        def drafts(number: int) -> ResponseReturnValue:
            return jsonify(self.drafts.get(number, []))

        @app.patch("/api/<any(annotations, predictions):kind>/<int:number>/")
        def change(kind: str, number: int) -> ResponseReturnValue:
            held = [one for task in self.tasks.values() for one in task.get(kind, ()) if one["id"] == number]
            if not held:
                abort(404)
            held[0] |= request.get_json()
            return jsonify(held[0])

        @app.get("/api/tasks")
        def tasks() -> ResponseReturnValue:
            self._check(request.args.get("project", type=int))
            page, size = request.args.get("page", 1, int), request.args.get("page_size", 30, int)
            ids = sorted(self.tasks, reverse=request.args.get("ordering") != "tasks:id")
            names = {"id", "data", "project"} if request.args.get("fields") != "all" else None
            shown = [self.tasks[number] for number in ids[(page - 1) * size : page * size]]
            listed = [{key: value for key, value in one.items() if not names or key in names} for one in shown]
            return jsonify({"tasks": listed, "total": len(ids)})

        @app.post("/api/tasks")
        def add_task() -> ResponseReturnValue:
            self._check(request.get_json()["project"])
            return jsonify(self.tasks[self.add_task(request.get_json()["data"])]), 201

        @app.route("/api/tasks/<int:number>", methods=["GET", "PATCH"])
        def task(number: int) -> ResponseReturnValue:
            if number not in self.tasks:
                abort(404)
            if request.method == "PATCH":
                self.tasks[number] |= request.get_json()
            return jsonify(self.tasks[number])

        @app.post("/api/projects/<int:number>/import")
        def upload(number: int) -> ResponseReturnValue:
            self._check(number)
            if not 1 <= len(request.files) <= _FILES:
                abort(400)
            kept = [self._keep(file.filename or "", file.read()) for file in request.files.values()]
            if request.args.get("commit_to_project") != "false":
                for one in kept:
                    self.add_task({"video": f"/data/{self.files[one][0]}"})
            return jsonify({"file_upload_ids": kept}), 201

        @app.get("/api/projects/<int:number>/file-uploads")
        def uploads(number: int) -> ResponseReturnValue:
            self._check(number)
            asked = json.loads(request.args.get("ids", "[]"))
            listed = self.files if request.args.get("all") == "true" else [one for one in self.files if one in asked]
            # In no order that anybody promises.
            return jsonify(
                [
                    {"id": one, "file": self.files[one][0], "size": len(self.files[one][1])}
                    for one in sorted(listed, reverse=True)
                ]
            )

        @app.get("/data/<path:path>")
        def data(path: str) -> ResponseReturnValue:
            content = dict(self.files.values()).get(path)
            return Response(content) if content is not None else abort(404)

        return app

    def _look(self) -> ResponseReturnValue | None:
        if request.path == "/api/version/":  # without a key, and not noted: every command asks it first
            return jsonify({"release": "1.23.2"})
        self.seen.append((request.method, request.path, request.args.to_dict()))
        answer = self.failing()
        if answer is not None:
            return answer
        if request.path in self.places:
            status, body = self.places[request.path]
            return Response(body, status)
        if request.headers.get("Authorization") != f"Token {TOKEN}":
            return jsonify({"detail": "Invalid token."}), 401
        return None

    def _check(self, project: int | None) -> None:
        if project != PROJECT:
            abort(404)
