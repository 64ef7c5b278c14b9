"""docs/http.md: its examples are sent and answered as it says, and its tables have every field and every metric."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.http.app import create_app
from tests.fakes import StubEngine

PAGE = (Path(__file__).parent.parent / "docs" / "http.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(
    r"```http\n(?P<method>[A-Z]+) (?P<path>\S+)\n(?P<headers>(?:[\w-]+: .*\n)*)(?:\n(?P<body>.*?))?```\n"
    r".*?(?:Status (?P<status>\d+):\n\n)?```json\n(?P<answer>.*?)```",
    re.S,
)


def contains(answer: Any, part: Any) -> bool:
    """Whether everything in `part` is in `answer`, which may have more fields."""
    if isinstance(part, Mapping):
        return isinstance(answer, Mapping) and all(
            name in answer and contains(answer[name], one) for name, one in part.items()
        )
    if isinstance(part, list):
        return len(answer) == len(part) and all(contains(one, other) for one, other in zip(answer, part, strict=True))
    return bool(answer == part)


def test_the_examples_are_answered_as_the_page_says(make_service) -> None:
    client, sent = create_app(make_service()).test_client(), 0
    for example in EXAMPLE.finditer(PAGE):
        answer = client.open(
            example["path"],
            method=example["method"],
            headers=dict(line.split(": ", 1) for line in example["headers"].splitlines()),
            json=json.loads(example["body"]) if example["body"] else None,
        )
        assert answer.status_code == int(example["status"] or 200), example[0]
        assert contains(answer.json, json.loads(example["answer"])), (example[0], answer.json)
        sent += 1
    assert sent == PAGE.count("```http") == 5


def test_the_table_has_every_metric(make_service) -> None:
    names = set(re.findall(r"^# TYPE (\w+) ", make_service().job_status.metrics().decode(), re.M))
    shown = set(re.findall(r"`(sam3_\w+)`", PAGE))
    assert {name for name in names if not name.endswith("_created")} == shown


def test_the_table_has_every_field_of_a_track(make_service) -> None:
    client = create_app(make_service(StubEngine())).test_client()
    body = next(EXAMPLE.finditer(PAGE))["body"]
    (track,) = client.post("/predict", json=json.loads(body)).json["results"][0]["result"]
    table = PAGE.partition("## Fields of a region")[2].partition("\n\nA keyframe")[0]
    assert {*track["meta"]} <= set(re.findall(r"`(\w+)`", table))
    (asked,) = json.loads(body)["params"]["context"]["result"]
    assert {*track["value"]["sequence"][0]} - {*asked["value"]["sequence"][0]} == {"fp", "human"}
