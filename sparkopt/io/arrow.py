"""Values of Arrow columns without a copy; Arrow's own scalars copy their bytes, 30 µs for 40 kB."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = [
    "array_of",
    "binary_values",
    "fixed_width_values",
    "list_of",
    "plain_array",
    "plain_batch",
    "plain_field",
    "text_of",
]


def binary_values(column: pa.Array) -> list[pa.Buffer | None]:
    """Return the values of a column of bytes or text as buffers that share its memory; null is None.

    Examples
    --------
    >>> import pyarrow as pa
    >>> [value and value.to_pybytes() for value in binary_values(pa.array([b"a", None, b"bc"]))]
    [b'a', None, b'bc']
    """
    validity, ends, data = column.buffers()
    is_large = pa.types.is_large_binary(column.type) or pa.types.is_large_string(column.type)
    width = np.int64 if is_large else np.int32
    offsets = np.frombuffer(ends, width)[column.offset : column.offset + len(column) + 1].tolist() if ends else [0]
    data = pa.py_buffer(b"") if data is None else data
    values = [data.slice(start, stop - start) for start, stop in itertools.pairwise(offsets)]
    if validity is None:
        return values
    return [value if valid else None for value, valid in zip(values, column.is_valid().to_pylist(), strict=True)]


def fixed_width_values(column: pa.Array) -> NDArray[Any]:
    """Return the numbers of a column without nulls, sharing its memory; ``to_numpy`` would load pandas.

    Examples
    --------
    >>> import pyarrow as pa
    >>> fixed_width_values(pa.array([1, 2, 3], pa.int64())[1:])
    array([2, 3])
    >>> fixed_width_values(pa.array([True, False]))
    array([ True, False])
    """
    if pa.types.is_boolean(column.type):  # bits
        return fixed_width_values(column.cast(pa.uint8())).view(np.bool_)
    kind = column.type.to_pandas_dtype()
    if not len(column):
        return np.empty(0, kind)
    found: NDArray[Any] = np.frombuffer(column.buffers()[1], kind)
    found.flags.writeable = False  # Arrow's data are immutable
    return found[column.offset : column.offset + len(column)]


def array_of(values: NDArray[Any]) -> pa.Array:
    """Return numbers as a column without nulls that shares their memory; ``pa.array`` would load pandas.

    Examples
    --------
    >>> import numpy as np
    >>> array_of(np.array([1.5, 2.0])).to_pylist()
    [1.5, 2.0]
    """
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, buffer])


def list_of(values: pa.Array) -> pa.Array:
    """Return a column of one row, the list of some values.

    Examples
    --------
    >>> import numpy as np
    >>> list_of(array_of(np.array([1.5, 2.0]))).to_pylist()
    [[1.5, 2.0]]
    """
    return pa.ListArray.from_arrays(array_of(np.array([0, len(values)], np.int32)), values)


def text_of(values: Sequence[str]) -> pa.Array:
    """Return text as a column without nulls; ``pa.array`` would load pandas.

    Examples
    --------
    >>> text_of(["a", "", "bc"]).to_pylist()
    ['a', '', 'bc']
    """
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)])
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def plain_field(field: pa.Field) -> pa.Field:
    """Return a column as most of Arrow takes it: no dictionaries, no views of bytes and text, which Polars gives.

    Examples
    --------
    >>> import pyarrow as pa
    >>> str(plain_field(pa.field("names", pa.large_list(pa.string_view()))).type)
    'large_list<item: string>'
    """
    return field.with_type(_plain_type(field.type))


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose columns are as ``plain_field`` says; those that are plain share their memory."""
    schema = pa.schema([plain_field(field) for field in batch.schema], batch.schema.metadata)
    return batch if schema == batch.schema else batch.cast(schema)


def plain_array(column: pa.Array) -> pa.Array:
    """Return a column as ``plain_field`` says."""
    kind = _plain_type(column.type)
    return column if kind == column.type else column.cast(kind)


_LISTS = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if kind == pa.binary_view():
        return pa.binary()
    if kind == pa.string_view():
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([plain_field(field) for field in kind])
    for is_one, plain in _LISTS:
        if is_one(kind):
            return plain(plain_field(kind.value_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_field(kind.value_field), kind.list_size)
    return kind
