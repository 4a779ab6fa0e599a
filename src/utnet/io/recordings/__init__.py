"""RGB-D recordings behind one interface: sensor files, bags, phone exports and folders."""

from utnet.io.recordings.cameras import Camera as Camera
from utnet.io.recordings.cameras import read_camera as read_camera
from utnet.io.recordings.frames import Frames as Frames
from utnet.io.recordings.frames import Options as Options
from utnet.io.recordings.frames import RGBDFrame as RGBDFrame
from utnet.io.recordings.opening import is_recording as is_recording
from utnet.io.recordings.opening import open_recording as open_recording

__all__ = ["Camera", "Frames", "Options", "RGBDFrame", "is_recording", "open_recording", "read_camera"]
