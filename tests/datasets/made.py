"""Clips and tasks for datasets."""

import json
from pathlib import Path
from typing import Any

from backend.cli import main
from tests.clips import CLIPS, Clip, write_clip
from tests.labelstudio.bodies import drawn, keyframe

SIZE = (192, 128)
MOVING = drawn(keyframe(3, 10), keyframe(8, 30, enabled=False), meta={"track_id": 4})
ROTATED = drawn(keyframe(1, 60, 50, 20, 10, rotation=30), id="r", labels=("Person",), meta={"track_id": 2})


def write_tasks(folder: Path, *kinds: str, regions: tuple[dict[str, Any], ...] = (MOVING,)) -> list[Clip]:
    """A clip of each kind of `CLIPS`, and `tasks.json` with a task of these regions for each."""
    clips, tasks = [], []
    for number, kind in enumerate(kinds, start=1):
        name, options = CLIPS[kind]
        clip = write_clip(folder / f"{number}{Path(name).suffix}", **options)
        data = {"video": str(clip.path), "fps": 25, "set": "val" if number == 1 else "train"}
        tasks.append({"id": number, "data": data, "annotations": [{"id": 1, "result": list(regions)}]})
        clips.append(clip)
    (folder / "tasks.json").write_text(json.dumps(tasks))
    return clips


def export(folder: Path, form: str, *words: str, out: str = "out") -> int:
    """Run the command on `tasks.json`."""
    data = ["--data-dir", str(folder / "data")]
    return main(
        ["project", "export", str(folder / "tasks.json"), "--format", form, "-o", str(folder / out), *data, *words]
    )


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
