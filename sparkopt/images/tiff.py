"""TIFFs that OpenCV does not decode right: their samples are assembled from strips or tiles, as they are stored."""

from __future__ import annotations

import lzma
import zlib
from importlib import import_module

import numpy as np

from sparkopt.errors import CorruptImageError
from sparkopt.io.filesystem import brief
from sparkopt.io.image_checks import too_few_samples
from sparkopt.io.image_header import read_header
from sparkopt.io.tiff_samples import TiffSamples
from sparkopt.typing import Array

__all__ = ["BY_IMAGECODECS", "assembled", "orient"]

_PICTURES = {
    33004: "jpeg2k", 33005: "jpeg2k", 34712: "jpeg2k", 34927: "webp", 34933: "png", 50001: "webp", 50002: "jpegxl",
    52546: "jpegxl",
}  # fmt: skip
"""Compressions of which each strip or tile is a picture. That of 33003 has colours that are not said to be RGB."""
_PACKED = {5: "lzw", 32773: "packbits", 34926: "zstd", 50000: "zstd"}
BY_IMAGECODECS = frozenset({*_PICTURES, *_PACKED})
"""Compressions that need the package imagecodecs; others are Python's own."""


def orient(image: Array, orientation: int) -> Array:
    """Apply an EXIF orientation (1 to 8); a view, not a copy."""
    if orientation > 4:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def assembled(data: bytes, samples: TiffSamples) -> Array:
    """Return the image of a TIFF's strips or tiles, its orientation applied.

    Raises
    ------
    CorruptImageError
        Where a strip or tile is damaged, or has not its size.
    ImportError
        Where no library unpacks them.
    """
    height, width, channels = samples.size
    down, across = samples.piece
    columns = -(-width // across)
    number = -(-height // down) * columns
    inner = 1 if samples.is_planar else channels
    image = np.empty(samples.size, np.dtype(samples.kind).newbyteorder("="))
    for index, (where, length) in enumerate(samples.pieces[: number * (channels // inner)]):
        plane, place = divmod(index, number)
        top, left = place // columns * down, place % columns * across
        rows = down if samples.is_tiled else min(down, height - top)
        piece = _piece(data[where : where + length], samples, (rows, across, inner))
        part = piece[: height - top, : width - left]
        target = image[top : top + rows, left : left + across]
        if part.shape[:2] != target.shape[:2]:
            raise too_few_samples()
        target[..., plane : plane + inner] = part
    return orient(np.iinfo(image.dtype).max - image if samples.is_inverted else image, samples.orientation)


def _piece(packed: bytes, samples: TiffSamples, shape: tuple[int, int, int]) -> Array:
    """Return the samples of one strip or tile."""
    if samples.compression in _PICTURES:
        return _picture(packed, samples, shape)
    kind = np.dtype(samples.kind)
    size = shape[0] * shape[1] * shape[2] * kind.itemsize
    try:
        found = _unpacked(packed, samples.compression, size)
    except (CorruptImageError, ImportError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  # each library has its own class
        raise CorruptImageError(f"corrupt: the TIFF's samples are damaged: {brief(error)}") from None
    if len(found) < size:
        raise too_few_samples()
    return _summed(np.frombuffer(found, kind, size // kind.itemsize).reshape(shape), samples.predictor)


def _unpacked(packed: bytes, compression: int, size: int) -> bytes:
    if compression == 1:
        return packed
    if compression in (8, 32946):
        return zlib.decompressobj().decompress(packed, size)
    if compression == 34925:
        return lzma.LZMADecompressor(memlimit=1 << 28).decompress(packed, size)  # the file says what it takes
    if compression not in _PACKED:
        raise ImportError
    library, name = import_module("imagecodecs"), _PACKED[compression]
    if not getattr(library, name.upper()).available:
        raise ImportError
    return bytes(getattr(library, f"{name}_decode")(packed, out=size))


def _summed(values: Array, predictor: int) -> Array:
    """Return samples of which the file has the differences between neighbours."""
    if predictor == 1:
        return values
    kind = values.dtype
    if predictor == 2:
        whole = values.view(f"{kind.byteorder if kind.itemsize > 1 else '|'}u{kind.itemsize}")
        native = np.dtype(f"u{kind.itemsize}")
        summed = np.cumsum(whole.astype(native), axis=1, dtype=native)
        return summed.view(kind.newbyteorder("=") if kind.itemsize > 1 else kind)
    if predictor != 3 or kind.kind != "f":
        raise CorruptImageError(f"unsupported: a TIFF with the predictor {predictor} of samples {kind}")
    rows, across, inner = values.shape
    steps = np.cumsum(values.view(np.uint8).reshape(rows, -1, inner), axis=1, dtype=np.uint8)
    planes = steps.reshape(rows, kind.itemsize, across * inner)  # the highest bytes of all come first
    joined = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(kind.newbyteorder(">"))
    return joined.reshape(values.shape)


def _picture(packed: bytes, samples: TiffSamples, shape: tuple[int, int, int]) -> Array:
    """Return the samples of a strip or tile that is a picture, whose size is read before it is decoded."""
    library, name = import_module("imagecodecs"), _PICTURES[samples.compression]
    if not getattr(library, name.upper()).available:
        raise ImportError
    header = read_header(packed, shape[0] * shape[1])
    if header.format != {"jpeg2k": "jpeg2000"}.get(name, name):
        raise CorruptImageError(f"corrupt: a strip or tile of the TIFF is of the format {header.format}, not {name}")
    try:
        found = np.asarray(getattr(library, f"{name}_decode")(packed))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # each library has its own class
        raise CorruptImageError(f"corrupt: imagecodecs cannot decode the TIFF: {brief(error)}") from None
    found = found[:, :, np.newaxis] if found.ndim == 2 else found
    kind = np.dtype(samples.kind)
    if found.ndim != 3 or found.shape[2] != shape[2] or found.dtype != kind.newbyteorder("="):
        raise CorruptImageError(
            f"unsupported: a TIFF of samples {kind} that holds pictures of {found.dtype} of shape {found.shape}"
        )
    return found
