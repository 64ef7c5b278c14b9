"""Errors that a client may read, each with its HTTP status.

BackendError              500  base class; the message is one sentence that names the mend
├── BadRequest            400  the request, its label config or its prompt is wrong
│   ├── Conflict          409  another request or change came first
│   └── BadVideo          422  the file cannot be decoded as a video
├── Unsupported           422  this engine cannot do what was asked
│   └── StateRefused           it cannot continue from this saved state
├── MediaError            502  the task's file could not be downloaded
├── StudioError           502  Label Studio did not answer, or refused
├── SettingsError         500  a setting is unknown, wrong or missing
├── EngineError           500  the model returned an invalid result
├── StoreError            503  jobs cannot be saved or read now, because of the disk or another program
│   ├── DiskFull          507  there is no room for a video in data_dir
│   └── StoreDamaged           the database is damaged
└── Busy                  503  the queue is full: try again later

Messages never contain a path, a token or a traceback.
"""

import os
from pathlib import Path


class BackendError(Exception):
    """Base of all errors whose message a client may read."""

    status = 500


class BadRequest(BackendError):
    """The request, its label config or its prompt is wrong."""

    status = 400


class Conflict(BadRequest):
    """Another request or change came first: what was asked no longer fits."""

    status = 409


class BadVideo(BadRequest):
    """The file cannot be decoded as a video, or exceeds a limit."""

    status = 422


class Unsupported(BackendError):
    """This engine cannot do what was asked; another engine may."""

    status = 422


class StateRefused(Unsupported):
    """The engine cannot continue from this saved state: it is damaged, or of another version or video."""


class MediaError(BackendError):
    """The task's file could not be downloaded."""

    status = 502


class StudioError(BackendError):
    """Label Studio did not answer, or refused.

    Attributes:
        is_final: trying again would not help.
        response: the text of Label Studio's response, to find the cause in; not for clients.
    """

    status = 502

    def __init__(self, message: str, is_final: bool = False, response: str = "") -> None:
        super().__init__(message)
        self.is_final = is_final
        self.response = response


class SettingsError(BackendError):
    """A setting is unknown, wrong or missing."""


class EngineError(BackendError):
    """The model returned an invalid result."""


class StoreError(BackendError):
    """Jobs cannot be saved or read now; they continue when what the message names is mended."""

    status = 503


class DiskFull(StoreError):
    """There is no room for a video in `data_dir`."""

    status = 507


class StoreDamaged(StoreError):
    """The job database is damaged where it was read or written."""


class Busy(BackendError):
    """The queue is full.

    Attributes:
        retry_after: seconds to wait before trying again.
    """

    status = 503

    def __init__(self, message: str, retry_after: int = 10) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def existing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def explain_unwritable(folder: Path, error: Exception) -> str:
    """Why nothing can be written to a folder, and how to mend that; without its path.

    Args:
        folder: it, or a folder below it that could not be created.
    """
    if not isinstance(error, PermissionError) or os.name != "posix":
        reason = getattr(error, "strerror", None) or type(error).__name__
        return f"not writable ({reason}): give a folder that the backend may write to, on a disk with free space"
    owner, user = existing_folder(folder).stat().st_uid, os.getuid()
    return (
        f"not writable: it belongs to user {owner}, and this process runs as user {user}: give it to that user "
        f"(chown -R {user}), run as user {owner} (in Docker: --user {owner}), or choose another folder"
    )


def one_line(error: BaseException) -> str:
    """An error's message on one line, for the log."""
    return " ".join(str(error).split())


def where(error: BaseException) -> str:
    """The type of an unexpected error and the line of our code that raised it.

    Its message is left out, because it may contain paths.
    """
    trace, places = error.__traceback__, ["?"]
    while trace:
        module = trace.tb_frame.f_globals.get("__name__", "?")
        if module.startswith("backend"):
            places.append(f"{module}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {places[-1]}"
