"""Checks of prompts and spans that all engines share."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from backend.errors import BadRequest
from backend.tracks.prompts import Phrase, Prompt
from backend.video import Video


def validate_frame(prompts: Sequence[Prompt | Phrase], video: Video) -> int:
    """Return the frame that all prompts lie on.

    Raises:
        BadRequest: there are no prompts, they lie on several frames, or the frame is outside the video.
    """
    frames = {prompt.frame for prompt in prompts}
    if len(frames) != 1:
        raise BadRequest(f"the prompts lie on {len(frames)} frames: give at least one, all on one frame")
    (frame,) = frames
    return validate_frame_number(frame, video)


def validate_frame_number(frame: int, video: Video) -> int:
    """Return the frame.

    Raises:
        BadRequest: it is outside the video.
    """
    if not 0 <= frame < len(video):
        raise BadRequest(f"frame {frame} is outside the video: prompt one of its frames 0 to {len(video) - 1}")
    return frame


def validate_span(span: range, video: Video) -> range:
    """Return the span.

    Raises:
        BadRequest: it reaches outside the video.
    """
    if span.step != 1:
        raise ValueError(f"a span has steps of 1, not {span.step}")
    if span and not 0 <= span.start < span.stop <= len(video):
        raise BadRequest(f"frames {span.start}..{span.stop} reach outside the video: its frames are 0..{len(video)}")
    return span


def merge_prompts(prompts: Iterable[Prompt], video: Video) -> dict[str, Prompt]:
    """Merge the prompts of each track: points are added up, the last box is used, and a mask replaces both.

    Raises:
        BadRequest: a prompt lies outside the picture, or its mask is empty or of another size.
    """
    merged: dict[str, Prompt] = {}
    for prompt in prompts:
        earlier = merged.get(prompt.track)
        if earlier is not None and earlier.mask is None and prompt.mask is None:
            prompt = replace(prompt, box=prompt.box or earlier.box, points=earlier.points + prompt.points)
        merged[prompt.track] = prompt
    return {track: _validate_prompt(prompt, video.width, video.height) for track, prompt in merged.items()}


def validate_phrases(phrases: Iterable[Phrase], video: Video) -> list[Phrase]:
    """Return the phrases.

    Raises:
        BadRequest: an exemplar lies outside the picture.
    """
    phrases = list(phrases)
    for exemplar in (exemplar for phrase in phrases for exemplar in phrase.exemplars):
        if not exemplar.box.clip(video.width, video.height).area > 0:
            raise BadRequest(
                f"a box lies outside the picture of {video.width} x {video.height} pixels: draw it around the object"
            )
    return phrases


def _validate_prompt(prompt: Prompt, width: int, height: int) -> Prompt:
    size = f"the picture of {width} x {height} pixels"
    if prompt.mask is not None and prompt.mask.shape != (height, width):
        raise BadRequest(f"the mask has the shape {prompt.mask.shape}: give it the size of {size}")
    if prompt.mask is not None and not prompt.mask.any():
        raise BadRequest("the mask is empty: paint the object")
    if not all(0 <= point.x <= width and 0 <= point.y <= height for point in prompt.points):
        raise BadRequest(f"a point lies outside {size}: click on the object")
    box = prompt.box.clip(width, height) if prompt.box else None
    if box is not None and not box.area > 0:
        raise BadRequest(f"the box lies outside {size}: draw it around the object")
    return replace(prompt, box=box)
