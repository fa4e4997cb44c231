"""Formats of other libraries are read as they were written, or refused by name, and their size is known before."""

import io
import struct
import sys

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from sparkopt import images
from sparkopt.errors import CorruptImageError
from tests.images.mutations import read_or_refused


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def encoders(photograph):
    alpha = np.arange(photograph[..., 0].size).reshape(photograph.shape[:2]).astype(np.uint8)
    four = np.dstack([photograph, alpha])
    picture, square = Image.fromarray(photograph), photograph[:64, :64].copy()
    return {
        "avif": (saved(picture, "AVIF", quality=90), photograph, 4),
        "jpeg 2000": (saved(picture, "JPEG2000"), photograph, 1),
        "jpeg 2000 of grey": (saved(picture.convert("L"), "JPEG2000"), np.asarray(picture.convert("L")), 1),
        "jpeg 2000 codestream": (saved(picture, "JPEG2000", no_jp2=True), photograph, 1),
        "jpeg xl": (imagecodecs.jpegxl_encode(photograph, lossless=True), photograph, 0),
        "jpeg xl with alpha": (imagecodecs.jpegxl_encode(four, lossless=True), photograph, 0),
        "jpeg xl of a square": (imagecodecs.jpegxl_encode(square, lossless=True), square, 0),
        "big tiff": (saved(picture, "TIFF", big_tiff=True), photograph, 0),
        "big tiff, packed": (saved(picture, "TIFF", big_tiff=True, compression="tiff_lzw"), photograph, 0),
    }  # fmt: skip


@pytest.mark.parametrize("name", encoders(np.zeros((256, 384, 3), np.uint8)))
def test_it_is_read_as_it_was_written(photograph, name):
    data, expected, tolerance = encoders(photograph)[name]
    header = images.read_header(data)
    assert (header.height, header.width) == expected.shape[:2]
    expected = expected if expected.ndim == 3 else np.dstack([expected] * 3)
    decoded = images.decode(data)
    assert np.abs(decoded.astype(float) - expected).mean() <= tolerance
    small = images.Compose([images.Decode("gray"), images.Resize(20, 30)])(data)
    assert small.shape == (20, 30, 1)
    with pytest.raises(CorruptImageError, match="^too large: "):
        images.decode(data, max_pixels=expected.shape[0] * expected.shape[1] - 1)
    for cut in (20, len(data) // 3, len(data) - 40):
        with pytest.raises(CorruptImageError, match=r"^(truncated|corrupt|not an image): "):
            images.decode(data[:cut])


def inks(photograph):
    """A file whose boxes say CMYK by number, and one that says so by a profile."""
    cmyk = np.asarray(Image.fromarray(photograph).convert("CMYK"))
    cmyk = np.dstack([cmyk[..., :3] // 2, np.broadcast_to(np.uint8(60), cmyk.shape[:2])])
    data = saved(Image.fromarray(cmyk, "CMYK"), "JPEG2000")
    at = data.index(b"colr") - 4
    profile = bytes(16) + b"CMYK" + bytes(108)
    box = struct.pack(">I4s3s", 11 + len(profile), b"colr", b"\2\0\0") + profile
    outer = at - 30
    grown = struct.pack(">I", 45 - 15 + len(box)) + data[outer + 4 : at] + box + data[at + 15 :]
    return {"by number": data, "by a profile": data[:outer] + grown}, cmyk


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("missing", [None, "imagecodecs"])
@pytest.mark.parametrize("name", ["by number", "by a profile"])
def test_inks_of_jpeg_2000_become_colours(photograph, name, missing, monkeypatch):
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    found, cmyk = inks(photograph)
    expected = np.asarray(Image.fromarray(cmyk, "CMYK").convert("RGB"), float)
    assert np.abs(images.decode(found[name]) - expected).max() <= 1
    assert (images.decode(found[name], "rgba")[..., 3] == 255).all()


def test_sixteen_bits_are_kept(photograph):
    wide = photograph.astype(np.uint16) * 257
    for data in (imagecodecs.jpegxl_encode(wide, lossless=True), imagecodecs.jpeg2k_encode(wide, reversible=True)):
        np.testing.assert_array_equal(images.decode(data, depth="keep"), wide)
        np.testing.assert_array_equal(images.decode(data), photograph)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned(photograph, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = saved(Image.fromarray(photograph), "AVIF", exif=exif, quality=90)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), float)
    decoded = images.decode(data)
    assert images.read_header(data).size == decoded.shape[:2] == expected.shape[:2]
    assert np.abs(decoded - expected).mean() < 1


def test_without_a_library_the_format_is_named(photograph, monkeypatch):
    data = encoders(photograph)["jpeg xl"][0]
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(CorruptImageError, match="^unsupported: JPEG XL needs one of the packages imagecodecs; none"):
        images.decode(data)
    heic = (
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
        + b"\0\0\0\x1cmeta"
        + b"ispe"
        + bytes(4)
        + b"\0\0\0\x08\0\0\0\x08"
        + bytes(4)
    )
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        CorruptImageError, match="^unsupported: HEIC needs one of the packages pillow-heif, imagecodecs"
    ):
        images.decode(heic)
    dicom = bytes(128) + b"DICM" + b"\x28\0\x10\0US\x02\0\x08\0" + b"\x28\0\x11\0US\x02\0\x09\0"
    assert images.read_header(dicom).size == (8, 9)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(CorruptImageError, match="^unsupported: DICOM needs one of the packages pydicom"):
        images.decode(dicom)


@pytest.mark.parametrize("name", ["avif", "jpeg 2000", "jpeg xl", "big tiff"])
def test_mutations_are_read_or_refused(photograph, name):
    data = encoders(photograph[:24, :32].copy())[name][0]
    read_or_refused(data, seed=3, count=150)
