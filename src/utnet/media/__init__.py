"""Pictures, depth images and videos: read with clear refusals, written whole."""

from utnet.media.depth import read_depth
from utnet.media.kinds import is_video, picture_format
from utnet.media.pictures import PICTURE_SUFFIXES, Picture, is_animation, is_depth_image, picture_size, read_picture
from utnet.media.videos import VIDEO_SUFFIXES, Frame, VideoReader, VideoWriter

__all__ = [
    "PICTURE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Frame",
    "Picture",
    "VideoReader",
    "VideoWriter",
    "is_animation",
    "is_depth_image",
    "is_video",
    "picture_format",
    "picture_size",
    "read_depth",
    "read_picture",
]
