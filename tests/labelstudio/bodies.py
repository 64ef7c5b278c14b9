"""Bodies as Label Studio 1.23.2 sends them to /predict, made to measure."""

import json
from typing import Any

CONFIG = """<View>
  <Labels name="videoLabels" toName="video"><Label value="Car"/><Label value="Person"/></Labels>
  <Labels name="cmd" toName="video" choice="multiple"><Label value="track (t)" hotkey="t"/></Labels>
  <Video name="video" value="$video" framerate="$fps"/>
  <VideoRectangle name="box" toName="video" smartOnly="true"/>
</View>"""


def keyframe(
    frame: int, x: float = 10, y: float = 20, width: float = 12, height: float = 16, **more: Any
) -> dict[str, Any]:
    """As the page draws one: percent, enabled, no fingerprint."""
    box = {"x": x, "y": y, "width": width, "height": height}
    return {"frame": frame, "enabled": True, "rotation": 0, **box, "time": frame / 25, **more}


def drawn(
    *keyframes: dict[str, Any], id: str = "fDqJ3pfXOd", labels: tuple[str, ...] = ("Car",), **more: Any
) -> dict[str, Any]:
    """A region that was drawn by hand, 100 frames at 25 a second."""
    value = {"framesCount": 100, "duration": 4, "sequence": list(keyframes), "labels": list(labels)}
    names = {"from_name": "box", "to_name": "video", "type": "videorectangle", "origin": "manual"}
    return {"value": value, "id": id, **names, **more}


def asked_again(region: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A region of an answer as the page sends it when `t` is pressed on it."""
    value = region["value"] | {"framesCount": 100, "duration": 4}
    return {**region, "value": value, "origin": "prediction-changed", **changes}


def body(*results: dict[str, Any], **task: Any) -> dict[str, Any]:
    """An interactive request for a task with a 25 frames/s video."""
    data = {"video": "/data/upload/1/clip.mp4", "fps": 25}
    tasks = [{"id": 7, "data": data, "annotations": [], "drafts": [], "predictions": [], **task}]
    params = {"login": None, "password": None, "context": {"result": list(results)}}
    return {"tasks": tasks, "project": "3.1795331021", "label_config": CONFIG, "params": params}


def moved(region: dict[str, Any], frame: int, **box: float) -> dict[str, Any]:
    """As when a person drags the box on a frame: an own keyframe changes, or a new one copies the next one's keys."""
    region = json.loads(json.dumps(region))
    keyframes = region["value"]["sequence"]
    after = [index for index, item in enumerate(keyframes) if item["frame"] >= frame]
    there = bool(after) and keyframes[after[0]]["frame"] == frame
    base = keyframes[after[0]] if after else keyframes[-1] | {"enabled": True}
    changed = {**base, **box, "frame": frame, "time": frame / 25}
    if not there:
        changed["enabled"] = True
    if not after:
        changed = {key: value for key, value in changed.items() if key not in ("fp", "human")}
    at = after[0] if after else len(keyframes)
    keyframes[at : at + there] = [changed]
    return region
