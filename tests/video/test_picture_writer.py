"""A series of picture files becomes a video with the same pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.errors import BadRequest
from backend.video import PictureWriter, Video


def smooth(seed: int, width: int = 97, height: int = 61) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def encoded(picture: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, picture)[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_each_picture_is_the_frame_of_its_number(tmp_path: Path, suffix: str) -> None:
    pictures = [smooth(number) for number in range(7)]
    with PictureWriter(tmp_path / "a") as writer:
        for picture in pictures:
            writer.add(encoded(picture, suffix))
    with Video(tmp_path / "a") as video:
        assert (len(video), video.width, video.height) == (7, 97, 61)
        assert video.times == pytest.approx(np.arange(7) / 25)
        for number in (4, 0, 6):
            sent = cv2.imdecode(np.frombuffer(encoded(pictures[number], suffix), np.uint8), cv2.IMREAD_COLOR)
            difference = np.abs(video.read(number)[..., ::-1].astype(int) - sent).mean()
            assert difference <= (0 if suffix in (".png", ".bmp") else 4), "decoders differ in JPEG's colours"


def test_types_may_be_mixed(tmp_path: Path) -> None:
    for first, second in ((".jpg", ".png"), (".png", ".jpg")):
        with PictureWriter(tmp_path / "a") as writer:
            writer.add(encoded(smooth(0), first))
            writer.add(encoded(smooth(1), second))
        with Video(tmp_path / "a") as video:
            for number in (0, 1):
                assert np.abs(video.read(number)[..., ::-1].astype(int) - smooth(number)).mean() < 4


def test_a_picture_that_is_turned_is_stored_upright(tmp_path: Path) -> None:
    jpeg = encoded(smooth(0), ".jpg")
    orientation = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    exif = b"Exif\x00\x00" + orientation
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    with PictureWriter(tmp_path / "a") as writer:
        writer.add(turned)
    with Video(tmp_path / "a") as video:
        assert (video.width, video.height) == (61, 97)
        assert np.abs(video.read(0)[..., ::-1].astype(int) - np.rot90(smooth(0), -1)).mean() < 4


@pytest.mark.parametrize("file", [b"", b"nothing", b"\xff\xd8\xff\xe0nothing"])
def test_what_is_no_picture_is_refused_and_leaves_nothing(tmp_path: Path, file: bytes) -> None:
    with pytest.raises(BadRequest, match="picture 0 cannot be read"), PictureWriter(tmp_path / "a") as writer:
        writer.add(file)
    assert not (tmp_path / "a").exists()


def test_sizes_may_not_differ(tmp_path: Path) -> None:
    with PictureWriter(tmp_path / "a") as writer:
        writer.add(encoded(smooth(0), ".jpg"))
        with pytest.raises(BadRequest, match="picture 1 has 40 x 61 pixels"):
            writer.add(encoded(smooth(0, 40), ".jpg"))
