"""Which video and frame a picture's file name stands for."""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"(.*?)[-_. ]?(\d{1,12})")


def split_picture_name(stem: str) -> tuple[str, str] | None:
    """The name before the number at the end, which may be empty, and the number's digits; None: there is none."""
    match = _NUMBER.fullmatch(stem)
    return (match[1], match[2]) if match else None


def number_frames(digits: Sequence[str]) -> list[int]:
    """Frames, from 0, of the pictures of one video.

    Numbers that are filled up with zeros count from 0, as in our exports and in X-AnyLabeling's folders; others count
    from 1, as in the files of `yolo track save_txt`.
    """
    first = 0 if any(text.startswith("0") for text in digits) else 1
    return [int(text) - first for text in digits]
