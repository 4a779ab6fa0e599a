"""Pictures whose headers claim more pixels than fit, however they are packed, and damaged ones, end in one line."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from support.tiff_files import tiff
from utnet.errors import InputError
from utnet.io.deep import is_deep
from utnet.io.files import check_pixels, decode_rgb
from utnet.io.pictures import read_picture
from utnet.io.recordings.codecs import decode_compressed_depth
from utnet.io.recordings.folders import read_confidence
from utnet.synth.backgrounds import read_photo

SIDE = 30_000


def png(width: int, height: int, *, bits: int = 8) -> bytes:
    head = b"IHDR" + struct.pack(">II", width, height) + bytes([bits, 0, 0, 0, 0])
    end = b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + end


def jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose frame header claims another size."""
    data = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(("bits", "channels"), [(32, 3), (16, 3), (16, 1)])
def test_the_size_of_a_tiff_is_checked_before_it_is_decoded(bits, channels, tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(40, 30, bits=bits, channels=channels))
    assert is_deep(path) == (channels == 3)
    assert read_picture(path).rgb.shape == (30, 40, 3)
    path.write_bytes(tiff(SIDE, SIDE, bits=bits, channels=channels))
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match=r"a\.tif: .*megapixels") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


def test_a_tall_picture_with_alpha_is_blended_in_parts_as_in_one(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (600, 5, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    alpha = rgba[..., 3:] / 255
    np.testing.assert_allclose(read_picture(tmp_path / "a.png").rgb, rgba[..., :3] * alpha + 255 * (1 - alpha), atol=1)


@pytest.mark.parametrize("read", [read_confidence, read_photo])
def test_other_pictures_are_checked_too(read, tmp_path):
    (tmp_path / "a.png").write_bytes(png(SIDE, SIDE))
    with pytest.raises(InputError, match=r"a\.png: .*megapixels"):
        read(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"compressed depth: .*megapixels"):
        decode_compressed_depth(png(SIDE, SIDE, bits=16), "16UC1", "png")


@pytest.mark.parametrize("hidden", [b"", b"\0", b"\xff\0\0\x08\xff\xc0\0\x0b\x08\0\x10\0\x10"])
def test_the_size_of_a_jpeg_is_that_which_its_decoder_finds(hidden):
    """libjpeg skips bytes between segments, and with them a frame header that a plain parser would find."""
    data = jpeg(SIDE, SIDE)
    with pytest.raises(InputError, match="p: "):
        check_pixels(data[:2] + hidden + data[2:], "p")
    data = jpeg(16, 16)
    assert decode_rgb(data, where="p").shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "TIFF", "GIF"])
def test_a_damaged_picture_is_read_or_refused(kind, tmp_path):
    buffer, path = io.BytesIO(), tmp_path / "a"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(buffer, kind)
    data, outcomes = buffer.getvalue(), set()
    for place in range(0, min(len(data), 400), 9):
        path.write_bytes(data[:place] + bytes(4) + data[place + 4 :])
        try:
            outcomes.add(read_picture(path).rgb.shape)
        except InputError as error:
            outcomes.add(f"refused in {len(str(error).splitlines())} line")
    assert {outcome for outcome in outcomes if isinstance(outcome, str)} == {"refused in 1 line"}
