"""Output of the commands."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from backend.errors import BackendError, where
from backend.jobs.job import Job

OK, WARN, FAIL = "ok", "warn", "FAIL"


def print_message(message: str) -> None:
    """Print a line to standard error, so that standard output has results only."""
    print(f"sam3-backend: {message}", file=sys.stderr)


def format_count(number: int, noun: str) -> str:
    """A number and a noun, as in "1 task" and "2 tasks"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def summarize(verb: str, noun: str, done: int, failed: int) -> str:
    """The last line of a command, as in "prepared: 3 tasks; not prepared: 1 task"."""
    line = f"{verb}: {format_count(done, noun)}"
    return f"{line}; not {verb}: {format_count(failed, noun)}" if failed else line


def describe_running(jobs: Mapping[str, Job]) -> str:
    """What runs now, for a progress line; empty: nothing does.

    Args:
        jobs: by what people call them.
    """
    running = {name: job for name, job in jobs.items() if job.state == "running"}
    speed = f"{sum(job.throughput.fps for job in running.values()):.1f} frames/s"
    for name, job in running.items():
        done, total = job.progress()
        return f"{len(running)} at once, {speed}" if len(running) > 1 else f"{name}: {done}/{total}, {speed}"
    return ""


class Report:
    """The lines of `doctor`.

    Attributes:
        failed: number of failed checks.
    """

    def __init__(self) -> None:
        self.failed = 0

    @contextmanager
    def check(self, name: str) -> Iterator[Callable[..., None]]:
        """Run a check; an error makes it fail.

        Yields:
            A function that prints a line of the check: its text, and a mark if it is not OK.
        """
        say = partial(self._print, name)
        try:
            yield say
        except BackendError as error:
            say(str(error), FAIL)
        except Exception as error:
            say(f"internal error, {where(error)}: please report this line", FAIL)

    def _print(self, name: str, text: str, mark: str = OK) -> None:
        self.failed += mark == FAIL
        print(f"{mark:<4}  {name}: {' '.join(text.split())}", flush=True)
