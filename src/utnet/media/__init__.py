"""Pictures, depth images and videos: read with clear refusals, written whole."""

from utnet.media.depth import read_depth
from utnet.media.pictures import PICTURE_SUFFIXES, Picture, read_picture
from utnet.media.videos import VIDEO_SUFFIXES, Frame, VideoReader, VideoWriter

__all__ = [
    "PICTURE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Frame",
    "Picture",
    "VideoReader",
    "VideoWriter",
    "read_depth",
    "read_picture",
]
