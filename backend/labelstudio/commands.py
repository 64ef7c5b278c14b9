"""What an annotator types: the line for words, and each region's own. Frames are Label Studio's, both included."""

import re
from dataclasses import dataclass

from backend.errors import BadRequest
from backend.tracks.frame_range import ALL_FRAMES, LAST_FRAME, FrameRange
from backend.tracks.prompts import Direction

MARK = "▶ "
"""How lines of ours begin."""
COMMANDS = "back · both · to B · from A to B · N frames · stop · redo"


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A line of words.

    Attributes:
        phrases: what to find, each once.
        at: the one frame to look at; None: track.
        within: where to track.
        redo: nothing that was found before counts.
    """

    phrases: tuple[str, ...]
    at: int | None = None
    within: FrameRange = ALL_FRAMES
    redo: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A region's line. Digests of saved jobs contain its `repr`: do not rename the class or its fields.

    Attributes:
        direction: beyond the outer keyframes; None: as the settings say.
        within: the frames to track; all others stay as they are.
        frames: how far to go beyond the outer keyframes; None: as the settings say.
        stop: track no more; what was computed stays.
        redo: track everything between a person's keyframes anew.
    """

    direction: Direction | None = None
    within: FrameRange = ALL_FRAMES
    frames: int | None = None
    stop: bool = False
    redo: bool = False

    @property
    def is_limited(self) -> bool:
        """It names the frames to track."""
        return self.frames is not None or self.within != ALL_FRAMES


TRACK = Command()
"""No line: what `t` says."""

_END = re.compile(r"^(.*?)(?:(?:^|\s+)(?:at\s+(\d+)|from\s+(\d+)\s+to\s+(\d+)))?((?:^|\s+)redo)?$", re.IGNORECASE)
_COMMANDS = re.compile(r"(back|both|stop|redo)|(?:from (\d+) )?to (\d+)|([1-9]\d*) frames?", re.IGNORECASE)


def parse_text_query(line: str) -> TextQuery:
    """Read a line of words: `PHRASE[, PHRASE…] [at F | from A to B] [redo]`.

    Raises:
        BadRequest: it names nothing to find, or no frames.
    """
    found = _END.match(" ".join(line.split()))
    what, at, first, last, redo = found.groups() if found else (line, None, None, None, None)
    phrases = tuple(dict.fromkeys(phrase.strip() for phrase in what.split(",")))
    if not all(phrases):
        raise BadRequest("a phrase is empty: write what to find, as in: red car, person")
    return TextQuery(
        phrases, _frame(at) if at else None, _range(first, last) if first and last else ALL_FRAMES, redo is not None
    )


def parse_command(line: str) -> Command:
    """Read a region's line.

    Raises:
        BadRequest: it is none of the commands.
    """
    found = _COMMANDS.fullmatch(" ".join(line.split()))
    if not found:
        raise BadRequest(f'"{line.strip()[:40]}" is no command; there are: {COMMANDS}')
    word, first, last, frames = found.groups()
    match (word or "").casefold():  # "ſtop" is "stop" to the expression, too
        case "back":
            return Command(direction="backward")
        case "both":
            return Command(direction="both")
        case "stop":
            return Command(stop=True)
        case "redo":
            return Command(redo=True)
    if frames:
        return Command(frames=_frame(frames))
    return Command(within=_range(first or "1", last))


def typed_lines(lines: object) -> str | None:
    """What a text control asks: its last line, unless that is one of ours."""
    written = _written(lines)
    return written[-1] if written and not written[-1].startswith(MARK) else None


def person_lines(lines: object) -> list[str]:
    """A person's lines of a text control."""
    return [line for line in _written(lines) if not line.startswith(MARK)]


def _written(lines: object) -> list[str]:
    listed = lines if isinstance(lines, list) else [lines]
    return [line for line in listed if isinstance(line, str)]


def _frame(text: str) -> int:
    frame = int(text[:12])
    if not 1 <= frame <= LAST_FRAME:
        raise BadRequest(f"there is no frame {text[:12]}: Label Studio's frames start at 1")
    return frame


def _range(first: str, last: str) -> FrameRange:
    start, stop = _frame(first), _frame(last)
    if start > stop:
        raise BadRequest(f"from {start} to {stop} holds no frame: write the smaller number first")
    return FrameRange(start, stop)
