"""Frame-exact reading and writing of video files, and single pictures. Only here is PyAV used."""

from backend.video.decoder import Picture
from backend.video.index import VideoLimits
from backend.video.info import VideoInfo
from backend.video.jpeg import encode_jpeg
from backend.video.reader import Pictures, Video
from backend.video.shared import SharedVideo
from backend.video.writer import write_video

__all__ = ["Picture", "Pictures", "SharedVideo", "Video", "VideoInfo", "VideoLimits", "encode_jpeg", "write_video"]
