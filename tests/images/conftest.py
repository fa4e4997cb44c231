"""Photographs, and one broken file of each kind."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image


@pytest.fixture(scope="session")
def photograph():
    """A part of scikit-learn's photograph of a flower: uint8, 256 × 384 × 3."""
    return np.ascontiguousarray(load_sample_image("flower.jpg")[100:356, 150:534])


def saved(image, format, mode=None, **options):  # noqa: A002
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def save():
    """Write an image by Pillow, which is independent of OpenCV."""
    return saved


@pytest.fixture(scope="session")
def broken(photograph):
    """Bytes of each kind of bad image, with the reason that each must be given."""
    jpeg, png, webp, gif, tiff, bmp = (
        saved(photograph, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
    )
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    huge = bytearray(saved(np.zeros((1, 1, 3), np.uint8), "PNG"))
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    empty_frame = bytearray(jpeg)
    frame = jpeg.index(b"\xff\xc0")
    empty_frame[frame + 5 : frame + 9] = bytes(4)
    return {
        "null": (None, "null"),
        "empty": (b"", "empty"),
        "text": (b"this is no image" * 50, "not an image"),
        "riff of another kind": (b"RIFF" + bytes(40), "not an image"),
        "jpeg of two bytes": (jpeg[:3], "truncated"),
        "half a jpeg": (jpeg[: len(jpeg) // 2], "truncated"),
        "jpeg without its end": (jpeg[:-2], "truncated"),
        "half a png": (png[: len(png) // 2], "truncated"),
        "png header only": (png[:20], "truncated"),
        "half a webp": (webp[: len(webp) // 2], "truncated"),
        "half a gif": (gif[: len(gif) // 2], "corrupt"),
        "half a tiff": (tiff[: len(tiff) // 2], "truncated"),
        "half a bmp": (bmp[: len(bmp) // 2], "corrupt"),
        "png with a wrong checksum": (bytes(flipped), "corrupt"),
        "jpeg of no size": (bytes(empty_frame), "corrupt"),
        "png of 3.6 gigapixels": (bytes(huge), "too large"),
    }
