"""Samples of any type and compression are what the file holds, scaled by its own bits, or refused by name."""

import io
import lzma
import struct
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from sparkopt import images
from sparkopt.errors import CorruptImageError
from tests.images.mutations import read_or_refused


def stored(values, number=1, pack=lambda strip: strip.tobytes(), *, is_big=False, order="<"):
    """A TIFF or BigTIFF of two strips, written by the specification alone."""
    height, width, channels = values.shape
    rows = (height + 1) // 2
    strips = [pack(np.ascontiguousarray(strip)) for strip in (values[:rows], values[rows:])]
    word, size = ("Q", 8) if is_big else ("I", 4)
    body, where = (
        bytearray(struct.pack(f"{order}HHHQ", 43, 8, 0, 0) if is_big else struct.pack(f"{order}HI", 42, 0)),
        [],
    )
    for strip in strips:
        where.append(2 + len(body))
        body += strip
    bits, form = values.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    fields = {
        256: [width], 257: [height], 258: [bits] * channels, 259: [number], 262: [1 if channels == 1 else 2],
        273: where, 277: [channels], 278: [rows], 279: [len(strip) for strip in strips], 339: [form] * channels,
    }  # fmt: skip
    entries = b""
    for tag, numbers in fields.items():
        kind, letter = (3, "H") if tag in (258, 259, 262, 277, 339) else (16, "Q") if is_big else (4, "I")
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(packed) > size:
            at = 2 + len(body)
            body += packed
            packed = struct.pack(f"{order}{word}", at)
        entries += struct.pack(f"{order}HH{word}", tag, kind, len(numbers)) + packed.ljust(size, b"\0")
    struct.pack_into(f"{order}{word}", body, 6 if is_big else 2, 2 + len(body))
    count = struct.pack(f"{order}{'Q' if is_big else 'H'}", len(fields))
    return (b"II" if order == "<" else b"MM") + bytes(body) + count + entries + bytes(size)


PACKS = {
    1: lambda strip: strip.tobytes(),
    5: lambda strip: imagecodecs.lzw_encode(strip.tobytes()),
    8: lambda strip: zlib.compress(strip.tobytes()),
    32773: lambda strip: imagecodecs.packbits_encode(strip.reshape(len(strip), -1).view(np.uint8)),
    33004: lambda strip: imagecodecs.jpeg2k_encode(strip, reversible=True, level=0),
    33005: lambda strip: imagecodecs.jpeg2k_encode(strip, reversible=True, level=0, codecformat="j2k"),
    34712: lambda strip: imagecodecs.jpeg2k_encode(strip, reversible=True, level=0),
    34925: lambda strip: lzma.compress(strip.tobytes()),
    34926: lambda strip: imagecodecs.zstd_encode(strip.tobytes()),
    34933: lambda strip: imagecodecs.png_encode(strip),
    50000: lambda strip: imagecodecs.zstd_encode(strip.tobytes()),
    50001: lambda strip: imagecodecs.webp_encode(strip, lossless=True),
    50002: lambda strip: imagecodecs.jpegxl_encode(strip, lossless=True),
    52546: lambda strip: imagecodecs.jpegxl_encode(strip, lossless=True),
}
NEED_IMAGECODECS = {33004, 33005, 34712, 34926, 34933, 50001, 50002, 52546}


@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.parametrize("number", PACKS)
def test_each_compression_of_a_tiff_is_read(photograph, number, is_big):
    data = stored(photograph, number, PACKS[number], is_big=is_big)
    for depth in ("8", "keep"):
        np.testing.assert_array_equal(images.decode(data, depth=depth), photograph)
    if number == 50001:  # WebP has 8 bits
        return
    wide = photograph.astype(np.uint16) * 256 + photograph[..., ::-1]
    data = stored(wide, number, PACKS[number], is_big=is_big)
    np.testing.assert_array_equal(images.decode(data, depth="keep"), wide)
    assert np.abs(images.decode(data).astype(int) - photograph).max() <= 1  # libtiff rounds
    grey = np.ascontiguousarray(wide[..., :1])
    data = stored(grey, number, lambda strip: PACKS[number](strip[..., 0]), is_big=is_big)
    np.testing.assert_array_equal(images.decode(data, "gray", depth="keep"), grey)
    np.testing.assert_array_equal(images.decode_mask(data), grey[..., 0])


@pytest.mark.parametrize("number", [3, 4, 2, 7])
def test_other_compressions_that_opencv_has_are_those_of_pillow(photograph, number):
    name = {2: "tiff_ccitt", 3: "group3", 4: "group4", 7: "jpeg"}[number]
    picture, file = Image.fromarray(photograph).convert("L" if number == 7 else "1"), io.BytesIO()
    picture.save(file, "TIFF", compression=name)
    assert Image.open(io.BytesIO(file.getvalue())).tag_v2[259] == number
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("L"))
    np.testing.assert_array_equal(images.decode(file.getvalue(), "gray")[..., 0], expected)


UNKNOWN = {22610: "JPEG XR", 33003: "JPEG 2000 of YCbCr", 34887: "LERC", 34892: "lossy JPEG", 34934: "JPEG XR"}
UNKNOWN[32771] = "CCITT of words"  # libtiff, in Pillow and in OpenCV, does not read what it writes
UNKNOWN[65000] = "of another program"


@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.parametrize("number", UNKNOWN)
def test_a_compression_that_nothing_has_is_named(photograph, number, is_big):
    grey = np.ascontiguousarray(photograph[..., :1])
    for values in (photograph, grey, grey.astype(np.uint16), grey.astype(np.float32)):
        data = stored(values, number, lambda strip: zlib.compress(strip.tobytes()), is_big=is_big)
        for read in (lambda data=data: images.decode(data, depth="keep"), lambda data=data: images.decode_mask(data)):
            with pytest.raises(CorruptImageError, match=rf"^unsupported: .*{UNKNOWN[number]} \({number}\)"):
                read()


@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.parametrize("number", sorted(NEED_IMAGECODECS))
def test_without_imagecodecs_the_compression_is_named(photograph, number, is_big, monkeypatch):
    data = stored(photograph, number, PACKS[number], is_big=is_big)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(CorruptImageError, match=rf"^unsupported: .* \({number}\) needs the package imagecodecs"):
        images.decode(data)


@pytest.mark.parametrize("number", PACKS)
def test_mutated_strips_are_read_or_refused(photograph, number):
    data = stored(photograph[:24, :32], number, PACKS[number])
    read_or_refused(data, seed=5, count=60)
    for cut in (12, len(data) // 2, len(data) - 30):
        with pytest.raises(CorruptImageError, match=r"^(truncated|corrupt): "):
            images.decode(data[:cut])


TYPES = ("i1", "i2", "i4", "u4", "f2", "f4", "f8")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", TYPES)
def test_values_of_any_type_are_kept(kind, channels, is_big, order):
    rng, kind = np.random.default_rng(2), np.dtype(kind)
    least, most = (-9, 9) if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    values = rng.uniform(least, most, (14, 19, channels)).astype(kind).astype(kind.newbyteorder(order))
    data = stored(values, is_big=is_big, order=order)
    found = images.decode(data, "gray" if channels == 1 else "rgb", depth="keep")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.astype(np.float32))
    with pytest.raises(CorruptImageError, match=r"^unsupported: samples of "):
        images.decode(data)


@pytest.mark.filterwarnings("ignore")
def test_tiffs_of_tifffile_are_read_as_it_reads_them(photograph):
    """Tiles, planes, predictors and both orders of bytes, of all types, with every lossless compression."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed: pip install tifffile")
    small = photograph[:70, :90]
    kinds = [small, small[..., 0], small.astype(np.uint16) * 257, (small / 255).astype(np.float32)]
    kinds += [(small[..., 0].astype(np.int16) - 128).astype(np.int8), small.astype(np.int16) * 100 - 9000]
    layouts = [{}, {"tile": (32, 32)}, {"bigtiff": True, "rowsperstrip": 9}, {"byteorder": ">"}]
    layouts.append({"planarconfig": "separate"})
    count = 0
    for values in kinds:
        for layout in layouts:
            for packed in (None, "zlib", "lzw", "zstd", "lzma", "packbits"):
                for predictor in (False, True) if packed not in (None, "packbits") else (False,):
                    is_grey = values.ndim == 2
                    if is_grey and "planarconfig" in layout:
                        continue
                    pixels = values.transpose(2, 0, 1) if "planarconfig" in layout else values
                    file = io.BytesIO()
                    tifffile.imwrite(
                        file, pixels, compression=packed, predictor=predictor or None,
                        photometric="minisblack" if is_grey else "rgb", **layout,
                    )  # fmt: skip
                    found = images.decode(file.getvalue(), "gray" if is_grey else "rgb", depth="keep")
                    expected = tifffile.imread(io.BytesIO(file.getvalue()))
                    expected = expected.transpose(1, 2, 0) if "planarconfig" in layout else expected
                    np.testing.assert_array_equal(found[..., 0] if is_grey else found, expected)
                    count += 1
    assert count > 200


def coded(values, bits):
    """Files of so many bits of each format that has them."""
    return {
        "jpeg 2000": imagecodecs.jpeg2k_encode(values, level=0, reversible=True, bitspersample=bits),
        "jpeg 2000 of grey": imagecodecs.jpeg2k_encode(values[..., 0], level=0, reversible=True, bitspersample=bits),
        "jpeg xl": imagecodecs.jpegxl_encode(values, lossless=True, bitspersample=bits),
        "jpeg xl of grey": imagecodecs.jpegxl_encode(values[..., 0], lossless=True, bitspersample=bits),
        **({"avif": imagecodecs.avif_encode(values, level=100, bitspersample=bits)} if bits in (10, 12) else {}),
    }  # fmt: skip


@pytest.mark.parametrize("bits", [4, 10, 12, 14])
def test_white_is_255_at_any_depth(photograph, bits, monkeypatch):
    photograph = np.dstack([np.where(photograph > 250, 255, photograph)[..., :2], photograph[..., 2:]])
    photograph[:9, :9] = 255
    wide = (photograph.astype(np.uint16) * 257 >> 16 - bits).astype(np.uint8 if bits < 8 else np.uint16)
    exact = wide * (255 / ((1 << bits) - 1))
    for name, data in coded(wide, bits).items():
        assert images.read_header(data).bits == bits, name
        expected = exact[..., :1] if "grey" in name else exact
        color = "gray" if "grey" in name else "rgb"
        found = images.decode(data, color)
        assert found.max() == 255, name
        assert np.abs(found - expected).max() <= 1, name
        kept = images.decode(data, color, depth="keep")
        np.testing.assert_array_equal(kept, wide[..., :1] if "grey" in name else wide, name)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "imagecodecs", None)
            try:  # Pillow has the same, or is not asked
                other = images.decode(data, color)
            except CorruptImageError as error:
                assert str(error).startswith("unsupported: "), name  # noqa: PT017
                continue
            assert np.abs(other.astype(int) - found).max() <= 1, name
            try:
                np.testing.assert_array_equal(images.decode(data, color, depth="keep"), kept, name)
            except CorruptImageError as error:
                assert f" of {bits} bits needs one of the packages " in str(error)  # noqa: PT017


def test_heic_of_ten_bits_is_scaled_by_them():
    library = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: pip install pillow-heif")
    steps = np.repeat(np.linspace(0, 65535, 64).astype(np.uint16)[:, None], 96, 1)
    values, file = np.dstack([steps] * 3), io.BytesIO()
    library.from_bytes(mode="RGB;16", size=(96, 64), data=values.tobytes()).save(file, quality=-1)
    assert images.read_header(file.getvalue()).bits == 10
    assert np.abs(images.decode(file.getvalue(), depth="keep") - values / 65535 * 1023).max() <= 4
    assert np.abs(images.decode(file.getvalue()) - values / 65535 * 255).max() <= 2


def dicom(values, meaning="MONOCHROME2", **fields):
    library = pytest.importorskip("pydicom", reason="pydicom is not installed: pip install pydicom")
    data = library.dataset.Dataset()
    data.file_meta = library.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = library.uid.ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    data.Rows, data.Columns = values.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, meaning
    data.BitsAllocated = data.BitsStored = values.dtype.itemsize * 8
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(values.dtype.kind == "i")
    for name, value in fields.items():
        setattr(data, name, value)
    data.PixelData = values.tobytes()
    file = io.BytesIO()
    library.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def window(values, center, width):
    """PS3.3 C.11.2.1.2, of levels 0 to 255."""
    shown = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    shown = np.where(values <= center - 0.5 - (width - 1) / 2, 0, shown)
    return np.where(values > center - 0.5 + (width - 1) / 2, 255, shown)


def sigmoid(values, center, width):
    return 255 / (1 + np.exp(-4 * (values - center) / width))


def exactly(values, center, width):
    return np.clip((values - center) / width + 0.5, 0, 1) * 255


MEASURED = {
    "constant": np.full((12, 16), 40, np.int16),
    "narrow": np.linspace(0, 80, 192).astype(np.int16).reshape(12, 16),
    "wide": np.linspace(-1000, 3000, 192).astype(np.int16).reshape(12, 16),
}


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("slope", [(1, 0), (2, -1024)])
@pytest.mark.parametrize("name", MEASURED)
def test_a_dicom_is_what_its_window_shows(name, slope, function):
    values, (per, offset) = MEASURED[name], slope
    fields = {"WindowCenter": [40, 300], "WindowWidth": [400, 1500], "RescaleSlope": per, "RescaleIntercept": offset}
    measured = values * float(per) + offset
    data = dicom(values, VOILUTFunction=function, **fields)
    expected = {"LINEAR": window, "LINEAR_EXACT": exactly, "SIGMOID": sigmoid}[function](measured, 40, 400)
    assert np.abs(images.decode(data, "gray")[..., 0] - expected).max() <= 0.5 + 1e-6
    kept = images.decode(data, "gray", depth="keep")
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept[..., 0], measured)
    inverted = dicom(values, "MONOCHROME1", VOILUTFunction=function, **fields)
    assert np.abs(images.decode(inverted, "gray")[..., 0] - (255 - expected)).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(images.decode(inverted, "gray", depth="keep"), kept)  # what was measured
    np.testing.assert_array_equal(images.decode(inverted, "gray", depth="keep")[..., 0], measured)


def test_a_dicom_without_a_window_shows_bytes_as_they_are_and_more_by_their_range():
    grey = np.linspace(20, 90, 192).astype(np.uint8).reshape(12, 16)
    np.testing.assert_array_equal(images.decode(dicom(grey), "gray")[..., 0], grey)
    wide = grey.astype(np.uint16) * 30
    expected = (grey - 20.0) / 70 * 255
    assert np.abs(images.decode(dicom(wide), "gray")[..., 0] - expected).max() <= 0.5 + 1e-6


def test_a_dicom_with_a_table_is_what_pydicom_shows():
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed: pip install pydicom")
    table = pydicom.dataset.Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 12], [int(4095 * (one / 255) ** 2) for one in range(256)]
    values = np.arange(192, dtype=np.uint8).reshape(12, 16)
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    data = dicom(values, VOILUTSequence=[table])
    file = pydicom.dcmread(io.BytesIO(data))
    expected = pydicom.pixels.apply_voi_lut(file.pixel_array, file) / 4095 * 255
    assert np.abs(images.decode(data, "gray")[..., 0] - expected).max() <= 0.5 + 1e-6
