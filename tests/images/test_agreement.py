"""Files of every writer at hand, in every mode and depth: what both read is what Pillow reads."""

import io
from collections import Counter

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from sparkopt import images
from sparkopt.errors import CorruptImageError

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16", "I")
OPTIONS = {
    "JPEG": [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}],
    "PNG": [{}, {"optimize": True}, {"bits": 4}, {"bits": 2}, {"bits": 1}],
    "WEBP": [{}, {"lossless": True}],
    "GIF": [{}, {"interlace": 0}],
    "BMP": [{}],
    "TIFF": [
        {},
        {"big_tiff": True},
        *({"compression": one} for one in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "group4")),
    ],
    "JPEG2000": [{}],
    "AVIF": [{}],
}
LOSSY = ("JPEG", "jpg", "WEBP", "webp", "AVIF", "avif", "jpeg", "CMYK", "YCbCr")


def of_mode(photograph, mode):
    if mode in ("I;16", "I"):
        return Image.fromarray(photograph[..., 0].astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    alpha = np.arange(photograph[..., 0].size).reshape(photograph.shape[:2]).astype(np.uint8)
    picture = Image.fromarray(np.dstack([photograph, alpha]) if mode in ("RGBA", "LA") else photograph)
    return picture.convert(mode)


def written(photograph):
    """Yield (writer, file); what a writer refuses is left out."""
    for kind, choices in OPTIONS.items():
        for mode in MODES:
            for options in choices:
                picture = of_mode(photograph, mode)
                if "bits" in options:
                    if mode != "P":
                        continue
                    picture = Image.fromarray(photograph).quantize(2 ** options["bits"])
                file = io.BytesIO()
                try:
                    picture.save(file, kind, **options)
                except (OSError, ValueError, KeyError, RuntimeError):
                    continue
                yield f"Pillow {kind} {mode} {options}", file.getvalue()
    four = np.dstack([photograph, photograph[..., 0]])
    for scale, dtype in ((1, np.uint8), (257, np.uint16)):
        for channels in (1, 3, 4):
            values = np.ascontiguousarray(four[..., :channels].astype(dtype) * dtype(scale))
            for ending in (".jpg", ".png", ".webp", ".bmp", ".tiff", ".jp2"):
                try:
                    is_done, data = cv2.imencode(ending, values)
                except cv2.error:
                    continue
                if is_done:
                    yield f"OpenCV {ending} {channels} x {dtype.__name__}", data.tobytes()
            for name in ("jpeg8", "png", "webp", "gif", "bmp", "tiff", "jpeg2k", "avif"):
                try:
                    data = getattr(imagecodecs, f"{name}_encode")(values[..., 0] if channels == 1 else values)
                except (RuntimeError, ValueError, TypeError, AttributeError):
                    continue
                yield f"imagecodecs {name} {channels} x {dtype.__name__}", bytes(data)


def as_pillow_reads(data, mode):
    """Return Pillow's pixels; of 16 bits scaled to 8, since its own conversion clips them."""
    picture = Image.open(io.BytesIO(data))
    if picture.mode.startswith("I"):
        return np.asarray(picture, float)[:, :, np.newaxis] / 257
    return np.asarray(picture.convert(mode), float).reshape(picture.height, picture.width, -1)


@pytest.mark.filterwarnings("ignore")
def test_what_both_read_is_the_same(photograph):
    outcomes, others = Counter(), []
    for name, data in written(np.ascontiguousarray(photograph[:33, :47])):
        for color, mode in (("rgb", "RGB"), ("rgba", "RGBA"), ("gray", "L")):
            try:
                expected = as_pillow_reads(data, mode)
            except (OSError, ValueError, SyntaxError):
                continue
            try:
                found = images.decode(data, color).astype(float)
            except CorruptImageError as error:
                outcomes["refused"] += 1
                others += [] if str(error).startswith("unsupported: ") else [(name, color, str(error))]
                continue
            found = found[..., : expected.shape[2]] if expected.shape[2] == 1 else found
            tolerance = 3 if any(word in name for word in LOSSY) else 1.5
            is_same = found.shape == expected.shape and np.abs(found - expected).mean() <= tolerance
            outcomes["same" if is_same else "different"] += 1
            others += [] if is_same else [(name, color)]
    assert outcomes["same"] > 500
    assert outcomes["different"] <= 0.01 * outcomes["same"], others
    assert not [one for one in others if len(one) == 3]
    assert outcomes["refused"] <= 0.03 * outcomes["same"]
