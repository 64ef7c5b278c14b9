from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as pycoco

from backend.errors import BadRequest
from backend.formats import mask_formats
from backend.formats.mask_formats import check_davis, check_masks, encode_png, write_davis, write_mots
from backend.tracks.masks import Rle
from tests.formats.judged import as_tracker, hota, in_sequence_folder
from tests.formats.made import CAR, FRAMES, OTHER, clip
from tests.labelstudio.bodies import drawn, keyframe

# pycocotools 2.0.11 decodes with what numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SIZE = (64, 36)
NONE = drawn(keyframe(1), id="c")


def block(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((SIZE[1], SIZE[0]), bool)
    mask[y : y + height, x : x + width] = True
    return mask


LARGE, SMALL = block(4, 4, 30, 20), block(10, 10, 6, 5)
MASKS = {
    3: {frame: Rle.from_mask(LARGE) for frame in range(40)},
    1: {frame: Rle.from_mask(SMALL) for frame in range(19, 89)},
}


def both(**more: object):
    return clip(CAR, OTHER, NONE, size=SIZE, masks=MASKS, **more)


def mots_lines(folder: Path) -> list[list[str]]:
    (file,) = folder.glob("*/gt/gt.txt")
    return [line.split(" ") for line in file.read_text().splitlines()]


def test_mots_has_the_masks_and_nothing_of_tracks_without(tmp_path: Path) -> None:
    write_mots([both()], ["Car"], tmp_path, False)
    lines = mots_lines(tmp_path)
    assert {(line[1], line[2]) for line in lines} == {("1001", "1"), ("1003", "1")}
    assert len(lines) == 40 + 70
    for frame, track, _, height, width, text in lines:
        mask = pycoco.decode({"size": [int(height), int(width)], "counts": text.encode()}).astype(bool)
        # The smaller one lies in front.
        behind = LARGE & ~SMALL if int(frame) > 19 else LARGE
        assert (mask == (SMALL if track == "1001" else behind)).all()


def test_mots_numbers_classes_as_its_readers_do(tmp_path: Path) -> None:
    labels = ["Dog", "Person", *(f"l{number}" for number in range(8)), "car"]
    regions = [drawn(keyframe(1), id=label, labels=(label,)) for label in labels]
    masks = {place: {0: Rle.from_mask(block(place * 3, 0, 2, 2))} for place, _ in enumerate(labels, start=1)}
    write_mots([clip(*regions, size=SIZE, masks=masks)], labels, tmp_path, False)
    classes = dict(line.split(" ")[::-1] for line in (tmp_path / "classes.txt").read_text().splitlines())
    assert (classes["car"], classes["Person"], classes["Dog"]) == ("1", "2", "3")
    assert "10" not in classes.values()
    assert len({*classes.values()}) == len(labels)
    assert {line[2] for line in mots_lines(tmp_path)} == {*classes.values()}


def test_ids_beyond_a_thousand_stay_apart(tmp_path: Path) -> None:
    known = [{**CAR, "meta": {"track_id": 2003}}, {**OTHER, "meta": {"track_id": 3}}]
    write_mots([clip(*known, size=SIZE, masks={2003: MASKS[3], 3: MASKS[1]})], ["Car"], tmp_path, False)
    assert {line[1] for line in mots_lines(tmp_path)} == {"12003", "10003"}


def test_trackeval_finds_mots_equal_to_itself(tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    people = [{**one, "value": {**one["value"], "labels": ["Person"]}} for one in (CAR, OTHER)]
    write_mots([clip(*people, size=SIZE, masks=MASKS)], ["Person"], truth, False)
    as_tracker(truth, tmp_path / "trackers")
    assert hota("mots", truth, tmp_path / "trackers", **in_sequence_folder(truth)) == {"pedestrian": pytest.approx(1)}


def test_davis_has_a_picture_of_ids_for_every_frame(tmp_path: Path) -> None:
    write_davis([both()], ["Car"], tmp_path, False)
    files = sorted((tmp_path / "Annotations").rglob("*.png"))
    assert [file.name for file in files] == [f"{frame:06d}.png" for frame in range(FRAMES)]
    expected = np.where(SMALL, 1, np.where(LARGE, 3, 0))
    picture = Image.open(files[30])
    assert picture.mode == "P"
    assert (np.array(picture) == expected).all()
    assert picture.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert (np.array(Image.open(files[0])) == np.where(LARGE, 3, 0)).all()
    assert not np.array(Image.open(files[99])).any()
    assert cv2.imread(str(files[30])).shape == (36, 64, 3)


def test_trackeval_finds_davis_equal_to_itself(tmp_path: Path) -> None:
    write_davis([both()], ["Car"], tmp_path, False)
    (tmp_path / "trackers" / "ours").mkdir(parents=True)
    (tmp_path / "trackers" / "ours" / "data").symlink_to(tmp_path / "Annotations", target_is_directory=True)
    scores = hota("davis", tmp_path / "Annotations", tmp_path / "trackers")
    assert scores == {"general": pytest.approx(1)}


def test_davis_has_room_for_254_ids() -> None:
    known = clip({**CAR, "meta": {"track_id": 255}}, size=SIZE, masks={255: MASKS[3]})
    with pytest.raises(BadRequest, match="254"):
        check_davis(known)
    check_masks(known)


@pytest.mark.parametrize("check", [check_masks, check_davis])
def test_masks_of_another_size_are_told(check) -> None:
    with pytest.raises(BadRequest, match="64 x 36"):
        check(clip(CAR, size=(640, 360), masks=MASKS))


@given(st.lists(arrays(bool, (7, 5)), min_size=1, max_size=5))
def test_masks_that_were_taken_apart_share_no_pixel_and_lose_none(pictures: list[np.ndarray]) -> None:
    apart = mask_formats._without_overlaps(
        {number: Rle.from_mask(mask) for number, mask in enumerate(pictures, start=300)}
    )
    total = np.sum([mask.to_mask() for mask in apart.values()], axis=0)
    assert (total <= 1).all()
    assert (total == np.any(pictures, axis=0)).all()


@given(arrays(np.uint8, (3, 4)))
def test_a_png_holds_its_numbers(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> None:
    file = tmp_path_factory.mktemp("png") / "a.png"
    file.write_bytes(encode_png(pixels))
    assert (np.array(Image.open(file)) == pixels).all()
