"""The frame strip that people click on, and signed addresses of what a browser loads from us without a login."""

import base64
import hashlib
import hmac
import json
import math
import os
import secrets
from pathlib import Path
from typing import NamedTuple, Self

from backend.errors import BadRequest
from backend.settings import Settings

_SECRET_BYTES = 32
_SIGNATURE_BYTES = 16
_KINDS = {"SignedTask": "panel", "SignedPage": "page"}
_INVALID = "the address has no valid signature: run sam3-backend project prepare again"


def strip_frames(length: int, most: int) -> list[int]:
    """LS frames of a strip: every n-th frame, always with the first and the last; at most `most`, but at least two.

    Args:
        length: number of LS frames in the video.
    """
    if length == 1:
        return [1]
    step = math.ceil((length - 1) / max(most - 1, 1))
    return [*range(1, length, step), length]


class SignedVideo(NamedTuple):
    """The video that a signed address shows frames of."""

    url: str
    framerate: float


class SignedTask(NamedTuple):
    """The task whose live panel a signed address shows: ids of the project and of the task."""

    project: str
    task: str


class SignedPage(NamedTuple):
    """The task whose prompting page a signed address opens: ids of the project and of the task."""

    project: str
    task: str


class Signer:
    """Signs and verifies keys that name a task's video, or a task.

    Args:
        path: file of the secret, created on first use. A new secret invalidates all keys signed with the old one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """A signer whose secret lies in `data_dir`."""
        return cls(settings.data_dir.expanduser() / "secret")

    def key(self, named: SignedVideo | SignedTask | SignedPage) -> str:
        """A signed key for use in a URL: letters, digits, `-` and `_`."""
        values = named if isinstance(named, SignedVideo) else [_KINDS[type(named).__name__], *named]
        signed = json.dumps(values, separators=(",", ":")).encode()
        return _text(self._signature(signed) + signed)

    def video(self, key: str) -> SignedVideo:
        """The video that a key names.

        Raises:
            BadRequest: the signature is not valid, or the key names something else.
        """
        match self._verify(key):
            case [str(url), int() | float() as framerate]:
                return SignedVideo(url, framerate)
        raise BadRequest(_INVALID)

    def page(self, key: str) -> SignedPage:
        """The task whose prompting page a key opens.

        Raises:
            BadRequest: the signature is not valid, or the key names something else.
        """
        return SignedPage(*self._task_names(key, SignedPage))

    def task(self, key: str) -> SignedTask:
        """The task that a key names.

        Raises:
            BadRequest: the signature is not valid, or the key names something else.
        """
        return SignedTask(*self._task_names(key, SignedTask))

    def _task_names(self, key: str, kind: type[SignedTask | SignedPage]) -> tuple[str, str]:
        match self._verify(key):
            case [str(name), str(project), str(task)] if name == _KINDS[kind.__name__]:
                return project, task
        raise BadRequest(_INVALID)

    def _verify(self, key: str) -> object:
        """The values that a key contains; None if its signature is not valid."""
        try:
            raw = base64.urlsafe_b64decode(key + "=" * (-len(key) % 4))
            signature, signed = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
            is_valid = hmac.compare_digest(signature, self._signature(signed))
            return json.loads(signed) if is_valid else None
        except ValueError:
            return None

    def _signature(self, named: bytes) -> bytes:
        return hmac.new(self._secret(), named, hashlib.sha256).digest()[:_SIGNATURE_BYTES]

    def _secret(self) -> bytes:
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_SECRET_BYTES))
            try:
                os.link(part, self._path)  # if two processes create a secret at once, the first one wins
            except FileExistsError:
                pass
            finally:
                part.unlink()
        return self._path.read_bytes()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
