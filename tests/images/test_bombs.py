"""Small files that claim to be large, and damaged ones that decoders take for other pictures: both are refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from sparkopt import images
from sparkopt.errors import CorruptImageError
from sparkopt.io.image_checks import decodable
from sparkopt.io.image_header import read_header
from tests.images.test_hostile import chunk, plain_tiff, planar, saved, tiff

START = b"\x89PNG\r\n\x1a\n"
IHDR = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
IDAT = chunk(b"IDAT", zlib.compress(bytes(4 * 13)))
IEND = chunk(b"IEND", b"")


def tiled(side: int, size: int = 16, compression: int = 8, packed: bytes | None = None) -> bytes:
    """A TIFF of greys with one tile."""
    packed = zlib.compress(bytes(side * side)) if packed is None else packed
    return tiff(
        {
            256: (4, [size]), 257: (4, [size]), 258: (3, [8]), 259: (3, [compression]), 262: (3, [1]), 277: (3, [1]),
            322: (4, [side]), 323: (4, [side]), 324: (4, [8]), 325: (4, [len(packed)]),
        },
        packed,
    )  # fmt: skip


def deep_tile(side: int = 32768) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return tiled(side, packed=b"x\x9c" + block * (side * side >> 24))


def deep_tile_of_a_large_tiff(side: int = 32768) -> bytes:
    packed = deep_tile()[8:]
    packed = packed[: packed.rindex(b"\0\0\xff\xff") + 4]
    entries = [(256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    entries += [(322, 4, side), (323, 4, side), (324, 16, 24 + 20 * 10 + 8), (325, 4, len(packed))]
    fields = b"".join(struct.pack("<HHQQ", tag, kind, 1, value) for tag, kind, value in entries)
    return struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(entries)) + fields + bytes(8) + packed


def channels(count: int, kind: str = "j2k") -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(np.zeros((500, 500, count), "u1"), codecformat=kind, level=0))


def many_colors() -> bytes:
    """A JPEG 2000 of one channel whose palette makes 200 of it."""
    data = saved(Image.new("L", (64, 64)), "JPEG2000")
    at = data.index(b"jp2c") - 4
    palette = b"pclr" + struct.pack(">HB", 1, 200) + bytes([7]) * 200 + bytes(200)
    meaning = b"cmap" + b"".join(struct.pack(">HBB", 0, 1, number) for number in range(200))
    boxes = b"".join(struct.pack(">I", 4 + len(box)) + box for box in (palette, meaning))
    header = data.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", data, header)
    return data[:header] + struct.pack(">I", length + len(boxes)) + data[header + 4 : at] + boxes + data[at:]


BOMBS = {
    "a PNG whose end claims to be long": (START + IHDR + b"\xff\xff\xff\xf0IEND\0\0\0\0", "truncated: the PNG"),
    "a PNG whose end is long": (START + IHDR + IDAT + chunk(b"IEND", bytes(8)), "corrupt: the PNG has a long end"),
    "a PNG without pixels": (START + IHDR + IEND, "corrupt: the PNG has no pixels"),
    "a PNG whose chunk is longer than the file": (
        START + IHDR + IDAT + b"\x7f\xff\xff\xf0tEXtabcd" + IEND, "truncated: the PNG"
    ),
    "a PNG of two headers": (START + IHDR + IHDR + IDAT + IEND, "corrupt: the PNG has two headers"),
    "a PNG that begins with pixels": (START + IDAT + IHDR + IEND, "corrupt: the PNG does not begin"),
    "a PNG of a long header": (START + chunk(b"IHDR", IHDR[8:21] + b"\0") + IDAT + IEND, "corrupt: the PNG does not"),
    "a TIFF of a large deflated tile": (deep_tile, "corrupt: the TIFF has tiles that are far larger"),
    "a BigTIFF of a large tile": (
        deep_tile_of_a_large_tiff, "corrupt: the BigTIFF has tiles that are far larger"
    ),
    "a TIFF of a large stored tile": (tiled(32768, compression=1), "corrupt: the TIFF has tiles that are far larger"),
    "a TIFF of many large tiles": (
        plain_tiff(
            (30_000, 1), t322=(4, [4096]), t323=(4, [4096]), t324=(4, [8] * 8), t325=(4, [9] * 8), pixels=bytes(9)
        ),
        "corrupt: the TIFF has tiles that are far larger",
    ),
    "a TIFF of many channels": (plain_tiff(t277=(3, [65535]), t258=(3, [8])), "unsupported: an image of 65535"),
    "a deflated strip of much more": (
        plain_tiff(t259=(3, [8]), pixels=zlib.compress(bytes(1 << 24))), "corrupt: .* have no end"
    ),
    "a JPEG 2000 of many channels": (channels(60), "unsupported: an image of 60 channels"),
    "a JP2 of many channels": (channels(60, "jp2"), "unsupported: an image of 60 channels"),
    "a JP2 of a palette of many channels": (many_colors, "unsupported: an image of 200 channels"),
}  # fmt: skip

MEASURE = """
import resource, sys
from sparkopt import images
from sparkopt.errors import CorruptImageError
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    images.decode(data)
except CorruptImageError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10, error)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_allocated(name):
    made, reason = BOMBS[name]
    data = made() if callable(made) else made
    run = subprocess.run([sys.executable, "-c", MEASURE], input=data, capture_output=True, check=True)
    megabytes, _, error = run.stdout.decode().partition(" ")
    assert int(megabytes) < 32
    with pytest.raises(CorruptImageError, match=f"^{reason}"):
        images.decode(data)
    assert error.startswith(reason.partition(" .*")[0])


@pytest.mark.parametrize("tag", [256, 257])
@pytest.mark.parametrize("count", [0, 2])
def test_a_size_of_no_or_two_values_is_refused(tag, count):
    data = bytearray(saved(Image.new("RGB", (8, 8)), "TIFF"))
    at = max(data.find(struct.pack("<HH", tag, kind)) for kind in (3, 4))
    data[at + 4 : at + 8] = struct.pack("<I", count)
    with pytest.raises(CorruptImageError, match="^corrupt: the TIFF gives no size"):
        images.decode(bytes(data))


PIXELS = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 61, 3), np.uint8), (0, 0), 2)
PACKINGS = ("tiff_lzw", "packbits", "tiff_deflate", "jpeg")


def damaged(data: bytes, way: str) -> bytes:
    """A TIFF of one strip, half of which is gone."""
    tags = Image.open(io.BytesIO(data)).tag_v2
    begin, length = tags[TiffImagePlugin.STRIPOFFSETS][0], tags[TiffImagePlugin.STRIPBYTECOUNTS][0]
    changed = bytearray(data)
    if way == "zeroed":
        changed[begin + length // 2 : begin + length] = bytes(length - length // 2)
        return bytes(changed)
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from("<HH", data, at)
        if tag == TiffImagePlugin.STRIPBYTECOUNTS:
            struct.pack_into("<I" if kind == 4 else "<H", changed, at + 8, length // 2)
    return bytes(changed)


@pytest.mark.parametrize("way", ["cut", "zeroed"])
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_half_a_strip_is_no_picture(mode, packing, way):
    data = saved(Image.fromarray(PIXELS).convert(mode), "TIFF", compression=packing, strip_size=1 << 20)
    assert images.decode(data).shape == PIXELS.shape
    with pytest.raises(CorruptImageError, match="^(corrupt|truncated)"):
        images.decode(damaged(data, way))


def test_no_flip_of_a_deflated_strip_is_another_picture():
    """Its checksum is at its very end, where its last samples may be inflated before it is read."""
    values = (np.arange(4096, dtype=np.uint32) * 2654435761 % 251).astype(np.uint8)
    packed, refused = zlib.compress(values.tobytes()), 0
    for bit in range(8 * (len(packed) - 24), 8 * len(packed)):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << bit % 8
        data = plain_tiff((64, 64), bytes(flipped), t258=(3, [8]), t259=(3, [8]), t262=(3, [1]), t277=(3, [1]))
        try:  # a bit that fills the last byte before the checksum changes nothing
            np.testing.assert_array_equal(images.decode(data, "gray")[..., 0].ravel(), values)
        except CorruptImageError:
            refused += 1
    assert refused >= 24 * 8 - 7


@pytest.mark.parametrize("more", [b"", b"\0", b"\xff" * 999], ids=["exact", "a pad", "a long pad"])
@pytest.mark.parametrize("rows", [0, 3], ids=["exact", "rows below the image"])
def test_strips_may_be_padded_and_hold_more_rows(rows, more):
    values = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    packed = zlib.compress(values.tobytes() + bytes(12 * rows)) + more
    np.testing.assert_array_equal(images.decode(plain_tiff(t259=(3, [8]), pixels=packed)), values)


@pytest.mark.parametrize("packing", [5, 32773, 8])
@pytest.mark.parametrize("rows", [1, 7, 64, 100_000])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_whole_strips_are_read(dtype, rows, packing):
    """As OpenCV and Pillow write them."""
    options = [cv2.IMWRITE_TIFF_COMPRESSION, packing, cv2.IMWRITE_TIFF_ROWSPERSTRIP, rows]
    values = PIXELS.astype(dtype) * (257 if dtype == "u2" else 1)
    data = cv2.imencode(".tiff", values[..., ::-1], options)[1].tobytes()
    np.testing.assert_array_equal(images.decode(data, depth="keep"), values)
    names = {5: "tiff_lzw", 32773: "packbits", 8: "tiff_deflate"}
    pillow = saved(Image.fromarray(PIXELS), "TIFF", compression=names[packing], strip_size=rows * 61 * 3)
    np.testing.assert_array_equal(images.decode(pillow), PIXELS)


@pytest.mark.parametrize("side", [16, 256, 4096])
def test_a_tile_may_be_larger_than_the_image(side):
    assert images.decode(tiled(side)).shape == (16, 16, 3)


def test_a_large_packed_strip_is_checked_too():
    """It is more than Pillow would take for an image of greys without a warning."""
    size = (9000, 10_000)
    packed = bytes([129, 7]) * (-(-size[0] * size[1] // 128))
    tags = {"t258": (3, [8]), "t259": (3, [32773]), "t262": (3, [1]), "t277": (3, [1])}
    for pixels, is_whole in ((packed, True), (packed[: len(packed) // 2], False)):
        data = plain_tiff(size, pixels, **tags)
        header = read_header(data, 1 << 27)
        if is_whole:
            assert decodable(data, header) is data
        else:
            with pytest.raises(CorruptImageError, match="^corrupt: the TIFF's packed samples are damaged"):
                decodable(data, header)


CHANGED = {
    "greys with alpha": lambda: saved(Image.fromarray(PIXELS).convert("LA"), "TIFF"),
    "inks": lambda: saved(Image.fromarray(PIXELS).convert("CMYK"), "TIFF", compression="tiff_lzw"),
    "packed": lambda: saved(Image.fromarray(PIXELS), "TIFF", compression="packbits", strip_size=999),
    "a palette": lambda: saved(Image.fromarray(PIXELS).quantize(16), "TIFF"),
    "planar": lambda: planar(np.zeros((3, 6, 7), np.uint16), is_deflated=True),
    "tiled": lambda: tiled(32),
    "JPEGs": lambda: saved(Image.fromarray(PIXELS), "TIFF", compression="jpeg"),
    "large": lambda: saved(Image.fromarray(PIXELS), "TIFF", big_tiff=True),
    "zstd": lambda: saved(Image.fromarray(PIXELS), "TIFF", compression="zstd"),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_no_field_of_a_tiff_makes_another_error(kind):
    """Each field's type, number of values and value, as what breaks arithmetic."""
    data = CHANGED[kind]()
    is_large = data[2] == 43
    place, form, step, begin = ("<Q", "<Q", 20, 8) if is_large else ("<I", "<H", 12, 2)
    (directory,) = struct.unpack_from(place, data, 8 if is_large else 4)
    (count,) = struct.unpack_from(form, data, directory)
    refused = 0
    for entry in range(directory + begin, directory + begin + step * count, step):
        parts = [(entry + 2, "<H"), (entry + 4, place), (entry + (12 if is_large else 8), place)]
        for at, packing in parts:
            for value in (0, 1, 2, 3, 65535, 2**31, 2**32 - 1, 2**64 - 1):
                changed = bytearray(data)
                struct.pack_into(packing, changed, at, value % (1 << 8 * struct.calcsize(packing)))
                try:
                    decodable(bytes(changed), read_header(bytes(changed)))
                except CorruptImageError:
                    refused += 1
    assert refused > 20
