"""The log's newest lines about each job, for the status page."""

import logging
import re
import time
from collections import deque

from backend.recent_values import RecentValues

_MAX_JOBS, _MAX_LINES = 512, 20
_JOB = re.compile(r"\bjobs? (\d+)\b")


class JobLog(logging.Handler):
    """Keeps the lines that name a job; lines of earlier processes are in the log only."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: RecentValues[deque[str]] = RecentValues(_MAX_JOBS)
        logging.getLogger("backend").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line, with its time and level."""
        text = " ".join(record.getMessage().split())
        if match := _JOB.search(text):
            number = int(match[1])
            lines = self._lines.get(number) or deque(maxlen=_MAX_LINES)
            clock = time.strftime("%H:%M:%S", time.localtime(record.created))
            lines.append(f"{clock} {record.levelname.lower()}: {text}")
            self._lines.put(number, lines)

    def lines(self, number: int) -> list[str]:
        """The lines about a job, oldest first."""
        return list(self._lines.get(number) or ())

    def close(self) -> None:
        """Listen no longer."""
        logging.getLogger("backend").removeHandler(self)
        super().close()
