"""Values of raw columns, as statistics and encodings take them: text, numbers, days.

A column may come in another type than the one that was trained on, such as text where a file has no number in it; it
is converted where every value allows that.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkopt.errors import DataError
from sparkopt.typing import Floats

__all__ = ["DAY", "EPOCH", "counted_from", "days_of", "numbers_of", "text_of"]

DAY = 86_400_000_000
"""Microseconds of a day."""
EPOCH = np.datetime64("1970-01-01")
WHOLE = 2.0**53
"""Below it, a double without fraction is written as an integer."""


def text_of(column: pa.Array, name: str) -> pa.Array:
    """Return a column's values as text: categories. NaN is null; 1.0 and 1 are the same.

    Raises
    ------
    DataError
        For a column that has no text, such as one of lists.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(column.indices, text_of(column.dictionary, name))
    if pa.types.is_string(kind):
        return column
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):
        return _of_floats(column)
    if pa.types.is_decimal(kind):
        return _of_floats(column.cast(pa.float64(), safe=False))
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"column {name!r} of type {kind} has no categories: {error}") from None


def _of_floats(column: pa.Array) -> pa.Array:
    column = column.cast(pa.float64())
    column = pc.if_else(pc.is_nan(column), None, column)
    values = column.fill_null(0).to_numpy(zero_copy_only=False)
    whole = (np.abs(values) < WHOLE) & (values == np.trunc(values))
    integers = pa.array(np.where(whole, values, 0).astype(np.int64)).cast(pa.string())
    text = integers if whole.all() else pc.if_else(pa.array(whole), integers, column.cast(pa.string()))
    return pc.if_else(column.is_valid(), text, pa.scalar(None, pa.string()))


def numbers_of(column: pa.Array, name: str) -> Floats:
    """Return a column's values as doubles; null is NaN.

    Raises
    ------
    DataError
        For a value that is no number.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = _parsed(column, name, pa.float64(), "number")
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    try:
        found: Floats = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"column {name!r} has type {kind}; the features were fitted to numbers.") from None
    return found


def counted_from(error: DataError, first: int) -> str:
    """Return an error's text with its row counted from the first of a partition, where the column began later."""
    return re.sub(r"(?<=, row )\d+(?= is )", lambda found: str(int(found[0]) + first), str(error), count=1)


def _parsed(column: pa.Array, name: str, kind: pa.DataType, what: str) -> pa.Array:
    """Return text as another type; empty text is null."""
    trimmed = pc.utf8_trim_whitespace(column)
    trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, trimmed.type), trimmed)
    try:
        return trimmed.cast(kind)
    except pa.ArrowInvalid:
        for row, value in enumerate(trimmed):
            try:
                value.cast(kind)
            except pa.ArrowInvalid:
                raise DataError(f"column {name!r}, row {row} is {value.as_py()!r}, which is no {what}.") from None
        raise


def days_of(column: pa.Array, name: str) -> Floats:
    """Return dates and timestamps as days since 1970, with fractions; null is NaN.

    A timestamp with a time zone counts as the clock there shows it.

    Raises
    ------
    DataError
        For a value that is no date.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = _parsed(column, name, pa.timestamp("us"), "date")
    elif pa.types.is_null(kind) or pa.types.is_date(kind):
        column = column.cast(pa.timestamp("us"))
    elif pa.types.is_timestamp(kind):
        local = pc.local_timestamp(column) if kind.tz else column
        column = local.cast(pa.timestamp("us"), safe=False)
    else:
        raise DataError(f"column {name!r} has type {kind}; the features were fitted to dates.")
    missing = column.is_null().to_numpy(zero_copy_only=False)
    micros = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    found: Floats = micros / DAY
    if missing.any():
        found[missing] = np.nan
    return found
