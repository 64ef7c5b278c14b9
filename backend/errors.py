"""What can go wrong, as a person can mend it.

BackendError              500  a sentence that names the mend; never a path, a token or a traceback
├── BadRequest            400  the request, its label config or its prompt cannot be understood
│   └── BadVideo          422  the file is no video that can be decoded
├── Unsupported           422  this engine cannot do what was asked
├── MediaError            502  the task's file could not be fetched
├── StudioError           502  Label Studio could not be asked, or it refused
├── SettingsError         500  a setting is unknown, wrong or missing
├── EngineError           500  the model gave an answer that is none
└── Busy                  503  the queue is full: ask again later
"""


class BackendError(Exception):
    """Base of all errors that a client may read: `str(error)` is one sentence that names the mend."""

    status = 500


class BadRequest(BackendError):
    """The request, its label config or its prompt cannot be understood."""

    status = 400


class BadVideo(BadRequest):
    """The file is no video that can be decoded, or it is beyond the limits."""

    status = 422


class Unsupported(BackendError):
    """The engine that runs cannot do what was asked; another may."""

    status = 422


class MediaError(BackendError):
    """The task's file could not be fetched."""

    status = 502


class StudioError(BackendError):
    """Label Studio could not be asked, or it refused.

    Attributes:
        is_final: asking once more would change nothing.
    """

    status = 502

    def __init__(self, message: str, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class SettingsError(BackendError):
    """A setting is unknown, wrong or missing."""


class EngineError(BackendError):
    """The model gave an answer that is none."""


class Busy(BackendError):
    """The queue is full.

    Attributes:
        retry_after: seconds after which asking again makes sense.
    """

    status = 503

    def __init__(self, message: str, retry_after: int = 10) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def one_line(error: BaseException) -> str:
    """An error's text on one line, for the log."""
    return " ".join(str(error).split())


def where(error: BaseException) -> str:
    """An unforeseen error's kind and the place in our code that it came from; never its text, which may hold paths."""
    trace, places = error.__traceback__, ["?"]
    while trace:
        module = trace.tb_frame.f_globals.get("__name__", "?")
        if module.startswith("backend"):
            places.append(f"{module}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {places[-1]}"
