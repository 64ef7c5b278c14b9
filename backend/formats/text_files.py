"""Reads the text files of other tools."""

from pathlib import Path


def read_text(path: Path) -> str:
    """The text of a file: UTF-8 or UTF-16, with or without a byte-order mark, else Windows-1252.

    Raises:
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")
