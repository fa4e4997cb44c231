"""Sizes and orientations in headers, against files that Pillow writes; OpenCV is not needed."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sparkopt.errors import CorruptImageError
from sparkopt.io.image_header import read_header

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
MODES = {"L": (7, 13), "RGB": (300, 5), "RGBA": (64, 64)}


def file(kind: str, mode: str = "RGB", size: tuple[int, int] = (7, 13), **options) -> bytes:
    picture = Image.fromarray(np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(*size, 3)).convert(mode)
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", MODES)
def test_size_and_format_are_pillows(kind, mode):
    if (kind, mode) == ("JPEG", "RGBA"):
        pytest.skip("JPEG has no transparency")
    data = file(kind, mode, MODES[mode])
    picture = Image.open(io.BytesIO(data))
    found = read_header(data)
    assert (found.width, found.height, found.format.upper()) == (*picture.size, picture.format)
    assert found.size == MODES[mode]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_exchanges_height_and_width(kind, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    found = read_header(file(kind, exif=exif.tobytes()))
    assert (found.height, found.width, found.orientation) == (7, 13, orientation)
    assert found.size == ((13, 7) if orientation > 4 else (7, 13))


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"exif": b"Exif\0\0"}])
def test_webp_has_three_kinds_of_header(options):
    assert read_header(file("WEBP", **options)).size == (7, 13)


def outcome(data: bytes) -> object:
    try:
        return read_header(data).size
    except CorruptImageError as error:
        return str(error).partition(":")[0]


@pytest.mark.parametrize("kind", FORMATS)
def test_each_cut_is_read_or_refused(kind):
    data = file(kind)
    found = {outcome(data[:end]) for end in range(len(data))}
    assert found <= {(7, 13), "empty", "not an image", "truncated", "corrupt"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_file_is_refused(kind):
    data = file(kind, size=(60, 60))
    with pytest.raises(CorruptImageError, match="truncated"):
        read_header(data[: len(data) // 2])


def test_the_limit_is_inclusive():
    data = file("PNG")
    assert read_header(data, max_pixels=91).size == (7, 13)
    with pytest.raises(CorruptImageError, match="too large: 7 x 13 pixels exceed the limit of 90 pixels"):
        read_header(data, max_pixels=90)


def test_neither_opencv_nor_spark_is_loaded():
    code = "import sys, sparkopt.io; print([name for name in ('cv2', 'pyspark', 'torch') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
