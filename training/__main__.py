"""Train the shapes checkpoint: `python -m training`. After an interruption, run it again to resume.

`--refine CHECKPOINT` trains the detector of a trained checkpoint further, and leaves its other parts as they are.

It takes about two hours on two cores. The vision encoder is trained first, on both. Then detector and tracker are
trained in parallel, on one core each; neither changes the encoder. FOLDER/*.jsonl contains the metrics of each stage,
FOLDER/curves.png plots them, and FOLDER/shapes is the result, in the hub's layout.
"""

import argparse
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from training import backbone, detector, stages, tracker
from training.calibration import calibrate
from training.curves import draw
from training.model import save

STEPS = {backbone.NAME: 1500, detector.NAME: 3100, tracker.NAME: 3600}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages that are not complete."""
    parser = argparse.ArgumentParser(prog="training", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--seed", type=int, default=0)
    for name, default in STEPS.items():
        parser.add_argument(f"--{name}-steps", type=int, default=default, metavar="N")
    parser.add_argument("--refine", type=Path, metavar="CHECKPOINT")
    options = parser.parse_args(arguments)
    steps = {name: getattr(options, f"{name}_steps") for name in STEPS}
    if options.refine:
        refined = stages.refine(options.folder, options.refine, options.seed, steps[detector.NAME])
        calibrate(refined, options.seed)
        save(refined, options.folder / "shapes")
        return 0
    stages.encode(options.folder, options.seed, steps[backbone.NAME])
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=stages.train, args=(name, options.folder, options.seed, steps[name]))
        for name in (detector.NAME, tracker.NAME)
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # Otherwise the two processes would continue.
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()
        draw(options.folder, list(STEPS))
    if any(process.exitcode for process in processes):
        return 1
    model = stages.assembled(options.folder, options.seed)
    calibrate(model, options.seed)
    save(model, options.folder / "shapes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
