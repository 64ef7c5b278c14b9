"""`sam3-backend track`: a file in, tasks for Label Studio and a video to look at out."""

import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend import engines
from backend.cli import main
from backend.formats.mask_matching import mask_bounds
from backend.formats.mask_sidecar import read_sidecar
from backend.labelstudio.keyframe import parse_keyframes
from backend.settings import Settings
from backend.tracks.geometry import Box
from backend.tracks.prompts import Exemplar, Phrase
from backend.video import Video, write_video
from tests.fakes import StubEngine
from tests.labelstudio.test_keyframes import shown

SIZE, COUNT, STEP = (320, 180), 40, 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A textured square of 40 pixels that starts at (20, 60) and moves 3 pixels a frame to the right."""
    rng = np.random.default_rng(1)
    ground, square = (rng.integers(0, 255, (h, w, 3), np.uint8) for w, h in (SIZE, (40, 40)))
    ground, square = cv2.blur(ground, (9, 9)) // 2, cv2.resize(square[::5, ::5], (40, 40))
    pictures = []
    for index in range(COUNT):
        picture = ground.copy()
        picture[60:100, 20 + STEP * index : 60 + STEP * index] = square
        pictures.append(picture)
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, pictures, 25)
    return path


def track(clip: Path, *words: str, again: bool = False) -> dict:
    """The task that comes out; `again`: into the file that is there."""
    output = clip.parent / "tasks.json"
    if not again:
        output.unlink(missing_ok=True)
    assert main(["track", str(clip), "--engine", "opencv", *words, "-o", str(output)]) == 0
    (task,) = json.loads(output.read_text())
    return task


def truth(frame: int) -> list[float]:
    """Percent on an LS frame."""
    return [(20 + STEP * (frame - 1)) / 3.2, 60 / 1.8, 40 / 3.2, 40 / 1.8]


def test_a_box_becomes_a_task_that_label_studio_imports(clip: Path) -> None:
    task = track(clip, "--label", "Car", "--box", "20,60,40,40@0", "--video-url", "/data/upload/1/clip.mp4")
    assert task["data"] == {"video": "/data/upload/1/clip.mp4", "fps": 25}
    (prediction,) = task["predictions"]
    (region,) = prediction["result"]
    assert (region["type"], region["from_name"], region["to_name"]) == ("videorectangle", "box", "video")
    assert region["id"] == "1"
    assert region["value"]["labels"] == ["Car"]
    assert (region["value"]["framesCount"], region["value"]["duration"]) == (COUNT, pytest.approx(COUNT / 25))
    items = list(parse_keyframes(region["value"]["sequence"]))
    assert [item.frame for item in items if item.is_human] == [1]
    for frame in (2, 10, 25, COUNT):
        assert np.allclose(shown(items, frame), truth(frame), atol=2.5)


def test_the_overlay_shows_the_boxes_on_every_frame(clip: Path, tmp_path: Path) -> None:
    track(clip, "--box", "20,60,40,40@0", "--overlay", str(tmp_path / "out.mp4"))
    with Video(tmp_path / "out.mp4") as drawn, Video(clip) as plain:
        assert (len(drawn), drawn.width, drawn.height) == (COUNT, *SIZE)
        for at in (5, 30):
            changed = np.abs(drawn.read(at).astype(int) - plain.read(at)).max(axis=2) > 60
            left = 20 + STEP * at
            assert changed[60:100, left - 3 : left + 4].any(axis=1).mean() > 0.8  # along the box's left edge
            assert not changed[110:].any()  # nothing is drawn elsewhere


def test_tracks_and_labels_apply_to_the_prompts_after_them(clip: Path) -> None:
    words = "--track a --label Car --box 20,60,40,40@0 --track b --label Ball --point 100,80@20 --not 200,20@20"
    regions = track(clip, *words.split())["predictions"][0]["result"]
    assert [(r["id"], r["value"]["labels"], r["meta"]["track_id"]) for r in regions] == [
        ("a", ["Car"], 1),
        ("b", ["Ball"], 2),
    ]
    assert regions[1]["value"]["sequence"][0]["frame"] == 21
    assert not any(item.is_human for item in parse_keyframes(regions[1]["value"]["sequence"]))


def test_span_and_direction_are_kept_to(clip: Path) -> None:
    words = "--box 80,60,40,40@20 --span 10..30 --direction both"
    (region,) = track(clip, *words.split())["predictions"][0]["result"]
    items = list(parse_keyframes(region["value"]["sequence"]))
    assert (items[0].frame, items[-1].frame, items[-1].enabled) == (11, 30, False)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("", 2, "no prompt: add --box"),
        ("--box 1,2,3@0", 2, "write it as X,Y,W,H@F"),
        ("--box 1,2,3,4", 2, "the source frame is missing: write it as X,Y,W,H@F"),
        ("--box 1,2,0,4@0", 2, "is empty"),
        ("--point a,b@0", 2, "write it as X,Y@F"),
        ("--not 5,5@0", 1, "add a positive point"),
        ("--mask gone.png@0", 2, "gone.png cannot be read as an image"),
        ("--text dog", 1, "by words"),
        ("--text dog@99", 1, "frame 99 is outside the span 0..40"),
        ("--text dog@x", 2, "write it as PHRASE"),
        ("--text dog,", 2, "write it as PHRASE"),
        ("--text @3", 2, "write it as PHRASE"),
        ("--text dog,cat --text cat@3", 2, "the phrase cat is given twice"),
        ("--like 1,2,3,4@0", 1, "by words or examples"),
        ("--like 1,2,3@0", 2, "write it as X,Y,W,H@F"),
        ("--like 1,2,3,0@0", 2, "the box is empty"),
        ("--like 1,2,3,4", 2, "the source frame is missing"),
        ("--like 1,2,3,4@99", 1, "frame 99 is outside the span 0..40"),
        ("--unlike 1,2,3,4@0", 2, "its frame has no --like: add one there"),
        ("--like 1,2,3,4@0 --unlike 1,2,3,4@5", 2, "its frame has no --like: add one there"),
        ("--text a,b --like 1,2,3,4@0", 2, "only one phrase, without a frame"),
        ("--text a@3 --like 1,2,3,4@0", 2, "only one phrase, without a frame"),
        ("--like 1,2,3,4@0 --label B --box 1,2,3,4@0 --like 1,2,3,4@0 --label B --text b --like 5,5,5,5@1", 1, "words"),
        ("--track a --like 1,2,3,4@0", 2, "--track a has no --box"),
        ("--box 1,2,30,40@400", 1, "frame 400"),
        ("--box 20,60,40,40@5 --span 10..20", 1, "outside the span 10..20"),
        ("--box 1000,60,40,40@5", 1, "outside the picture"),
        ("--device tpu --box 20,60,40,40@5", 2, "choose auto, cpu"),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(clip, capsys, words: str, code: int, sentence: str) -> None:
    assert main(["track", str(clip), "--engine", "opencv", *words.split()]) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert str(clip.parent) not in error


@pytest.mark.parametrize("flag", ["-o", "--overlay"])
@pytest.mark.parametrize("name", ["", "gone/out"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_computed(
    clip, tmp_path: Path, monkeypatch, capsys, flag: str, name: str
) -> None:
    engine = StubEngine()
    stubbed(monkeypatch, engine)
    assert main(["track", str(clip), "--box", "20,60,40,40@0", flag, str(tmp_path / name)]) == 2
    assert "cannot be written: choose a file in an existing folder" in capsys.readouterr().err
    assert engine.frames == []


@pytest.mark.parametrize("engine", ["sam3", "auto"])
def test_without_sam3_the_choices_are_named(clip: Path, capsys, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["track", str(clip), "--engine", engine, "--box", "20,60,40,40@5"]) == 2
    assert "set engine: opencv" in capsys.readouterr().err


def test_a_file_that_is_no_video_is_one_sentence(tmp_path: Path, capsys) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    assert main(["track", str(path), "--engine", "opencv", "--box", "1,2,3,4@0"]) == 1
    assert "no video that can be decoded" in capsys.readouterr().err


def stubbed(monkeypatch: pytest.MonkeyPatch, engine: StubEngine) -> list[Settings]:
    """Every `track` gets this engine; the settings that it is loaded with."""
    seen: list[Settings] = []
    monkeypatch.setattr(engines, "load_engine", lambda settings: seen.append(settings) or engine)
    return seen


def spans(task: dict) -> list[tuple[str, int, int]]:
    """Class, first and last LS frame of each region."""
    return [
        (*region["value"]["labels"], *(region["value"]["sequence"][at]["frame"] for at in (0, -1)))
        for region in task["predictions"][0]["result"]
    ]


def test_words_find_objects_whenever_they_appear_each_under_its_phrase(clip: Path, monkeypatch) -> None:
    engine = StubEngine(answering={"red car": {"x": range(40), "y": range(9, 30)}, "person": {"z": range(5, 40)}})
    stubbed(monkeypatch, engine)
    assert spans(track(clip, "--text", "red  car, person")) == [
        ("red car", 1, 40),
        ("person", 6, 40),
        ("red car", 10, 30),
    ]
    assert (engine.sessions, engine.frames) == (1, list(range(40)))


@pytest.mark.parametrize(
    ("words", "first", "last"),
    [
        ("--text car@30", 31, 40),
        ("--text car --span 10..20", 11, 20),
        ("--text car --span 10..20 --direction backward", 11, 20),
        ("--text car@12 --span 10..20 --direction backward", 11, 13),
        ("--text car@12 --span 10..20 --direction both", 11, 20),
    ],
)
def test_words_are_looked_for_from_their_frame_on(clip: Path, monkeypatch, words: str, first: int, last: int) -> None:
    stubbed(monkeypatch, StubEngine(answering={"car": {"x": range(40)}}))
    assert spans(track(clip, *words.split())) == [("car", first, last)]


def test_what_is_seen_for_a_moment_is_no_object_unless_nobody_looked_on(clip: Path, monkeypatch) -> None:
    stubbed(monkeypatch, StubEngine(answering={"car": {"x": range(20, 22), "y": range(30, 40)}}))
    assert spans(track(clip, "--text", "car")) == [("car", 31, 40)]
    assert spans(track(clip, "--text", "car", "--span", "10..22")) == [("car", 21, 22)]
    monkeypatch.setenv("SAM3_BACKEND_MAX_FRAMES", "1")
    assert spans(track(clip, "--text", "car@30")) == [("car", 31, 32)]


def test_examples_find_their_kind_under_its_label_each_kind_on_its_own(clip: Path, monkeypatch) -> None:
    engine = StubEngine(
        answering={"like": {"x": range(40)}, "like Plug": {"y": range(40)}, "like nut": {"z": range(40)}}
    )
    stubbed(monkeypatch, engine)
    words = "--like 1,2,30,40@5 --label Plug --like 9,9,9,9@7 --unlike 200,9,9,9@7 --like 5,5,5,5@20 --text nut"
    task = track(clip, *words.split(), "--like", "8,8,8,8@3")
    assert spans(task) == [("Plug", 4, 40), ("like", 6, 40), ("Plug", 8, 40)]
    plug = (Exemplar(Box(9, 9, 18, 18)), Exemplar(Box(200, 9, 209, 18), positive=False))
    assert engine.searched == [
        Phrase("nut", 3, (Exemplar(Box(8, 8, 16, 16)),), "like nut"),
        Phrase("", 5, (Exemplar(Box(1, 2, 31, 42)),), "like"),
        Phrase("", 7, plug, "like Plug"),
        Phrase("", 20, (Exemplar(Box(5, 5, 10, 10)),), "like Plug"),
    ]


def test_examples_that_find_nothing_are_told(clip: Path, monkeypatch, capsys) -> None:
    stubbed(monkeypatch, StubEngine(answering={}))
    assert spans(track(clip, "--label", "Plug", "--like", "1,2,30,40@5")) == []
    assert "nothing found for like Plug" in capsys.readouterr().err


def test_a_span_may_end_behind_the_video(clip: Path, monkeypatch) -> None:
    stubbed(monkeypatch, StubEngine(answering={"car": {"x": range(40)}}))
    assert spans(track(clip, "--text", "car", "--span", "10..99")) == [("car", 11, 40)]
    assert spans(track(clip, "--text", "car", "--span", "10..99", "--direction", "backward")) == [("car", 11, 40)]


def test_a_box_is_kept_even_where_the_engine_sees_nothing(clip: Path, monkeypatch) -> None:
    stubbed(monkeypatch, StubEngine(seen=lambda frame: False))
    for frame in (4, COUNT - 1):
        (region,) = track(clip, "--box", f"20,60,40,40@{frame}")["predictions"][0]["result"]
        assert [item.frame for item in parse_keyframes(region["value"]["sequence"]) if item.is_human] == [frame + 1]


def test_words_boxes_and_labels_go_into_one_session(clip: Path, monkeypatch) -> None:
    engine = StubEngine(answering={"car": {"x": range(40)}, "dog": {"y": range(40)}})
    stubbed(monkeypatch, engine)
    words = "--text dog --label Car --track a --box 20,60,40,40@0 --text car@20 --label Ball --track b --box 9,9,9,9@20"
    task = track(clip, *words.split())
    assert spans(task) == [("Car", 1, 40), ("Ball", 21, 40), ("dog", 1, 40), ("Car", 21, 40)]
    assert [region["meta"]["track_id"] for region in task["predictions"][0]["result"]] == [1, 2, 3, 4]
    assert (engine.sessions, engine.frames) == (1, list(range(40)))


def test_what_was_tracked_and_where_it_was_lost_is_said(clip: Path, capsys) -> None:
    track(clip, "--label", "Car", "--box", "20,60,40,40@0")
    assert f"1 track, {COUNT} frames\nsam3-backend: Car: {COUNT} of {COUNT} frames\n" in capsys.readouterr().err
    track(clip, "--box", "20,60,40,40@2", "--span", "2..9")
    assert "object 1: 7 of 7 frames\n" in capsys.readouterr().err


def test_a_track_that_ends_says_where(clip: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("backend.engines.load_engine", lambda settings: StubEngine(seen=lambda frame: frame < 8))
    track(clip, "--label", "Car", "--box", "20,60,40,40@0")
    assert f"Car: 8 of {COUNT} frames, lost on frame 8\n" in capsys.readouterr().err


def test_words_that_find_nothing_are_told(clip: Path, monkeypatch, capsys) -> None:
    stubbed(monkeypatch, StubEngine(answering={"car": {"x": range(40)}, "dog": {}}))
    assert spans(track(clip, "--text", "dog, car")) == [("car", 1, 40)]
    assert "nothing found for dog" in capsys.readouterr().err


def test_the_flags_of_the_model_reach_the_engine_and_loading_is_told(clip: Path, monkeypatch, capsys) -> None:
    waiting = "waiting for its weights: the hub is silent"
    coming = ["loading", "loading", waiting, "ready"]

    class Loading(StubEngine):
        status = property(lambda self: coming.pop(0) if len(coming) > 1 else "ready", lambda self, value: None)

    monkeypatch.setattr("backend.commands.track._POLL_SECONDS", 0.01)
    seen = stubbed(monkeypatch, Loading())
    track(clip, "--model", "/models/sam3.pt", "--device", "cpu", "--box", "20,60,40,40@0")
    assert (seen[0].model_path, seen[0].device) == ("/models/sam3.pt", "cpu")
    said = [line for line in capsys.readouterr().err.splitlines() if "the model is" in line]
    assert [line.partition("the model is ")[2] for line in said] == ["loading", waiting]


def test_what_words_find_gets_a_new_id_in_every_file_and_what_was_shown_keeps_its_name(clip: Path, monkeypatch) -> None:
    stubbed(monkeypatch, StubEngine(answering={"car": {"x": range(40), "y": range(40)}}))
    words = ["--track", "a", "--box", "20,60,40,40@0", "--text", "car"]
    runs = [[region["id"] for region in track(clip, *words)["predictions"][0]["result"]] for _ in range(2)]
    assert [ids[0] for ids in runs] == ["a", "a"]
    found = [name for ids in runs for name in ids[1:]]
    assert len(set(found)) == 4
    assert all(re.fullmatch("[A-Za-z0-9]{10}", name) for name in found)


def known(task: dict) -> dict[str, tuple[str, int]]:
    """Class and number of each region."""
    regions = task["predictions"][0]["result"]
    return {one["id"]: (one["value"]["labels"][0], one["meta"]["track_id"]) for one in regions}


def test_a_run_into_the_file_that_is_there_keeps_ids_and_numbers(clip: Path, monkeypatch) -> None:
    answering = {"person": {"z": range(5, 40)}, "car": {"x": range(40), "y": range(9, 30)}}
    stubbed(monkeypatch, StubEngine(answering=answering))
    first = known(track(clip, "--text", "car"))
    assert [number for _, number in first.values()] == [1, 2]
    assert known(track(clip, "--text", "car", again=True)) == first
    more = known(track(clip, "--text", "person, car", again=True))
    assert first.items() <= more.items()
    assert [one for name, one in more.items() if name not in first] == [("person", 3)]
    assert known(track(clip, "--text", "person", again=True)) == dict(more.items() - first.items())


def test_a_box_keeps_its_name_and_takes_the_number_of_the_object_that_it_shows(clip: Path, monkeypatch) -> None:
    stubbed(monkeypatch, StubEngine(step=0, answering={"car": {"x": range(40), "y": range(40)}}))
    first = known(track(clip, "--text", "car"))
    (_, second) = first
    both = known(track(clip, "--label", "car", "--track", "a", "--box", "40,120,30,30@0", again=True))
    assert both == {"a": ("car", 2)}
    found = known(track(clip, "--text", "car", again=True))
    assert found["a"] == ("car", 2)
    assert [one for name, one in found.items() if name != "a"] == [("car", 3)]
    shown = known(track(clip, "--track", "a", "--label", "bus", "--box", "200,20,30,30@0", "--text", "car", again=True))
    assert (shown["a"], second in shown) == (("bus", 4), False)
    assert sorted(number for _, number in shown.values()) == [2, 3, 4]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "[1, {}]", '{"data": 1}', '[{"data": {"video": "U"}, "predictions": [{"result": 3}]}]', "\xff"],
)
def test_a_file_that_is_none_of_ours_is_written_over(clip: Path, monkeypatch, text: str) -> None:
    stubbed(monkeypatch, StubEngine(answering={"car": {"x": range(40)}}))
    (clip.parent / "tasks.json").write_bytes(text.encode("latin-1"))
    assert [*known(track(clip, "--text", "car", "--video-url", "U", again=True)).values()] == [("car", 1)]


def test_of_another_video_nothing_is_kept(clip: Path, monkeypatch) -> None:
    stubbed(monkeypatch, StubEngine(answering={"car": {"x": range(40)}, "dog": {"y": range(40)}}))
    first = known(track(clip, "--text", "dog, car"))
    other = known(track(clip, "--text", "car", "--video-url", "/data/other.mp4", again=True))
    assert [*other.values()] == [("car", 1)]
    assert not first.keys() & other.keys()


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        ("--track a --text car", "a"),
        ("--track 1 --text car", "1"),
        ("--track a --box 20,60,40,40@0 --track b --text car", "b"),
        ("--track b --text car --track a --box 20,60,40,40@0", "b"),
        ("--text car --track c", "c"),
    ],
)
def test_a_track_that_nothing_shows_is_refused(clip: Path, monkeypatch, capsys, words: str, unused: str) -> None:
    loaded = stubbed(monkeypatch, StubEngine(answering={"car": {"x": range(40)}}))
    assert main(["track", str(clip), *words.split()]) == 2
    assert f"--track {unused} has no --box, --point or --mask after it" in capsys.readouterr().err
    assert not loaded


def test_words_between_a_track_and_its_box_are_fine(clip: Path, monkeypatch) -> None:
    stubbed(monkeypatch, StubEngine(answering={"car": {"x": range(40)}}))
    words = "--track a --label Car --text car --box 20,60,40,40@0"
    assert spans(track(clip, *words.split())) == [("Car", 1, 40), ("Car", 1, 40)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--box 20,60,40,40@5 --span 10..20", "frame 5 is outside the span 10..20"),
        ("--text car --span 50..60", "the span 50..60 is outside the video, which has 40 frames"),
        ("--text car@40", "frame 40 is outside the span 0..40"),
    ],
)
def test_no_model_is_loaded_for_frames_that_are_not_there(clip, monkeypatch, capsys, words: str, sentence: str) -> None:
    loaded = stubbed(monkeypatch, StubEngine(answering={}))
    assert main(["track", str(clip), *words.split()]) == 1
    assert sentence in capsys.readouterr().err
    assert not loaded


def test_no_model_is_loaded_for_a_file_that_is_no_video(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    loaded = stubbed(monkeypatch, StubEngine(answering={}))
    assert main(["track", str(path), "--text", "car"]) == 1
    assert not loaded


@pytest.mark.parametrize("show", [True, False])
def test_the_engine_makes_masks_only_where_something_becomes_of_them(clip, tmp_path, monkeypatch, show: bool) -> None:
    monkeypatch.setenv("SAM3_BACKEND_SHOW_MASKS", str(show))
    loaded = stubbed(monkeypatch, StubEngine())
    words = ["track", str(clip), "--box", "20,60,40,40@0"]
    for more in ([], ["-o", str(tmp_path / "tasks.json")], ["--overlay", str(tmp_path / "out.mp4")]):
        assert main([*words, *more]) == 0
    assert [settings.show_masks for settings in loaded] == [False, show, show]


def test_masks_lie_beside_the_tasks_where_they_are_asked_for(clip: Path, tmp_path: Path, monkeypatch) -> None:
    stubbed(monkeypatch, StubEngine(step=STEP, masks=True, answering={"car": {"x": range(9, 30)}}))
    words = ["track", str(clip), "--track", "a", "--box", "20,60,40,40@0", "--text", "car"]
    words += ["-o", str(tmp_path / "tasks.json")]
    monkeypatch.setenv("SAM3_BACKEND_SHOW_MASKS", "true")
    assert main(words) == 0
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    shown, found = (region["id"] for region in task["predictions"][0]["result"])
    masks = read_sidecar(tmp_path / "tasks.json")
    assert {region: sorted(some) for region, some in masks.items()} == {shown: [*range(40)], found: [*range(9, 30)]}
    assert [mask_bounds(masks["a"][frame]) for frame in (0, 20)] == [(20, 60, 60, 100), (80, 60, 120, 100)]
    # Those of an earlier run are not taken for a later one's.
    monkeypatch.setenv("SAM3_BACKEND_SHOW_MASKS", "false")
    assert main(words) == 0
    assert [one.name for one in tmp_path.iterdir()] == ["tasks.json"]


@pytest.mark.parametrize("show", [True, False])
def test_the_overlay_shows_masks_where_they_are_asked_for(clip: Path, tmp_path: Path, monkeypatch, show: bool) -> None:
    monkeypatch.setenv("SAM3_BACKEND_SHOW_MASKS", str(show))
    stubbed(monkeypatch, StubEngine(step=STEP, masks=True))
    track(clip, "--box", "20,60,40,40@0", "--overlay", str(tmp_path / "out.mp4"))
    with Video(tmp_path / "out.mp4") as drawn, Video(clip) as plain:
        for at in (5, 30):
            inside = np.s_[70:90, 20 + STEP * at + 10 : 20 + STEP * at + 30]
            half = np.add(plain.read(at)[inside], (230, 159, 0)) // 2
            expected = half if show else plain.read(at)[inside]
            assert np.abs(drawn.read(at)[inside].astype(int) - expected).mean() < 12
