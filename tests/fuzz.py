"""Feeds four parsers with mutations of inputs that were seen; anything but an error meant for clients is a crash.

Mutations: values of JSON are exchanged for odd ones, and texts are cut, doubled and joined with pieces of each other.
Inputs that made a parser crash belong in `CORPUS`, which `tests/test_fuzz.py` replays.
"""

import copy
import json
import logging
import random
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from backend.errors import BackendError
from backend.labelstudio.addresses import AddressPolicy, origin_of, parse_url
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.commands import parse_command, parse_text_query
from backend.labelstudio.label_config import parse_label_config
from backend.labelstudio.media import _absolute_url
from backend.labelstudio.request import parse_prompt_field, parse_request
from backend.labelstudio.task_data import file_address
from tests.labelstudio.bodies import CONFIG, body, drawn, keyframe

REQUESTS = Path(__file__).parent / "labelstudio" / "requests"
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 10**6 + 1, 10**8, 10**30, -0.5, 1e308, float("nan"), float("inf"), "", "0", "\0\n"),
    *(
        "x" * 300,
        "٣",
        "\ud800",
        [],
        {},
        [[]],
        [None],
        {"a": None},
        ["Car"],
        "videorectangle",
        "keypointlabels",
        "textarea",
    ),
)
_PIECES = (
    "'",
    '"',
    "<",
    ">",
    "&",
    "/",
    "\\",
    "@",
    "#",
    "?",
    ":",
    "%00",
    "\0",
    "\n",
    " ",
    "٣",
    "🎬",
    "\ud800",
    "-1",
    "9" * 20,
)


def _parse_request(text: str) -> None:
    body = json.loads(text)
    config = parse_label_config(CONFIG)
    parts = body["tasks"], body["params"]["context"], config
    if isinstance(parts[0], list) and isinstance(parts[1], dict):  # the routes check so much
        parse_request(*parts, parse_prompt_field(*parts))


def _parse_line(text: str) -> None:
    for parse in (parse_command, parse_text_query):
        with suppress(BackendError):
            parse(text)


def _resolve_media(text: str) -> None:
    client, policy = LabelStudioClient("http://studio:8080/below", ""), AddressPolicy(["nas"])
    policy.allows(text, [text])
    origin_of(text)
    url = _absolute_url(file_address(text, 7), client)
    assert parse_url(url).scheme in ("http", "https")


TARGETS: dict[str, Callable[[str], object]] = {
    "request": _parse_request,
    "label_config": lambda text: str(parse_label_config(text).describe()),
    "line": _parse_line,
    "media": _resolve_media,
}


def _bodies() -> list[str]:
    found = [json.loads(path.read_text()) for path in sorted(REQUESTS.glob("*.json"))]
    return [json.dumps(body) for body in found if "params" in body and (body["params"] or {}).get("context")]


def _with_saved_id(identity: Any) -> dict[str, Any]:
    """A request with a click in a draft whose id is this."""
    click = {"id": identity, "type": "keypointlabels", "from_name": "points", "to_name": "frames", "value": {}}
    return body(drawn(keyframe(1)), drafts=[{"id": 1, "result": [drawn(keyframe(1)), click]}])


CORPUS: dict[str, list[str]] = {
    "request": [*_bodies(), json.dumps(_with_saved_id({}))],
    "label_config": [
        CONFIG,
        "<View/>",
        "<View><Video name='v' value='$v'/><VideoRectangle name='b' toName='v'/></View>",
    ],
    "line": [
        "both",
        "to 62",
        "from 1 to 9",
        "20 frames",
        "end 62",
        "resume",
        "redo",
        "car, dog at 5",
        "all from 2 to 8 redo",
    ],
    "media": [
        *(
            "http://nas/a.mp4",
            "https://u:p@h:1/?a=b#c",
            "/data/upload/1/a.mp4",
            "s3://clips/a b.mp4",
            "//h/a",
            "http://[::1]/",
        ),
        *(
            "/data/local-files/?d=a",
            "gs://b/c",
            "http://h:99999/",
            "http://①/",
            "file:///etc/passwd",
            "s3://clips\ud800/a.mp4",
        ),
    ],
}
"""Inputs to begin with; also those that once crashed a parser."""


def mutate_text(text: str, others: list[str], rng: random.Random) -> str:
    for _ in range(rng.randrange(1, 5)):
        at, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        text = rng.choice(
            (
                text[:at] + text[end:],
                text[:end] + text[at:end] * rng.choice((1, 2, 30)) + text[end:],
                text[:at] + rng.choice(_PIECES) + text[at:],
                text[:at] + other[start : start + rng.randrange(20)] + text[end:],
                text[:at] + chr(rng.randrange(0x300)) + text[at + 1 :],
            )
        )[:20_000]
    return text


def mutate_json(text: str, _others: list[str], rng: random.Random) -> str:
    body = json.loads(text)
    for _ in range(rng.randrange(1, 5)):
        value: Any = {"tasks": body["tasks"], "context": body["params"]["context"]}
        while True:
            keys = list(value) if isinstance(value, dict) else list(range(len(value)))
            key = rng.choice(keys)
            child = value[key]
            if not isinstance(child, dict | list) or not child or (rng.random() < 0.2 and "tasks" not in value):
                break
            value = child
        if "tasks" not in value or "context" not in value:
            value[key] = copy.deepcopy(rng.choice(_ODD))
    return json.dumps(body)


def run_target(name: str, runs: int, seed: int) -> int:
    """Feed a parser with mutations; the number of different places where it crashed, which are printed."""
    rng, target, corpus = random.Random(f"{name} {seed}"), TARGETS[name], CORPUS[name]
    mutate = mutate_json if name == "request" else mutate_text
    places: set[str] = set()
    logging.disable()
    for _ in range(runs):
        text = mutate(rng.choice(corpus), corpus, rng)
        try:
            target(text)
        except BackendError:
            continue
        except Exception as error:
            place = repr(traceback.extract_tb(error.__traceback__)[-1])
            if place not in places:
                print(f"{name}: {type(error).__name__} at {place}: {text[:2000]!r}", file=sys.stderr)
            places.add(place)
    logging.disable(logging.NOTSET)
    return len(places)
