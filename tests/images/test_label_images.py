"""Masks in PNGs: the labels that were written, whichever way they are decoded; an error where a bit is wrong."""

import io
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from sparkopt import images
from sparkopt.errors import CorruptImageError
from sparkopt.images import label_images
from sparkopt.io.image_header import read_header

SIZES = [(1, 1), (1, 9), (9, 1), (33, 41)]
FILTERS = {
    "none": cv2.IMWRITE_PNG_FILTER_NONE,
    "sub": cv2.IMWRITE_PNG_FILTER_SUB,
    "up": cv2.IMWRITE_PNG_FILTER_UP,
    "avg": cv2.IMWRITE_PNG_FILTER_AVG,
    "paeth": cv2.IMWRITE_PNG_FILTER_PAETH,
    "some sub": cv2.IMWRITE_PNG_FILTER_NONE | cv2.IMWRITE_PNG_FILTER_SUB,
}


def labels_of(size, count=256):
    return np.random.default_rng(size[1]).integers(0, count, size, np.uint8)


def opencv(labels, name):
    return cv2.imencode(".png", labels, [cv2.IMWRITE_PNG_FILTER, FILTERS[name]])[1].tobytes()


def pillow(labels, mode, **options):
    picture = Image.fromarray(labels, mode)
    if mode == "P":
        picture.putpalette(np.arange(768, dtype=np.uint16).astype(np.uint8).tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


@pytest.fixture(params=["imagecodecs", None], ids=["imagecodecs", "without it"])
def inflater(request, monkeypatch):
    """What inflates: with imagecodecs, and as if it were not installed."""
    if request.param is None:
        monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for chosen in (label_images._inflater, label_images._adder):
        chosen.cache_clear()
    yield request.param
    for chosen in (label_images._inflater, label_images._adder):
        chosen.cache_clear()


def is_quick(data):
    return label_images.decode_labels(data, read_header(data)) is not None


@pytest.mark.usefixtures("inflater")
@pytest.mark.parametrize("size", SIZES)
def test_labels_are_those_that_were_written(size):
    for count in (3, 256):
        labels = labels_of(size, count)
        for name in FILTERS:
            np.testing.assert_array_equal(images.decode_mask(opencv(labels, name)), labels, name)
        for data in (pillow(labels, "P"), pillow(labels, "P", transparency=1), pillow(labels, "L")):
            np.testing.assert_array_equal(images.decode_mask(data), labels)


def test_the_common_kinds_do_without_libpng():
    labels = labels_of((33, 41))
    files = {"a palette": pillow(labels, "P"), "OpenCV's own": cv2.imencode(".png", labels)[1].tobytes()}
    files |= {name: opencv(labels, name) for name in ("none", "sub", "some sub")}
    assert [name for name, data in files.items() if not is_quick(data)] == []
    others = [opencv(labels, "paeth"), opencv(labels[..., np.newaxis].repeat(3, axis=2), "sub")]
    assert not any(map(is_quick, others))


@pytest.mark.usefixtures("inflater")
@pytest.mark.parametrize(
    "write", [lambda one: opencv(one, "sub"), lambda one: pillow(one, "P")], ids=["sub", "palette"]
)
def test_every_wrong_bit_is_an_error(write):
    labels = labels_of((7, 11), 3)
    data = write(labels)
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        try:
            found = images.decode_mask(bytes(changed))
        except CorruptImageError:
            continue
        np.testing.assert_array_equal(found, labels)  # of the palette's bytes only libpng reads the checksum


@pytest.mark.usefixtures("inflater")
def test_no_more_is_inflated_than_the_size_holds():
    bomb = opencv(np.zeros((4000, 4000), np.uint8), "none")
    small = bomb[:16] + (4).to_bytes(4, "big") * 2 + bomb[24:29]
    data = small + zlib.crc32(small[12:29]).to_bytes(4, "big") + bomb[33:]
    assert not is_quick(data)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_labels_are_turned_with_their_image(orientation):
    labels = labels_of((5, 9))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = images.decode_mask(pillow(labels, "P", exif=exif))
    np.testing.assert_array_equal(found, np.rot90(labels, {1: 0, 3: 2, 6: -1, 8: 1}[orientation]))


@pytest.mark.usefixtures("inflater")
def test_sums_beyond_32_bits(monkeypatch):
    monkeypatch.setattr(label_images, "_SUMMED_AT_ONCE", 100)
    labels = labels_of((33, 41))
    np.testing.assert_array_equal(images.decode_mask(opencv(labels, "sub")), labels)
