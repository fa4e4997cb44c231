"""From a column of Arrow to one array of its rows, or to the bytes of images."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkopt.blocks.columns import feature_matrix
from sparkopt.errors import CorruptImageError, DataError
from sparkopt.io.pixel_structs import TENSOR_FIELDS
from sparkopt.shards.fields import WEIGHT, Field, MissingValueError
from sparkopt.shards.ragged import Ragged, RowArray
from sparkopt.typing import Array

__all__ = ["dense", "opened", "stored"]


class _MissingEntryError(MissingValueError):
    """A null entry of a row's array."""

    def __init__(self, row: int, entry: int) -> None:
        super().__init__(f"row {row} has a null entry")
        self.row, self.entry = row, entry


def stored(field: Field, column: pa.Array) -> RowArray | pa.Array:
    """Return a column's rows as a store holds them: as ``dense``, but sparse vectors and unlike lists as they are.

    Raises
    ------
    DataError
        As ``dense``, and for a list that is padded and has no entries.
    """
    if column.null_count or not (field.padded or field.kind == "vector"):
        return dense(field, column)
    found = _lists(column) if field.padded else _sparse(column)
    if found.values.dtype.kind == "f" and not np.isfinite(found.values.sum()):
        bad = np.flatnonzero(~np.isfinite(found.values.reshape(len(found.values), -1)).all(1))
        if len(bad):
            row = int(np.searchsorted(found.offsets, bad[0], side="right")) - 1
            place = bad[0] - found.offsets[row] if found.places is None else found.places[bad[0]]
            odd = np.ravel(found.values[bad[0]])
            raise MissingValueError(f"row {row} is {odd[~np.isfinite(odd)][0]} at position {place}")
    return found


def dense(field: Field, column: pa.Array) -> Array | pa.Array:
    """Return a column's rows as one array (n, …), float32, int64 or a tensor's own type; bytes stay Arrow.

    Raises
    ------
    DataError
        For a null, a number that is not finite, or rows of unlike shapes; the message starts with the row's number.
    """
    if column.null_count:
        raise MissingValueError(f"row {int(np.flatnonzero(column.is_null())[0])} is null")
    if field.kind == "bytes":
        return column
    if field.kind == "path":
        return _contents(column)
    if field.kind == "pixels":
        return _pixels(column)
    if field.kind == "points":
        return _points(field, column)
    if field.target == "mask":
        return _masks(column)
    try:
        values = _DENSE[field.kind](column)
    except _MissingEntryError as error:
        if len(field.columns) == 1:
            raise
        raise MissingValueError(f"row {error.row} is null in column {field.columns[error.entry]!r}") from None
    if len(values) and not values.size:
        raise DataError("row 0 has no entries")
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    if values.dtype.kind == "f" and not np.isfinite(values.sum()):
        bad = np.flatnonzero(~np.isfinite(values.reshape(-1)))
        if len(bad):
            row, position = divmod(int(bad[0]), math.prod(values.shape[1:]))
            at = f"position {position}" if len(field.columns) == 1 else f"column {field.columns[position]!r}"
            raise MissingValueError(f"row {row} is {values.reshape(-1)[bad[0]]} at {at}")
    if field.name == WEIGHT and (values < 0).any():
        row = int(np.flatnonzero(values < 0)[0])
        raise DataError(f"row {row} is {values[row]:g}; it must be >= 0")
    return values


def opened(entry: Field, content: bytes) -> bytes | Array:
    """Return what a pipeline is given of an image: the bytes of its file, or the pixels of one that was decoded."""
    from sparkopt.images.packing import unpacked_array  # here, since most networks need no OpenCV

    return content if entry.is_encoded else unpacked_array(content)


def _contents(column: pa.Array) -> pa.Array:
    """Return the content of files, whose paths are in a column."""
    from sparkopt.images.sources import read_file  # here, since most networks need no OpenCV

    found = []
    for row, path in enumerate(column.to_pylist()):
        try:
            found.append(read_file(path))
        except CorruptImageError as error:
            raise MissingValueError(f"row {row} is {path!r}, {error}") from None
    return pa.array(found, pa.binary())


def _pixels(column: pa.Array) -> pa.Array:
    """Return decoded images as bytes, since each may be of its own size, and a pipeline prepares each alone."""
    from sparkopt.images.packing import packed_array
    from sparkopt.images.sources import open_column

    found, (rows, read) = [], open_column(column)
    for row, value in enumerate(rows):
        try:
            image: Any = read(value)
        except CorruptImageError as error:
            raise MissingValueError(f"row {row} is no image: {error}") from None
        _check_finite(image, row)
        found.append(packed_array(image))
    return pa.array(found, pa.binary())


def _points(field: Field, column: pa.Array) -> pa.Array:
    """Return boxes or keypoints as bytes, since each row may have another number of boxes."""
    from sparkopt.images.label_targets import odd_point, packed_points, points_of

    kind, found = field.target or "", []
    for row, value in enumerate(column.to_pylist()):
        try:
            points = points_of(value, kind)
        except (ValueError, TypeError) as error:
            raise DataError(f"row {row} is {value!r}: each of its {field.target} {_SHOULD[kind]} ({error})") from None
        odd = odd_point(points, kind)
        if odd is not None:
            raise MissingValueError(f"row {row}: {odd}")
        found.append(packed_points(points))
    return pa.array(found, pa.binary())


def _check_finite(pixels: Array, row: int) -> None:
    if pixels.dtype.kind == "f" and not np.isfinite(pixels.sum()) and not np.isfinite(pixels).all():
        raise MissingValueError(f"row {row} is {pixels[~np.isfinite(pixels)][0]} at a pixel")


def _masks(column: pa.Array) -> pa.Array:
    """Return masks that are tensors as bytes, since each is of its image's size, and of any type of numbers."""
    from sparkopt.images.label_targets import mask_of
    from sparkopt.images.packing import packed_array

    found, parts = [], [column.field(name).to_pylist() for name in TENSOR_FIELDS]
    for row, (shape, dtype, data) in enumerate(zip(*parts, strict=True)):
        try:
            mask = mask_of(shape, dtype, data)
        except (TypeError, ValueError) as error:
            raise MissingValueError(f"row {row} is no mask: {error}") from None
        _check_finite(mask, row)
        found.append(packed_array(mask))
    return pa.array(found, pa.binary())


_SHOULD = {
    "keypoints": "must be [x, y]",
    "boxes": "must be [x_min, y_min, x_max, y_max], and as many more numbers as the others",
}


def _numbers(column: pa.Array) -> Array:
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _vectors(column: pa.Array) -> Array:
    found = feature_matrix(column)
    return found if isinstance(found, np.ndarray) else found.toarray()


def _sparse(column: pa.Array) -> Ragged:
    """Vectors, of which those that are dense have all columns."""
    found: Any = feature_matrix(column)
    if isinstance(found, np.ndarray):
        width, offsets, places = found.shape[1], np.arange(len(found) + 1) * found.shape[1], None
        values = found
    else:
        width, offsets, places = found.shape[1], found.indptr.astype(np.int64), found.indices
        values = found.data
    if len(column) and not width:
        raise DataError("row 0 has no entries")
    return Ragged(values.reshape(-1).astype(np.float32), offsets, places, width)


def _lists(column: pa.Array) -> Ragged:
    """Lists of unlike lengths, of numbers or of arrays of one shape."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    empty = np.flatnonzero(np.diff(offsets) == 0)
    if len(empty):
        raise MissingValueError(f"row {int(empty[0])} is an empty list")
    entries = column.flatten()

    def row_of(entry: int) -> int:
        return int(np.searchsorted(offsets - offsets[0], entry, side="right")) - 1

    if entries.null_count:
        raise MissingValueError(f"row {row_of(int(np.flatnonzero(entries.is_null())[0]))} has a null entry")
    try:
        values = _arrays(entries)
    except _MissingEntryError as error:
        raise MissingValueError(f"row {row_of(error.row)} has a null entry") from None
    except DataError as error:
        raise DataError(re.sub(r"^row (\d+) ", lambda found: f"row {row_of(int(found[1]))} ", str(error))) from None
    return Ragged(values, offsets - offsets[0])


def _arrays(column: pa.Array) -> Array:
    """Nested lists of equal lengths at each depth as one array."""
    shape = [len(column)]
    while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = np.diff(column.offsets.to_numpy())
        odd = np.flatnonzero(lengths != lengths[:1])
        if len(odd):
            row = int(odd[0]) // math.prod(shape[1:])
            raise DataError(f"row {row} has {lengths[odd[0]]} entries where the rows before it have {lengths[0]}")
        column = column.flatten()
        if column.null_count:
            flat = int(np.flatnonzero(column.is_null())[0])
            raise _MissingEntryError(*divmod(flat, max(1, math.prod(shape[1:]) * int(lengths[0]))))
        shape.append(int(lengths[0]) if len(lengths) else 0)
    return _numbers(column).reshape(shape)


def _tensors(column: pa.Array) -> Array:
    shapes = column.field("shape").to_pylist()
    kinds = column.field("dtype").to_pylist()
    if not shapes:
        return np.empty((0,), np.float32)
    for row, own in enumerate(zip(shapes, kinds, strict=True)):
        if own != (shapes[0], kinds[0]):
            raise DataError(f"row {row} is a tensor {own} where the rows before it are {(shapes[0], kinds[0])}")
    kind = np.dtype(kinds[0])
    if kind not in (np.float32, np.float64, np.int64, np.uint8):
        raise DataError(f"row 0 is a tensor of {kind.name}; float32, float64, int64 and uint8 are read")
    data = column.field("data")
    size = math.prod(shapes[0]) * kind.itemsize
    lengths = pc.binary_length(data).to_numpy()
    if (lengths != size).any():
        row = int(np.flatnonzero(lengths != size)[0])
        raise DataError(f"row {row} has {lengths[row]} bytes; a tensor {shapes[0]} of {kind.name} has {size}")
    return np.frombuffer(b"".join(data.to_pylist()), kind).reshape(-1, *shapes[0])


_DENSE: dict[str, Any] = {"number": _numbers, "vector": _vectors, "array": _arrays, "tensor": _tensors}
