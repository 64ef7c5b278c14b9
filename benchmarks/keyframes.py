"""Selects the keyframes of generated tracks: measures how many and how fast, and checks every frame.

50 tracks of 10,000 frames in a picture of 1920 x 1080: 15 parked (1.5 px of jitter on every edge), 15 vehicles and 10
pedestrians (0.3 px), 10 sports players (0.5 px), kept at IoU >= 0.95. The number depends mostly on the jitter: the mix
checks the method and does not predict real videos. Prints one JSON line:

seconds: for all 50 tracks. track_ms: the slowest of them; track_ms_median: the middle one.
kept, fold: keyframes, and how many times fewer than frames.
optimal: whether 1,000 short tracks get as few as a search over all pairs of frames finds.
frames_checked: frames at random whose boxes were compared, each by the rule as it is written out here and, where node
    and Label Studio are installed, by the code of Label Studio's page: as many as labelstudio_frames says.
violations: frames that either of them finds below the bound.

.venv/bin/python benchmarks/keyframes.py [--frames 10000] [--checks 1000000] [--short 1000] [--quick]
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.labelstudio.keyframe import boxes_to_percent, percent_corners
from backend.tracks.geometry import Boxes
from backend.tracks.keyframe_selection import BoxRun, select_fewest

BOUND = 0.95
PICTURE = (1920, 1080)
MIX = {"parked": 15, "vehicle": 15, "pedestrian": 10, "sports": 10}
JITTER = {"parked": 1.5, "vehicle": 0.3, "pedestrian": 0.3, "sports": 0.5}
PAGE = (
    Path(__file__).resolve().parent.parent / ".venv-labelstudio/lib/python3.11/site-packages/web/dist/apps/labelstudio"
)


def track(kind: str, seed: int, frames: int) -> Boxes:
    """Shape (frames, 4), percent x y width height, rounded as sent."""
    rng = np.random.default_rng([list(MIX).index(kind), seed])
    rows = np.arange(frames)

    def drift(period: int, scale: float) -> NDArray[np.float64]:
        """Smooth noise of standard deviation `scale`, uncorrelated after about `period` frames."""
        kernel = np.exp(-0.5 * (np.arange(-4 * period, 4 * period + 1) / period) ** 2)
        noise = rng.normal(0, scale, frames + 8 * period)
        return np.convolve(noise, kernel / np.sqrt((kernel**2).sum()), "valid")

    if kind == "parked":
        x, y = np.full((2, frames), rng.uniform(300, 800, (2, 1)))
        width = np.full(frames, rng.uniform(215, 245))
        height = width * rng.uniform(0.6, 0.75)
    elif kind == "vehicle":
        scale = np.exp(drift(200, 0.4))
        width, height = 200 * scale, 130 * scale
        x, y = 960 + np.cumsum(drift(80, 4)), 540 + np.cumsum(drift(80, 1.5))
    elif kind == "pedestrian":
        scale, step = np.exp(drift(100, 0.3)), 2 * np.pi * rows / rng.uniform(24, 32)
        width, height = 70 * scale * (1 + 0.2 * np.sin(step)), 180 * scale * (1 + 0.015 * np.sin(2 * step))
        x, y = 960 + np.cumsum(drift(20, 1.5)), 540 + np.cumsum(drift(20, 0.5))
    else:
        scale = np.exp(drift(60, 0.3))
        width, height = 90 * scale * np.exp(drift(6, 0.2)), 170 * scale * np.exp(drift(8, 0.1))
        x, y = 960 + np.cumsum(drift(8, 6)), 540 + np.cumsum(drift(8, 3))
    edges = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    return boxes_to_percent(edges + rng.normal(0, JITTER[kind], (frames, 4)), *PICTURE)


def iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Of boxes x y width height, row by row: the rule, written again."""
    sides = [
        np.maximum(0, np.minimum(a[:, n] + a[:, n + 2], b[:, n] + b[:, n + 2]) - np.maximum(a[:, n], b[:, n]))
        for n in (0, 1)
    ]
    common = sides[0] * sides[1]
    return np.asarray(common / (a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - common))


def shown(boxes: Boxes, chosen: list[int], rows: NDArray[np.int64]) -> Boxes:
    """What the rows show of the chosen ones: each number on its own goes in a straight line."""
    keys = np.array(chosen)
    right = np.searchsorted(keys, rows).clip(1)
    first, last = keys[right - 1], keys[right]
    share = ((rows - first) / (last - first))[:, None]
    return np.asarray(boxes[first] + (boxes[last] - boxes[first]) * share)


def fewest(boxes: Boxes) -> int:
    """By trying every pair of frames on every frame between."""
    counts = [1]
    for j in range(1, len(boxes)):
        good = [
            i for i in range(j) if (iou(shown(boxes, [i, j], np.arange(i, j + 1)), boxes[i : j + 1]) >= BOUND).all()
        ]
        counts.append(1 + min(counts[i] for i in {*good, j - 1}))
    return counts[-1]


_SCRIPT = r"""
const fs = require('fs'), [page, folder] = process.argv.slice(2);
const text = fs.readFileSync(page, 'utf8');
// What reads a shape stands between two models of the page's bundle; the library around it only hands that out.
const model = text.indexOf('.model("VideoRectangleRegionModel"');
const start = text.indexOf(';', text.lastIndexOf('compose("VideoRegionModel"', model)) + 1;
const stop = text.indexOf('.actions(', model);
const library = text.slice(0, model).match(/=(\w+)\.(\w+)$/);
const pick = text.slice(start, stop).match(/return (\w+)\(e\.props,/)[1];
const picks = text.match(new RegExp('const (' + pick + '=\\(e,t\\)=>Object\\.fromEntries\\([^,]*,[^,]*\\)\\)),'))[1];
const region = {}, add = make => (Object.assign(region, make(region)), keep), keep = {volatile: add, views: add};
new Function(library[1], `const ${picks};${text.slice(start, stop)}`)({[library[2]]: {model: () => keep}});
const tracks = JSON.parse(fs.readFileSync(folder + '/tracks.json'));
const out = new Float64Array(4 * tracks.reduce((sum, track) => sum + track.frames.length, 0));
let at = 0;
for (const {sequence, frames} of tracks) {
  region.sequence = sequence;
  for (const frame of frames) {
    const box = region.getShape(frame);
    out[at++] = box.x; out[at++] = box.y; out[at++] = box.width; out[at++] = box.height;
  }
}
fs.writeFileSync(folder + '/shapes', Buffer.from(out.buffer));
"""


def in_page(tracks: list[tuple[Boxes, list[int], NDArray[np.int64]]]) -> list[Boxes] | None:
    """The shapes that the code of Label Studio's built page gives for the rows of each track; None without it."""
    node = shutil.which("node")
    pages = [page for page in PAGE.glob("*.js") if '.model("VideoRectangleRegionModel"' in page.read_text()]
    if not node or not pages:
        return None
    asked = [
        {
            "sequence": [
                {
                    "frame": row + 1,
                    "enabled": True,
                    "rotation": 0,
                    **dict(zip(("x", "y", "width", "height"), box, strict=True)),
                }
                for row, box in zip(chosen, boxes[chosen].tolist(), strict=True)
            ],
            "frames": (rows + 1).tolist(),
        }
        for boxes, chosen, rows in tracks
    ]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tracks.json").write_text(json.dumps(asked))
        (Path(folder) / "shapes.js").write_text(_SCRIPT)
        subprocess.run([node, f"{folder}/shapes.js", pages[0], folder], check=True)
        shapes = np.fromfile(Path(folder) / "shapes").reshape(-1, 4)
    return np.split(shapes, np.cumsum([len(rows) for _, _, rows in tracks])[:-1])


def run(boxes: Boxes) -> BoxRun:
    """As `thin` wants it."""
    return BoxRun.from_boxes(percent_corners(boxes))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--checks", type=int, default=1_000_000)
    parser.add_argument("--short", type=int, default=1_000)
    parser.add_argument("--quick", action="store_true", help="a few of everything")
    args = parser.parse_args()
    if args.quick:
        args.frames, args.checks, args.short = 500, 5_000, 20

    boxes = [track(kind, seed, args.frames) for kind, count in MIX.items() for seed in range(count)]
    runs = [run(rows) for rows in boxes]
    select_fewest(run(boxes[0][:100]), BOUND)  # compiles it
    chosen, times = [], []
    for one in runs:
        start = time.perf_counter()
        chosen.append(select_fewest(one, BOUND))
        times.append(time.perf_counter() - start)
    kept = sum(map(len, chosen))
    print(*(f"{name} {len(rows)}" for name, rows in zip(_names(), chosen, strict=True)), file=sys.stderr)

    rng = np.random.default_rng(0)
    checks = [rng.integers(0, args.frames, args.checks // len(boxes)) for _ in boxes]
    tracks = list(zip(boxes, chosen, checks, strict=True))
    wrong = [iou(shown(*each), each[0][each[2]]) < BOUND for each in tracks]
    pages = in_page(tracks)
    if pages is not None:
        wrong = [
            bad | (iou(page, each[0][each[2]]) < BOUND) for bad, page, each in zip(wrong, pages, tracks, strict=True)
        ]

    kinds = list(MIX)
    short = [track(kinds[seed % 4], 1000 + seed, int(rng.integers(2, 40))) for seed in range(args.short)]
    optimal = all(len(select_fewest(run(rows), BOUND)) == fewest(rows) for rows in short)
    checked = sum(map(len, checks))
    result = {
        "seconds": round(sum(times), 2),
        "kept": kept,
        "fold": round(len(boxes) * args.frames / kept, 2),
        "optimal": optimal,
        "frames_checked": checked,
        "violations": int(sum(bad.sum() for bad in wrong)),
        "track_ms": round(1000 * max(times), 1),
        "track_ms_median": round(1000 * float(np.median(times)), 1),
        "labelstudio_frames": 0 if pages is None else checked,
    }
    print(json.dumps(result))


def _names() -> list[str]:
    return [f"{kind}{seed}" for kind, count in MIX.items() for seed in range(count)]


if __name__ == "__main__":
    main()
