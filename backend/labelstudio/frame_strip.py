"""The strip of frames that clicks are made on: which frames it holds, and signed addresses of frames that we serve."""

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


def strip_frames(length: int, most: int) -> list[int]:
    """LS frames of a strip: every n-th, the first and the last always, `most` at most (two at least).

    Args:
        length: LS frames of the video.
    """
    if length == 1:
        return [1]
    step = math.ceil((length - 1) / max(most - 1, 1))
    return [*range(1, length, step), length]


class SignedVideo(NamedTuple):
    """What an address of ours shows frames of."""

    url: str
    framerate: float


class Signer:
    """Makes and reads keys that name a task's video and that nobody else can make.

    Args:
        path: the secret, made when first needed. A new one there ends all keys that the old one signed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The one whose secret is in `data_dir`."""
        return cls(settings.data_dir.expanduser() / "secret")

    def key(self, video: SignedVideo) -> str:
        """For an address: letters, digits, `-` and `_` alone."""
        named = json.dumps(video, separators=(",", ":")).encode()
        return _text(self._signature(named) + named)

    def video(self, key: str) -> SignedVideo:
        """What a key names.

        Raises:
            BadRequest: we did not sign it.
        """
        try:
            raw = base64.urlsafe_b64decode(key + "=" * (-len(key) % 4))
            signature, named = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
            if not hmac.compare_digest(signature, self._signature(named)):
                raise ValueError("signature")
            return SignedVideo(*json.loads(named))
        except (ValueError, TypeError) as error:
            raise BadRequest("the address is not signed here: run sam3-backend project prepare again") from error

    def _signature(self, named: bytes) -> bytes:
        return hmac.new(self._secret(), named, hashlib.sha256).digest()[:_SIGNATURE_BYTES]

    def _secret(self) -> bytes:
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_SECRET_BYTES))
            try:
                os.link(part, self._path)  # of two that make one at once the first counts
            except FileExistsError:
                pass
            finally:
                part.unlink()
        return self._path.read_bytes()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
