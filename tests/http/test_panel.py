"""The live panel: its address, and its picture."""

import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.http import panel
from backend.http.app import create_app
from backend.http.panel_image import HEIGHT, SILENT_AFTER, WIDTH, draw_panel
from backend.http.streams import HEARTBEAT
from backend.jobs.task_status import TaskStatus
from backend.labelstudio.frame_strip import SignedTask, SignedVideo, Signer
from tests.clips import write_clip
from tests.fakes import Gate, StubEngine
from tests.labelstudio.bodies import body, drawn, keyframe


def pixels(status: TaskStatus) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(draw_panel(status))))


@pytest.fixture
def signer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signer:
    signer = Signer(tmp_path / "secret")
    monkeypatch.setattr("backend.service.Signer.from_settings", lambda settings: signer)
    return signer


@pytest.mark.parametrize(("address", "start"), [("", b"\x89PNG"), ("/frame", b"\xff\xd8\xff")])
def test_the_signature_of_a_task_is_all_that_its_panel_needs(
    make_service, signer: Signer, address: str, start: bytes
) -> None:
    client = create_app(make_service(basic_auth_user="ann", basic_auth_pass="right")).test_client()
    answer = client.get(f"/panel/{signer.key(SignedTask('3', '7'))}{address}")
    assert answer.status_code == 200
    assert answer.mimetype == "multipart/x-mixed-replace"
    assert start in next(iter(answer.response))
    for key in ("AAAA", signer.key(SignedVideo("http://a/b.mp4", 25.0))):
        refused = client.get(f"/panel/{key}{address}")
        assert refused.status_code == 400
        assert "no valid signature" in refused.json["error"]


def test_the_newest_frame_comes_while_a_track_is_computed_and_stays(
    make_service, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel, "_FRAME_INTERVAL", 0.05)
    gate = Gate(30)
    service = make_service(StubEngine(gate=gate, masks=True), response_timeout=0.3, show_masks=True)
    clip = write_clip(tmp_path / "film.mp4", frames=100, size=(320, 180)).path
    monkeypatch.setattr("backend.labelstudio.media.MediaCache.fetch", lambda *_: clip)
    answer = create_app(service).test_client().get(f"/panel/{signer.key(SignedTask('3', '7'))}/frame")
    parts: Any = iter(answer.response)

    def read_picture() -> np.ndarray:
        head, _, rest = next(parts).partition(b"\xff\xd8\xff")
        assert b"Content-Type: image/jpeg" in head
        return np.asarray(Image.open(BytesIO(b"\xff\xd8\xff" + rest)))

    assert read_picture().shape == (360, 640, 3)  # says that there is none yet
    request = body(drawn(keyframe(1)))
    service.predict(request["tasks"], request["params"]["context"], request["label_config"], "3")
    frame = read_picture()
    assert frame.shape == (180, 320, 3)
    gate.open()
    while not service.scheduler.job(1).has_ended:
        time.sleep(0.01)
    stays = panel._FrameSource(lambda: TaskStatus("Done."), service.job_status)
    stays._picture = b"the newest"
    assert (stays.state(), stays.content((1, 99)), stays.last_content("stopped")) == (
        None,
        b"the newest",
        b"the newest",
    )


def test_the_picture_has_its_text_and_its_bar() -> None:
    idle, half = pixels(TaskStatus("Ready.")), pixels(TaskStatus("Ready.", "busy", 0.5))
    assert idle.shape == half.shape == (2 * HEIGHT, 2 * WIDTH, 4)
    bar = half[2 * HEIGHT - 22]
    assert bar[WIDTH - 20].tolist() == [0, 114, 178, 255]
    assert bar[WIDTH + 20].tolist() == [128, 128, 128, 80]
    assert not idle[2 * HEIGHT - 22].any()
    assert pixels(TaskStatus("Ready, and more.")).any(axis=2).sum() > idle.any(axis=2).sum()


@pytest.mark.slow
@pytest.mark.parametrize("text", ["word " * 100, "a" * 1000, "", "größer ⇒ 車"])
@pytest.mark.parametrize("progress", [None, -1.0, 0.0, 2.0])
def test_any_text_fits(text: str, progress: float | None) -> None:
    drawn = pixels(TaskStatus(text, "failed", progress))
    assert not drawn[:, -2:][: 2 * HEIGHT - 30].any()


def test_a_picture_that_no_other_follows_says_so_after_a_while() -> None:
    picture = Image.open(BytesIO(draw_panel(TaskStatus("Ready."))))
    assert (getattr(picture, "n_frames", 1), picture.info["duration"]) == (2, SILENT_AFTER * 1000)
    assert HEARTBEAT * 2 < SILENT_AFTER
    first = np.asarray(picture.convert("RGBA"))
    picture.seek(1)
    assert np.any(np.asarray(picture.convert("RGBA")) != first)
    assert getattr(Image.open(BytesIO(draw_panel(TaskStatus("Stopped."), is_last=True))), "n_frames", 1) == 1
