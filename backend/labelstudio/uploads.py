"""Series of pictures that a client has sent, kept as videos under the digest of their content."""

import hashlib
import re
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from backend.errors import BadRequest, DiskFull, MediaError
from backend.labelstudio.disk import Disk, touch
from backend.settings import Settings
from backend.video import PictureWriter

PREFIX = "upload:"
"""Begins the address of such a video, in place of one that can be downloaded."""


class Uploads:
    """A folder; the series that were not used for longest are removed when there are too many."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.data_dir.expanduser() / "uploads"
        self._disk = Disk(self._folder, settings.limits.media, settings.limits.reserve)

    def add(self, pictures: Iterable[bytes]) -> str:
        """Keep a series, unless the same one is kept already.

        Args:
            pictures: files of one size; each is written before the next one is taken.

        Returns:
            Its address.

        Raises:
            BadRequest: there are none, or one is no picture.
            DiskFull: there is no room.
        """
        digest = hashlib.sha256()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self._folder / f"{uuid.uuid4().hex}.part"
        make_room = self._disk.new_file()
        try:
            with PictureWriter(part) as writer:
                for picture in pictures:
                    make_room(len(picture))
                    digest.update(hashlib.sha256(picture).digest())
                    writer.add(picture)
                if not writer.count:
                    raise BadRequest("there are no pictures: open the folder with the frames of the video")
            name = digest.hexdigest()
            path = self._folder / name
            if not path.exists():
                part.chmod(0o600)
                part.replace(path)
            touch(path)
        except OSError as error:
            raise DiskFull(f"the pictures cannot be saved ({error.strerror}): make room in data_dir") from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return PREFIX + name

    def path(self, url: str) -> Path:
        """The file of a series.

        Raises:
            MediaError: it is not kept any more.
        """
        name = url.removeprefix(PREFIX)
        path = self._folder / name
        if not re.fullmatch(r"[0-9a-f]{64}", name) or not path.exists():
            raise MediaError("the pictures are not kept any more: send them again")
        touch(path)
        return path
