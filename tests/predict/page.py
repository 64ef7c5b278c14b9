"""Label Studio's page in small: what a person does to it, what it sends, and what it makes of an answer.

As seen in 1.23.2: a request shows the regions with the trigger's first label, all else only as it was last saved;
an answer replaces what has the same id and adds the rest; the classes of a selected region go to all of its regions.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from backend.labelstudio.keyframe import boxes_at, parse_keyframes
from tests.labelstudio.bodies import body, drawn, keyframe, moved
from tests.stub_service import StubService

CONFIG = (Path(__file__).parent.parent.parent / "label_config.xml").read_text()
NUMBERS = [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100]
DATA = {
    "video": "/data/upload/1/clip.mp4",
    "fps": 25,
    "frames": [f"/data/upload/1/f{number}.jpg" for number in NUMBERS],
    "frame_numbers": NUMBERS,
}

_serial = itertools.count()


class Page:
    """One annotation, open in one tab."""

    def __init__(self, service: StubService, task: int = 7) -> None:
        self.service, self.task = service, task
        self.name = f"page{next(_serial)}"
        self.regions: dict[str, dict[str, Any]] = {}
        self.points: dict[str, dict[str, Any]] = {}
        self.lines: list[str] = []
        self.saved: list[dict[str, Any]] = []
        self.submitted: list[dict[str, Any]] = []
        self.answered: list[dict[str, Any]] = []
        """The results of the last answer."""
        self.active: list[str] = []
        """The labels of the selected region, if the last gesture was made on one."""
        self.draft = next(_serial)
        """Label Studio's id of the draft that the page saves."""
        self.sent: set[str] = set()
        """Ids of the results in the last request's context."""

    # what a person does

    def draw(self, frame: int = 1, label: str = "Car", **box: float) -> str:
        name = self._new("box")
        self.regions[name] = drawn(keyframe(frame, **box), id=name, labels=(label,))
        return name

    def press(self, *names: str) -> list[str]:
        """`t` on selected regions; the ids of the answer's regions."""
        for name in names:
            self.regions[name]["value"].setdefault("labels", ["▶ t"])
            if self.regions[name]["origin"] == "prediction":
                self.regions[name]["origin"] = "prediction-changed"
        self.active = self.regions[names[0]]["value"]["labels"]
        return self._ask(self._beside(names[0]))

    def command(self, name: str, line: str) -> list[str]:
        """A line and Enter in a region's own field."""
        region = self.regions[name]
        if region["origin"] == "prediction":
            region["origin"] = "prediction-changed"
        self.active = region["value"].get("labels", [])
        text = {**region, "type": "textarea", "from_name": "region_prompt"}
        text["value"] = {**{key: kept for key, kept in region["value"].items() if key != "labels"}, "text": [line]}
        return self._ask([*self._beside(name), text])

    def type(self, line: str) -> list[str]:
        """A line and Enter in the field for words."""
        self.lines.append(line)
        self.active = []
        return self._ask([self._line()])

    def click(self, picture: int, x: float, y: float, label: str = "object 1", positive: bool = True) -> list[str]:
        name = self._new("point")
        value = {"x": x, "y": y, "width": 0.36, "labels": [label], "keypointlabels": [label]}
        names = {"from_name": "points", "to_name": "frames", "type": "keypointlabels", "origin": "manual"}
        self.points[name] = {"id": name, "item_index": picture, "value": value, "is_positive": positive, **names}
        return self.ask_points(label)

    def ask_points(self, label: str = "object 1") -> list[str]:
        self.active = []
        return self._ask([one for one in self.points.values() if one["value"]["labels"] == [label]])

    def drag(self, name: str, frame: int, **box: float) -> None:
        """Drag a region's box on one frame."""
        self.regions[name] = moved(self.regions[name], frame, **box)

    def delete(self, name: str) -> None:
        del self.regions[name]

    def save(self) -> None:
        """The page saves itself, at most every five seconds."""
        lines = [self._line()] if self.lines else []
        self.saved = json.loads(json.dumps([*self.regions.values(), *self.points.values(), *lines]))

    def reload(self) -> None:
        """Load the saved page again; Label Studio forgets which points were negative."""
        self.save()
        for point in self.points.values():
            point.pop("is_positive", None)

    def submit(self) -> None:
        """Submit the annotation; there is no draft then."""
        self.save()
        self.submitted, self.saved = self.saved, []

    # what it sends

    def request(self, context: list[dict[str, Any]]) -> dict[str, Any]:
        self.sent = {one["id"] for one in context}
        drafts = [{"id": self.draft, "result": self.saved, "updated_at": "2026-11-25"}] if self.saved else []
        annotations = [{"id": 1, "result": self.submitted}] if self.submitted else []
        task = body(*context, id=self.task, data=DATA, drafts=drafts, annotations=annotations)
        return task | {"label_config": CONFIG}

    def _ask(self, context: list[dict[str, Any]]) -> list[str]:
        request = json.loads(json.dumps(self.request(context)))
        predictions = self.service.predict(
            request["tasks"], request["params"]["context"], request["label_config"], request["project"]
        )
        return self.apply(json.loads(json.dumps(predictions)))

    # what it makes of an answer

    def apply(self, predictions: list[dict[str, Any]]) -> list[str]:
        self.answered = predictions[0]["result"] if predictions else []
        boxes = {one["id"]: one for one in self.answered if one["type"] == "videorectangle"}
        for one in self.answered:
            if one["type"] == "textarea" and one["from_name"] == "text_prompt":
                self.lines = one["value"]["text"]
            elif one["type"] == "textarea":
                assert one["id"] in boxes, "the box would be gone, and its text alone be left"
        for name, box in boxes.items():
            value = {**box["value"], "framesCount": 100, "duration": 4}
            value |= {"labels": self.active} if self.active else {}
            self.regions[name] = {**box, "value": value}
        return list(boxes)

    @property
    def told(self) -> str:
        """What stands behind the marker."""
        return next((line.removeprefix("▶ ") for line in self.lines if line.startswith("▶ ")), "")

    def frames(self, name: str) -> list[int]:
        return [item["frame"] for item in self.regions[name]["value"]["sequence"]]

    def item(self, name: str, frame: int) -> dict[str, Any]:
        return next(item for item in self.regions[name]["value"]["sequence"] if item["frame"] == frame)

    def shown(self, name: str, frame: int) -> list[float]:
        """The box that the page shows on a frame: x, y, width, height in percent, NaN where it shows none."""
        items = parse_keyframes(self.regions[name]["value"]["sequence"])
        (box,) = boxes_at(items, np.array([frame])).tolist()
        return box

    def _beside(self, name: str) -> list[dict[str, Any]]:
        first = self.regions[name]["value"].get("labels", [])[:1]
        return [one for one in self.regions.values() if one["value"].get("labels", [])[:1] == first]

    def _line(self) -> dict[str, Any]:
        names = {"from_name": "text_prompt", "to_name": "video", "type": "textarea", "origin": "manual"}
        return {"id": f"{self.name}-line", "value": {"text": list(self.lines)}, **names}

    def _new(self, kind: str) -> str:
        return f"{self.name}-{kind}{next(_serial)}"
