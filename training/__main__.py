"""Train the shapes checkpoint: `python -m training`. After an interruption, run it again to resume.

`--refine CHECKPOINT` trains the detector of a trained checkpoint further, and leaves its other parts as they are.
`--outlines CHECKPOINT` does only the last stage, from a trained checkpoint: about 20 minutes.

It takes two and a half hours on two cores. The vision encoder is trained first, on both. Then detector and tracker
are trained in parallel, on one core each; neither changes the encoder. At last the tracker's masks are trained further,
on outlines. FOLDER/*.jsonl contains the metrics of each stage, FOLDER/curves.png plots them, and FOLDER/shapes is the
result, in the hub's layout.
"""

import argparse
import multiprocessing
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from training import backbone, detector, stages, tracker
from training.calibration import calibrate
from training.curves import draw
from training.model import save

STEPS = {backbone.NAME: 1500, detector.NAME: 3100, tracker.NAME: 3600, tracker.OUTLINES: 750}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; the exit code is 0, or 1 if a stage fails."""
    parser = argparse.ArgumentParser(prog="training", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--seed", type=int, default=0)
    for name, default in STEPS.items():
        parser.add_argument(f"--{name}-steps", type=int, default=default, metavar="N")
    trained = parser.add_mutually_exclusive_group()
    trained.add_argument("--refine", type=Path, metavar="CHECKPOINT")
    trained.add_argument("--outlines", type=Path, metavar="CHECKPOINT")
    options = parser.parse_args(arguments)
    steps = {name: getattr(options, f"{name.replace('-', '_')}_steps") for name in STEPS}
    folder, seed, checkpoint = options.folder, options.seed, options.outlines
    if options.refine:
        refined = stages.refine(folder, options.refine, seed, steps[detector.NAME])
        calibrate(refined, seed)
        save(refined, folder / "shapes")
        return 0
    if not checkpoint:
        if not _train_parts(folder, seed, steps):
            return 1
        checkpoint = folder / "by-cell"
        save(stages.assembled(folder, seed), checkpoint)
    stages.train(tracker.OUTLINES, folder, seed, steps[tracker.OUTLINES], checkpoint)
    draw(folder, list(STEPS))
    model = stages.with_outlines(folder, checkpoint)
    if not options.outlines:
        calibrate(model, seed)
    save(model, folder / "shapes")
    return 0


def _train_parts(folder: Path, seed: int, steps: Mapping[str, int]) -> bool:
    """Train the encoder, then detector and tracker in parallel; whether all were completed."""
    stages.encode(folder, seed, steps[backbone.NAME])
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=stages.train, args=(name, folder, seed, steps[name]))
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
    return not any(process.exitcode for process in processes)


if __name__ == "__main__":
    sys.exit(main())
