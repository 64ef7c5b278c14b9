"""The prompting page of a task: a signed address opens it without a login, and no other task."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, jsonify, redirect, request
from flask.typing import ResponseReturnValue

from backend.http.serving import json_body, page_response, refuse_cross_site
from backend.http.streams import Streams
from backend.labelstudio.frame_strip import SignedPage, Signer
from backend.prompting.view import PromptingView

_ACTIONS = ("encode", "preview", "track", "search", "stop", "resume", "remove", "send")
PROMPTING_ENDPOINTS = tuple(
    f"prompting_{name}" for name in ("page", "state", "review", "frame", "mask", "events", *_ACTIONS)
)
"""Routes without a login, which check the signature in the address."""
_ANY_TASK = "/prompt/<key>"


def add_prompting_routes(app: Flask, streams: Streams, view: PromptingView, signer: Signer) -> None:
    """The page and what it requests."""

    @app.get("/tasks/<int:task>/prompt")
    def prompting_link(task: int) -> ResponseReturnValue:
        key = signer.key(SignedPage(request.args.get("project", ""), str(task)))
        return redirect(f"../../prompt/{key}/")  # relative, so that it also works under a path of a proxy

    @app.get(f"{_ANY_TASK}/", endpoint="prompting_page")
    def page(key: str) -> ResponseReturnValue:
        signer.page(key)
        return page_response("prompting.html")

    @app.get(f"{_ANY_TASK}/state", endpoint="prompting_state")
    def state(key: str) -> ResponseReturnValue:
        return jsonify(view.overview(*signer.page(key)))

    @app.get(f"{_ANY_TASK}/review", endpoint="prompting_review")
    def review(key: str) -> ResponseReturnValue:
        return jsonify(view.review(*signer.page(key)))

    @app.get(f"{_ANY_TASK}/frames/<int:number>.jpg", endpoint="prompting_frame")
    def frame(key: str, number: int) -> ResponseReturnValue:
        response = Response(view.frame(*signer.page(key), number), mimetype="image/jpeg")
        response.headers["Cache-Control"] = "private, max-age=86400, immutable"
        return response

    @app.get(f"{_ANY_TASK}/masks/<name>/<int:number>", endpoint="prompting_mask")
    def mask(key: str, name: str, number: int) -> ResponseReturnValue:
        return jsonify(mask=view.mask(*signer.page(key), name, number))

    @app.get(f"{_ANY_TASK}/events", endpoint="prompting_events")
    def events(key: str) -> ResponseReturnValue:
        source = view.progress(*signer.page(key), request.headers.get("Last-Event-ID", ""))
        # Each page is at a place of its own, so no two share a stream.
        return streams.respond(f"events {secrets.token_hex(8)}", source)

    def add_action(name: str, act: Callable[[str, str, Mapping[str, Any]], dict[str, Any]]) -> None:
        def handle(key: str) -> ResponseReturnValue:
            return refuse_cross_site() or jsonify(act(*signer.page(key), json_body()))

        app.post(f"{_ANY_TASK}/{name}", endpoint=f"prompting_{name}")(handle)

    actions = (
        view.encode_ahead,
        view.preview,
        view.track,
        view.search,
        view.stop,
        view.resume,
        view.remove,
        view.send,
    )
    for name, act in zip(_ACTIONS, actions, strict=True):
        add_action(name, act)
