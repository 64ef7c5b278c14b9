"""Many requests at once, while the model loads and with the queue full."""

import json
from pathlib import Path
from typing import Any

from benchmarks.jobs_parts.requests import ask_all, is_accepted, milliseconds, mixed
from benchmarks.jobs_parts.servers import Server, place_clip

WITHIN = 0.3
"""`response_timeout` of the server that is asked."""
LIMITS = {"/health": 1.0, "/setup": 3.0, "/predict": WITHIN + 1.0}


def load(folder: Path, quick: bool) -> dict[str, Any]:
    count = 1_000 if quick else 100_000
    place_clip(folder, 600)
    server = Server.stub(folder, seconds=0.01, load=count / 2500, within=WITHIN, frames=600)
    answers = ask_all(server.port, mixed(count))
    server.close()
    health = [one for one in answers if one[0] == "/health"]
    floor = Server("serve_floor()", folder / "floor")
    bare = ask_all(floor.port, [("/health", None)] * (len(health) // 2))
    floor.close()
    for path in LIMITS:
        of = [one for one in answers if one[0] == path]
        longest = max(seconds for _, seconds, _, _ in of)
        print(f"{path:9} {len(of):6} asked, p99 {milliseconds(one[1] for one in of):7} ms, longest {longest:.3f} s")
    return {
        "requests": len(answers),
        "late": sum(seconds > LIMITS[path] for path, seconds, _, _ in answers),
        "errors": sum(status not in (200, 503) or (status, path) == (503, "/setup") for path, _, status, _ in answers),
        "busy": sum(one[0] == "/predict" and not is_accepted(one) for one in answers),
        "while_loading": sum(json.loads(text)["model"] != "ready" for _, _, status, text in health if status == 200),
        "health_p99_ms": milliseconds(one[1] for one in health),
        "floor_p99_ms": milliseconds(one[1] for one in bare),
        "predict_over_budget_ms": milliseconds(
            max(seconds - WITHIN, 0.0) for path, seconds, _, _ in answers if path == "/predict"
        ),
    }
