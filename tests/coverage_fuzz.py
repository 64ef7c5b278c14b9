"""Feeds a parser of `tests.fuzz` with mutations, of which atheris keeps those that reach new code.

python -m tests.coverage_fuzz NAME --runs N [--seed N]; the exit code is 0 if nothing crashed.
"""

import argparse
import json
import logging
import random
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["backend"]):
    from backend.errors import BackendError
    from tests import fuzz

_PLAIN_SHARE = 0.2
"""Of the mutations that are atheris' own."""


def main() -> None:
    """Fuzz until the runs are over or the parser crashes; atheris ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=fuzz.TARGETS)
    parser.add_argument("--runs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable()
    target, seeds = fuzz.TARGETS[options.name], fuzz.CORPUS[options.name]

    def feed(data: bytes) -> None:
        text = data.decode(errors="surrogatepass" if _is_text(data) else "replace")
        if options.name == "request" and not _is_request(text):
            return
        with suppress(BackendError):
            target(text)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        text = data.decode(errors="replace")
        if options.name == "request" and _is_request(text):
            return fuzz.mutate_json(text, seeds, rng).encode(errors="replace")[:max_size]
        if rng.random() < _PLAIN_SHARE or not text:
            return bytes(atheris.Mutate(data, max_size))
        return fuzz.mutate_text(text, seeds, rng).encode(errors="surrogatepass")[:max_size]

    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(seeds):
            (Path(folder) / str(number)).write_bytes(text.encode(errors="surrogatepass"))
        words = [sys.argv[0], f"-atheris_runs={options.runs}", f"-seed={options.seed}", "-max_len=20000", folder]
        atheris.Setup(words, feed, custom_mutator=mutate)
        atheris.Fuzz()


def _is_text(data: bytes) -> bool:
    try:
        data.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _is_request(text: str) -> bool:
    """Whether it is JSON of the form that the routes check before a request is parsed."""
    try:
        body = json.loads(text)
        return bool(body["tasks"]) and isinstance(body["params"]["context"], dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


if __name__ == "__main__":
    main()
