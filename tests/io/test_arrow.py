"""Values of Arrow columns as buffers, against Arrow's own scalars."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from sparkopt.io.arrow import binary_values, fixed_width_values

VALUES = [b"a", None, b"", b"bcd", None, "größe".encode()]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.string(), pa.large_string()])
@pytest.mark.parametrize("part", [slice(0, 6), slice(1, 4), slice(3, 3), slice(5, 6)])
@pytest.mark.parametrize("values", [VALUES, [None] * 6, [b"x"] * 6])
def test_values_are_arrows(kind, part, values):
    column = pa.array(values, pa.binary()).cast(kind)[part]
    found = binary_values(column)
    assert [None if value is None else value.to_pybytes() for value in found] == values[part]


def test_values_share_the_columns_memory():
    column = pa.array([b"abc", b"defg"])
    first, second = binary_values(column)
    assert first.address == column.buffers()[2].address
    assert second.address == first.address + 3


def test_an_empty_column_has_no_values():
    assert binary_values(pa.array([], pa.binary())) == []


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int32(), pa.int64()])
@pytest.mark.parametrize("part", [slice(0, 3), slice(1, 3), slice(2, 2)])
def test_numbers_are_arrows_and_share_the_columns_memory(kind, part):
    column = pa.array([1, -2, 3], kind)
    found, expected = fixed_width_values(column[part]), column[part].to_numpy()
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()
    if len(found):
        assert np.shares_memory(found, expected)
        assert not found.flags.writeable
