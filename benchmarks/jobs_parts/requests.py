"""What the clients of the jobs' benchmark ask of a server, and whom they ask."""

import http.client
import json
import random
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.labelstudio.bodies import body, drawn, keyframe

ROOT = Path(__file__).resolve().parents[2]
URL = "http://clips.invalid/clip.mp4"
CONFIG = (ROOT / "label_config.xml").read_text()
SEED = 6
CLIENTS = 16

Asked = tuple[str, dict[str, Any] | None]
"""A path, and what is posted to it; None: GET."""
Answered = tuple[str, float, int, bytes]
"""Path, seconds, status (0: none came) and body."""


def ask(port: int, asked: Asked, kept: http.client.HTTPConnection | None = None) -> Answered:
    """One request; on a connection that is kept open, if one is given."""
    path, posted = asked
    connection = kept or http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    begin = time.perf_counter()
    try:
        if posted is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(posted), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return path, time.perf_counter() - begin, answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return path, time.perf_counter() - begin, 0, b""
    finally:
        if not kept:
            connection.close()


def ask_all(port: int, requests: Iterable[Asked]) -> list[Answered]:
    """All of them by so many clients at once."""
    lock, queue, answers = threading.Lock(), iter(requests), list[Answered]()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with closing(connection):
            while True:
                with lock:
                    asked = next(queue, None)
                if asked is None:
                    return
                answers.append(ask(port, asked, connection))

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def read_health(port: int) -> dict[str, Any]:
    """The answer of /health."""
    health: dict[str, Any] = json.loads(ask(port, ("/health", None))[3])
    return health


def prompted(result: dict[str, Any], task: int) -> Asked:
    """/predict for one prompt."""
    return "/predict", body(result, id=task, data={"video": URL, "fps": 25})


def box(name: str, task: int, frame: int = 1, x: float = 10.0) -> Asked:
    """A box that was drawn and asked for."""
    return prompted(drawn(keyframe(frame, x=x), id=name), task)


def words(name: str, task: int, line: str) -> Asked:
    """A line that was typed."""
    names = {"from_name": "text_prompt", "to_name": "video", "type": "textarea", "origin": "manual"}
    path, posted = prompted({"id": name, "value": {"text": [line]}, **names}, task)
    return path, {**(posted or {}), "label_config": CONFIG}


def mixed(count: int) -> Iterator[Asked]:
    """Requests as several annotators' pages and Label Studio's health checks send them."""
    rng = random.Random(SEED)
    for number in range(count):
        draw = rng.random()
        if draw < 0.65:
            yield "/health", None
        elif draw < 0.8:
            project = {"project": f"{rng.randrange(9)}.1", "hostname": "http://ls.invalid", "schema": CONFIG}
            yield "/setup", project | {"access_token": f"t{rng.randrange(3)}"}
        elif draw < 0.9:
            yield box(f"box{number}", rng.randrange(1000), x=rng.uniform(1, 80))
        elif draw < 0.96:
            again = rng.randrange(16)
            yield box(f"again{again}", again, x=1.0 + again)
        else:
            yield words(f"line{number}", rng.randrange(1000), "car")


@dataclass(frozen=True, slots=True)
class Series:
    """Jobs of one video, boxes and words of several tasks: three begin on each of certain frames.

    Those of one start go together, and take along those of the next one when they come to its frame.

    Attributes:
        frames: of each job.
        step: frames from one start to the next.
        phrase: what the words look for.
    """

    frames: int = 200
    step: int = 100
    phrase: str = "car"

    def __getitem__(self, number: int) -> Asked:
        """The request for a job."""
        first = 1 + number // 3 * self.step
        if number % 3 == 2:
            return words(f"line{number}", number % 5, f"{self.phrase} from {first} to {first + self.frames - 1}")
        return box(f"box{number}", number % 5, first, 1.0 + number % 80)

    def clip_frames(self, count: int) -> int:
        """How long a clip has to be for so many jobs."""
        return count // 3 * self.step + self.frames


SERIES = Series()


def is_accepted(answered: Answered) -> bool:
    """Its job will be done; a refusal is an answer too where there is a line to tell it in."""
    return answered[2] == 200 and b"not done" not in answered[3]


def milliseconds(seconds: Iterable[float]) -> float:
    """The 99th percentile."""
    return round(float(np.percentile(list(seconds), 99)) * 1e3, 1)
