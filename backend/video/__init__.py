"""Frame-exact reading and writing of video files, and single pictures. Only here is PyAV used."""

from backend.video.decoder import Picture
from backend.video.decoder_process import DecoderProcesses
from backend.video.encode import encode_jpeg, encode_mask_png, encode_rgb_png
from backend.video.index import VideoLimits
from backend.video.info import VideoInfo
from backend.video.picture_writer import PICTURE_RATE, PictureWriter
from backend.video.probe import index_path, probe_video
from backend.video.reader import Video
from backend.video.sequence import Pictures, ReadPicture
from backend.video.shared import SharedVideo
from backend.video.writer import write_video

__all__ = [
    "PICTURE_RATE",
    "DecoderProcesses",
    "Picture",
    "PictureWriter",
    "Pictures",
    "ReadPicture",
    "SharedVideo",
    "Video",
    "VideoInfo",
    "VideoLimits",
    "encode_jpeg",
    "encode_mask_png",
    "encode_rgb_png",
    "index_path",
    "probe_video",
    "write_video",
]
