"""simplejpeg decodes to the samples that OpenCV gives, judges no file otherwise, and stops no other thread."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from sparkopt import images
from sparkopt.errors import CorruptImageError
from sparkopt.images import plain_jpeg
from sparkopt.images.optional_decoders import optional_decoder
from sparkopt.io.image_header import read_header

SIZES = [(1, 1), (1, 9), (9, 1), (16, 16), (17, 33), (97, 61)]
COLORS = ("rgb", "bgr", "gray", "rgba")


def by_pillow(values, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(values).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def by_opencv(values, factor):
    return cv2.imencode(".jpg", values, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])[1].tobytes()


def turned(values):
    exif = Image.Exif()
    exif[0x0112] = 6
    return by_pillow(values, exif=exif)


JPEGS = {
    "4:4:4": lambda values: by_pillow(values, subsampling=0),
    "4:2:2": lambda values: by_pillow(values, subsampling=1),
    "4:2:0": lambda values: by_pillow(values, subsampling=2),
    "4:1:1": lambda values: by_opencv(values, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "4:4:0": lambda values: by_opencv(values, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
    "progressive": lambda values: by_pillow(values, progressive=True),
    "restart markers": lambda values: by_pillow(values, restart_marker_blocks=2),
    "red, green and blue": lambda values: by_pillow(values, keep_rgb=True),
    "few levels": lambda values: by_pillow(values, quality=3),
    "greys": lambda values: by_pillow(values, "L"),
    "greys, progressive": lambda values: by_pillow(values, "L", progressive=True),
    "a turn": turned,
    "CMYK": lambda values: by_pillow(values, "CMYK"),
}


@pytest.fixture(params=["simplejpeg", None], ids=["simplejpeg", "without it"])
def decoder(request, monkeypatch):
    """What decodes: simplejpeg, and OpenCV as if that were not installed."""
    if request.param is None:
        monkeypatch.setitem(sys.modules, "simplejpeg", None)
    optional_decoder.cache_clear()
    yield request.param
    optional_decoder.cache_clear()


def without_it(monkeypatch):
    monkeypatch.setattr(plain_jpeg, "optional_decoder", lambda *_: None)


@pytest.fixture(scope="module")
def jpegs(photograph):
    """Files of each kind, of sizes at which blocks are cut off."""
    return {name: [write(photograph[:rows, :columns]) for rows, columns in SIZES] for name, write in JPEGS.items()}


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("name", JPEGS)
def test_jpegs_have_opencvs_samples(name, color, jpegs, monkeypatch):
    optional_decoder.cache_clear()
    found = [images.decode(data, color) for data in jpegs[name]]
    without_it(monkeypatch)
    for data, samples in zip(jpegs[name], found, strict=True):
        np.testing.assert_array_equal(samples, images.decode(data, color))


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("name", sorted(JPEGS.keys() - {"CMYK"}))
def test_jpegs_are_pillows(name, jpegs):
    for data in jpegs[name]:
        picture = Image.open(io.BytesIO(data))
        expected = np.asarray(picture.convert("RGB"), float)
        found = np.rot90(images.decode(data)) if name == "a turn" else images.decode(data)
        assert np.abs(found - expected).mean() <= 1.5
        np.testing.assert_array_equal(images.decode(data)[..., ::-1], images.decode(data, "bgr"))


def test_all_kinds_do_without_opencv(jpegs):
    optional_decoder.cache_clear()
    for name, (*_, data) in jpegs.items():
        assert plain_jpeg.decode_plain_jpeg(data, read_header(data), "rgb") is not None, name


def judged(data, color):
    try:
        return images.decode(data, color).tobytes()
    except CorruptImageError as error:
        return str(error)


@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("name", JPEGS)
def test_damaged_jpegs_are_judged_alike_with_simplejpeg_and_without(name, color, jpegs, monkeypatch):
    rng, files = np.random.default_rng(0), []
    for _ in range(150):
        data = bytearray(jpegs[name][rng.integers(3, len(SIZES))])
        for place in rng.integers(2, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        files.append(bytes(data[: rng.integers(len(data))]) + b"\xff\xd9" if rng.random() < 0.2 else bytes(data))
    optional_decoder.cache_clear()
    found = [judged(data, color) for data in files]
    without_it(monkeypatch)
    assert [judged(data, color) for data in files] == found
    assert {type(one) for one in found} == {bytes, str}


@pytest.mark.parametrize(("size", "is_held"), [((362, 362), True), ((363, 363), False)])
def test_a_thread_holds_the_interpreter_for_small_files_alone(size, is_held, photograph, monkeypatch):
    """simplejpeg holds it until it is done, and the thread that trains a network would stand still."""
    data, used = by_pillow(cv2.resize(photograph, size)), []

    def decoder(*arguments):
        used.append(arguments[1])
        raise ValueError("left to OpenCV")

    monkeypatch.setattr(plain_jpeg, "optional_decoder", lambda *_: decoder)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(images.decode, data).result()
    assert bool(used) is is_held
    np.testing.assert_array_equal(images.decode(data), found)
    assert len(used) == 1 + is_held


def test_the_limits_of_opencv_hold(photograph, monkeypatch):
    data = by_pillow(photograph)
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_WIDTH", "100")
    optional_decoder.cache_clear()
    assert plain_jpeg.decode_plain_jpeg(data, read_header(data), "rgb") is None
    monkeypatch.undo()
    optional_decoder.cache_clear()
    assert plain_jpeg.decode_plain_jpeg(data, read_header(data), "rgb") is not None


def test_a_size_that_the_header_does_not_give_is_opencvs_to_judge(photograph, monkeypatch):
    monkeypatch.setattr(plain_jpeg, "optional_decoder", lambda *_: lambda *_: photograph[:7])
    assert images.decode(by_pillow(photograph)).shape == photograph.shape
