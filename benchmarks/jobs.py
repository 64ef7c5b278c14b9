"""Measures a worker, its queue and its storage: `python benchmarks/jobs.py`. The last line printed is one JSON object.

The engine is mostly a stub that only sleeps, so the figures show the cost of everything else.

load      16 clients send requests at once, first while the model loads, then with the queue full; `late` are
          the answers of /health after more than 1 s, of /setup after 3 s, of /predict 1 s after `response_timeout`.
          `floor_p99_ms`: the same for a bare Flask route with the same clients. `predict_over_budget_ms`:
          the 99th percentile of the time that /predict takes beyond `response_timeout`.
kills     the server or its worker is killed with SIGKILL at random moments, and a killed server is restarted
          (`restart_s`: the longest until it answers), while jobs of one video travel together: 950 times with the
          stub, 50 times with SAM3 and the shapes model. Accepted are the jobs whose /predict was answered with 200;
          when all has ended, what is on disk is compared with an undisturbed run; with SAM3, whose last digits depend
          on the company, with the same sets of jobs, computed once more. A frame that is computed again counts for the
          first kill after it was last computed; `max_recomputed` is of one kill and one job.
store     50 tracks found by text, on 100,000 frames: their size on disk, and the seconds to open the file and load
          them.
answers   50 tracks found by text, on 100,000 frames, whose job has ended: seconds until /predict is answered, the
          first time after a restart and once more; `answer_late_s` is beyond `response_timeout`.
ooms      jobs whose device runs out of memory every 40 frames, each asked again until it is done; `survived`: the
          worker never ended, and the results are those of a device that had room.
fairness  ten tasks always have jobs waiting, one of them ten times as many: Jain's index of their frames computed.
waiting   ten thousand batch jobs wait: the 99th percentile of adding another one and of listing 50 (`submit_ms`,
          `list_ms`), and the seconds of a restart (`restart_waiting_s`).
big_state states of 1 GB, and a worker that is killed: the job continued from one, and how much later than
          `response_timeout` /predict was answered meanwhile (99th percentile).
trouble   while jobs run, another process holds the database, the disk is full, then slow, and the clock is set 40 days
          ahead and back; then a part of the database is overwritten: accepted jobs that are not done in the end,
          whether /health told what there is to tell, and the 99th percentile of its answers meanwhile.
boundary  frames per second of an engine in this process and in a worker, in turns; `boundary_cost` is the loss.

.venv/bin/python benchmarks/jobs.py [--quick] [--parts load kills …]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.jobs_parts.in_process import boundary, fairness, ooms, waiting
from benchmarks.jobs_parts.kills import kills
from benchmarks.jobs_parts.load import load
from benchmarks.jobs_parts.requests import ROOT
from benchmarks.jobs_parts.saved_tracks import answers, store
from benchmarks.jobs_parts.trouble import big_state, trouble

PARTS: dict[str, Callable[[Path, bool], dict[str, Any]]] = {
    "load": load,
    "kills": kills,
    "store": store,
    "answers": answers,
    "ooms": ooms,
    "fairness": fairness,
    "waiting": waiting,
    "big_state": big_state,
    "trouble": trouble,
    "boundary": boundary,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="What one worker, its queue and its disk take.")
    parser.add_argument("--quick", action="store_true", help="fewer requests and kills: less than a minute")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    os.chdir(ROOT)  # where workers look for what makes their engine
    result: dict[str, Any] = {}
    for part in options.parts:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            result |= PARTS[part](Path(folder), options.quick)
        print(f"{part}: {time.perf_counter() - begin:.0f} s")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
