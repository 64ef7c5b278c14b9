"""Frame-exact reading and writing of video files, and single pictures. Only here is PyAV used."""

from backend.video.decoder import Picture
from backend.video.index import VideoLimits
from backend.video.info import VideoInfo
from backend.video.jpeg import jpeg
from backend.video.reader import Pictures, Video
from backend.video.shared import Held
from backend.video.writer import write_video

__all__ = ["Held", "Picture", "Pictures", "Video", "VideoInfo", "VideoLimits", "jpeg", "write_video"]
