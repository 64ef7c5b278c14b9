"""CVAT's XML: out and in again is the same to the keyframe; benchmarks/datasets.py reads it with datumaro."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import BackendError, BadRequest
from backend.formats.cvat import write_cvat
from backend.formats.cvat_reader import read_cvat
from backend.formats.to_predictions import build_prediction
from backend.labelstudio.keyframe import mark_as_ours, parse_keyframes
from backend.labelstudio.label_config import parse_label_config
from backend.settings import Settings
from backend.video import VideoInfo
from tests.formats.made import FRAMES, SIZE, clip, regions, shown
from tests.labelstudio.bodies import CONFIG, drawn, keyframe

VIDEO = VideoInfo.evenly_spaced(FRAMES, 25, SIZE)


@st.composite
def varied(draw: st.DrawFn) -> dict[str, Any]:
    """A region with keyframes of a person and of ours, rotated or not, with a score or without."""
    region = draw(regions())
    rotation = draw(st.sampled_from([0.0, 30.0, 359.5]))
    items = [{**item, "rotation": rotation} for item in region["value"]["sequence"]]
    ours = [mark_as_ours(one) if draw(st.booleans()) else one for one in parse_keyframes(items)]
    score = draw(st.sampled_from([{}, {"score": 0.875}]))
    return {**region, **score, "value": {**region["value"], "sequence": [one.to_unchanged_json(25) for one in ours]}}


def comes_back(*drawn_regions: dict[str, Any]) -> list[dict[str, Any]]:
    with TemporaryDirectory() as folder:
        labels = sorted({label for region in drawn_regions for label in region["value"]["labels"]})
        write_cvat([clip(*drawn_regions, video_info=VIDEO)], labels, Path(folder), False)
        (video,) = read_cvat(Path(folder))
    assert [track.label in labels for track in video.tracks] == [True] * len(drawn_regions)
    assert video.length == FRAMES
    return build_prediction(video, VIDEO, 25, parse_label_config(CONFIG), Settings(), "Car")


@settings(max_examples=25)
@given(st.lists(varied(), min_size=1, max_size=3))
def test_out_and_in_again_has_the_same_tracks_and_keyframes(regions: list[dict]) -> None:
    expected, back = clip(*regions, video_info=VIDEO).tracks, comes_back(*regions)
    assert [one["meta"]["track_id"] for one in back] == [track.id for track in expected]
    for region, track in zip(back, expected, strict=True):
        assert region.get("score") == track.score
        found = parse_keyframes(region["value"]["sequence"])
        assert [key.frame for key in found] == (track.frames[track.keys] + 1).tolist()
        assert [key.is_human for key in found] == track.human.tolist()


@settings(max_examples=50)
@given(varied())
def test_each_number_of_a_keyframe_comes_back(region: dict) -> None:
    (back,) = comes_back(region)
    given_keys = parse_keyframes(region["value"]["sequence"])
    found = parse_keyframes(back["value"]["sequence"])
    assert [key.frame for key in found] == [key.frame for key in given_keys]
    for key, other in zip(found, given_keys, strict=True):
        for name in ("x", "y", "width", "height", "rotation"):
            assert getattr(key, name) == pytest.approx(getattr(other, name), abs=1.01e-4)
        assert key.is_human == other.is_human
    # `enabled` says nothing where the next frame is a keyframe, or where there is none.
    ends = {key.frame for key in given_keys} | {FRAMES + 1}
    assert [key.enabled for key in found if key.frame + 1 not in ends] == [
        key.enabled for key in given_keys if key.frame + 1 not in ends
    ]
    if not given_keys[0].rotation:
        expected, got = shown(region), shown(back)
        assert list(got) == list(expected)
        assert np.allclose([*got.values()], [*expected.values()], atol=0.01)


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><id>3</id><name>street</name><size>20</size><mode>interpolation</mode>
<start_frame>0</start_frame><stop_frame>19</stop_frame><source>walk 1.MP4</source>
<original_size><width>640</width><height>360</height></original_size></task></meta>
<track id="0" label="Car" source="manual">
<box frame="2" keyframe="1" outside="0" occluded="0" xtl="0" ytl="0" xbr="64" ybr="36" z_order="0"/>
<box frame="3" keyframe="0" outside="0" occluded="0" xtl="16" ytl="0" xbr="80" ybr="36" z_order="0"/>
<box frame="4" keyframe="0" outside="0" occluded="0" xtl="32" ytl="0" xbr="96" ybr="36" z_order="0"/>
<box frame="5" keyframe="1" outside="1" occluded="0" xtl="48" ytl="0" xbr="112" ybr="36" z_order="0"/>
<box frame="9" keyframe="1" outside="0" occluded="1" xtl="64" ytl="0" xbr="128" ybr="36" z_order="0">
<attribute name="colour">red</attribute></box></track>
<track id="1" label="Car"><polygon frame="1" keyframe="1" outside="0" points="1,1;2,2;3,1"/></track>
<track id="2" label="Car"><box frame="1" keyframe="1" outside="0" xtl="x" ytl="0" xbr="9" ybr="9"/></track>
</annotations>"""


def test_a_file_of_cvats_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "annotations.xml").write_text(CVAT)
    skipped: list[str] = []
    (video,) = read_cvat(tmp_path / "annotations.xml", skipped.append)
    assert (video.name, video.length, video.size) == ("walk 1", 20, SIZE)
    (track,) = video.tracks
    assert (track.id, track.label, track.score) == (0, "Car", None)
    assert [(key.frame, key.box[0], key.enabled) for key in track.keyframes] == [
        (2, 0, True),
        (4, 32, False),
        (9, 64, True),
    ]
    assert skipped == [
        "track 1 of walk 1 is skipped: it has no box",
        "track 2 of walk 1: 1 boxes are skipped, with an empty box, as on frame 1",
        "track 2 of walk 1 is skipped: it has no box",
        "walk 1: 1 shapes of the kind polygon are skipped: only boxes are read",
    ]
    sparse = re.sub(r'<box frame="[34]".*?/>\n', "", CVAT)
    (tmp_path / "annotations.xml").write_text(sparse)
    (again,) = read_cvat(tmp_path)
    assert again.tracks[0].keyframes == track.keyframes


def test_images_of_cvat_are_detections(tmp_path: Path) -> None:
    image = '<image id="{0}" name="f_{0}.png" width="640" height="360"><box label="Car" {1}/></image>'
    box = 'source="auto" occluded="0" xtl="1.5" ytl="2" xbr="9" ybr="9" z_order="0"'
    body = "".join(image.format(frame, box) for frame in (0, 4))
    (tmp_path / "a.xml").write_text(f"<annotations><version>1.1</version>{body}</annotations>")
    (video,) = read_cvat(tmp_path / "a.xml")
    assert (video.tracks, video.length, video.size) == ((), 5, SIZE)
    assert [(one.frame, one.label, one.box) for one in video.detections] == [
        (0, "Car", (1.5, 2, 9, 9)),
        (4, "Car", (1.5, 2, 9, 9)),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no XML of CVAT"),
        ("<annotation><object/></annotation>", "no annotations of CVAT"),
        ("<annotations><track id='1'>", "no XML of CVAT"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "no XML of CVAT"),
        ("<annotations><meta><task/><task/></meta></annotations>", "several tasks"),
    ],
)
def test_what_is_no_xml_of_cvat_is_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(BadRequest, match=says):
        read_cvat(tmp_path / "a.xml")


@pytest.mark.parametrize("name", ["none.xml", ""])
def test_a_place_without_a_file_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(BackendError, match="give"):
        read_cvat(tmp_path / name)


def test_gaps_are_outside_and_labels_may_be_any_text(tmp_path: Path) -> None:
    region = drawn(keyframe(3, 10), keyframe(5, 20, enabled=False), labels=('<a> & "b"',), meta={"track_id": 9})
    write_cvat([clip(region, video_info=VIDEO)], ['<a> & "b"'], tmp_path, False)
    text = next(tmp_path.glob("*.xml")).read_text()
    marks = re.findall(r'<box frame="(\d+)" outside="(.)" occluded="0" keyframe="(.)"', text)
    assert marks == [("2", "0", "1"), ("3", "0", "0"), ("4", "0", "1"), ("5", "1", "1")]
    (video,) = read_cvat(tmp_path)
    assert [(track.id, track.label) for track in video.tracks] == [(9, '<a> & "b"')]
