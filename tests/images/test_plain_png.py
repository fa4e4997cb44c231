"""Plain PNGs: the samples that were written, with kornia-rs and without it; an error where a bit is wrong."""

import io
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from sparkopt import images
from sparkopt.errors import CorruptImageError
from sparkopt.images import optional_decoders, plain_png
from sparkopt.io.image_header import MAX_PIXELS

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


@pytest.fixture(params=["kornia_rs", None], ids=["kornia-rs", "without it"])
def decoder(request, monkeypatch):
    """What decodes: kornia-rs, and OpenCV as if that were not installed."""
    if request.param is None:
        monkeypatch.setitem(sys.modules, "kornia_rs.io", None)
    optional_decoders.optional_decoder.cache_clear()
    yield request.param
    optional_decoders.optional_decoder.cache_clear()


def is_plain(data, kinds=(plain_png.GREY, plain_png.PALETTE)):
    return plain_png.decode_plain_png(data, MAX_PIXELS, kinds) is not None


@pytest.mark.usefixtures("decoder")
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
    files |= {"Pillow's greys": pillow(labels, "L")} | {name: opencv(labels, name) for name in FILTERS}
    assert [name for name, data in files.items() if not is_plain(data)] == []
    assert not is_plain(opencv(labels[..., np.newaxis].repeat(3, axis=2), "sub"))


def filtered(labels, kinds):
    """The rows of a PNG, each with its filter, by the formulas of PNG's specification (section 9.2)."""
    values = labels.astype(int)
    left, up, corner = (np.zeros_like(values) for _ in range(3))
    left[:, 1:], up[1:], corner[1:, 1:] = values[:, :-1], values[:-1], values[:-1, :-1]
    guess = left + up - corner
    distances = [np.abs(guess - one) for one in (left, up, corner)]
    paeth = np.select(
        [(distances[0] <= distances[1]) & (distances[0] <= distances[2]), distances[1] <= distances[2]],
        [left, up], corner,
    )  # fmt: skip
    predicted = np.stack([np.zeros_like(values), left, up, (left + up) // 2, paeth])
    rows = [values[row] - predicted[kind, row] for row, kind in enumerate(kinds)]
    return np.hstack([np.array(kinds)[:, None], np.array(rows) % 256]).astype(np.uint8).tobytes()


def chunk(name, body):
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def file_of(size, stream, kind=0, before=b"", after=b"", parts=1):
    header = size[1].to_bytes(4, "big") + size[0].to_bytes(4, "big") + bytes((8, kind, 0, 0, 0))
    step = max(1, -(-len(stream) // parts))
    pixels = b"".join(chunk(b"IDAT", stream[at : at + step]) for at in range(0, len(stream), step))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pixels + after + chunk(b"IEND", b"")


PALETTE = chunk(b"PLTE", bytes(range(256)) * 3)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("kind", [0, 3], ids=["greys", "palette"])
@pytest.mark.parametrize("kinds", [(0,), (1,), (2,), (3,), (4,), (0, 1), (1, 2, 4), (0, 1, 2, 3, 4)], ids=str)
def test_filters_are_undone(kinds, kind):
    for size in SIZES:
        labels = labels_of(size, 5)
        chosen = np.random.default_rng(size[0]).choice(kinds, size[0])
        stream = zlib.compress(filtered(labels, chosen), 6)
        for parts in (1, 3):
            data = file_of(size, stream, kind, PALETTE if kind else b"", parts=parts)
            np.testing.assert_array_equal(images.decode_mask(data), labels)


LABELS = labels_of((24, 31), 7)
ROWS = {
    name: filtered(LABELS, np.random.default_rng(0).choice(kinds, 24))
    for name, kinds in {"plain": [0], "differences": [1], "mixed": [0, 1, 2, 3, 4]}.items()
}
ALIKE = {
    "gamma": {"before": chunk(b"gAMA", (100_000).to_bytes(4, "big"))},
    "a dark gamma": {"before": chunk(b"gAMA", (22_000).to_bytes(4, "big"))},
    "significant bits": {"before": chunk(b"sBIT", b"\3")},
    "a background": {"before": chunk(b"bKGD", b"\0\3")},
    "a level that is transparent": {"before": chunk(b"tRNS", b"\0\1")},
    "text": {"after": chunk(b"tEXt", b"Title\0labels")},
    "an unknown chunk": {"before": chunk(b"quIc", b"12")},
    "an animation": {"before": chunk(b"acTL", bytes((0, 0, 0, 1, 0, 0, 0, 0)))},
    "a profile": {"before": chunk(b"sRGB", b"\0")},
    "metadata that turn nothing": {"before": chunk(b"eXIf", Image.Exif().tobytes()[6:])},
}


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", ALIKE)
def test_what_is_beside_the_pixels_changes_no_label(name, rows):
    data = file_of((24, 31), zlib.compress(ROWS[rows]), **ALIKE[name])
    np.testing.assert_array_equal(images.decode_mask(data), LABELS)


SIZE = (24, 31)
UNKNOWN = chunk(b"QUIc", b"12")
WRONG = {
    "a row too few": lambda rows, stream: file_of(SIZE, zlib.compress(rows[:-32])),
    "half a row too few": lambda rows, stream: file_of(SIZE, zlib.compress(rows[:-16])),
    "a stream that ends early": lambda rows, stream: file_of(SIZE, stream[: len(stream) // 2]),
    "no pixels": lambda rows, stream: file_of(SIZE, b""),
    "a wrong code in the stream": lambda rows, stream: file_of(SIZE, stream[:2] + b"\xff" + stream[3:]),
    "no stream": lambda rows, stream: file_of(SIZE, b"labels" * 9),
    "an unknown filter": lambda rows, stream: file_of(SIZE, zlib.compress(rows[:-32] + b"\5" + rows[-31:])),
    "pixels in two places": lambda rows, stream: file_of(
        SIZE, stream[:20], after=chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", stream[20:])
    ),
    "no end": lambda rows, stream: file_of(SIZE, stream)[:-12],
    "half an end": lambda rows, stream: file_of(SIZE, stream)[:-6],
    "an unknown chunk that must be known": lambda rows, stream: file_of(SIZE, stream, before=UNKNOWN),
    "no size": lambda rows, stream: file_of((0, 31), stream),
    "more pixels than the limit": lambda rows, stream: file_of((60_000, 60_000), stream),
}
"""Files of which each checksum of a chunk is right, and something else is not."""


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_an_error(name, rows):
    data = WRONG[name](ROWS[rows], zlib.compress(ROWS[rows]))
    with pytest.raises(CorruptImageError):
        images.decode_mask(data)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(
    "write",
    [
        lambda one: opencv(one, "sub"),
        lambda one: pillow(one, "P"),
        lambda one: file_of(one.shape, zlib.compress(filtered(one, [4, 2, 1, 3, 4, 0, 2]))),
    ],
    ids=["sub", "palette", "all filters"],
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


@pytest.mark.usefixtures("decoder")
def test_what_follows_the_last_row_is_left_out():
    large = opencv(np.ones((4000, 4000), np.uint8), "none")
    small = large[:16] + (4).to_bytes(4, "big") * 2 + large[24:29]
    data = small + zlib.crc32(small[12:29]).to_bytes(4, "big") + large[33:]
    assert images.decode_mask(data).shape == (4, 4)


def test_the_checksum_of_the_stream_is_not_needed_where_those_of_its_chunks_are_right():
    """kornia-rs leaves it out: the chunks' cover the same bytes."""
    stream = zlib.compress(ROWS["mixed"])
    np.testing.assert_array_equal(images.decode_mask(file_of(SIZE, stream[:-4] + b"1234")), LABELS)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_labels_are_turned_with_their_image(orientation):
    labels = labels_of((5, 9))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = images.decode_mask(pillow(labels, "P", exif=exif))
    np.testing.assert_array_equal(found, np.rot90(labels, {1: 0, 3: 2, 6: -1, 8: 1}[orientation]))


PHOTOGRAPH = np.random.default_rng(4).integers(0, 256, (19, 23, 3), np.uint8)


def png_of(values, **options):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", **options)
    return file.getvalue()


def with_chunk(data, added):
    return data[:33] + added + data[33:]


COLORED, LEVELS = png_of(PHOTOGRAPH), png_of(PHOTOGRAPH[..., 0])
PHOTOGRAPHS = {
    "colours": COLORED,
    "greys": LEVELS,
    "OpenCV's": cv2.imencode(".png", PHOTOGRAPH[..., ::-1])[1].tobytes(),
    "a gamma": with_chunk(COLORED, chunk(b"gAMA", (100_000).to_bytes(4, "big"))),
    "greys with a gamma": with_chunk(LEVELS, chunk(b"gAMA", (100_000).to_bytes(4, "big"))),
    "a profile": with_chunk(COLORED, chunk(b"sRGB", b"\0")),
    "text": png_of(PHOTOGRAPH, dpi=(72, 72)),
    "a colour that is transparent": png_of(PHOTOGRAPH, transparency=(1, 2, 3)),
    "an alpha": png_of(np.dstack([PHOTOGRAPH, PHOTOGRAPH[..., :1]])),
    "a palette": pillow(labels_of((19, 23)), "P"),
    "one bit": png_of(PHOTOGRAPH[..., 0] > 127),
    "sixteen bits": cv2.imencode(".png", PHOTOGRAPH.astype(np.uint16) * 257)[1].tobytes(),
    "interlaced": file_of((1, 1), zlib.compress(b"\0\7")).replace(
        chunk(b"IHDR", b"\0\0\0\1" * 2 + b"\x08\0\0\0\0"), chunk(b"IHDR", b"\0\0\0\1" * 2 + b"\x08\0\0\0\1")
    ),
}


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_pillows(name):
    data = PHOTOGRAPHS[name]
    picture = Image.open(io.BytesIO(data))
    expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(images.decode(data), expected)
    np.testing.assert_array_equal(images.decode(data, "bgr"), expected[..., ::-1])
    np.testing.assert_array_equal(images.decode(data, "gray"), cv2.cvtColor(expected, cv2.COLOR_RGB2GRAY)[..., None])
    np.testing.assert_array_equal(images.decode(data, "rgba"), np.asarray(picture.convert("RGBA")))


def test_plain_photographs_do_without_libpng():
    kinds = (plain_png.GREY, plain_png.COLORS)
    plain = {name for name, data in PHOTOGRAPHS.items() if is_plain(data, kinds)}
    seen_through = "a colour that is transparent"
    others = {"a palette", "an alpha", "one bit", "sixteen bits", "interlaced"}
    assert plain == PHOTOGRAPHS.keys() - others
    assert plain_png.decode_plain_png(PHOTOGRAPHS[seen_through], MAX_PIXELS, kinds, (b"tRNS",)) is None


def judged(decode, data):
    """The pixels of a file as bytes, or that there are none."""
    try:
        return decode(data).tobytes()
    except CorruptImageError:
        return "corrupt"


@pytest.mark.parametrize("name", ["colours", "greys", "text", "a palette"])
def test_damaged_files_are_judged_alike_with_kornia_and_without(name, monkeypatch):
    rng, files = np.random.default_rng(0), []
    for _ in range(300):
        data = bytearray(PHOTOGRAPHS[name])
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            data[place] = rng.integers(256)
        files.append(bytes(data[: rng.integers(len(data))] if rng.random() < 0.1 else data))
    decode = images.decode_mask if name == "a palette" else images.decode
    optional_decoders.optional_decoder.cache_clear()
    found = [judged(decode, data) for data in files]
    monkeypatch.setattr(plain_png, "optional_decoder", lambda *_: None)
    assert [judged(decode, data) for data in files] == found
    assert found.count("corrupt") > 200  # a palette is no part of labels


def in_a_thread(function, *arguments):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


@pytest.mark.parametrize(
    ("values", "is_held"),
    [
        (np.zeros((512, 512), np.uint8), True),
        (np.zeros((512, 513), np.uint8), False),
        (np.zeros((290, 290, 3), np.uint8), True),
        (np.zeros((512, 512, 3), np.uint8), False),
    ],
    ids=["a mask", "a large mask", "a small photograph", "a photograph"],
)
def test_a_thread_holds_the_interpreter_for_small_files_alone(values, is_held, monkeypatch):
    """kornia-rs holds it until it is done, and the thread that trains a network would stand still."""
    data, used = cv2.imencode(".png", values)[1].tobytes(), []
    monkeypatch.setattr(plain_png, "optional_decoder", lambda *_: lambda *_: used.append("kornia-rs"))
    in_a_thread(images.decode, data)
    assert bool(used) is is_held
    images.decode(data)
    assert len(used) == 1 + is_held
    monkeypatch.undo()
    np.testing.assert_array_equal(in_a_thread(images.decode, data), images.decode(data))


class PanicException(BaseException):
    """What Python makes of a failed assertion in Rust."""


@pytest.mark.parametrize(("error", "is_left_to_opencv"), [(PanicException, True), (KeyboardInterrupt, False)])
def test_a_panic_of_the_decoder_is_left_to_opencv(monkeypatch, error, is_left_to_opencv):
    def decoder(*_):
        raise error

    monkeypatch.setattr(plain_png, "optional_decoder", lambda *_: decoder)
    if is_left_to_opencv:
        np.testing.assert_array_equal(images.decode(COLORED), PHOTOGRAPH)
    else:
        with pytest.raises(error):
            images.decode(COLORED)
