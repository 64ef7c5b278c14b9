"""trackeval on what was written."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import trackeval
from numpy.typing import NDArray
from trackeval.datasets import DAVIS, TAO, MotChallenge2DBox, MOTSChallenge, YouTubeVIS

DATASETS = {
    "mot": MotChallenge2DBox,
    "mots": MOTSChallenge,
    "coco-vid": TAO,
    "davis": DAVIS,
    "youtube-vis": YouTubeVIS,
}


def hota(name: str, truth: Path, trackers: Path, **settings: Any) -> dict[str, float]:
    """By class, over all sequences; arguments as of `scores`."""
    return {label: float(found["HOTA"].mean()) for label, found in scores(name, truth, trackers, **settings).items()}


def scores(name: str, truth: Path, trackers: Path, **settings: Any) -> dict[str, dict[str, NDArray[np.float64]]]:
    """By class, over all sequences: HOTA, DetA, AssA and others at IoUs of 0.05, 0.1, ..., 0.95.

    Args:
        trackers: a folder with one tracker's folder `ours/data`.
    """
    places = {"GT_FOLDER": str(truth), "TRACKERS_FOLDER": str(trackers), "TRACKERS_TO_EVAL": ["ours"]}
    dataset = DATASETS[name](places | {"PRINT_CONFIG": False} | settings)
    quiet = {"PRINT_RESULTS": False, "PRINT_CONFIG": False, "TIME_PROGRESS": False, "LOG_ON_ERROR": None}
    files = {"OUTPUT_SUMMARY": False, "OUTPUT_DETAILED": False, "PLOT_CURVES": False}
    evaluator = trackeval.Evaluator({"BREAK_ON_ERROR": True, "RETURN_ON_ERROR": False, **quiet, **files})
    found, _ = evaluator.evaluate([dataset], [trackeval.metrics.HOTA({"PRINT_CONFIG": False})])
    (of_tracker,) = found.values()
    combined = of_tracker["ours"]["COMBINED_SEQ"]
    return {label: found["HOTA"] for label, found in combined.items()}


def as_tracker(truth: Path, trackers: Path) -> None:
    """The ground truth's lines as a tracker's: MOTChallenge and MOTS keep those in `data/NAME.txt`."""
    data = trackers / "ours" / "data"
    data.mkdir(parents=True)
    for file in truth.glob("*/gt/gt.txt"):
        shutil.copy(file, data / f"{file.parent.parent.name}.txt")


def in_sequence_folder(truth: Path) -> dict[str, Any]:
    """Where MOTChallenge's readers look for our sequences."""
    return {"SKIP_SPLIT_FOL": True, "SEQMAP_FILE": os.fspath(truth / "seqmap.txt")}
