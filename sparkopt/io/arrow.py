"""Values of Arrow columns without a copy; Arrow's own scalars copy their bytes, 30 µs for 40 kB."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa

__all__ = ["binary_values"]


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
