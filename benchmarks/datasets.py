"""Datasets as `project export` writes them: right pictures, foreign readers, speed, memory. Prints one JSON line.

pictures, pictures_wrong: pictures cut from clips of every container and timing, and those that are not the frame that
    Label Studio shows; each frame carries its number.
box_px: largest distance of an edge in a YOLO label from what the page shows, in pixels.
readers, readers_ok: programs of others that were there (see --readers), and those that read the datasets.
roundtrip_cvat: exported to CVAT's XML and imported again, every keyframe of the clips is the same.
zip_first_s: seconds until the export page's zip of the clips sends its first bytes.
speed_vs_ffmpeg: pictures a second over those of `ffmpeg`, each one process that cuts every frame of a 1280 x 720 clip
    as JPEG of about the same size; best of three in turns. Null without ffmpeg.
memory_mb: peak memory of an export of `frames` frames.
resumed_same: killed in the middle and started again, the folder has the same bytes.

.venv/bin/python benchmarks/datasets.py [--frames 20000] [--readers PYTHON ...] [--quick]
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.datasets.downloads import DatasetDownloads
from backend.datasets.options import DatasetOptions
from backend.formats.cvat_reader import read_cvat
from backend.formats.to_predictions import build_prediction
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.keyframe import NUMBERS, boxes_at, parse_keyframes
from backend.labelstudio.label_config import parse_label_config
from backend.labelstudio.videos import TaskVideos
from backend.settings import Settings
from backend.video import Video, VideoInfo
from backend.video.frame_clock import FrameClock
from benchmarks.video import noisy
from tests.clips import CLIPS, Clip, Misread, read_code, write_clip, write_clips
from tests.labelstudio.bodies import CONFIG, drawn, keyframe
from tests.labelstudio.studio import PROJECT, TOKEN, Studio

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-c", "import sys; from backend.cli import main; sys.exit(main())", "project", "export"]
REGION = drawn(keyframe(2, 10), keyframe(40, 60, 40, enabled=False))
READERS = {
    "ultralytics": """
from ultralytics.data.utils import check_det_dataset, verify_image_label
import glob
names = check_det_dataset(f"{folder}/yolo/data.yaml")["names"]
pictures = glob.glob(f"{folder}/yolo/images/*/*")
labels = [one.replace("/images/", "/labels/")[:-3] + "txt" for one in pictures]
checks = [verify_image_label((*one, "", False, len(names), 0, 0, False)) for one in zip(pictures, labels)]
assert pictures and all(check[0] for check in checks)""",
    "supervision-yolo": """
from supervision import DetectionDataset
yolo = f"{folder}/yolo"
assert len(DetectionDataset.from_yolo(f"{yolo}/images/train", f"{yolo}/labels/train", f"{yolo}/data.yaml"))""",
    "supervision-coco": """
from supervision import DetectionDataset
assert len(DetectionDataset.from_coco(f"{folder}/rf/train", f"{folder}/rf/train/_annotations.coco.json"))""",
    "datumaro-yolo": "import datumaro\nassert len(datumaro.Dataset.import_from(f'{folder}/yolo', 'yolo'))",
    "datumaro-coco": "import datumaro\nassert len(datumaro.Dataset.import_from(f'{folder}/coco', 'coco'))",
    "datumaro-mot": """
import datumaro, glob
mot = datumaro.Dataset.import_from(glob.glob(f"{folder}/mot/*/")[0], "mot_seq")
assert [one.name for one in mot.categories()[datumaro.AnnotationType.label]] == ["Car"]""",
    "datumaro-cvat": """
import datumaro, glob
video = datumaro.Dataset.import_from(glob.glob(f"{folder}/cvat/*.xml")[0], "cvat")
assert [one.name for one in video.categories()[datumaro.AnnotationType.label]] == ["Car"]
assert any(one.attributes["keyframe"] for item in video for one in item.annotations)""",
    "datasets": """
from datasets import load_dataset
rows = load_dataset("imagefolder", data_dir=f"{folder}/hf", cache_dir=f"{folder}/hf-cache")["train"]
assert rows[0]["image"].size and rows[0]["objects"]["names"] == ["Car"]""",
    "torchvision-voc": """
from torchvision.datasets import VOCDetection
voc = VOCDetection(f"{folder}/voc", year="2012", image_set="train")
assert "Car" in [one["name"] for one in voc[0][1]["annotation"]["object"]]""",
    "x-anylabeling": """
import glob, os
os.environ["QT_QPA_PLATFORM"] = "offscreen"
from anylabeling.views.labeling.label_file import LabelFile
files = [LabelFile(file) for file in glob.glob(f"{folder}/xanylabeling/*/*.json")]
assert {(shape.label, shape.shape_type) for file in files for shape in file.shapes} == {("Car", "rectangle")}""",
    "trackeval": """
import os, shutil, glob, trackeval
data = f"{folder}/trackers/ours/data"
os.makedirs(data, exist_ok=True)
for file in glob.glob(f"{folder}/mot/*/gt/gt.txt"):
    shutil.copy(file, f"{data}/{file.split('/')[-3]}.txt")
places = {"GT_FOLDER": f"{folder}/mot", "TRACKERS_FOLDER": f"{folder}/trackers", "SKIP_SPLIT_FOL": True}
places["SEQMAP_FILE"] = f"{folder}/mot/seqmap.txt"
mot = trackeval.datasets.MotChallenge2DBox({**places, "DO_PREPROC": False})
evaluator = trackeval.Evaluator({"BREAK_ON_ERROR": True, "RETURN_ON_ERROR": False, "PLOT_CURVES": False})
found, _ = evaluator.evaluate([mot], [trackeval.metrics.HOTA()])
assert found["MotChallenge2DBox"]["ours"]["COMBINED_SEQ"]["pedestrian"]["HOTA"]["HOTA"].mean() > 0.999""",
    "pycocotools": """
from pycocotools.coco import COCO
assert COCO(f"{folder}/coco/annotations/instances_train.json").anns""",
    "motmetrics": """
import motmetrics, glob
assert len(motmetrics.io.loadtxt(glob.glob(f"{folder}/mot/*/gt/gt.txt")[0], fmt="mot16"))""",
}


def write_tasks(folder: Path, clips: list[Clip], region: dict[str, Any]) -> None:
    """A file with a task for each clip."""
    tasks = [
        {"id": number, "data": {"video": str(clip.path), "fps": 25}, "annotations": [{"id": 1, "result": [region]}]}
        for number, clip in enumerate(clips, start=1)
    ]
    (folder / "tasks.json").write_text(json.dumps(tasks))


def start(folder: Path, out: str, *words: str) -> "subprocess.Popen[bytes]":
    """The command, started on the folder's tasks."""
    command = [*COMMAND, str(folder / "tasks.json"), "-o", str(folder / out), *words]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)


def export(folder: Path, out: str, *words: str) -> tuple[float, float]:
    """Seconds and MB of an export."""
    began, process = time.perf_counter(), start(folder, out, *words)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{out} was not exported")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def check_pictures(folder: Path, clips: list[Clip]) -> tuple[int, int, float]:
    """Pictures, wrong ones, and the largest error of a box in pixels."""
    export(folder, "checked", "--format", "yolo")
    count, wrong, error, keyframes = 0, 0, 0.0, parse_keyframes(REGION["value"]["sequence"])
    for number, clip in enumerate(clips, start=1):
        with Video(clip.path) as video:
            clock = FrameClock(video.times, video.end, 25)
        shown: dict[int, int] = {}
        for frame in range(2, min(clock.length, 40) + 1):
            shown.setdefault(clock.source_frame(frame), frame)
        for source, frame in shown.items():
            (path,) = (folder / "checked" / "images").glob(f"*/{number}-*_{source:06d}.jpg")
            count += 1
            try:
                wrong += read_code(np.asarray(cv2.imread(str(path)), np.uint8)) != clip.first + source
            except Misread:
                wrong += 1
            label = Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")
            x, y, width, height = map(float, label.read_text().split()[1:])
            # A key frame wins where several LS frames show the same picture.
            frame = 40 if clock.source_frame(40) == source else frame
            left, top, *sides = boxes_at(keyframes, np.array([frame]))[0] / 100
            expected = np.array([left, top, left + sides[0], top + sides[1]])
            found = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
            error = max(
                error, float((np.abs(found - expected) * [clip.width, clip.height, clip.width, clip.height]).max())
            )
    return count, wrong, error


def run_readers(folder: Path, pythons: list[str]) -> tuple[int, int]:
    """How many readers are there, and how many read the datasets."""
    export(folder, "rf", "--format", "coco", "--layout", "roboflow")
    for form in ("yolo", "coco", "mot", "cvat", "hf", "voc", "xanylabeling"):
        export(folder, form, "--format", form)
    states: dict[str, str] = {}
    for python in pythons:
        for name, code in READERS.items():
            script = f"import sys\nfolder = {str(folder)!r}\n{code}"
            result = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
            is_missing = "ModuleNotFoundError" in result.stderr
            if not is_missing:
                states[name] = "ok" if result.returncode == 0 else (result.stderr.splitlines() or ["?"])[-1]
    print(*(f"{name}: {state}" for name, state in states.items()), sep="\n", file=sys.stderr)
    return len(states), sum(state == "ok" for state in states.values())


def compare_ffmpeg(folder: Path, frames: int) -> float | None:
    """Our pictures a second over ffmpeg's."""
    clip = write_clip(folder / "film.mp4", frames=frames, size=(1280, 720), gop=60, bframes=2, draw=noisy)
    write_tasks(folder, [clip], drawn(keyframe(1)))
    if not shutil.which("ffmpeg"):
        return None

    def cut(quality: int) -> float:
        shutil.rmtree(folder / "ffmpeg", ignore_errors=True)
        (folder / "ffmpeg").mkdir()
        began = time.perf_counter()
        command = ["ffmpeg", "-loglevel", "error", "-i", str(clip.path), "-fps_mode", "passthrough", "-qmin", "1"]
        subprocess.run([*command, "-q:v", str(quality), str(folder / "ffmpeg" / "%06d.jpg")], check=True)
        return time.perf_counter() - began

    def size(name: str) -> int:
        return sum(path.stat().st_size for path in (folder / name).rglob("*.jpg"))

    ours, theirs = [export(folder, "film0", "--format", "yolo", "--pictures", "all")[0]], []
    sizes = {quality: (cut(quality), size("ffmpeg"))[1] for quality in (1, 2, 3)}
    quality = min(sizes, key=lambda one: abs(sizes[one] - size("film0")))
    for turn in range(1, 4):
        theirs.append(cut(quality))
        ours.append(export(folder, f"film{turn}", "--format", "yolo", "--pictures", "all")[0])
    return min(theirs) / min(ours)


def check_cvat(folder: Path, clips: list[Clip]) -> bool:
    """Whether keyframes come back from CVAT's XML."""
    export(folder, "roundtrip", "--format", "cvat")
    videos = {video.name: video for video in read_cvat(folder / "roundtrip")}
    config, expected = parse_label_config(CONFIG), parse_keyframes(REGION["value"]["sequence"])
    for number, clip in enumerate(clips, start=1):
        with Video(clip.path) as video:
            info = VideoInfo.from_video(video)
            clock = FrameClock(video.times, video.end, 25)
        (region,) = build_prediction(videos[f"{number}-{clip.path.stem}"], info, 25, config, Settings(), None)
        found = parse_keyframes(region["value"]["sequence"])
        # Where several LS frames show one picture, the first of them stands for it.
        shown = [(clock.source_frame(key.frame), [getattr(key, name) for name in NUMBERS]) for key in expected]
        if [(clock.source_frame(key.frame), [getattr(key, name) for name in NUMBERS]) for key in found] != shown:
            return False
    return True


def time_zip(folder: Path, clips: list[Clip]) -> float:
    """Seconds until a zip of the clips' dataset sends its first bytes, after it was planned."""
    with Studio(CONFIG) as studio:
        for clip in clips:
            data = {"video": studio.keep(clip.path.name, clip.path.read_bytes()), "fps": 25}
            studio.add_task(data, annotations=[{"id": 1, "result": [REGION]}])
        client = LabelStudioClient(studio.url, TOKEN)
        videos = TaskVideos(Settings(data_dir=folder / "data", label_studio_url=studio.url))
        downloads = DatasetDownloads(lambda project: client, videos, folder / "data")
        key = downloads.plan(PROJECT, "yolo", DatasetOptions(), False)["key"]
        began = time.perf_counter()
        _, parts = downloads.open(key)
        next(parts)
        seconds = time.perf_counter() - began
        for _ in parts:
            pass
    return seconds


def resume(folder: Path) -> bool:
    """Whether an export that was killed in the middle goes on to the same bytes."""
    export(folder, "whole", "--format", "yolo")
    total, process = len([*(folder / "whole").rglob("*.jpg")]), start(folder, "killed", "--format", "yolo")
    while process.poll() is None and len([*(folder / ".killed.part").rglob("*.jpg")]) < total / 2:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    export(folder, "killed", "--format", "yolo")
    whole, killed = (
        {path.relative_to(folder / out): path.read_bytes() for path in (folder / out).rglob("*") if path.is_file()}
        for out in ("whole", "killed")
    )
    return whole == killed


def main() -> None:
    """Run all, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000, help="of the clip whose export's memory is measured")
    parser.add_argument("--readers", nargs="*", default=[], metavar="PYTHON", help="interpreters that have readers")
    parser.add_argument("--quick", action="store_true", help="short clips")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = list(write_clips(folder, [*CLIPS][:4] if options.quick else [*CLIPS]).values())
        write_tasks(folder, clips, REGION)
        pictures, wrong, error = check_pictures(folder, clips)
        readers, readers_ok = run_readers(folder, [sys.executable, *options.readers])
        roundtrip, zip_first = check_cvat(folder, clips), time_zip(folder, clips)
        resumed = resume(folder)
        speed = compare_ffmpeg(folder, 20 if options.quick else 300)
        frames = 200 if options.quick else options.frames
        long = write_clip(folder / "long.mp4", times=(np.arange(frames) / 25).tolist(), size=(640, 360))
        write_tasks(folder, [long], drawn(keyframe(1), keyframe(frames, 50)))
        _, memory = export(folder, "long", "--format", "yolo", "--pictures", "all")
    result: dict[str, Any] = {
        "pictures": pictures,
        "pictures_wrong": wrong,
        "box_px": round(error, 3),
        "readers": readers,
    }
    result |= {"roundtrip_cvat": roundtrip, "zip_first_s": round(zip_first, 3)}
    result |= {"readers_ok": readers_ok, "speed_vs_ffmpeg": speed and round(speed, 2), "memory_mb": round(memory)}
    print(json.dumps({**result, "resumed_same": resumed}))


if __name__ == "__main__":
    main()
