"""A body with pictures is read piece by piece, however it is cut and written."""

import base64
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import BadRequest
from backend.xanylabeling import upload_reader
from backend.xanylabeling.upload_reader import UploadReader


class Dripping(io.BytesIO):
    """Gives `size` bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self.size = size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.size)


def uri(picture: bytes, kind: str = "jpeg") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def read(body: object, size: int = 7, limit: int = 10**9) -> tuple[list[bytes], dict]:
    reader = UploadReader(Dripping(body if isinstance(body, bytes) else json.dumps(body).encode(), size), limit)
    return list(reader.read_pictures()), reader.fields


@given(
    pictures=st.lists(st.binary(max_size=60), max_size=5),
    before=st.dictionaries(st.text(max_size=5).filter(lambda name: name != "frames"), st.text(max_size=9), max_size=3),
    after=st.one_of(st.integers(), st.none(), st.booleans(), st.text(max_size=9)),
    size=st.integers(1, 400),
    indent=st.sampled_from([None, 2]),
)
def test_what_is_written_is_read(pictures, before, after, size, indent) -> None:
    body = {**before, "frames": [uri(picture) for picture in pictures], "start_frame_index": after}
    assert read(json.dumps(body, indent=indent).encode(), size) == (pictures, {**before, "start_frame_index": after})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"{",
        b'{"frames"',
        b'{"frames": 5',
        b'{"frames": ["data:image/jpeg;base64,AAAA"',
        b'{"frames": ["data:image/jpeg;base64,AAAA" "x"]}',
        b'{"frames": ["nothing"]}',
        b'{"frames": ["data:text/plain;base64,AAAA"]}',
        b'{"frames": ["data:image/jpeg;base64,A*AA"]}',
        b'{"frames": [5]}',
        b'{"model": {"a": 1}}',
        b'{"model": nonsense}',
        b'{"model": "\\x"}',
        b'{"model": ' + b"1" * 500 + b"}",
        b'{"model" "a"}',
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read(body)


def test_too_much_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"frames": [uri(b"x" * 90)] * 9}).encode()
    with pytest.raises(BadRequest, match=r"limits\.upload"):
        read(body, 100, limit=500)
    monkeypatch.setattr(upload_reader, "_MAX_STRING", 50)
    with pytest.raises(BadRequest, match="picture is larger"):
        read(body, 30)


def test_one_picture_is_in_memory_at_a_time() -> None:
    body = json.dumps({"frames": [uri(bytes(10**5))] * 50}).encode()
    reader = UploadReader(io.BytesIO(body), 10**9)
    largest = 0
    for _ in reader.read_pictures():
        largest = max(largest, len(reader._buffer))
    assert largest <= 2 * upload_reader._CHUNK_BYTES
