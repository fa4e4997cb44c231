"""A digest of a partition's rows: whether a partition that is read again has the rows that it had before.

It is the same in whatever order the rows come and however they are cut into blocks, since Spark reads the rows of a
shuffle in any order. It finds accidents, not attacks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkopt.blocks.block import Block
from sparkopt.matrices import Features, PartlyDense
from sparkopt.typing import Array

__all__ = ["rows_digest"]

MOST_KEPT = 1 << 20
"""Columns whose factors are kept; those of wider rows are computed for each entry."""

_GOLDEN, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_LABEL, _WEIGHT, _OFFSET, _VALIDATION, _FOLD = (
    np.uint64(odd)
    for odd in (0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F)
)


def rows_digest(block: Block) -> int:
    """Return the sum of the hashes of a block's rows, modulo 2^64; those of several blocks are added.

    A row's hash is that of features, label, weight, offset, fold and whether it is for validation, to the bit.

    Parameters
    ----------
    block : Block
        The rows.
    """
    with np.errstate(over="ignore"):  # modulo 2^64 is what is wanted
        row = _features(block.X) + _bits(block.y) * _LABEL
        if block.weight is not None:
            row += _bits(block.weight) * _WEIGHT
        if block.offset is not None:
            row += _bits(block.offset) * _OFFSET
        row += np.uint64(block.is_validation) * _VALIDATION + np.array(block.fold, np.int64).view(np.uint64) * _FOLD
        return int(np.add.reduce(_mixed(row), dtype=np.uint64))


def _features(X: Features) -> NDArray[np.uint64]:
    """Return a number for the features of each row: the sum over columns of bits times a factor of the column."""
    if isinstance(X, np.ndarray):
        # without a copy of the bits as wider integers, which ``@`` makes
        found: NDArray[np.uint64] = np.einsum("ij,j->i", _bits(X), _factors(X.shape[1]))
        return found
    wide = X.shape[1] > MOST_KEPT
    if isinstance(X, PartlyDense):  # entries that are zeros add nothing, whether they are stored or not
        factors = _factor(X.columns) if wide else _factors(X.shape[1])[X.columns]
        dense: NDArray[np.uint64] = np.einsum("ij,j->i", _bits(X.dense), factors)
        return dense + _features(X.rest)
    products = _bits(X.data) * (_factor(X.indices) if wide else _factors(X.shape[1])[X.indices])
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(products, dtype=np.uint64)])
    rows: NDArray[np.uint64] = sums[X.indptr[1:]] - sums[X.indptr[:-1]]
    return rows


@lru_cache(maxsize=4)
def _factors(columns: int) -> NDArray[np.uint64]:
    return _factor(np.arange(columns))


def _factor(columns: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        return _mixed((columns.astype(np.uint64) + np.uint64(1)) * _GOLDEN) | np.uint64(1)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    numbers = (numbers ^ (numbers >> np.uint64(32))) * _MIX
    return numbers ^ (numbers >> np.uint64(29))


def _bits(numbers: Array) -> NDArray[np.uint64]:
    """Return the bits of numbers as unsigned integers, of 64 bits in products."""
    kind = {4: np.uint32, 8: np.uint64}[numbers.dtype.itemsize]
    found = np.ascontiguousarray(numbers).view(kind)
    return found if found.ndim > 1 else found.astype(np.uint64, copy=False)
