"""`sam3-backend project export` and `import`: files, a small Label Studio, real clips."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend import shapes
from backend.cli import main
from backend.formats.mask_matching import mask_bounds
from backend.formats.mask_sidecar import read_sidecar, sidecar_path, write_sidecar
from backend.formats.registry import FORMATS, NAMES
from backend.formats.rle import decode_rle
from backend.tracks.masks import Rle
from tests.clips import write_clip
from tests.fakes import FakeVideo, StubEngine
from tests.formats.judged import as_tracker, hota, in_sequence_folder
from tests.formats.made import SIZE, kept, shown, task
from tests.labelstudio.bodies import CONFIG, body, drawn, keyframe
from tests.labelstudio.studio import PROJECT, Studio

REGION = drawn(keyframe(3, 10), keyframe(8, 30, enabled=False), meta={"track_id": 4})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=12, size=(96, 64)).path


def export(source: Path | int, form: str, out: Path, *words: str) -> int:
    given = ["--project", str(source)] if isinstance(source, int) else [str(source)]
    data = ["--data-dir", str(out.parent / "data")]
    return main(["project", "export", *given, "--format", form, "-o", str(out), *data, *words])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("form", [name for name in NAMES if name not in ("mots", "davis")])
def test_a_file_is_exported(tmp_path: Path, capsys, form: str) -> None:
    out = tmp_path / "out"
    assert export(kept(tmp_path, task(REGION)), form, out, "--size", "640x360") == 0
    assert out.is_dir() == (form in FORMATS and FORMATS[form].is_folder)
    assert "out: 1 tasks" in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "tasks.json"]


@pytest.mark.parametrize("form", ["mots", "davis"])
def test_tracks_without_masks_are_told(tmp_path: Path, capsys, form: str) -> None:
    assert export(kept(tmp_path, task(REGION)), form, tmp_path / "out", "--size", "640x360") == 2
    assert "task 7: not exported: none of its tracks has masks" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["tasks.json"]


def filled(box: Sequence[float]) -> Rle:
    """The mask of a whole box."""
    (x0, y0, x1, y1), mask = np.round(box).astype(int), np.zeros(SIZE[::-1], bool)
    mask[y0:y1, x0:x1] = True
    return Rle.from_mask(mask)


def mots(folder: Path, size: tuple[int, int]) -> dict[tuple[int, int], Rle]:
    """What was written, by track and frame."""
    lines = [line.split(" ") for file in folder.glob("*/gt/gt.txt") for line in file.read_text().splitlines()]
    found = {(int(line[1]) % 1000, int(line[0]) - 1): decode_rle(line[5], *size[::-1]) for line in lines}
    assert len(found) == len(lines)
    return found


def test_masks_beside_the_file_are_written(tmp_path: Path, capsys) -> None:
    file = kept(tmp_path, task(REGION, drawn(keyframe(1, 60), id="other")))
    masks = {frame: filled(box) for frame, box in shown(REGION).items() if frame < 6}
    # What is of no frame, no place or no region of it is nobody's.
    strange = {0: masks[2], 7: filled([0, 0, 9, 9])}
    write_sidecar(file, {REGION["id"]: masks | strange, "gone": masks})
    assert export(file, "mots", tmp_path / "out", "--size", "640x360") == 0
    assert mots(tmp_path / "out", SIZE) == {(4, frame): mask for frame, mask in masks.items()}
    told = capsys.readouterr().err
    assert "1 tracks have no masks and are not in mots" in told
    assert "2 other boxes have no matching mask" in told


@pytest.mark.parametrize("form", NAMES)
def test_only_formats_of_masks_read_them(tmp_path: Path, capsys, form: str) -> None:
    file = kept(tmp_path, task(REGION))
    sidecar_path(file).write_text("{")
    is_masked = form in ("mots", "davis", "coco-vid", "youtube-vis")
    assert export(file, form, tmp_path / "out", "--size", "640x360") == is_masked
    assert ("tasks.masks.json is not a file of masks written by track" in capsys.readouterr().err) == is_masked


def test_masks_of_a_project_come_from_the_jobs_of_a_server_at_work(
    studio: Studio, make_service, tmp_path: Path, capsys
) -> None:
    """Whatever the regions are called by now: the one in the middle of a track was dragged away, one was split."""
    small, last = (320, 180), 100
    service = make_service(
        StubEngine(masks=True), FakeVideo(100, 25, *small), show_masks=True, data_dir=tmp_path / "data"
    )
    data = {"video": "/data/upload/7/gone.mp4", "fps": 25}

    def at(frame: int, y: float, **more: object) -> dict:
        return keyframe(frame, 5 + (frame - 1) / 3.2, y, **more)

    high = [at(1, 10), at(49, 10), keyframe(50, 80, 80), at(51, 10), at(last, 10, enabled=False)]
    regions = [
        drawn(*high, id="renamed", meta={"track_id": 1}),
        drawn(at(1, 60), at(40, 60, enabled=False), id="early", meta={"track_id": 8}),
        drawn(at(41, 60), at(last, 60, enabled=False), id="late", meta={"track_id": 9}),
    ]
    number = studio.add_task(data, annotations=[{"id": 1, "result": regions}])
    for prompt in (drawn(at(1, 10), id="a"), drawn(at(1, 60), id="b")):
        asked = body(prompt, id=number, data=data)
        service.predict(asked["tasks"], asked["params"]["context"], CONFIG, str(PROJECT))
    assert export(PROJECT, "mots", tmp_path / "out", "--size", "320x180", "--no-video") == 0
    found = mots(tmp_path / "out", small)
    frames = {1: {*range(100)} - {49}, 8: {*range(40)}, 9: {*range(40, 100)}}
    assert found.keys() == {(track, frame) for track, some in frames.items() for frame in some}
    for (track, frame), mask in found.items():
        assert mask_bounds(mask)[:2] == (16 + frame, 18 if track == 1 else 108)
    assert "1 other boxes have no matching mask" in capsys.readouterr().err
    # Another task with the same numbers, of another Label Studio's.
    studio.tasks[number]["data"] = {**data, "video": "/data/upload/7/other.mp4"}
    assert export(PROJECT, "mots", tmp_path / "none", "--size", "320x180", "--no-video") == 2


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square and a star that were tracked by the shapes checkpoint with `track`; the file of tasks."""
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tracked")
    recipe = replace(shapes.EASY, size=(160, 90), frames=8, things=(2, 2), twins=0.0, strays=0.0)
    clip = shapes.Clip(shapes.HELD_OUT + 9, recipe)
    clip.save(folder / "clip.mp4")
    words = []
    for name, (x0, y0, x1, y1) in zip("ab", clip[0].boxes.tolist(), strict=True):
        words += ["--track", name, "--label", "Person", "--box", f"{x0},{y0},{x1 - x0},{y1 - y0}@0"]
    model = ["--engine", "sam3", "--model", "shapes", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAM3_BACKEND_SHOW_MASKS", "true")
        assert main(["track", str(folder / "clip.mp4"), *model, *words, "-o", str(folder / "tasks.json")]) == 0
    return folder / "tasks.json"


def in_front(masks: Sequence[Rle]) -> np.ndarray:
    """Which mask is seen at each pixel, from 1 on: the smaller one lies in front."""
    picture = np.zeros((masks[0].height, masks[0].width), int)
    for number, mask in sorted(enumerate(masks, start=1), key=lambda item: -item[1].area):
        picture[mask.to_mask()] = number
    return picture


@pytest.mark.slow
def test_what_was_tracked_with_masks_is_exported_as_it_was_kept_and_trackeval_reads_it(
    tracked: Path, tmp_path: Path
) -> None:
    masks = read_sidecar(tracked)
    both = [masks["a"], masks["b"]]
    assert [len(some) for some in both] == [8, 8]
    for form in ("mots", "davis", "coco-vid", "youtube-vis"):
        assert export(tracked, form, tmp_path / form, "--predictions") == 0
    pictures = sorted((tmp_path / "davis" / "Annotations").glob("*/*.png"))
    assert len(pictures) == 8
    for frame, path in enumerate(pictures):
        seen = in_front([some[frame] for some in both])
        assert seen.any()
        assert (np.array(Image.open(path)) == seen).all()
        for number in (1, 2):
            line = mots(tmp_path / "mots", (160, 90)).get((number, frame), Rle.from_mask(np.zeros_like(seen, bool)))
            assert (line.to_mask() == (seen == number)).all()
    found = json.loads((tmp_path / "coco-vid").read_text())
    frames = {one["id"]: one["frame_id"] for one in found["images"]}
    for one in found["annotations"]:
        mask = both[one["instance_id"] - 1][frames[one["image_id"]]]
        assert one["segmentation"] == {"size": [90, 160], "counts": mask.counts.tolist()}
        assert one["area"] == mask.area
    for one in json.loads((tmp_path / "youtube-vis").read_text())["annotations"]:
        counts = [segmentation["counts"] for segmentation in one["segmentations"]]
        assert counts == [mask.counts.tolist() for _, mask in sorted(both[one["track_id"] - 1].items())]
    as_tracker(tmp_path / "mots", tmp_path / "trackers")
    truth = in_sequence_folder(tmp_path / "mots")
    assert hota("mots", tmp_path / "mots", tmp_path / "trackers", **truth) == {"pedestrian": pytest.approx(1)}
    (tmp_path / "davids" / "ours").mkdir(parents=True)
    (tmp_path / "davids" / "ours" / "data").symlink_to(tmp_path / "davis" / "Annotations", target_is_directory=True)
    scores = hota("davis", tmp_path / "davis" / "Annotations", tmp_path / "davids")
    assert scores == {"general": pytest.approx(1)}


def test_what_track_writes_is_exported_by_its_own_video(tmp_path: Path, clip: Path, capsys) -> None:
    tracked = {"data": {"video": str(clip), "fps": 25}, "predictions": [{"result": [REGION]}]}
    file = kept(tmp_path, tracked)
    assert export(file, "csv", tmp_path / "a.csv") == 2
    assert "submit one, or add --predictions" in capsys.readouterr().err
    assert export(file, "csv", tmp_path / "a.csv", "--predictions", "--dense") == 0
    found = rows(tmp_path / "a.csv")
    assert [row["frame"] for row in found] == ["2", "3", "4", "5", "6", "7"]
    assert (found[0]["task"], found[0]["track"], found[0]["x0"]) == ("1", "4", "9.60")
    assert "Label Studio's" not in capsys.readouterr().err


def test_without_its_video_frames_are_the_pages_and_that_is_told(tmp_path: Path, capsys) -> None:
    file = kept(tmp_path, task(REGION), task(REGION, id=8))
    assert export(file, "csv", tmp_path / "a.csv", "--size", "640x360") == 0
    told = capsys.readouterr().err
    assert "2 tasks have Label Studio's frame numbers less one" in told
    assert [row["frame"] for row in rows(tmp_path / "a.csv")] == ["2", "7"] * 2
    assert export(file, "csv", tmp_path / "a.csv", "--size", "640x360", "--no-video") == 0
    assert "Label Studio's" not in capsys.readouterr().err


def test_tasks_that_cannot_be_exported_are_told_and_the_others_written(tmp_path: Path, capsys) -> None:
    file = kept(tmp_path, task(drawn(), id=3), task(REGION, id=4), task(id=5) | {"annotations": []})
    assert export(file, "csv", tmp_path / "a.csv", "--size", "640x360") == 1
    told = capsys.readouterr().err
    assert "1 tasks have no submitted annotation" in told
    assert "task 3: not exported: region fDqJ3pfXOd is skipped: the region has no keyframe" in told
    assert {row["task"] for row in rows(tmp_path / "a.csv")} == {"4"}


def test_a_task_that_a_format_cannot_hold_costs_no_other(tmp_path: Path, capsys) -> None:
    source = kept(tmp_path, task(REGION), {**task({**REGION, "id": "b", "meta": {"track_id": 300}}), "id": 8})
    masks = {frame: filled(box) for frame, box in shown(REGION).items()}
    write_sidecar(source, {REGION["id"]: masks, "b": masks})
    assert export(source, "davis", tmp_path / "out", "--size", "640x360", "--no-video") == 1
    said = capsys.readouterr().err
    assert "task 8: not exported: DAVIS stores track ids up to 254, and this video has track 300" in said
    assert "out: 1 tasks, 1 tracks" in said
    assert "davis does not hold classes, scores" in said
    assert len([*(tmp_path / "out" / "Annotations").iterdir()]) == 1


def test_a_region_that_cannot_be_read_is_named_and_the_others_are_written(tmp_path: Path, capsys) -> None:
    file = kept(tmp_path, task(drawn(id="gone"), REGION))
    assert export(file, "csv", tmp_path / "a.csv", "--size", "640x360") == 0
    assert "task 7: region gone is skipped: the region has no keyframe" in capsys.readouterr().err
    assert len(rows(tmp_path / "a.csv")) == 2


@pytest.mark.parametrize("form", ["csv", "mot"])
def test_nothing_is_left_behind_where_nothing_can_be_exported(tmp_path: Path, capsys, form: str) -> None:
    file = kept(tmp_path, task(drawn()))
    assert export(file, form, tmp_path / "out", "--dense") != 0
    assert [one.name for one in tmp_path.iterdir()] == ["tasks.json"]
    assert "task 7: " in capsys.readouterr().err


def test_two_tasks_of_one_number_are_told(tmp_path: Path, capsys) -> None:
    assert export(kept(tmp_path, task(REGION), task(REGION)), "csv", tmp_path / "a.csv") == 1
    assert "two tasks have the number 7" in capsys.readouterr().err


def test_frames_beyond_any_video_are_told(tmp_path: Path, capsys) -> None:
    far = drawn(keyframe(3), keyframe(50_000_000))
    assert export(kept(tmp_path, task(far)), "csv", tmp_path / "a.csv", "--size", "640x360") == 0
    assert "a keyframe is skipped: there is no frame 50000000" in capsys.readouterr().err


def test_an_unknown_size_is_told(tmp_path: Path, capsys) -> None:
    assert export(kept(tmp_path, task(REGION)), "mot", tmp_path / "out") == 2
    assert "give it as --size 1920x1080" in capsys.readouterr().err


def test_places_that_are_taken_are_told_before_anything_is_read(tmp_path: Path, capsys) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    for form, place, says in [
        ("mot", "full", "not an empty folder"),
        ("mot", "full/a", "not an empty folder"),
        ("csv", "full", "is a folder"),
        ("csv", "none/a.csv", "in an existing folder"),
    ]:
        assert export(tmp_path / "none.json", form, tmp_path / place) == 2
        assert says in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert export(kept(tmp_path, task(REGION)), "mot", tmp_path / "empty", "--size", "640x360") == 0


@pytest.mark.parametrize("words", [["--size", "640"], ["--size", "0x9"], ["--project", "3"], ["--format", "pascal"]])
def test_wrong_words_are_usage_errors(tmp_path: Path, capsys, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        export(kept(tmp_path, task(REGION)), "csv", tmp_path / "a.csv", *words)
    assert ended.value.code == 2


def test_a_project_is_exported_by_its_videos(studio: Studio, tmp_path: Path, clip: Path, capsys) -> None:
    video = studio.keep("clip.mp4", clip.read_bytes())
    for data in ({"video": video, "fps": 50}, {"video": "/data/upload/7/gone.mp4", "fps": 25}):
        region = {**REGION, "value": {**REGION["value"], "sequence": []}}
        frames = [{**one, "time": one["frame"] / data["fps"]} for one in REGION["value"]["sequence"]]
        region["value"]["sequence"] = frames
        studio.add_task(data, annotations=[{"id": 1, "result": [region]}])
    assert export(PROJECT, "csv", tmp_path / "a.csv", "--size", "96x64") == 0
    found = rows(tmp_path / "a.csv")
    # At 50 a second the third and the eighth frame of the page are the second and the fourth picture.
    assert [(row["task"], row["frame"]) for row in found] == [("1", "1"), ("1", "3"), ("2", "2"), ("2", "7")]
    assert "1 tasks have Label Studio's frame numbers less one" in capsys.readouterr().err
    assert studio.changes == []


def test_a_list_of_tasks_without_results_is_asked_for_one_by_one(studio: Studio, tmp_path: Path) -> None:
    number = studio.add_task({"video": "/none.mp4", "fps": 25}, annotations=[{"id": 1, "result": [REGION]}])
    stub = {**studio.tasks[number], "annotations": [{"id": 1}]}
    studio.places["/api/tasks"] = 200, json.dumps({"tasks": [stub], "total": 1}).encode()
    assert export(PROJECT, "csv", tmp_path / "a.csv", "--size", "96x64") == 0
    assert len(rows(tmp_path / "a.csv")) == 2


def test_a_project_needs_a_label_studio(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)
    assert export(PROJECT, "csv", tmp_path / "a.csv") == 2
    assert "set LABEL_STUDIO_URL" in capsys.readouterr().err


def load(path: Path, form: str, *words: str) -> int:
    data = ["--data-dir", str(path.parent / "data")]
    return main(["project", "import", str(path), "--project", str(PROJECT), "--format", form, *data, *words])


@pytest.mark.parametrize(
    ("form", "words", "place"),
    [
        ("mot", [], "out"),
        ("coco-vid", [], "out"),
        ("coco", [], "out/annotations/instances_train.json"),
        ("cvat", [], "out"),
        ("xanylabeling", [], "out"),
        ("yolo", ["--track-ids"], "out"),
    ],
)
def test_what_was_exported_is_imported_once(
    studio: Studio, tmp_path: Path, clip: Path, capsys, form: str, words: list[str], place: str
) -> None:
    video = studio.keep("clip.mp4", clip.read_bytes())
    studio.add_task({"video": "/other.mp4", "fps": 25})
    number = studio.add_task({"video": video, "fps": 25}, annotations=[{"id": 1, "result": [REGION]}])
    assert export(PROJECT, form, tmp_path / "out", *words) == 0
    assert load(tmp_path / place, form) == 0
    (posted,) = studio.predictions
    assert (posted["task"], posted["model_version"]) == (number, f"import-{Path(place).stem}")
    (region,) = posted["result"]
    assert (region["value"]["labels"], region["meta"]["track_id"]) == (["Car"], 4)
    assert [(one["frame"], one["enabled"]) for one in region["value"]["sequence"]] == [(3, True), (8, False)]
    assert [one["x"] for one in region["value"]["sequence"]] == pytest.approx([10, 30], abs=0.02)
    capsys.readouterr()
    assert load(tmp_path / place, form) == 0
    assert f"already has the prediction import-{Path(place).stem}" in capsys.readouterr().err
    assert len(studio.predictions) == 1


def sequence(folder: Path, name: str, text: str = "3,4,10,20,30,20,1,1,1\n") -> Path:
    file = folder / name / "gt" / "gt.txt"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return folder / name


def test_a_task_is_found_by_its_videos_name_or_said(studio: Studio, tmp_path: Path, clip: Path, capsys) -> None:
    for name in ("clip.mp4", "b.mp4", "b.mp4"):
        studio.add_task({"video": studio.keep(name, clip.read_bytes()), "fps": 25})
    assert load(sequence(tmp_path, "clip"), "mot", "--label", "Person") == 0
    assert load(sequence(tmp_path, "b"), "mot") == 1
    assert (
        "b: not imported: 2 tasks have a video of this name: choose the task with --task N" in capsys.readouterr().err
    )
    assert load(sequence(tmp_path, "c"), "mot") == 1
    assert "no task has a video of this name" in capsys.readouterr().err
    assert load(tmp_path / "c", "mot", "--task", "2") == 0
    assert [(one["task"], one["model_version"]) for one in studio.predictions] == [(1, "import-clip"), (2, "import-c")]
    assert studio.predictions[0]["result"][0]["value"]["labels"] == ["Person"]


def test_without_the_video_the_files_own_numbers_count(studio: Studio, tmp_path: Path, capsys) -> None:
    studio.add_task({"video": "/data/upload/7/gone.mp4", "fps": 25})
    folder = sequence(tmp_path, "gone")
    assert load(folder, "mot") == 1
    assert "give it as --size 1920x1080" in capsys.readouterr().err
    assert load(folder, "mot", "--size", "100x50") == 0
    assert "because the video cannot be read" in capsys.readouterr().err
    (keyframe,) = studio.predictions[0]["result"][0]["value"]["sequence"]
    assert (keyframe["frame"], keyframe["x"], keyframe["y"], keyframe["enabled"]) == (3, 10, 40, False)


def test_a_task_takes_one_video_of_a_file(studio: Studio, tmp_path: Path, capsys) -> None:
    studio.add_task({"video": "/a.mp4"})
    for name in ("a", "b"):
        sequence(tmp_path / "all", name)
    assert load(tmp_path / "all", "mot", "--task", "1") == 2
    assert "has 2 videos (a, b): import them one by one, or leave out --task" in capsys.readouterr().err


def test_another_video_and_another_config_are_told(studio: Studio, tmp_path: Path, clip: Path, capsys) -> None:
    studio.add_task({"video": studio.keep("clip.mp4", clip.read_bytes()), "fps": 25})
    (tmp_path / "labels.txt").write_text("Dog\n")
    assert load(sequence(tmp_path, "clip"), "mot") == 1
    assert 'the label "Dog" is not in the label config' in capsys.readouterr().err
    assert load(sequence(tmp_path, "late", "30,4,10,20,30,20,1,1,1\n"), "mot", "--task", "1", "--label", "Car") == 1
    assert "has 30 frames and the video 12: is it another one?" in capsys.readouterr().err
    assert studio.predictions == []
