"""Formats that OpenCV does not decode, or not everywhere: each by a library where one is installed."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from sparkopt.errors import CorruptImageError
from sparkopt.images.tiff import BY_IMAGECODECS, assembled
from sparkopt.io.filesystem import brief
from sparkopt.io.image_boxes import is_cmyk
from sparkopt.io.image_header import Header
from sparkopt.io.tiff_samples import compression_name, tiff_layout, tiff_samples
from sparkopt.typing import Array

__all__ = ["CODED", "OTHERS", "decode_by_library", "decode_tiff", "has_pillow"]

NAMES = {
    "avif": "AVIF",
    "heic": "HEIC",
    "jpeg2000": "JPEG 2000",
    "jpegxl": "JPEG XL",
    "bigtiff": "BigTIFF",
    "dicom": "DICOM",
    "tiff": "TIFF",
}
OTHERS = frozenset(NAMES) - {"tiff"}
"""Formats that OpenCV is never given; of TIFFs, only kinds that it does not convert go another way."""
CODED = ("avif", "heic", "jpeg2000", "jpegxl")
"""Formats whose samples are returned as they are coded: of 10 bits, the most is 1023."""


def decode_by_library(data: bytes, header: Header, depth: str = "8") -> Array:
    """Return the pixels of a file of one of ``NAMES``, of shape (height, width, channels), its colours in RGB order.

    Of a DICOM file of greys, ``depth`` says whether they are shown as bytes, or are the values that were measured:
    those of pydicom's ``apply_modality_lut``, also where the least is shown as white (MONOCHROME1).

    Raises
    ------
    CorruptImageError
        Where no library that decodes the format is installed (the message has their names), or none can decode it.
    """
    name, libraries = NAMES[header.format], _LIBRARIES[header.format]
    for package, module, decoder in libraries:
        try:
            library = import_module(module)
        except ImportError:
            continue
        try:
            with warnings.catch_warnings():  # what they would say of a damaged file is its error
                warnings.simplefilter("ignore")
                image = np.asarray(decoder(library, data, header, depth))
        except _Unavailable:
            continue
        except (CorruptImageError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  # a library raises what it likes, classes of its own too
            raise CorruptImageError(f"corrupt: {package} cannot decode the {name}: {brief(error)}") from None
        if header.bits > 8 and depth == "keep" and image.dtype == np.uint8:  # another library may keep them
            continue
        image = image if image.ndim == 3 else image[:, :, np.newaxis] if image.ndim == 2 else image[0]
        _check_size(header, image.shape[0], image.shape[1])
        return image
    packages = ", ".join(package for package, _, _ in libraries)
    kind = f"{name} of {header.bits} bits" if header.bits > 8 else name
    raise CorruptImageError(
        f"unsupported: {kind} needs one of the packages {packages}; none that decodes it is installed"
    )


def _check_size(header: Header, height: int, width: int) -> None:
    if (height, width) != (header.height, header.width):
        raise CorruptImageError(
            f"corrupt: the header gives a size of {header.height} x {header.width}, and the decoded image has "
            f"{height} x {width}"
        )


@functools.cache
def has_pillow() -> bool:
    """Whether Pillow is installed."""
    return find_spec("PIL") is not None


_Decode = Callable[[Any, bytes, Header, str], Array]


class _Unavailable(Exception):
    """The library is installed, but built without the format."""


def _by_pillow(library: Any, data: bytes, header: Header, depth: str) -> Array:
    """Decode by Pillow, unless it finds another size than the header has, as in a damaged file."""
    try:
        opened = library.open(io.BytesIO(data))
    except library.DecompressionBombError as error:  # Pillow's own limit, which a program may set
        raise CorruptImageError(f"too large: {error}") from None
    with opened as picture:
        _check_size(header, picture.height, picture.width)
        if picture.mode in ("I;16", "I;16L", "I;16B", "F", "L", "RGB", "RGBA"):
            return np.array(picture)
        if picture.mode == "I":
            return np.array(picture).astype(np.float32)
        has_alpha = picture.mode in ("LA", "PA") or "transparency" in picture.info
        return np.array(picture.convert("RGBA" if has_alpha else "L" if picture.mode == "1" else "RGB"))


def _avif_by_pillow(library: Any, data: bytes, header: Header, depth: str) -> Array:
    if not import_module("PIL.features").check("avif"):
        raise _Unavailable
    return _by_pillow(library, data, header, depth)


def _jpeg2000_by_pillow(library: Any, data: bytes, header: Header, depth: str) -> Array:
    """Decode by Pillow, which shifts samples up to whole bytes: they are shifted back.

    Of colours of more than 8 bits it makes bytes, by a rounding that turns the lightest ones to 0.
    """
    found = _by_pillow(library, data, header, depth)
    if header.bits > 8 and found.dtype == np.uint8:
        raise _Unavailable
    missing = found.dtype.itemsize * 8 - header.bits
    return found >> missing if missing > 0 else found


def _by_pillow_heif(library: Any, data: bytes, header: Header, depth: str) -> Array:
    found = np.asarray(library.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False))
    return found >> (16 - header.bits) if found.dtype == np.uint16 else found  # it shifts them up to 16


def _imagecodecs(name: str) -> _Decode:
    def decode(library: Any, data: bytes, header: Header, depth: str) -> Array:
        if not getattr(library, name.upper()).available:
            raise _Unavailable
        found: Array = getattr(library, f"{name}_decode")(data)
        return found[0] if found.ndim == 4 else found

    return decode


def _without_inks(decode: _Decode) -> _Decode:
    """Return a decoder of JPEG 2000 that makes colours of inks."""

    def decoder(library: Any, data: bytes, header: Header, depth: str) -> Array:
        found = decode(library, data, header, depth)
        if found.ndim != 3 or found.shape[2] < 4 or not is_cmyk(data):
            return found
        most = (1 << header.bits) - 1 if found.dtype != np.uint8 else 255
        paper = most - found[..., :4].astype(np.float32)
        return np.rint(paper[..., :3] * (paper[..., 3:] / most)).astype(found.dtype)

    return decoder


def _by_pydicom(library: Any, data: bytes, header: Header, depth: str) -> Array:
    """Decode the first frame of a DICOM file: colours, or greys as they are shown or were measured."""
    file = library.dcmread(io.BytesIO(data))
    values = file.pixel_array
    if int(getattr(file, "NumberOfFrames", 1) or 1) > 1:
        values = values[0]
    pixels = import_module("pydicom.pixels")
    if file.PhotometricInterpretation == "PALETTE COLOR":
        bits = int(file.RedPaletteColorLookupTableDescriptor[2])
        return _shown_colors(pixels.apply_color_lut(values, file), bits, depth)
    if values.ndim == 3:
        return _shown_colors(values, int(file.BitsStored), depth)
    values = pixels.apply_modality_lut(values, file)
    if depth == "keep":
        return np.asarray(values, np.float32)
    shown = _shown(pixels, file, values)
    if file.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    return np.asarray(np.rint(shown * 255), np.uint8)


def _shown_colors(values: Array, bits: int, depth: str) -> Array:
    if depth == "8" and values.dtype == np.uint16:
        return (values >> max(bits - 8, 0)).astype(np.uint8)
    return np.asarray(values)


def _shown(pixels: Any, file: Any, values: Array) -> Array:
    """Return greys of a DICOM file from 0, black, to 1: through its table, its window, or without them.

    The windows are those of PS3.3 C.11.2. Without one, samples of up to 8 bits are shown as they are, and others from
    the image's least to its largest.
    """
    tables = getattr(file, "VOILUTSequence", None)
    if tables:
        return np.asarray(pixels.apply_voi(values, file) / ((1 << int(tables[0].LUTDescriptor[2])) - 1))
    values = np.asarray(values, np.float64)
    if "WindowCenter" in file and "WindowWidth" in file:
        center, width = (_first(file[name].value) for name in ("WindowCenter", "WindowWidth"))
        function = str(getattr(file, "VOILUTFunction", "LINEAR") or "LINEAR").upper()
        if function == "SIGMOID":
            return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / max(width, 1e-12), -700, 700))))
        if function == "LINEAR":
            center, width = center - 0.5, width - 1
        if width <= 0:  # a threshold
            return np.asarray(values > center, np.float64)
        return np.clip((values - center) / width + 0.5, 0, 1)
    low, high = float(values.min()), float(values.max())
    if int(file.BitsStored) <= 8 and not int(file.PixelRepresentation) and low >= 0 and high <= 255:
        low, high = 0.0, float((1 << int(file.BitsStored)) - 1)
    return np.clip((values - low) / max(high - low, 1e-12), 0, 1)


def _first(value: Any) -> float:
    """Return a number of a DICOM file, or the first of several."""
    return float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)


def _tiff_by_pillow(library: Any, data: bytes, header: Header, depth: str) -> Array:
    """Decode a TIFF by Pillow, which makes other values of some samples, and does not know some compressions."""
    try:
        return _by_pillow(library, data, header, depth)
    except library.UnidentifiedImageError:
        raise CorruptImageError(
            f"unsupported: a {NAMES[header.format]} of {header.bits} bits with the compression "
            f"{compression_name(data)}, or of these channels"
        ) from None


_Library = tuple[str, str, _Decode]
_LIBRARIES: dict[str, tuple[_Library, ...]] = {
    "avif": (
        ("pillow>=11.3", "PIL.Image", _avif_by_pillow),
        ("imagecodecs", "imagecodecs", _imagecodecs("avif")),
    ),
    "heic": (
        ("pillow-heif", "pillow_heif", _by_pillow_heif),
        ("imagecodecs", "imagecodecs", _imagecodecs("heif")),
    ),
    "jpeg2000": (
        ("imagecodecs", "imagecodecs", _without_inks(_imagecodecs("jpeg2k"))),
        ("pillow", "PIL.Image", _without_inks(_jpeg2000_by_pillow)),
    ),
    "jpegxl": (("imagecodecs", "imagecodecs", _imagecodecs("jpegxl")),),
    "bigtiff": (("pillow", "PIL.Image", _tiff_by_pillow),),
    "tiff": (("pillow", "PIL.Image", _tiff_by_pillow),),
    "dicom": (("pydicom", "pydicom", _by_pydicom),),
}
"""For each format: the package's name, its module, and how it decodes; the first that is installed is taken."""

_BY_PILLOW = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000)
"""Compressions of TIFFs that Pillow decodes."""


def decode_tiff(data: bytes, header: Header, depth: str) -> Array:
    """Return the samples of a TIFF or BigTIFF that OpenCV does not decode right, its orientation applied.

    They are assembled from its strips or tiles, or left to Pillow where it makes the same values.

    Raises
    ------
    CorruptImageError
        Where nothing that is installed has the compression, whose name the message has, or samples are damaged.
    """
    layout = tiff_layout(data)
    number = layout.compression
    is_easy = header.bits <= 8 and not layout.is_signed and number in _BY_PILLOW
    if header.format == "bigtiff" and is_easy and has_pillow():
        return decode_by_library(data, header, depth)
    samples = tiff_samples(data)
    if samples is not None:
        try:
            return assembled(data, samples)
        except ImportError:
            pass
    if is_easy or (number in _BY_PILLOW and header.bits <= 16 and depth == "8" and not layout.is_signed):
        return decode_by_library(data, header, depth)
    name, kind = compression_name(data), NAMES[header.format]
    if samples is not None and number in BY_IMAGECODECS:
        raise CorruptImageError(
            f"unsupported: a {kind} with the compression {name} needs the package imagecodecs; none that decodes it "
            "is installed"
        )
    raise CorruptImageError(
        f"unsupported: a {kind} of {header.bits} bits with the compression {name}, photometric interpretation "
        f"{layout.meaning} and {layout.channels} channels"
    )
