"""A zip that is read while it is made."""

import io
import threading
import time
import zipfile

import pytest

from backend.datasets.zip_stream import ZipOutput
from backend.errors import BackendError


def output() -> ZipOutput:
    return ZipOutput(lambda planned, frame: f"{frame}.jpg")


def test_it_may_hold_more_files_than_a_zip_without_zip64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 100)  # of 65,535, which take long
    zipped, count = output(), 300

    def build() -> None:
        for number in range(count):
            zipped.write(f"{number % 7}/{number}.txt", b"")

    data = b"".join(zipped.stream(build))
    assert b"PK\x06\x06" in data  # ZIP64's end of the directory
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        assert len(read.namelist()) == count


def test_bytes_come_while_files_are_written_and_pictures_are_stored() -> None:
    zipped, may_go_on = output(), threading.Event()

    def build() -> None:
        zipped.write("a.jpg", b"picture" * 100)
        may_go_on.wait(10)
        zipped.write("b.txt", b"text" * 100)

    stream = zipped.stream(build)
    parts = [next(stream)]
    assert b"picture" * 100 in parts[0]
    may_go_on.set()
    with zipfile.ZipFile(io.BytesIO(b"".join([*parts, *stream]))) as read:
        assert read.testzip() is None
        assert {info.filename: info.compress_type for info in read.infolist()} == {
            "a.jpg": zipfile.ZIP_STORED,
            "b.txt": zipfile.ZIP_DEFLATED,
        }


def test_a_reader_that_goes_away_stops_the_builder() -> None:
    zipped, written = output(), []

    def build() -> None:
        for number in range(10_000):
            zipped.write(f"{number}.jpg", bytes(1000))
            written.append(number)

    stream = zipped.stream(build)
    next(stream)
    stream.close()
    count = len(written)
    assert count < 20
    time.sleep(0.01)
    assert len(written) == count
    assert not [thread for thread in threading.enumerate() if thread.name == "dataset"]


def test_an_error_ends_the_zip_before_it_is_whole() -> None:
    zipped, parts = output(), list[bytes]()

    def build() -> None:
        zipped.write("a.jpg", b"picture")
        raise BackendError("the disk is gone")

    with pytest.raises(BackendError, match="the disk is gone"):
        parts.extend(zipped.stream(build))
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(b"".join(parts)))
