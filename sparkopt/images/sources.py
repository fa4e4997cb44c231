"""Columns of images: encoded bytes, paths, or rows of Spark's image schema."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from sparkopt.errors import CorruptImageError, ParameterError, SchemaError
from sparkopt.images import functional as F
from sparkopt.images.canvas import check_image
from sparkopt.io.arrow import binary_values
from sparkopt.io.filesystem import STORAGE_ERRORS, brief, local_path, resolve
from sparkopt.io.pixel_structs import IMAGE_FIELDS, holds_image, holds_tensor
from sparkopt.io.secrets import mask_uri
from sparkopt.typing import Array

__all__ = [
    "OPENCV_TYPES",
    "open_column",
    "path_of",
    "read_file",
    "rows_are_encoded",
]

OPENCV_TYPES = {1: 0, 3: 16, 4: 24}  # channels to CV_8UC1, CV_8UC3, CV_8UC4, as Spark's image schema counts them
_MAX_FILE_BYTES = 2**30

Reader: TypeAlias = "Callable[[Any], Array | bytes]"


def open_column(column: pa.Array) -> tuple[Sequence[Any], Reader]:
    """Return a value for each row, and the function that reads it: to an image, or to the bytes of one.

    Raises
    ------
    SchemaError
        If the column is neither binary nor string nor of Spark's image schema, nor holds tensors.
    """
    kind = column.type
    if pa.types.is_null(kind):
        return [None] * len(column), _encoded
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return binary_values(column), _encoded
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.to_pylist(), read_file
    if pa.types.is_struct(kind) and holds_image(field.name for field in kind):
        parts = dict(zip((field.name for field in kind), column.flatten(), strict=True))
        numbers = [parts[name].to_pylist() for name in IMAGE_FIELDS[1:5]]
        return list(zip(*numbers, binary_values(parts["data"]), strict=True)), _decoded
    if pa.types.is_struct(kind) and holds_tensor(field.name for field in kind):
        parts = dict(zip((field.name for field in kind), column.flatten(), strict=True))
        shapes, dtypes = parts["shape"].to_pylist(), parts["dtype"].to_pylist()
        return list(zip(shapes, dtypes, binary_values(parts["data"]), strict=True)), _tensor
    raise SchemaError(f"images must be binary, paths, rows of Spark's image schema or tensors. Got {kind} instead.")


def path_of(column: pa.Array, row: int) -> str | None:
    """Return the path of a row's image, without its secrets: its value, or its origin; None where it has none."""
    kind, value = column.type, column[row]
    if pa.types.is_struct(kind):
        value = value["origin"] if value.is_valid and kind.get_field_index("origin") >= 0 else pa.scalar(None)
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    return mask_uri(value.as_py()) if value.as_py() else None


def rows_are_encoded(kind: pa.DataType) -> bool:
    """Whether the rows of such a column are the bytes of image files, and not pixels."""
    return not (pa.types.is_struct(kind) or pa.types.is_null(kind))


def _encoded(content: pa.Buffer | None) -> bytes:
    if content is None:
        raise CorruptImageError("null: the row holds no image")
    data: bytes = content.to_pybytes()
    return data


def read_file(path: str | None) -> bytes:
    """Return the content of an image's file, by its path or URI.

    Raises
    ------
    CorruptImageError
        Where it cannot be read, or there is no path; the message gives the reason.
    """
    if path is None:
        raise CorruptImageError("null: the row holds no path")
    if not path.strip():  # it would be the folder where the process began
        raise CorruptImageError("unreadable: the path is empty")
    *others, last = _spellings(path)
    for spelling in others:
        with contextlib.suppress(FileNotFoundError, ParameterError):  # some stores refuse what is not there
            return _content(path, spelling)
    try:
        return _content(path, last)
    except FileNotFoundError as error:
        raise CorruptImageError(f"unreadable: {brief(error)}") from None


def _spellings(path: str) -> tuple[str, ...]:
    """Return what a path may stand for: Spark lists names as they are, ``file:/a%20b``, and a URI quotes them."""
    is_quoted = path[:7].lower() == "file://" or ":" not in path.partition("/")[0]
    return (path,) if "%" not in path or is_quoted else (path.replace("%", "%25"), path)


def _content(path: str, spelling: str) -> bytes:
    try:
        local = local_path(spelling)
        if local is not None:
            return _local(local)
        location = resolve(spelling, "path")
        _check_size(path, location.filesystem.get_file_info(location.path).size)
        return location.read()
    except FileNotFoundError:
        raise
    except (IsADirectoryError, NotADirectoryError) as error:
        raise CorruptImageError(f"unreadable: {brief(error)}") from None
    except STORAGE_ERRORS as error:
        if getattr(error, "errno", None) in (errno.ENAMETOOLONG, errno.ELOOP):  # the path's own fault
            raise CorruptImageError(f"unreadable: {brief(error)}") from None
        # rights, credentials, a network: not the image's fault, nor this row's alone
        raise ParameterError(f"the image {mask_uri(path)!r} cannot be opened: {brief(error)}") from None
    except ParameterError:  # a scheme that nothing opens
        raise
    except ValueError as error:  # no path at all
        raise CorruptImageError(f"unreadable: {brief(error)}") from None


def _local(path: str) -> bytes:
    """Read a local file with ``open``: Arrow's file system takes three times as long."""
    with open(path, "rb") as stream:
        _check_size(path, os.fstat(stream.fileno()).st_size)
        return stream.read()


def _check_size(path: str, size: int | None) -> None:
    if size is not None and size > _MAX_FILE_BYTES:
        raise CorruptImageError(f"too large: {path} has {size} bytes, more than {_MAX_FILE_BYTES}")


def _decoded(row: tuple[int | None, int | None, int | None, int | None, pa.Buffer | None]) -> Array:
    height, width, channels, mode, content = row
    if height is None or width is None or channels is None or mode is None or content is None:
        raise CorruptImageError("null: the row holds no image")
    if OPENCV_TYPES.get(channels) != mode:
        raise CorruptImageError(
            f"unsupported: OpenCV type {mode} of {channels} channels; 8 bits in 1, 3 or 4 are read"
        )
    data = np.frombuffer(content, np.uint8)
    if height < 1 or width < 1 or data.size != height * width * channels:
        raise CorruptImageError(f"corrupt: {data.size} bytes cannot hold {height} x {width} x {channels} values")
    image = data.reshape(height, width, channels)
    if channels == 4:
        return image[..., [2, 1, 0, 3]]
    return image if channels == 1 else F.convert_color(image, "bgr", "rgb")


def _tensor(row: tuple[list[int] | None, str | None, pa.Buffer | None]) -> Array:
    shape, dtype, content = row
    if shape is None or dtype is None or content is None:
        raise CorruptImageError("null: the row holds no image")
    try:
        image = np.frombuffer(content, np.dtype(dtype)).reshape(shape)
    except (TypeError, ValueError) as error:
        raise CorruptImageError(f"corrupt: the image is no tensor: {error}") from None
    try:
        check_image(image)
    except ParameterError as error:
        raise CorruptImageError(f"unsupported: {error}") from None
    return image
