"""Formats that OpenCV does not decode, or not everywhere: each by a library where one is installed."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from sparkopt.errors import CorruptImageError
from sparkopt.io.filesystem import brief
from sparkopt.io.image_boxes import is_cmyk
from sparkopt.io.image_header import Header
from sparkopt.typing import Array

__all__ = ["OTHERS", "decode_by_library", "has_pillow"]

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


def decode_by_library(data: bytes, header: Header) -> Array:
    """Return the pixels of a file of one of ``NAMES``, of shape (height, width, channels), its colours in RGB order.

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
                image = np.asarray(decoder(library, data, header))
        except _Unavailable:
            continue
        except (CorruptImageError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  # a library raises what it likes, classes of its own too
            raise CorruptImageError(f"corrupt: {package} cannot decode the {name}: {brief(error)}") from None
        image = image if image.ndim == 3 else image[:, :, np.newaxis] if image.ndim == 2 else image[0]
        _check_size(header, image.shape[0], image.shape[1])
        return image
    packages = ", ".join(package for package, _, _ in libraries)
    raise CorruptImageError(
        f"unsupported: {name} needs one of the packages {packages}; none that decodes it is installed"
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


_Decode = Callable[[Any, bytes, Header], Array]


class _Unavailable(Exception):
    """The library is installed, but built without the format."""


def _by_pillow(library: Any, data: bytes, header: Header) -> Array:
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


def _avif_by_pillow(library: Any, data: bytes, header: Header) -> Array:
    if not import_module("PIL.features").check("avif"):
        raise _Unavailable
    return _by_pillow(library, data, header)


def _by_pillow_heif(library: Any, data: bytes, header: Header) -> Array:
    return np.asarray(library.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False))


def _imagecodecs(name: str) -> _Decode:
    def decode(library: Any, data: bytes, header: Header) -> Array:
        if not getattr(library, name.upper()).available:
            raise _Unavailable
        found: Array = getattr(library, f"{name}_decode")(data)
        return found[0] if found.ndim == 4 else found

    return decode


def _without_inks(decode: _Decode) -> _Decode:
    """Return a decoder of JPEG 2000 that makes colours of inks."""

    def decoder(library: Any, data: bytes, header: Header) -> Array:
        found = decode(library, data, header)
        if found.ndim != 3 or found.shape[2] < 4 or not is_cmyk(data):
            return found
        most = 255 if found.dtype == np.uint8 else 65535
        paper = (most - found[..., :4]).astype(np.float32)
        return np.rint(paper[..., :3] * (paper[..., 3:] / most)).astype(found.dtype)

    return decoder


def _by_pydicom(library: Any, data: bytes, header: Header) -> Array:
    """Decode the first frame of a DICOM file as its window shows it: uint8 for colours, else float32 or uint16."""
    file = library.dcmread(io.BytesIO(data))
    values = file.pixel_array
    if int(getattr(file, "NumberOfFrames", 1) or 1) > 1:
        values = values[0]
    if values.ndim == 3:
        return np.asarray(values)
    pixels = import_module("pydicom.pixels")
    values = pixels.apply_voi_lut(pixels.apply_modality_lut(values, file), file)
    if file.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() + values.min() - values
    low, high = float(values.min()), float(values.max())
    shown: Array = ((values - low) * (65535 / max(high - low, 1e-12))).round().astype(np.uint16)
    return shown


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
        ("pillow", "PIL.Image", _without_inks(_by_pillow)),
    ),
    "jpegxl": (("imagecodecs", "imagecodecs", _imagecodecs("jpegxl")),),
    "bigtiff": (("pillow", "PIL.Image", _by_pillow),),
    "tiff": (("pillow", "PIL.Image", _by_pillow),),
    "dicom": (("pydicom", "pydicom", _by_pydicom),),
}
"""For each format: the package's name, its module, and how it decodes; the first that is installed is taken."""
