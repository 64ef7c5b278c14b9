"""Reads a request with thousands of pictures one after another, so that no more than one is in memory."""

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any, Protocol

from backend.errors import BadRequest

_CHUNK_BYTES = 1 << 18
_MAX_STRING = 64 << 20
"""Bytes of one picture, as text."""
_SPACE = b" \t\r\n"
_FORM = 'the body must be a JSON object: {"model": …, "frames": ["data:image/jpeg;base64,…", …]}'


class ByteStream(Protocol):
    """What a request's body is read from."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


class UploadReader:
    """A JSON object whose field "frames" is a list of pictures as data URIs; other fields are texts and numbers.

    Args:
        stream: the request's body.
        max_bytes: of the whole body.

    Attributes:
        fields: the other fields, complete once all pictures are read.
    """

    def __init__(self, stream: ByteStream, max_bytes: int) -> None:
        self._stream, self._left = stream, max_bytes
        self._buffer = bytearray()
        self.fields: dict[str, Any] = {}

    def read_pictures(self) -> Iterator[bytes]:
        """The files of the pictures, in their order.

        Raises:
            BadRequest: the body is no such object, or larger than allowed.
        """
        self._expect(b"{")
        if self._peek() == b"}":
            return
        while True:
            name = self._read_string().decode(errors="replace")
            self._expect(b":")
            if name == "frames":
                yield from self._read_list()
            else:
                self.fields[name] = self._read_scalar()
            if self._take() != b",":
                return

    def _read_list(self) -> Iterator[bytes]:
        self._expect(b"[")
        if self._peek() == b"]":
            self._take()
            return
        number = 0
        while True:
            yield _decode_picture(self._read_string(), number)
            number += 1
            end = self._take()
            if end == b"]":
                return
            if end != b",":
                raise BadRequest(_FORM)

    def _read_scalar(self) -> Any:
        if self._peek() == b'"':
            return self._read_string().decode(errors="replace")
        place = 0
        while (
            end := next((at for at in range(place, len(self._buffer)) if self._buffer[at] in b",}]["), None)
        ) is None:
            place = len(self._buffer)
            if place > 100 or not self._fill():
                raise BadRequest(_FORM)
        text = bytes(self._buffer[:end])
        del self._buffer[:end]
        try:
            return json.loads(text)
        except ValueError:
            raise BadRequest(_FORM) from None

    def _read_string(self) -> bytes:
        self._expect(b'"')
        place = 0
        while True:
            end = self._buffer.find(b'"', place)
            if end < 0:
                place = len(self._buffer)
                if place > _MAX_STRING:
                    raise BadRequest(f"a picture is larger than {_MAX_STRING >> 20} MiB: save it smaller")
                if not self._fill():
                    raise BadRequest(_FORM)
                continue
            text = bytes(self._buffer[:end])
            place = end + 1
            if (len(text) - len(text.rstrip(b"\\"))) % 2 == 0:  # else the quotation mark is part of the text
                break
        del self._buffer[: end + 1]
        if b"\\" not in text:
            return text
        try:
            return str(json.loads(b'"' + text + b'"')).encode(errors="replace")
        except ValueError:
            raise BadRequest(_FORM) from None

    def _expect(self, character: bytes) -> None:
        if self._take() != character:
            raise BadRequest(_FORM)

    def _take(self) -> bytes:
        character = self._peek()
        del self._buffer[:1]
        return character

    def _peek(self) -> bytes:
        """The next character that is no space; empty at the end."""
        while True:
            stripped = self._buffer.lstrip(_SPACE)
            if stripped:
                if len(stripped) < len(self._buffer):
                    self._buffer = stripped
                return bytes(self._buffer[:1])
            self._buffer.clear()
            if not self._fill():
                return b""

    def _fill(self) -> bool:
        """Read more; False: this is the end."""
        chunk = self._stream.read(_CHUNK_BYTES)
        self._left -= len(chunk)
        if self._left < 0:
            raise BadRequest("the pictures are larger than limits.upload together: send fewer, or raise it")
        self._buffer += chunk
        return bool(chunk)


def _decode_picture(uri: bytes, number: int) -> bytes:
    head, _, data = uri.partition(b",")
    try:
        if not head.startswith(b"data:image/") or not head.endswith(b";base64"):
            raise ValueError
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        raise BadRequest(f"picture {number} is not a data URI: it begins with data:image/jpeg;base64,") from None
