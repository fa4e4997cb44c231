"""Files that would end a worker, fill its memory or be read as another picture: read right, or refused in a line."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sparkopt import codecs, images
from sparkopt.errors import CorruptDataError, CorruptImageError, DataError, ParameterError
from sparkopt.images.arrow import ImageKernel
from sparkopt.io.image_header import MOST_SCANS

FIELD = Path(__file__).parents[2].parent / "shared" / "field" / "files"


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(
    entries: dict[int, tuple[int, list[int]]], pixels: bytes, more: Sequence[tuple[int, int, list[int]]] = ()
) -> bytes:
    """A little-endian TIFF of one strip; ``entries`` are tag: (type, values), ``more`` comes after them."""
    fields = [*((tag, kind, values) for tag, (kind, values) in sorted(entries.items())), *more]
    start = 8 + len(pixels)
    after = start + 2 + 12 * len(fields) + 4
    directory, long = struct.pack("<H", len(fields)), b""
    for tag, kind, values in fields:
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) <= 4:
            where = packed.ljust(4, b"\0")
        else:
            where, long = struct.pack("<I", after + len(long)), long + packed
        directory += struct.pack("<HHI", tag, kind, len(values)) + where
    return b"II*\0" + struct.pack("<I", start) + pixels + directory + bytes(4) + long


def plain_tiff(size=(4, 4), pixels=None, **changed) -> bytes:
    height, width = size
    pixels = bytes(3 * height * width) if pixels is None else pixels
    entries = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [8, 8, 8]), 259: (3, [1]), 262: (3, [2]), 273: (4, [8]),
        277: (3, [3]), 278: (4, [height]), 279: (4, [len(pixels)]),
    }  # fmt: skip
    entries |= {int(tag.removeprefix("t")): value for tag, value in changed.items()}
    return tiff(entries, pixels)


def animated() -> bytes:
    """An animated PNG whose second frame has a chunk too short for its own number."""
    still = saved(Image.new("RGB", (64, 64), (64, 64, 64)), "PNG")
    control = struct.pack(">IIIIIHHBB", 1, 64, 64, 0, 0, 1, 1, 0, 0)
    end = still.index(b"IEND") - 4
    first = struct.pack(">IIIIIHHBB", 0, 64, 64, 0, 0, 1, 1, 0, 0)
    begin = still.index(b"IDAT") - 4
    extra = chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", first)
    return still[:begin] + extra + still[begin:end] + chunk(b"fcTL", control) + chunk(b"fdAT", b"\0") + still[end:]


def many_scans(count: int) -> bytes:
    data = saved(Image.new("L", (16, 16), 99), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def hidden_size() -> bytes:
    """A JPEG with FF 00 and a length: libjpeg reads on after two bytes, and finds the real size there."""
    data = bytearray(saved(Image.new("RGB", (16, 16)), "JPEG"))
    frame = data.index(b"\xff\xc0")
    small = data[frame : frame + 2 + 17]
    big = bytearray(small)
    big[5:9] = struct.pack(">HH", 16000, 16000)
    return bytes(data[:frame] + b"\xff\x00" + struct.pack(">H", 2 + len(big)) + big + small + data[frame + 19 :])


def big_tiff(hidden: int | None = None, at: int = 16) -> bytes:
    """A BigTIFF of 4 x 4 greys; before its size, another one of a type that only Pillow takes."""
    sides = [(4, 4)] if hidden is None else [(9, hidden), (4, 4)]
    entries = [(tag, kind, side) for kind, side in sides for tag in (256, 257)]
    entries += [(258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 1), (279, 4, 4)]
    fields = b"".join(struct.pack("<HHQQ", tag, kind, 1, value) for tag, kind, value in entries)
    return struct.pack("<2sHHHQQ", b"II", 43, 8, 0, at, len(entries)) + fields + bytes(8)


DEFLATED = zlib.compress(bytes(range(48)))
FLIPPED = DEFLATED[:9] + bytes([DEFLATED[9] ^ 4]) + DEFLATED[10:]
REFUSED = {
    "a JPEG that hides its size": (hidden_size(), "corrupt: a JPEG marker is missing"),
    "a JPEG of many scans": (many_scans(MOST_SCANS), f"corrupt: the JPEG has more than {MOST_SCANS} scans"),
    "a TIFF with two sizes": (
        tiff(
            {256: (4, [20000]), 257: (4, [20000]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]), 273: (4, [8])},
            bytes(16),
            [(256, 4, [1]), (257, 4, [1])],
        ),
        "too large: 20000 x 20000",
    ),
    "a TIFF whose samples are cut off": (plain_tiff(pixels=bytes(40)), "truncated: the TIFF holds fewer samples"),
    "a TIFF with samples beyond its end": (plain_tiff(t273=(4, [1 << 20])), "truncated: the TIFF ends before"),
    "a planar TIFF with one plane": (
        plain_tiff(t284=(3, [2]), t279=(4, [16]), pixels=bytes(16)), "truncated: the TIFF has fewer strips"
    ),
    "a TIFF without a palette": (plain_tiff(t262=(3, [3]), t277=(3, [1]), t258=(3, [8])), "corrupt: .* no palette"),
    "a deflated TIFF with a flipped bit": (plain_tiff(t259=(3, [8]), pixels=FLIPPED), "corrupt: .* deflated"),
    "a deflated TIFF with less": (plain_tiff(t259=(3, [8]), pixels=zlib.compress(bytes(40))), "truncated: .* fewer"),
    "a BigTIFF that Pillow finds larger": (big_tiff(9000), "corrupt: the header gives a size of 4 x 4, and"),
    "a BigTIFF that Pillow refuses": (big_tiff(20000), "too large: Image size"),
    "a BigTIFF whose directory is nowhere": (big_tiff(at=1 << 63), "truncated: the data end inside the header"),
    "a TIFF of strips without rows": (plain_tiff(t278=(4, [0])), "corrupt: the TIFF has strips or tiles of no size"),
}  # fmt: skip


@pytest.mark.parametrize("color", ["rgb", "rgba", "gray", "bgr"])
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_before_it_does_harm(name, color):
    data, reason = REFUSED[name]
    with pytest.raises(CorruptImageError, match=f"^{reason}"):
        images.decode(data, color)


def test_what_is_whole_is_read():
    pixels = bytes(range(48))
    for data in (plain_tiff(pixels=pixels), plain_tiff(t259=(3, [8]), pixels=zlib.compress(pixels))):
        np.testing.assert_array_equal(images.decode(data), np.frombuffer(pixels, np.uint8).reshape(4, 4, 3))
    assert images.decode(many_scans(MOST_SCANS // 2)).mean() == pytest.approx(99, abs=1)


@pytest.mark.parametrize("color", ["rgb", "rgba", "gray"])
def test_only_the_default_image_of_an_animation_is_decoded(color):
    assert (images.decode(animated(), color)[..., 0] == 64).all()
    assert (codecs.decompress(animated(), "png") == 64).all()


def test_a_codec_refuses_what_images_refuse():
    for name in ("a JPEG that hides its size", "a JPEG of many scans"):
        with pytest.raises(CorruptDataError):
            codecs.decompress(REFUSED[name][0], "jpeg")


@pytest.mark.parametrize("kind", ["gAMA", "sRGB"])
def test_gray_is_the_gray_of_the_colours(kind):
    still = saved(Image.new("RGB", (4, 4), (255, 0, 0)), "PNG")
    body = struct.pack(">I", 45455) if kind == "gAMA" else b"\0"
    begin = still.index(b"IDAT") - 4
    data = still[:begin] + chunk(kind.encode(), body) + still[begin:]
    assert (images.decode(data, "gray") == np.asarray(Image.open(io.BytesIO(data)).convert("L"))[0, 0]).all()


def test_unassociated_alpha_of_a_tiff_leaves_colours_alone():
    values = np.full((8, 8, 4), (200, 100, 40, 64), np.uint8)
    data = saved(Image.fromarray(values, "RGBA"), "TIFF")
    assert np.abs(images.decode(data, "rgba").astype(int) - values).max() <= 255 / 64 / 2
    assert np.abs(images.decode(data).astype(int) - values[..., :3]).max() <= 255 / 64 / 2


def planar(values, alpha=None, is_deflated=False, photometric=None):
    """A TIFF of shape (channels, height, width) that stores each channel in two strips of its own."""
    channels, height, width = values.shape
    cut, bits = height // 2, values.itemsize * 8
    strips = [part.tobytes() for plane in values for part in (plane[:cut], plane[cut:])]
    strips = [zlib.compress(one) if is_deflated else one for one in strips]
    sizes = [len(one) for one in strips]
    starts = (8 + np.cumsum([0, *sizes[:-1]])).tolist()
    entries = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * channels), 259: (3, [8 if is_deflated else 1]),
        262: (3, [photometric or (1 if channels == 2 else 2)]), 273: (4, starts), 277: (3, [channels]),
        278: (4, [cut]), 279: (4, sizes), 284: (3, [2]),
    }  # fmt: skip
    entries |= {} if alpha is None else {338: (3, [alpha])}
    return tiff(entries, b"".join(strips))


@pytest.mark.parametrize("is_deflated", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize("alpha", [None, 0, 1, 2])
@pytest.mark.parametrize(("dtype", "channels"), [("u2", 2), ("u2", 3), ("u2", 4), ("u1", 2), ("u1", 3), ("u1", 4)])
def test_planar_tiffs_keep_their_channels(dtype, channels, alpha, is_deflated):
    """Transparency too, which is never multiplied into the colours."""
    kind = np.dtype(dtype)
    values = np.random.default_rng(0).integers(0, 256**kind.itemsize, (channels, 6, 7), kind)
    data = planar(values, alpha if channels in (2, 4) else None, is_deflated)
    stored = values.transpose(1, 2, 0)
    expected = stored[..., [0, 0, 0, 1]] if channels == 2 else stored
    for depth, scale in (("8", 257 if dtype == "u2" else 1), ("keep", 1)):
        rgba = images.decode(data, "rgba", depth=depth)
        np.testing.assert_allclose(rgba[..., : expected.shape[2]], expected / scale, atol=1 if scale > 1 else 0)
        np.testing.assert_array_equal(images.decode(data, depth=depth), rgba[..., :3])
        gray = images.functional.convert_color(np.ascontiguousarray(rgba[..., :3]), "rgb", "gray")
        assert np.abs(images.decode(data, "gray", depth=depth).astype(int) - gray).max() <= 1


def test_planar_inks_are_refused_by_name():
    data = planar(np.zeros((4, 6, 7), np.uint16), photometric=5)
    with pytest.raises(CorruptImageError, match="^unsupported: a TIFF that stores 4 channels one after the other"):
        images.decode(data)


def test_a_palette_of_an_old_bitmap_has_colours():
    header = struct.pack("<IHHHH", 12, 4, 4, 1, 8)
    palette = bytes([0, 0, 255]) * 256  # three bytes each, blue first
    at = 14 + len(header) + len(palette)
    data = b"BM" + struct.pack("<IHHI", at + 16, 0, 0, at) + header + palette + bytes(16)
    assert images.decode(data, "rgba")[0, 0].tolist() == [255, 0, 0, 255]


def test_a_size_that_no_memory_holds_is_refused():
    """A strip of one pixel's height whose shorter side grows would take 7 GiB."""
    strip = saved(Image.new("RGB", (40_000, 1)), "PNG")
    pipeline = images.Compose([images.Decode(), images.ResizeShorterSide(256)])
    with pytest.raises(DataError, match="too large: the pipeline would make 256 x 10240000 pixels"):
        pipeline(strip)


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_what_a_format_cannot_hold_is_an_error_and_not_an_empty_file(kind):
    wide = np.zeros((1, 70_000, 3), np.uint8)
    with pytest.raises(DataError, match=f"too large: {kind} cannot hold an image of 1 x 70000 pixels"):
        images.encode(wide, kind)
    with pytest.raises(ParameterError, match="cannot hold an image"):
        codecs.compress(wide, kind)


GROW = images.Compose([images.Decode(), images.ResizeShorterSide(256)])
WHOLE = saved(Image.new("RGB", (300, 300)), "PNG")
STRIP = saved(Image.new("RGB", (40_000, 1)), "PNG")
WIDE = cv2.imencode(".png", np.full((9, 9, 3), 40_000, np.uint16))[1].tobytes()
PIXELS = {"origin": "", "height": 2, "width": 2, "nChannels": 3, "mode": 16, "data": bytes(12)}
ROWS = {
    "a strip that would grow": (GROW, pa.array([WHOLE, STRIP, WHOLE]), "too large: the pipeline would make"),
    "of sixteen bits where an encoding takes bytes": (
        images.Compose([images.Decode(depth="keep"), images.Encode("jpeg")]), pa.array([WHOLE, WIDE, WHOLE]),
        "unsupported: image must be of type uint8",
    ),
    "a strip that would be padded": (
        images.Compose([images.Decode(), images.Pad(900, 9, 900, 9)]), pa.array([WHOLE, STRIP, WHOLE]),
        "too large: the pipeline would make 1801 x 40018 pixels",
    ),
    "a strip that would be padded to be cropped": (
        images.Compose([images.Decode(), images.PaddedRandomCrop(2000, 300)]), pa.array([WHOLE, STRIP, WHOLE]),
        "too large: the pipeline would make 2001 x 40008 pixels",
    ),
    "a strip of many tiles": (
        images.Compose([images.Decode(), images.Tiles(64, 64, 62)]), pa.array([WHOLE, STRIP, WHOLE]),
        "too large: the pipeline would make 19969 images of 64 x 64 pixels",
    ),
    "too wide for its encoding": (
        images.Compose([images.Decode(), images.Encode("webp")]), pa.array([WHOLE, STRIP, WHOLE]), "too large: webp"
    ),
    "a path with a NUL": (GROW, pa.array(["{ok}", "/tmp/a\0b.png", "{ok}"]), "unreadable: embedded null byte"),
    "a path that leads nowhere": (GROW, pa.array(["{ok}", "/no/such/file.png", "{ok}"]), "unreadable: .*No such"),
    "a path of a folder": (GROW, pa.array(["{ok}", "/tmp", "{ok}"]), "unreadable: .*directory"),
    **{
        f"an image struct without {name}": (
            images.Compose([images.Resize(1, 1)]), pa.array([PIXELS, {**PIXELS, name: None}, PIXELS]), "null: "
        )
        for name in ("height", "width", "nChannels", "mode", "data")
    },
}  # fmt: skip
"""Three rows each, of which the second cannot be processed."""


@pytest.mark.parametrize("name", ROWS)
def test_one_row_does_not_end_the_others(name, tmp_path):
    pipeline, rows, reason = ROWS[name]
    if pa.types.is_string(rows.type):
        (tmp_path / "ok.png").write_bytes(WHOLE)
        rows = pa.array([path.replace("{ok}", f"{tmp_path}/ok.png") for path in rows.to_pylist()])
    output = "bytes" if isinstance(pipeline.transforms[-1], images.Encode) else "tensor"
    results = [*ImageKernel(pipeline, output)(rows)]
    errors = [error for _, found in results for error in found.to_pylist()]
    values = [value for found, _ in results for value in found.is_valid().to_pylist()]
    assert values == [True, False, True]
    assert (errors[0], errors[2]) == (None, None)
    assert re.match(reason, errors[1]), errors[1]
    with pytest.raises((CorruptImageError, DataError), match=f"{reason}.*Mode PERMISSIVE"):
        [*ImageKernel(pipeline, output, "FAILFAST")(rows)]


def test_what_is_not_the_images_fault_ends_the_job():
    rows = pa.array(["nosuch://bucket/a.png"])
    with pytest.raises(ParameterError, match="path='nosuch://bucket/a.png' cannot be used"):
        [*ImageKernel(GROW)(rows)]


def test_a_path_is_opened_as_it_was_listed(tmp_path):
    """Spark and ``images.read`` list names as they are; a URI quotes them."""
    names = ["a%20b.png", "a b.png", "50%.png", "q%20x#y.png", "%41.png", "A.png", "[1]?*.png", "ünï.png"]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(saved(Image.new("RGB", (number + 1, 1)), "PNG"))
    widths = {f"file:{tmp_path}/{name}": number + 1 for number, name in enumerate(names)}
    listed = images.read(str(tmp_path)).to_arrow()["path"].to_pylist()
    assert sorted(listed) == sorted(widths)
    for paths in (listed, [path.removeprefix("file:") for path in listed]):
        rows = [row for found, _ in ImageKernel(images.Compose([images.Decode()]))(pa.array(paths)) for row in found]
        assert [row.as_py()["shape"][1] for row in rows] == [widths[path] for path in listed]
    quoted = [(tmp_path / name).as_uri() for name in names]
    rows = [row for found, _ in ImageKernel(images.Compose([images.Decode()]))(pa.array(quoted)) for row in found]
    assert [row.as_py()["shape"][1] for row in rows] == [*widths.values()]


@pytest.mark.parametrize(
    "pipeline", [images.Compose([images.Decode(), step]) for step in (images.FiveCrop(8, 8), images.ToCHW())]
)
def test_rows_of_spark_s_schema_hold_images_only(pipeline):
    with pytest.raises(ParameterError, match=r"output 'image' holds images of shape \(height, width, 1, 3 or 4\)"):
        [*ImageKernel(pipeline, "image")(pa.array([WHOLE]))]


OUTCOMES = {
    "apng_short_fdat_segfault.png": (64, 64, 64),
    "bmp_os2_palette.bmp": (255, 0, 0),
    "jpeg_1500_scans.jpg": "corrupt",
    "jpeg_cut_with_eoi.jpg": Image,  # nothing tells that it is cut: libjpeg fills it, for every reader alike
    "jpeg_ff00_hides_size.jpg": "corrupt",
    "png_srgb_red.png": (255, 0, 0),
    "tiff_deflate_bitflip.tif": "corrupt",
    "tiff_duplicate_size_tags.tif": "too large",
    "tiff_palette_cut.tif": "truncated",
    "tiff_planar16.tif": (255, 0, 0),
    "tiff_planar_truncated.tif": "truncated",
    "tiff_unassociated_alpha.tif": (200, 200, 200),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_files_from_the_field(name):
    if not (FIELD / name).exists():
        pytest.skip("the files from the field are not here")
    data, expected = (FIELD / name).read_bytes(), OUTCOMES[name]
    if isinstance(expected, str):
        with pytest.raises(CorruptImageError, match=f"^{expected}"):
            images.decode(data)
    elif expected is Image:
        pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)
        assert np.abs(images.decode(data) - pillow).max() <= 2
    else:
        assert tuple(images.decode(data, "rgba")[0, 0, :3]) == expected


def test_every_file_from_the_field_has_its_outcome():
    if not FIELD.exists():
        pytest.skip("the files from the field are not here")
    assert {path.name for path in FIELD.iterdir()} - {"README"} == set(OUTCOMES)


MUTATE = """
import io, os, sys
import numpy as np
from sparkopt import images
from sparkopt.errors import CorruptImageError
path, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng, original = np.random.default_rng(seed), open(path, "rb").read()
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders complain there
read = 0
for number in range(count):
    data = bytearray(original)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(data)))
        if rng.random() < 0.1:
            del data[at:at + int(rng.integers(1, 9))]
        else:
            data[at] = int(rng.integers(256))
    open(path + ".last", "wb").write(data) if number % 64 == 0 else None
    try:
        image = images.decode(bytes(data), ("rgb", "rgba", "gray", "bgr")[number % 4], max_pixels=1 << 16)
        assert image.dtype == np.uint8 and image.nbytes <= 4 << 16
        read += 1
    except CorruptImageError:
        pass
print(read)
"""


def samples() -> dict[str, bytes]:
    pixels = np.random.default_rng(1).integers(0, 256, (17, 23, 3), np.uint8)
    picture = Image.fromarray(pixels)
    return {
        "png": saved(picture, "PNG"), "apng": animated(), "palette.png": saved(picture.quantize(16), "PNG"),
        "jpeg": saved(picture, "JPEG"), "progressive.jpeg": saved(picture, "JPEG", progressive=True),
        "webp": saved(picture, "WEBP"), "lossless.webp": saved(picture, "WEBP", lossless=True),
        "gif": saved(picture, "GIF"), "bmp": saved(picture, "BMP"), "palette.bmp": saved(picture.quantize(16), "BMP"),
        "tiff": saved(picture, "TIFF"), "lzw.tiff": saved(picture, "TIFF", compression="tiff_lzw"),
        "deflate.tiff": saved(picture, "TIFF", compression="tiff_adobe_deflate"),
        "wide.tiff": cv2.imencode(".tiff", pixels.astype(np.uint16) * 257)[1].tobytes(),
        "wide.png": cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes(),
        "avif": saved(picture, "AVIF"), "jp2": saved(picture, "JPEG2000"),
        "jxl": bytes(imagecodecs.jpegxl_encode(pixels, lossless=True)),
        "big.tiff": saved(picture, "TIFF", big_tiff=True),
    }  # fmt: skip


def survives_mutations(path: Path, count: int = 7000) -> None:
    """Decode mutations of a file in a process of its own, which must end well."""
    command = [sys.executable, "-c", MUTATE, str(path), "7", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=600, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert int(done.stdout) >= 0


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("name", samples())
def test_no_mutation_ends_the_process(name, tmp_path):
    """More than 100,000 mutations in all, those of each format in a process of its own."""
    path = tmp_path / name
    path.write_bytes(samples()[name])
    survives_mutations(path)
