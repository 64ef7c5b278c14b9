"""Ultralytics' SAM3VideoPredictor on a film, for `engine_gpu.py --peer PYTHON`, whose interpreter runs this file.

It is under the AGPL: nothing else here imports it. Its weights are random. The only argument is a JSON object: `film`,
`boxes`, `warm`, `device` and `threads`. The last line printed is one as well: `seconds` of a frame after `warm` frames,
and peak `memory_gib`, on the device if it is a GPU.
"""

import importlib
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    """Track, and print the figures."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    sam: Any = importlib.import_module("ultralytics.models.sam")
    is_gpu = options["device"] != "cpu"
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "sam3.pt"
        torch.save({"model": {}}, weights)  # nothing is loaded over what the model starts with
        predictor = sam.SAM3VideoPredictor(
            overrides={
                "model": str(weights),
                "device": options["device"],
                "quantize": 16 if is_gpu else None,
                "task": "segment",
                "mode": "predict",
                "imgsz": 1008,
                "save": False,
                "verbose": False,
            }
        )
        predictor.setup_model(verbose=False)
    if not is_gpu:
        torch.set_num_threads(options["threads"])
    results = predictor(source=options["film"], bboxes=options["boxes"], stream=True)
    for _ in range(options["warm"]):
        next(results)
    if is_gpu:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    timed = sum(1 for _ in results)
    if is_gpu:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - begin) / timed
    peak = torch.cuda.max_memory_allocated() if is_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps({"seconds": seconds, "memory_gib": round(peak / 2**30, 2)}))


if __name__ == "__main__":
    main()
