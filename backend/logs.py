"""How log lines are written: one line each, and nothing in them that could pass for another line or move a cursor."""

import logging
import re

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_MAX_LENGTH = 4000
"""Characters of a message."""


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # A traceback has lines of its own; what is in them must not begin a line.
        first, *rest = super().format(record).split("\n")
        return "\n".join([printable(first), *(f"    {printable(line)}" for line in rest)])


def printable(text: str) -> str:
    """The text without control characters, shortened if it is long."""
    shown = text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}…"
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", shown)


def set_up_logging(level: str) -> None:
    """Write log lines to stderr.

    Args:
        level: `debug`, `info`, `warning` or `error`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(_FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # At `debug` urllib3 logs addresses with their queries, which may hold a signature.
    logging.getLogger("urllib3").setLevel(logging.INFO)
