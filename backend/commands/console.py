"""What commands tell the person at the terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from backend.errors import BackendError, where

OK, WARN, FAIL = "ok", "warn", "FAIL"


def tell(sentence: str) -> None:
    """A line on standard error, where it mixes with no result."""
    print(f"sam3-backend: {sentence}", file=sys.stderr)


class Report:
    """The lines of `doctor`. `failed`: how many of them are failures."""

    def __init__(self) -> None:
        self.failed = 0

    @contextmanager
    def check(self, name: str) -> Iterator[Callable[..., None]]:
        """A check, given what tells of it: a sentence, and a mark unless it is ok. What is raised is its failure."""
        say = partial(self._say, name)
        try:
            yield say
        except BackendError as error:
            say(str(error), FAIL)
        except Exception as error:
            say(f"broken off by a fault of the backend's own, {where(error)}: report this line to its authors", FAIL)

    def _say(self, name: str, sentence: str, mark: str = OK) -> None:
        self.failed += mark == FAIL
        print(f"{mark:<4}  {name}: {' '.join(sentence.split())}", flush=True)
