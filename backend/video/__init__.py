"""Frame-exact reading and writing of video files. Only here is PyAV used."""

from backend.video.decoder import Picture
from backend.video.index import VideoLimits
from backend.video.reader import Pictures, Video
from backend.video.writer import write_video

__all__ = ["Picture", "Pictures", "Video", "VideoLimits", "write_video"]
