"""Writes pictures to a video file that browsers play."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from backend.video.decoder import Picture


def write_video(path: Path, frames: Iterable[Picture], rate: float) -> None:
    """Write pictures as H.264 in MP4, which browsers can play and seek in before it is loaded completely.

    Args:
        path: overwritten; deleted if writing fails.
        frames: all of one size. H.264 in 4:2:0 has only even sizes, so an odd side grows by one pixel, a copy of
            the edge.
        rate: frames per second.

    Raises:
        ValueError: there are no frames, or they differ in size.
    """
    exact = Fraction(rate).limit_denominator(1001)
    stream: VideoStream | None = None
    try:
        with av.open(str(path.absolute()), "w", format="mp4", options={"movflags": "faststart"}) as container:
            for number, picture in enumerate(frames):
                height, width = picture.shape[:2]
                if stream is None:
                    stream = container.add_stream("libx264", rate=exact, options={"crf": "20", "preset": "veryfast"})
                    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
                if (width + width % 2, height + height % 2) != (stream.width, stream.height):
                    raise ValueError(
                        f"frame {number} is {width} x {height}, the first {stream.width} x {stream.height}"
                    )
                even = np.pad(picture, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")
                frame = av.VideoFrame.from_ndarray(even, format="rgb24")
                frame.pts, frame.time_base = number, 1 / exact
                container.mux(stream.encode(frame))
            if stream is None:
                raise ValueError("a video needs at least one frame")
            container.mux(stream.encode(None))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
