"""Measures clicks on the video, tracks that begin there, and uploads: `python benchmarks/doors.py`.

The last line printed is one JSON object.

The engine is SAM3 with the shapes model in a worker process; clicks go through HTTP to a server in this process,
without a network. A pass is one run of the vision model.

upload_mb               how much the server's memory grows while 1,000 pictures of 1920 x 1080 are sent to it, in MB.
mask_p50_ms, mask_p99_ms  from a click to its mask, with the frame encoded, in a clip of 1280 x 720.
passes_second_click     passes for further clicks on a frame.
track_first_s           from the request for a track to its first keyframe, in seconds.
region_iou              mean IoU of the region that the page makes of a track with the truth, on ten frames.
keyframe_share          keyframes of that region by frames of the clip.

.venv/bin/python benchmarks/doors.py [--quick]
"""

import argparse
import base64
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from waitress.server import create_server

from backend.engines import identify_engine
from backend.http.app import create_app
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_launcher import process_launcher
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.media import MediaCache
from backend.service import Service
from backend.settings import Settings
from backend.shapes import APART, HELD_OUT, Clip
from backend.tracks.geometry import box_iou

CONFIG = (
    '<View><Video name="v" value="$video" framerate="25"/><VideoRectangle name="b" toName="v"/>'
    '<Labels name="l" toName="v"><Label value="a"/></Labels></View>'
)


class Client:
    """Sends requests to the server on a port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    def post(self, path: str, body: Any, size: int | None = None) -> Any:
        """The answer's JSON. `body` is JSON, or an iterator of bytes with its size."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=600)
        headers = {"Content-Type": "application/json"} | ({"Content-Length": str(size)} if size else {})
        connection.request("POST", path, body if size else json.dumps(body), headers)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        assert "error" not in answer, answer
        return answer

    def event(self, **context: Any) -> dict[str, Any]:
        """The value that answers an event."""
        body = {"tasks": [{"id": 7, "data": {"video": "/clip.mp4"}}], "project": "3", "label_config": CONFIG}
        answer = self.post("/predict", body | {"params": {"context": context}})
        value: dict[str, Any] = answer["results"][0]["result"][0]["value"]
        return value


@contextmanager
def serving(folder: Path, clip: Path, log: Path) -> Iterator[Client]:
    """A server whose engine writes a byte into `log` for each pass."""
    settings = Settings(
        engine="sam3", model_path="shapes", device="cpu", data_dir=folder / "data", doors=("x-anylabeling",)
    )
    log.write_bytes(b"")
    make = import_module("benchmarks.together").counting_engine
    worker = WorkerClient(
        process_launcher(partial(make, str(log)), "warning"), *identify_engine(settings), timeout=600.0
    )
    MediaCache.fetch = lambda *_: clip  # type: ignore[method-assign]  # there is no Label Studio here
    service = Service(settings, WorkerPool([worker]))
    server: Any = create_server(
        create_app(service), host="127.0.0.1", port=0, threads=8, max_request_body_size=settings.max_body
    )
    threading.Thread(target=server.run, daemon=True).start()
    while service.status != "ready":
        time.sleep(0.05)
    try:
        yield Client(server.effective_port)
    finally:
        server.task_dispatcher.shutdown()
        server.close()
        service.close()


def box_of(value: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """The box around a mask in percent: x, y, width, height."""
    data = base64.b64decode(value["imageDataURL"].partition(",")[2])
    mask = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)) > 127
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = columns[0] / mask.shape[1] * 100, rows[0] / mask.shape[0] * 100
    return x, y, (columns[-1] + 1) / mask.shape[1] * 100 - x, (rows[-1] + 1) / mask.shape[0] * 100 - y


def point(x: float, y: float) -> dict[str, Any]:
    """A click, in percent."""
    return {"type": "keypointlabels", "value": {"x": x, "y": y, "positive": True}}


def measure_clicks(client: Client, log: Path, truth: np.ndarray[Any, Any], clicks: int) -> dict[str, float]:
    """Times of clicks on the middle of the object, after the first one."""
    x, y = (truth[0, :2] + truth[0, 2:]) / 2
    client.event(frame=1, result=[point(x, y)])
    passes, milliseconds = log.stat().st_size, []
    for number in range(clicks):
        begin = time.perf_counter()
        client.event(frame=1, result=[point(x + number % 7 / 10, y + number % 5 / 10)])
        milliseconds.append((time.perf_counter() - begin) * 1000)
    return {
        "mask_p50_ms": round(float(np.percentile(milliseconds, 50)), 1),
        "mask_p99_ms": round(float(np.percentile(milliseconds, 99)), 1),
        "passes_second_click": log.stat().st_size - passes,
    }


def measure_track(client: Client, truth: np.ndarray[Any, Any]) -> dict[str, float]:
    """The calls of the page, from an accepted mask to the region that it makes."""
    x, y = (truth[0, :2] + truth[0, 2:]) / 2
    accepted = box_of(client.event(frame=1, time_ms=2.0, result=[point(x, y)]))
    assert accepted
    value = dict(zip(("x", "y", "width", "height"), accepted, strict=True))
    begin, first, keyframes, is_done = time.perf_counter(), 0.0, {1: accepted}, False
    started = client.event(
        event="track",
        frame=1,
        time_ms=2.0,
        max_frames=len(truth),
        direction="forward",
        result=[{"type": "rectanglelabels", "value": value}],
    )
    while not is_done:
        answer = client.event(event="track_progress", session_id=started["session_id"])
        assert not answer["error"], answer
        for frame in answer["frames"]:
            first = first or time.perf_counter() - begin
            if box := box_of(frame):
                keyframes[round(frame["time_ms"] / 1000 * 25) + 1] = box
        is_done = answer["done"]
    frames = sorted(keyframes)
    corners = np.array([keyframes[frame] for frame in frames])
    corners[:, 2:] += corners[:, :2]
    looked = np.linspace(1, len(truth), 10).round().astype(int)
    shown = np.stack([np.interp(looked, frames, corners[:, side]) for side in range(4)], axis=1)
    return {
        "track_first_s": round(first, 3),
        "region_iou": round(float(np.nanmean(box_iou(shown, truth[looked - 1]))), 3),
        "keyframe_share": round(len(frames) / len(truth), 3),
    }


@contextmanager
def peak_growth() -> Iterator[list[int]]:
    """Yields a list of how much larger this process' memory was than before, in bytes, ten times a second."""
    before, grown, ended = resident(), [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            grown.append(resident() - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield grown
    finally:
        ended.set()
        thread.join()
        grown.append(resident() - before)


def resident() -> int:
    """Memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure_upload(client: Client, pictures: int) -> dict[str, float]:
    """The growth of this process' memory while pictures are sent, one by one."""
    rng = np.random.default_rng(1)
    ground = cv2.resize(rng.integers(0, 255, (27, 48, 3), dtype=np.uint8), (1920, 1080), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(ground.astype(int) + rng.integers(-12, 12, ground.shape), 0, 255).astype(np.uint8)
    encoded = base64.b64encode(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
    uri = b'"data:image/jpeg;base64,' + encoded + b'"'
    head, tail = b'{"model":"sam3","frames":[', b'],"start_frame_index":0}'
    size = len(head) + pictures * len(uri) + pictures - 1 + len(tail)

    def body() -> Iterator[bytes]:
        yield head
        for number in range(pictures):
            yield (b"," if number else b"") + uri
        yield tail

    with peak_growth() as grown:
        answer = client.post("/v1/video/init", body(), size)
    assert answer["data"]["num_frames"] == pictures
    print(f"{pictures} pictures, {size / 2**20:.0f} MB", flush=True)
    return {"upload_mb": round(max(grown) / 2**20, 1)}


def run(folder: Path, quick: bool) -> dict[str, float]:
    """All figures."""
    frames, clicks, pictures = (24, 20, 20) if quick else (200, 300, 1000)
    size = (320, 180) if quick else (1280, 720)
    # The clip of effort.py: a hard one says how well the small model tracks, not how well the doors do.
    film, clip = Clip(HELD_OUT + 142, replace(APART, size=size, frames=frames)), folder / "clip.mp4"
    film.save(clip)
    truth = np.array([frame.boxes[0] for frame in film], float) * 100 / np.array([*size, *size])
    with serving(folder, clip, folder / "passes") as client:
        figures = measure_clicks(client, folder / "passes", truth, clicks)
        print(figures, flush=True)
        figures |= measure_track(client, truth)
        return figures | measure_upload(client, pictures)


def main() -> None:
    """Parse the arguments and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small clip, few clicks and pictures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(Path(folder), arguments.quick)))


if __name__ == "__main__":
    main()
