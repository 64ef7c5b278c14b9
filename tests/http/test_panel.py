"""The live panel: its address, and its picture."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.http.app import create_app
from backend.http.panel_image import HEIGHT, SILENT_AFTER, WIDTH, draw_panel
from backend.http.streams import HEARTBEAT
from backend.jobs.task_status import TaskStatus
from backend.labelstudio.frame_strip import SignedTask, SignedVideo, Signer


def pixels(status: TaskStatus) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(draw_panel(status))))


def test_the_signature_of_a_task_is_all_that_its_panel_needs(make_service, monkeypatch, tmp_path: Path) -> None:
    signer = Signer(tmp_path / "secret")
    monkeypatch.setattr("backend.service.Signer.from_settings", lambda settings: signer)
    client = create_app(make_service(basic_auth_user="ann", basic_auth_pass="right")).test_client()
    answer = client.get(f"/panel/{signer.key(SignedTask('3', '7'))}")
    assert answer.status_code == 200
    assert answer.mimetype == "multipart/x-mixed-replace"
    assert b"\x89PNG" in next(iter(answer.response))
    for key in ("AAAA", signer.key(SignedVideo("http://a/b.mp4", 25.0))):
        refused = client.get(f"/panel/{key}")
        assert refused.status_code == 400
        assert "no valid signature" in refused.json["error"]


def test_the_picture_has_its_text_and_its_bar() -> None:
    idle, half = pixels(TaskStatus("Ready.")), pixels(TaskStatus("Ready.", "busy", 0.5))
    assert idle.shape == half.shape == (2 * HEIGHT, 2 * WIDTH, 4)
    bar = half[2 * HEIGHT - 22]
    assert bar[WIDTH - 20].tolist() == [0, 114, 178, 255]
    assert bar[WIDTH + 20].tolist() == [128, 128, 128, 80]
    assert not idle[2 * HEIGHT - 22].any()
    assert pixels(TaskStatus("Ready, and more.")).any(axis=2).sum() > idle.any(axis=2).sum()


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
