"""Parses what an annotator types: text prompts and commands of a region. Frame ranges are LS frames, both inclusive."""

import re
from dataclasses import dataclass, field
from difflib import get_close_matches

from backend.errors import BadRequest
from backend.tracks.frame_range import ALL_FRAMES, LAST_FRAME, FrameRange
from backend.tracks.prompts import Direction

COMMANDS = "back · both · to B · from A to B · N frames · end N · resume · stop · redo · like · like WORDS · unlike"


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A text prompt.

    Attributes:
        phrases: what to find, without duplicates.
        at: the only frame to search; None: track.
        within: the frames to track.
        redo: ignore earlier results.
    """

    phrases: tuple[str, ...]
    at: int | None = None
    within: FrameRange = ALL_FRAMES
    redo: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A region's command. Digests of saved jobs contain its `repr`: do not rename the class or its fields.

    Attributes:
        direction: where to track beyond the outer keyframes; None: use the settings.
        within: the frames to track; all others are not changed.
        frames: how many frames to track beyond the outer keyframes; None: use the settings.
        stop: stop tracking; computed frames stay.
        redo: track all frames between a person's keyframes again.
        end: the last frame that shows the object; 0: that of the keyframe that a person set last.
        resume: track on after the end of the track.
        like: find every object of its kind as well; these words narrow the kind. None: do not.
        unlike: take the object away that `like` has found, and what is like it.
    """

    direction: Direction | None = None
    within: FrameRange = ALL_FRAMES
    frames: int | None = None
    stop: bool = False
    redo: bool = False
    end: int | None = field(default=None, repr=False)
    resume: bool = field(default=False, repr=False)
    like: str | None = field(default=None, repr=False)
    unlike: bool = field(default=False, repr=False)

    @property
    def is_limited(self) -> bool:
        """Whether the command limits the frames to track."""
        return self.frames is not None or self.within != ALL_FRAMES


TRACK = Command()
"""The default command, without a text: what the key `t` does."""

_END = re.compile(r"^(.*?)(?:(?:^|\s+)(?:at\s+(\d+)|from\s+(\d+)\s+to\s+(\d+)))?((?:^|\s+)redo)?$", re.IGNORECASE)
_COMMANDS = re.compile(
    r"(back|both|stop|redo|resume|unlike)|(?:from (\d+) )?to (\d+)|([1-9]\d*) frames?|(end)(?: (?:at )?(\d+))?"
    r"|like(?P<like> .+)?",
    re.IGNORECASE,
)
_COMMAND_WORDS = ("back", "both", "to", "from", "frames", "end", "resume", "stop", "redo", "like", "unlike")
_NEARLY_RANGE = re.compile(r"(.*?\S)\s+(\d+)\s*(?:to|-|\.\.)\s*(\d+)", re.IGNORECASE)
"""A phrase that ends like a range of frames."""
_NEARLY_AT = re.compile(r"(.*?\S)\s+(?:ta|att|on|in|frame|@)\s*(\d+)", re.IGNORECASE)


def parse_text_query(line: str) -> TextQuery:
    """Read a text prompt: `PHRASE[, PHRASE…] [at F | from A to B] [redo]`.

    Raises:
        BadRequest: a phrase is empty, or the frames are invalid.
    """
    match = _END.match(" ".join(line.split()))
    what, at, first, last, redo = match.groups() if match else (line, None, None, None, None)
    if not at and not first:
        _check_frames(what)
    phrases = tuple(dict.fromkeys(phrase.strip() for phrase in what.split(",")))
    if not all(phrases):
        raise BadRequest("a phrase is empty: write what to find, as in: red car, person")
    return TextQuery(
        phrases, _frame(at) if at else None, _range(first, last) if first and last else ALL_FRAMES, redo is not None
    )


def parse_command(line: str) -> Command:
    """Read a region's command.

    Raises:
        BadRequest: the command is unknown.
    """
    command = _COMMANDS.fullmatch(" ".join(line.split()))
    if not command:
        raise BadRequest(f'"{line.strip()[:40]}" is not a command{_suggestion(line)}; use one of: {COMMANDS}')
    word, first, last, frames, end, end_frame, words = command.groups()
    if end:
        return Command(end=_frame(end_frame) if end_frame else 0)
    match (word or "").casefold():  # the regular expression also matches "ſtop"
        case "back":
            return Command(direction="backward")
        case "both":
            return Command(direction="both")
        case "stop":
            return Command(stop=True)
        case "redo":
            return Command(redo=True)
        case "resume":
            return Command(direction="forward", resume=True)
        case "unlike":
            return Command(unlike=True)
    if frames:
        return Command(frames=_frame(frames))
    if not last:
        return Command(like=(words or "").strip())
    return Command(within=_range(first or "1", last))


def _check_frames(phrase: str) -> None:
    """Refuse a phrase that ends in misspelt frames: it would be searched for as it is.

    Raises:
        BadRequest: it does; the error has the right spelling.
    """
    if nearly := _NEARLY_RANGE.fullmatch(phrase):
        *words, last = nearly[1].split()
        words += [] if words and get_close_matches(last.casefold(), ["from"]) else [last]
        raise BadRequest(f'did you mean "{" ".join(words)} from {nearly[2]} to {nearly[3]}"?')
    if nearly := _NEARLY_AT.fullmatch(phrase):
        raise BadRequest(f'did you mean "{nearly[1]} at {nearly[2]}"?')


def _suggestion(line: str) -> str:
    """The command with its misspelt words replaced; empty: there is nothing like it."""
    words = []
    for word in line.split()[:6]:
        near = get_close_matches(word.casefold(), _COMMAND_WORDS, 1)
        words.append(near[0] if near and not word.isdecimal() else word)
    suggestion = " ".join(words)
    return f', did you mean "{suggestion}"?' if _COMMANDS.fullmatch(suggestion) else ""


def _frame(text: str) -> int:
    frame = int(text[:12])
    if not 1 <= frame <= LAST_FRAME:
        raise BadRequest(f"there is no frame {text[:12]}: Label Studio's frames start at 1")
    return frame


def _range(first: str, last: str) -> FrameRange:
    start, stop = _frame(first), _frame(last)
    if start > stop:
        raise BadRequest(f"from {start} to {stop} contains no frame: write the smaller number first")
    return FrameRange(start, stop)
