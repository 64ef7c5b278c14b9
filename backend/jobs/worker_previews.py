"""Previews in the worker process: prompts that wait for their masks, and frames to encode before they are prompted."""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path

from backend.engines.base import Engine
from backend.errors import BackendError, BadRequest, where
from backend.jobs.messages import (
    EncodeFrames,
    EndPreviews,
    FrameEncoded,
    PreviewFailure,
    PreviewMasks,
    PreviewPrompt,
    PreviewReply,
    PreviewRequest,
)
from backend.video import Video, VideoLimits

log = logging.getLogger(__name__)

_MAX_VIDEOS = 4
"""How many videos are open for previews."""

OpenFile = Callable[[Path, VideoLimits], Video]


class Previews:
    """Only the worker's own thread uses it.

    Args:
        open_file: opens a video.
        send: sends a reply to the server.
    """

    def __init__(self, engine: Engine, open_file: OpenFile, send: Callable[[PreviewReply], None]) -> None:
        self._engine, self._open_file, self._send = engine, open_file, send
        self._prompts: dict[str, PreviewPrompt] = {}
        self._frames: dict[str, tuple[EncodeFrames, deque[int]]] = {}
        self._videos: OrderedDict[Path, Video] = OrderedDict()

    @property
    def has_prompt(self) -> bool:
        """Whether somebody waits for masks."""
        return bool(self._prompts)

    @property
    def has_frame(self) -> bool:
        """Whether a frame is to be encoded."""
        return bool(self._frames)

    def add(self, request: PreviewRequest) -> None:
        """Take a request; nothing is computed yet."""
        match request:
            case PreviewPrompt():
                if older := self._prompts.pop(request.session, None):
                    self._fail(older, BadRequest("a newer prompt has replaced this one"))
                self._prompts[request.session] = request
            case EncodeFrames():
                self._frames.pop(request.session, None)
                if request.frames:
                    self._frames[request.session] = request, deque(request.frames)
            case EndPreviews():
                self._frames.pop(request.session, None)

    def answer(self) -> None:
        """Answer the prompt that waits for longest."""
        request = self._prompts.pop(next(iter(self._prompts)))
        try:
            candidates = self._engine.preview(self._video(request.path, request.limits), request.prompt)
        except BackendError as error:
            self._fail(request, error)
        except Exception as error:
            log.error("a preview failed: %s", where(error))
            self._fail(request, BackendError("the engine failed on this frame; see the server log"))
        else:
            self._send(PreviewMasks(request.preview_id, candidates))
            self._send(FrameEncoded(request.session, request.prompt.frame))

    def encode(self) -> None:
        """Encode one frame; sessions take turns."""
        session = next(iter(self._frames))
        request, frames = self._frames.pop(session)
        frame = frames.popleft()
        if frames:
            self._frames[session] = request, frames
        try:
            self._engine.encode(self._video(request.path, request.limits), frame)
        except Exception as error:  # a prompt on this frame will say what is wrong
            log.warning("a frame is not encoded ahead: %s", where(error))
        else:
            self._send(FrameEncoded(session, frame))

    def _fail(self, request: PreviewPrompt, error: BackendError) -> None:
        self._send(PreviewFailure(request.preview_id, error.with_traceback(None)))

    def _video(self, path: Path, limits: VideoLimits) -> Video:
        video = self._videos.pop(path, None) or self._open_file(path, limits)
        self._videos[path] = video
        if len(self._videos) > _MAX_VIDEOS:
            _, oldest = self._videos.popitem(last=False)
            oldest.close()
        return video
