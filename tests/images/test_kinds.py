"""Every kind of pixels in every format is what Pillow reads, or one clear refusal; its size is checked before."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from sparkopt import images
from sparkopt.errors import CorruptImageError
from sparkopt.images import functional as F

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MODES = {  # what each format can hold of Pillow's modes
    "1": FORMATS,
    "L": FORMATS,
    "LA": ("PNG", "WEBP", "GIF", "TIFF"),
    "P": ("PNG", "WEBP", "GIF", "BMP", "TIFF"),
    "RGB": FORMATS,
    "RGBA": ("PNG", "WEBP", "GIF", "BMP", "TIFF"),
    "CMYK": ("JPEG", "TIFF"),
    "YCbCr": ("JPEG", "TIFF"),
}
OPTIONS = {
    "progressive": ("JPEG", {"progressive": True}),
    "interlaced": ("PNG", {"interlace": True}),
    "optimised": ("PNG", {"optimize": True}),
    "lossless": ("WEBP", {"lossless": True}),
    **{name: ("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")},
}


def seen(data, mode):
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode), float).reshape(9, 11, -1)


@pytest.fixture(scope="module")
def small(photograph):
    return np.ascontiguousarray(photograph[60:69, 100:111])


@pytest.mark.parametrize(("mode", "kind"), [(mode, kind) for mode, kinds in MODES.items() for kind in kinds])
def test_every_mode_is_read_as_pillow_reads_it(small, save, mode, kind):
    data = save(small, kind, mode)
    tolerance = 3 if kind == "JPEG" or mode in ("CMYK", "YCbCr") else 0.5  # of the mean; decoders round differently
    for color, theirs in (("rgb", "RGB"), ("rgba", "RGBA"), ("gray", "L")):
        decoded = images.decode(data, color)
        assert decoded.dtype == np.uint8
        assert np.abs(decoded - seen(data, theirs)).mean() < tolerance + (color == "gray"), color
    np.testing.assert_array_equal(images.decode(data, "bgr"), images.decode(data)[..., ::-1])


@pytest.mark.parametrize(("kind", "options"), OPTIONS.values(), ids=OPTIONS)
def test_every_way_to_write_it_is_read(small, save, kind, options):
    data = save(small, kind, **options)
    assert np.abs(images.decode(data) - seen(data, "RGB")).mean() < 1.5


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_a_sample(kind, channels):
    values = np.random.default_rng(0).integers(0, 2**16, (9, 11, channels)).astype(np.uint16)
    data = cv2.imencode(f".{kind}", values)[1].tobytes()
    expected = values / 257 if channels == 1 else values[..., 2::-1] / 257
    np.testing.assert_allclose(images.decode(data), np.broadcast_to(expected, (9, 11, 3)), atol=1)
    rgba = images.decode(data, "rgba")
    np.testing.assert_allclose(rgba[..., :3], np.broadcast_to(expected, (9, 11, 3)), atol=1)
    np.testing.assert_allclose(rgba[..., 3], values[..., 3] / 257 if channels == 4 else np.full((9, 11), 255), atol=1)


@pytest.mark.parametrize("color", ["rgb", "rgba", "gray", "bgr"])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_samples_that_no_byte_stands_for_are_refused(dtype, color):
    data = cv2.imencode(".tiff", np.ones((9, 11, 1 if dtype == np.int32 else 3), dtype))[1].tobytes()
    with pytest.raises(CorruptImageError, match=r"^unsupported: samples of 32 bits"):
        images.decode(data, color)


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_a_transparent_colour_of_a_palette(small, save, kind):
    picture = Image.fromarray(small).quantize(16)
    data = save(picture, kind, transparency=3)
    hidden = np.asarray(picture) == 3
    decoded = images.decode(data, "rgba")
    np.testing.assert_array_equal(decoded[..., 3], np.where(hidden, 0, 255))
    expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(decoded[..., :3][~hidden], expected[~hidden])


@pytest.mark.parametrize("kind", FORMATS)
def test_the_limit_on_pixels_is_kept_before_decoding(small, save, kind, monkeypatch):
    data = save(small, kind)
    assert images.decode(data, max_pixels=99).shape == (9, 11, 3)

    def decoder(*arguments):
        raise AssertionError("the decoder was called")

    monkeypatch.setattr(F.cv2, "imdecode", decoder)
    with pytest.raises(CorruptImageError, match=r"^too large: 9 x 11 pixels exceed the limit of 98 pixels"):
        images.decode(data, max_pixels=98)
    kernel = images.ImageKernel(images.Compose([images.Decode(max_pixels=98), images.Resize(2, 2)]))
    with pytest.raises(CorruptImageError, match="^too large: "):
        kernel.pipeline(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_cropped_and_shrunk_in_one(photograph, save, orientation):
    """Orientation, a reduced decoding of odd size, a crop and a resize are one map; apart, they show the same."""
    exif = Image.Exif()
    exif[274] = orientation
    large = cv2.resize(photograph, (1203, 805), interpolation=cv2.INTER_CUBIC)
    data = save(large, "JPEG", exif=exif.tobytes(), quality=95)
    steps = [images.CenterCrop(700, 780), images.Resize(100, 111)]
    once = images.Compose([images.Decode(), *steps])(data)
    whole = images.Compose([images.Decode(reduced=False), *steps])(data)
    apart = F.resize(F.crop(images.decode(data), *corner(images.decode(data)), 700, 780), 100, 111)
    np.testing.assert_allclose(whole, apart.astype(float), atol=1)  # averaged before or after a quarter turn
    assert np.abs(once - apart.astype(float)).mean() < 3


def corner(image):
    return round((image.shape[0] - 700) / 2), round((image.shape[1] - 780) / 2)
