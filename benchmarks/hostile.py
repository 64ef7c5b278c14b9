"""Attacks a server on this machine's loopback addresses in ten ways, and checks that what is legitimate works.

Keys of the last line: `cases` that are hostile, `connections` to hosts that are refused, `leaks` of the token and of
signatures, `errors_500`, `hung` cases without an answer and threads that stay, `server_mb` and `decoder_mb`, the peaks
of memory, `legitimate_failed`; `downloads` of a new video that 64 requests ask for at once, `freed_s` until a download
that drips is gone after its job was cancelled, `delayed_s` by which four drips delay a good video; `fuzz_runs` of each
of four parsers, and `crashes`, errors other than those meant for clients.

.venv/bin/python benchmarks/hostile.py [--seed N] [--fuzz N] [--atheris PYTHON] [--quick]
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.labelstudio.frame_strip import SignedVideo, Signer
from tests import hostile
from tests.fuzz import TARGETS, run_target
from tests.hostile import ALLOWED, TOKEN, Case, Corpus, Handler, make_corpus, send
from tests.labelstudio.bodies import body, drawn, keyframe

SECONDS = 3.0
"""`limits.seconds` of the server: drips end then."""
ANSWER_SECONDS = 40.0
"""A case without an answer by then hangs."""
SECRETS = (TOKEN, "s1gned")


class Backend:
    """A server process, and the peaks of its and its decoders' memory."""

    def __init__(self, folder: Path, studio: str) -> None:
        self.folder, self.log = folder, folder / "log.txt"
        settings = {
            "LABEL_STUDIO_URL": studio,
            "LABEL_STUDIO_API_KEY": TOKEN,
            "LOG_LEVEL": "debug",
            "SAM3_BACKEND_MEDIA_ALLOW": ALLOWED,
            "SAM3_BACKEND_LIMITS_SECONDS": str(SECONDS),
            "SAM3_BACKEND_LIMITS_BYTES": str(64 << 20),
            "SAM3_BACKEND_RESPONSE_TIMEOUT": "0",
        }
        code = "import sys; from backend.cli import main; sys.exit(main(sys.argv[1:]))"
        words = [sys.executable, "-c", code, "serve", "--engine", "opencv", "--port", "0"]
        root = str(Path(__file__).resolve().parent.parent)
        self.process = subprocess.Popen(
            [*words, "--data-dir", str(folder / "data")],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": root, **settings},
            stdout=subprocess.PIPE,
            stderr=self.log.open("wb"),
            text=True,
        )
        line = self.process.stdout.readline() if self.process.stdout else ""
        self.port = int(line.rpartition(":")[2])
        self.url = f"http://127.0.0.1:{self.port}"
        self.signer = Signer(folder / "data" / "secret")
        self.decoder_mb, self.leaks = 0.0, 0
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._ended.set()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    @property
    def server_mb(self) -> float:
        """The peak of the server's memory."""
        return _peak(self.process.pid)

    @property
    def threads(self) -> int:
        """How many threads it has."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def frame(self, url: str) -> requests.Response:
        """The first frame of a video, which the server fetches, opens and decodes; asks again while it is busy."""
        path = f"{self.url}/frames/{self.signer.key(SignedVideo(url, 25.0))}/1.jpg"
        while True:
            response = requests.get(path, timeout=ANSWER_SECONDS)
            if response.status_code != 503 or "Retry-After" not in response.headers:
                return response
            time.sleep(0.2)

    def track(self, url: str, task: int) -> None:
        """Ask for a box to be tracked, in the background."""
        sent = body(drawn(keyframe(1)), id=task, data={"video": url, "fps": 25})
        requests.post(f"{self.url}/predict", json=sent, timeout=ANSWER_SECONDS)

    def jobs(self) -> dict[str, dict[str, Any]]:
        """The jobs by task."""
        found = requests.get(f"{self.url}/jobs", timeout=ANSWER_SECONDS).json()["jobs"]
        return {job["task"]: job for job in found}

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            for task in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
                with suppress(OSError):
                    for child in task.read_text().split():
                        command = Path(f"/proc/{child}/cmdline").read_bytes()
                        if b"backend.video." in command:
                            self.decoder_mb = max(self.decoder_mb, _peak(int(child)))
                            self.leaks += TOKEN.encode() in Path(f"/proc/{child}/environ").read_bytes()


def _peak(pid: int) -> float:
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


@contextmanager
def served(folder: Path) -> Iterator[tuple[Backend, Corpus]]:
    """A server and the corpus."""
    corpus = make_corpus(folder)
    backend = Backend(folder, corpus.studio.url)
    try:
        yield backend, corpus
    finally:
        backend.close()
        corpus.close()


def run_case(backend: Backend, case: Case) -> tuple[Case, int]:
    """A case and the status of its answer; 0: the connection was closed, -1: there was no answer in time."""
    try:
        if case.url:
            return case, backend.frame(case.url).status_code
        answer = send(backend.port, case.raw, ANSWER_SECONDS)
        return case, int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/") else 0
    except (requests.Timeout, TimeoutError):
        return case, -1


def attack(backend: Backend, corpus: Corpus, chosen: list[Case]) -> dict[str, Any]:
    """Run the cases, a few at a time."""
    assert backend.frame(next(case.url for case in chosen if case.is_legitimate and case.url)).status_code == 200
    before = backend.threads
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda case: run_case(backend, case), chosen))
    wrong = [(case, status) for case, status in done if status in (500, -1)]
    failed = [(case, status) for case, status in done if case.is_legitimate and status != 200]
    for case, status in [*wrong, *failed]:
        print(f"{case.kind}, {case.name}: {status}", file=sys.stderr)
    time.sleep(SECONDS + 1)
    hostile_cases = [case for case, _ in done if not case.is_legitimate]
    print(dict(Counter(case.kind for case in hostile_cases)), file=sys.stderr)
    return {
        "cases": len(hostile_cases),
        "connections": corpus.refused.connections,
        "leaks": _leaks(backend, corpus),
        "errors_500": sum(status == 500 for _, status in done),
        "hung": sum(status == -1 for _, status in done) + max(0, backend.threads - before - 2),
        "legitimate_failed": len(failed),
    }


def _leaks(backend: Backend, corpus: Corpus) -> int:
    """How often a secret is where it does not belong: at other hosts, in the log, in pages, in a decoder."""
    elsewhere = [*corpus.refused.seen, *corpus.allowed.seen]
    texts = [str(headers) for _, headers in elsewhere]
    texts += [
        requests.get(backend.url + path, timeout=ANSWER_SECONDS).text for path in ("/health", "/jobs", "/metrics")
    ]
    into = [headers for path, headers in corpus.studio.seen if path.startswith("/api/secret")]
    texts += [str(headers) for headers in into]  # a foreign server sent the request there
    log = backend.log.read_bytes()
    forged = sum(line.startswith(b"ERROR forged") for line in log.splitlines())
    found = sum(secret in text for text in texts for secret in SECRETS)
    return found + sum(secret.encode() in log for secret in SECRETS) + forged + backend.leaks


def count_downloads(backend: Backend, corpus: Corpus) -> int:
    """How often a new video is fetched that 64 requests ask for at once."""
    clip = (corpus.folder / "clip.mp4").read_bytes()

    def answer(handler: Handler) -> None:
        time.sleep(0.5)  # so that all requests are there before it is fetched
        handler.reply(200, clip)

    corpus.studio.answers["/new.mp4"] = answer
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda number: backend.track("/new.mp4", 1000 + number), range(64)))
    time.sleep(5)
    return sum(path == "/new.mp4" for path, _ in corpus.studio.seen)


def measure_drips(backend: Backend, corpus: Corpus) -> dict[str, float]:
    """How soon a cancelled drip is gone, and how long four of them delay a good video."""
    clip = (corpus.folder / "clip.mp4").read_bytes()
    for number in range(6):
        corpus.studio.answers[f"/good{number}.mp4"] = lambda handler: handler.reply(200, clip)
        corpus.studio.answers[f"/drip{number}.mp4"] = lambda handler: handler.drip(b"HTTP/1.1 200 OK\r\n\r\n")

    def seconds_until_fetched(number: int) -> float:
        started, path = time.monotonic(), f"/good{number}.mp4"
        backend.track(path, 2000 + number)
        while path not in {seen for seen, _ in corpus.studio.seen}:
            time.sleep(0.01)
        return time.monotonic() - started

    alone = seconds_until_fetched(0)
    for number in range(4):
        backend.track(f"/drip{number}.mp4", 3000 + number)
    together = seconds_until_fetched(1)
    backend.track("/drip4.mp4", 3004)
    while "/drip4.mp4" not in {seen for seen, _ in corpus.studio.seen}:
        time.sleep(0.01)
    number = backend.jobs()["3004"]["id"]
    cancelled = time.monotonic()
    requests.delete(f"{backend.url}/jobs/{number}", headers={"X-Sam3-Backend": "1"}, timeout=10)
    while not (gone := [at for path, at in corpus.studio.gone if path == "/drip4.mp4"]):
        if time.monotonic() > cancelled + 20:
            gone = [time.monotonic()]
            break
        time.sleep(0.01)
    return {"freed_s": round(max(0.0, gone[0] - cancelled), 2), "delayed_s": round(max(0.0, together - alone), 2)}


def fuzz_by_coverage(python: str, name: str, runs: int, seed: int) -> bool:
    """Whether a parser crashes, or not all runs were made."""
    words = [python, "-m", "tests.coverage_fuzz", name, "--runs", str(runs), "--seed", str(seed + 1)]
    root = str(Path(__file__).resolve().parent.parent)
    result = subprocess.run(
        words, cwd=root, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=False
    )
    is_clean = result.returncode == 0 and f"Done {runs} " in result.stderr
    if not is_clean:
        print(result.stderr[-4000:], file=sys.stderr)
    return not is_clean


def main() -> None:
    """Run everything, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer")
    parser.add_argument("--fuzz", type=int, default=50_000, help="runs of each parser")
    parser.add_argument(
        "--atheris", metavar="PYTHON", help="an interpreter with atheris and what the backend needs: coverage guides it"
    )
    parser.add_argument("--quick", action="store_true", help="a sixth of the hostile cases, and 500 runs")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (backend, corpus):
        hostile.DRIP_SECONDS = 30.0
        legitimate = [case for case in corpus.cases if case.is_legitimate]
        chosen = [case for case in corpus.cases if not case.is_legitimate][:: 6 if options.quick else 1]
        figures |= attack(backend, corpus, [*legitimate, *chosen])
        figures |= measure_drips(backend, corpus)
        figures["downloads"] = count_downloads(backend, corpus)
        figures |= {"server_mb": round(backend.server_mb), "decoder_mb": round(backend.decoder_mb)}
    runs = 500 if options.quick else options.fuzz
    if options.atheris:
        crashes = sum(fuzz_by_coverage(options.atheris, name, runs, options.seed) for name in TARGETS)
    else:
        crashes = sum(run_target(name, runs, options.seed) for name in TARGETS)
    print(json.dumps(figures | {"fuzz_runs": runs, "crashes": crashes}))


if __name__ == "__main__":
    main()
