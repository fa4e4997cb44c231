"""Every format and every oddity of a file has a defined outcome, compared with Pillow and with OpenCV."""

import io
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparkopt import images
from sparkopt.errors import CorruptImageError, ParameterError
from sparkopt.images import functional as F


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_pixels_back(photograph, save, kind):
    data = save(photograph, kind)
    np.testing.assert_array_equal(images.decode(data), photograph)
    assert images.read_header(data).size == photograph.shape[:2]


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("GIF", {})])
def test_lossy_formats_agree_with_pillow(photograph, save, kind, options):
    data = save(photograph, kind, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
    assert np.abs(images.decode(data) - expected).mean() < 2
    assert images.read_header(data).size == photograph.shape[:2]


MAGIC = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b""]
TURNS = {  # EXIF's orientations, as Pillow's operations that set them right
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied(photograph, save, kind, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = save(photograph, kind, exif=exif if kind == "TIFF" else exif.tobytes(), quality=95)
    turn = TURNS[orientation]
    expected = np.asarray(
        Image.fromarray(photograph) if turn is None else Image.fromarray(photograph).transpose(turn)
    )
    decoded = images.decode(data)
    assert images.read_header(data).size == decoded.shape[:2] == expected.shape[:2]
    assert np.abs(decoded - expected.astype(float)).mean() < 4
    # The pipeline folds the orientation into its map; the picture must be the same.
    flipped = images.Compose([images.Decode(), images.HorizontalFlip()])(data)
    np.testing.assert_array_equal(flipped, decoded[:, ::-1])


def test_a_damaged_exif_block_does_not_spoil_the_pixels(photograph, save):
    data = save(photograph, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x00")
    assert images.decode(data).shape == photograph.shape


def test_cmyk_becomes_rgb(photograph, save):
    data = save(photograph, "JPEG", "CMYK", quality=95)
    assert np.abs(images.decode(data) - photograph.astype(float)).mean() < 6


def test_sixteen_bits_are_scaled_to_eight(save):
    values = np.linspace(0, 65535, 30 * 20).astype(np.uint16).reshape(20, 30)
    gray = images.decode(save(values, "PNG"), "gray")
    np.testing.assert_allclose(gray[..., 0], values / 257, atol=1)
    rgba = images.decode(save(values, "PNG"), "rgba")
    np.testing.assert_allclose(rgba[..., :3], np.repeat(values[..., None] / 257, 3, axis=2), atol=1)
    assert (rgba[..., 3] == 255).all()


def test_a_palette_is_expanded(photograph, save):
    picture = Image.fromarray(photograph).convert("P")
    np.testing.assert_array_equal(images.decode(save(picture, "PNG")), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("color", ["rgb", "rgba", "gray", "bgr"])
def test_transparency_is_dropped_or_kept_as_asked(photograph, save, color):
    alpha = np.arange(photograph[..., 0].size).reshape(photograph.shape[:2]).astype(np.uint8)
    decoded = images.decode(save(np.dstack([photograph, alpha]), "PNG"), color)
    expected = {
        "rgb": photograph,
        "rgba": np.dstack([photograph, alpha]),
        "gray": cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)[..., None],
        "bgr": photograph[..., ::-1],
    }[color]
    np.testing.assert_allclose(decoded, expected, atol=1)  # libpng's own luma rounds differently


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(photograph, save, kind):
    frames = [Image.fromarray(photograph[::-1].copy())]
    options = {"lossless": True} if kind == "WEBP" else {}
    animated = save(photograph, kind, save_all=True, append_images=frames, **options)
    still = save(photograph, kind, **options)
    np.testing.assert_array_equal(images.decode(animated), images.decode(still))


def test_each_broken_image_has_its_reason(broken):
    for name, (data, reason) in broken.items():
        if data is None:
            continue
        with pytest.raises(CorruptImageError) as caught:
            images.decode(data)
        assert str(caught.value).startswith(f"{reason}:"), f"{name}: {caught.value}"


def test_the_limit_on_pixels_is_inclusive_and_read_before_decoding(photograph, save):
    data = save(photograph, "JPEG")
    pixels = photograph.shape[0] * photograph.shape[1]
    assert images.decode(data, max_pixels=pixels).shape == photograph.shape
    with pytest.raises(CorruptImageError, match=rf"too large: 256 x 384 pixels exceed the limit of {pixels - 1}"):
        images.decode(data, max_pixels=pixels - 1)


BOMBS = r"""
import resource, struct, sys, zlib
from sparkopt import images
from sparkopt.errors import CorruptImageError

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

def png(side, pixels, *extra):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

bomb, pixel = zlib.compress(bytes(2**28), 9), zlib.compress(bytes(4))
files = [png(1, pixel, chunk(b"iCCP", b"x\0\0" + bomb)), png(1, pixel, chunk(b"zTXt", b"x\0\0" + bomb)), png(1, bomb)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert all(images.decode(data).shape == (1, 1, 3) for data in files)
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**15, "kibibytes"
try:
    images.decode(png(20, zlib.compress(bytes(20 * 61))))
except CorruptImageError as error:
    print(error)
"""


def test_decompression_bombs_do_not_go_off_and_opencv_s_own_limit_is_named():
    environment = {**os.environ, "OPENCV_IO_MAX_IMAGE_PIXELS": "100"}
    run = subprocess.run([sys.executable, "-c", BOMBS], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("too large: 20 x 20 pixels exceed the limit that the environment variable")


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(photograph, save, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    assert images.decode(save(photograph, "JPEG", exif=exif.tobytes())).shape == photograph.shape


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), magic=st.sampled_from(MAGIC))
def test_arbitrary_bytes_are_refused_and_nothing_else_happens(data, magic):
    with pytest.raises(CorruptImageError, match=r"^(empty|not an image|truncated|corrupt|too large|unsupported): "):
        images.decode(magic + data)


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 10**6), kind=st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_no_part_of_a_file_passes_for_the_whole(photograph, save, cut, kind):
    data = save(photograph[:40, :50], kind)
    with pytest.raises(CorruptImageError):
        images.decode(data[: cut % len(data)])


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_a_reduced_jpeg_is_the_area_average(photograph, reduction, color):
    data = images.encode(photograph, "jpeg", 95)
    whole = images.decode(data, color)
    expected = F.resize(whole, 256 // reduction, 384 // reduction)
    reduced = images.decode(data, color, reduction=reduction)
    assert reduced.shape == expected.shape
    assert np.abs(reduced - expected.astype(float)).mean() < 3


@pytest.mark.parametrize(("format", "tolerance"), [("png", 0), ("jpeg", 4), ("webp", 5)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_encoding_comes_back(photograph, format, tolerance, channels):  # noqa: A002
    image = {1: photograph[..., :1], 3: photograph, 4: np.dstack([photograph, photograph[..., :1]])}[channels]
    color = {1: "gray", 3: "rgb", 4: "rgb" if format == "jpeg" else "rgba"}[channels]
    back = images.decode(images.encode(image, format, 95), color)
    kept = image[..., :3] if color == "rgb" else image
    assert np.abs(back.astype(float) - kept).mean() <= tolerance


def test_quality_changes_the_size(photograph):
    for format in ("jpeg", "webp"):  # noqa: A001
        assert len(images.encode(photograph, format, 30)) < len(images.encode(photograph, format, 95)) / 2


def test_floats_are_not_encoded(photograph):
    with pytest.raises(ParameterError, match="uint8"):
        images.encode(photograph / np.float32(255))
