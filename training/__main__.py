"""Train the shapes checkpoint: `python -m training`. Stopped at any time, the same command goes on.

Two cores take about two hours. The vision encoder is trained first, with both; then detector and tracker side by side,
with one each, since both leave the encoder as it is. Every figure of every stage is in FOLDER/*.jsonl, and drawn in
FOLDER/curves.png; the result is FOLDER/shapes, a folder in the hub's layout.
"""

import argparse
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from training import backbone, detector, stages, tracker
from training.curves import draw
from training.model import save

STEPS = {backbone.NAME: 1500, detector.NAME: 3100, tracker.NAME: 3600}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is not trained yet."""
    parser = argparse.ArgumentParser(prog="training", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--seed", type=int, default=0)
    for name, steps in STEPS.items():
        parser.add_argument(f"--{name}-steps", type=int, default=steps, metavar="N")
    options = parser.parse_args(arguments)
    asked = {name: getattr(options, f"{name}_steps") for name in STEPS}
    stages.encode(options.folder, options.seed, asked[backbone.NAME])
    context = multiprocessing.get_context("spawn")
    beside = [
        context.Process(target=stages.train, args=(name, options.folder, options.seed, asked[name]))
        for name in (detector.NAME, tracker.NAME)
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # Or the two would go on alone.
    try:
        for process in beside:
            process.start()
        for process in beside:
            process.join()
    finally:
        for process in beside:
            process.terminate()
        draw(options.folder, list(STEPS))
    if any(process.exitcode for process in beside):
        return 1
    save(stages.assembled(options.folder, options.seed), options.folder / "shapes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
