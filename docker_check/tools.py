"""What the checks share: Docker's commands, and the clip's shapes."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backend.demo import check, clip
from backend.demo.processes import DemoError
from backend.tracks.geometry import Box, box_iou

ROOT = Path(__file__).resolve().parent.parent
SIZE = (clip.WIDTH, clip.HEIGHT)
PATIENCE = 300.0


def say(text: str) -> None:
    """Print progress to standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def docker(*words: str) -> str:
    """The output of a docker command.

    Raises:
        DemoError: it failed; the message is the end of its output.
    """
    run = subprocess.run(["docker", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise DemoError(f"docker {' '.join(words[:4])} failed: {' '.join(run.stderr.split())[-500:]}")
    return run.stdout


def wait_for(what: str, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until the condition returns something true, and return that.

    Raises:
        DemoError: it took too long.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise DemoError(f"{what} took longer than {seconds:.0f} s")


def drawn(name: str) -> dict[str, Any]:
    """A box on one of the clip's shapes, as the page sends it."""
    box = Box(*clip.truth()[name][0])
    return check.drawn_region(name.lower(), name, box, SIZE, clip.FRAMES, clip.FPS)


def overlaps(region: Mapping[str, Any], name: str) -> list[float]:
    """The IoU with the truth on ten frames; 0 where there is no box."""
    truth, found = clip.truth()[name], []
    for index in np.linspace(0, clip.FRAMES - 1, check.CHECKED_FRAMES).round().astype(int):
        box = check.shown(region["value"]["sequence"], int(index) + 1)
        found.append(0.0 if box is None else float(box_iou(np.array(box) / 100 * np.tile(SIZE, 2), truth[index])))
    return found
