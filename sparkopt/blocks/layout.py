"""Which rows make a block, and whether it is dense or sparse: the rows alone decide, not the batches they come in.

Rows are looked at in *units* of as many rows as a dense block has. A unit whose rows store less than a quarter of
their entries is sparse. A dense unit is a block; sparse units that follow one another are put together, and cut into
blocks where enough entries are stored. So readers whose batches differ make the same blocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import scipy  # loads scipy.sparse where it is used
from numpy.typing import NDArray

from sparkopt.blocks.block import Block
from sparkopt.matrices import Features, PartlyDense, as_csr, stored_by_row
from sparkopt.typing import Array

__all__ = ["BLOCK_BYTES", "SPARSE_BELOW", "regroup", "unit_rows"]

BLOCK_BYTES = 1 << 21
"""Features of a block: small enough that the second read of a step finds them in a core's cache."""

SPARSE_BELOW = 0.25
"""Share of stored entries under which rows of sparse vectors stay sparse: above it, dense arithmetic is faster."""

INDEX_BYTES = 4
"""Of the number of a stored entry's column."""

MOST_ROWS = 1 << 16
"""Most rows of a block."""


def unit_rows(row_bytes: int) -> int:
    """Return how many rows a unit has, given the bytes of a dense row's features."""
    return int(np.clip(BLOCK_BYTES // max(1, row_bytes), 1, MOST_ROWS))


def regroup(blocks: Iterable[Block]) -> Iterator[Block]:
    """Regroup rows of blocks of any size into blocks for training, in their order.

    Training and validation rows are kept apart, and so are folds, each with a last block of its own.
    """
    queues: defaultdict[tuple[bool, int], _Queue] = defaultdict(_Queue)
    for block in blocks:
        yield from queues[block.is_validation, block.fold].add(block)
    for queue in queues.values():
        yield from queue.rest()


class _Queue:
    """Rows that do not fill a unit yet, and sparse rows that do not fill a block."""

    def __init__(self) -> None:
        self._unit, self._width = 0, 0  # rows of a unit, and their entries
        self._begun: list[Block] = []
        self._rows = 0  # of the unit that has begun
        self._sparse = _SparseBlocks()

    def add(self, block: Block) -> Iterator[Block]:
        if not self._unit:
            self._width = block.X.shape[1]
            self._unit = unit_rows(self._width * block.X.dtype.itemsize)
        start = 0
        if self._rows:
            start = min(self._unit - self._rows, block.rows)
            self._begun.append(_cut(block, 0, start))
            self._rows += start
            if self._rows < self._unit:
                return
            yield from self._unit_of_pieces()
        whole = (block.rows - start) // self._unit * self._unit
        yield from self._units(_cut(block, start, start + whole))
        if start + whole < block.rows:
            self._begun, self._rows = [_cut(block, start + whole, block.rows)], block.rows - start - whole

    def rest(self) -> Iterator[Block]:
        if self._rows:
            yield from self._unit_of_pieces()
        yield from self._sparse.rest()

    def _unit_of_pieces(self) -> Iterator[Block]:
        pieces, self._begun, rows, self._rows = self._begun, [], self._rows, 0
        stored = sum(piece.X.size if isinstance(piece.X, np.ndarray) else piece.X.nnz for piece in pieces)
        yield from self._laid_out(_join(pieces), [0, rows], [self._is_sparse(stored, rows)])

    def _units(self, block: Block) -> Iterator[Block]:
        """Take several whole units, and few steps for many of them."""
        if not block.rows:
            return
        bounds = np.arange(0, block.rows + 1, self._unit)
        if isinstance(block.X, np.ndarray):
            yield from self._laid_out(block, bounds.tolist(), [False] * (len(bounds) - 1))
            return
        sparse_units = self._is_sparse(np.diff(_stored_before(block.X)[bounds]), self._unit)
        changes = np.flatnonzero(np.diff(sparse_units)) + 1
        is_first = ~sparse_units  # a dense unit begins a block, a sparse one only where it follows a dense one
        is_first[[0, *changes]] = True
        first = np.flatnonzero(is_first)
        yield from self._laid_out(block, [*bounds[first].tolist(), block.rows], sparse_units[first].tolist())

    def _is_sparse(self, stored: NDArray[np.integer] | int, rows: int) -> NDArray[np.bool_]:
        return np.asarray(stored < SPARSE_BELOW * rows * self._width)

    def _laid_out(
        self, block: Block, bounds: list[int], is_sparse: Iterable[bool | NDArray[np.bool_]]
    ) -> Iterator[Block]:
        for start, stop, stays in zip(bounds[:-1], bounds[1:], is_sparse, strict=True):
            rows = _cut(block, start, stop)
            if stays:
                yield from self._sparse.add(rows)
                continue
            yield from self._sparse.rest()
            yield rows if isinstance(rows.X, np.ndarray) else replace(rows, X=rows.X.toarray())


class _SparseBlocks:
    """Sparse rows that follow one another, which are cut where enough entries are stored.

    A block is at least as large as one dense gradient, so that adding gradients costs no more than reading.
    """

    def __init__(self) -> None:
        self._waiting: list[Block] = []
        self._bytes = self._rows = 0

    def add(self, block: Block) -> Iterator[Block]:
        X = _stored(block.X)
        block = replace(block, X=X)
        ends = _stored_before(X)[1:] * (X.dtype.itemsize + INDEX_BYTES)
        target, start, before = max(BLOCK_BYTES, 8 * X.shape[1]), 0, 0
        while True:
            full = int(np.searchsorted(ends, before + target - self._bytes)) + 1
            stop = min(full, start + MOST_ROWS - self._rows)
            if stop > block.rows:
                break
            yield _join([*self._waiting, _cut(block, start, stop)])
            self._waiting, self._bytes, self._rows = [], 0, 0
            start, before = stop, int(ends[stop - 1])
        if start < block.rows:
            self._waiting.append(_cut(block, start, block.rows))
            self._bytes += int(ends[-1]) - before
            self._rows += block.rows - start

    def rest(self) -> Iterator[Block]:
        if self._waiting:
            yield _join(self._waiting)
            self._waiting, self._bytes, self._rows = [], 0, 0


def _stored_before(X: scipy.sparse.csr_array | PartlyDense) -> NDArray[np.int64]:
    """Return how many entries the rows before each row store, and all rows, shape (n + 1,)."""
    return np.concatenate([[0], np.cumsum(stored_by_row(X), dtype=np.int64)])


def _stored(X: Features) -> scipy.sparse.csr_array | PartlyDense:
    """Return rows as sparse ones; dense ones store every entry, zeros included."""
    if not isinstance(X, np.ndarray):
        return X
    rows, width = X.shape
    indices = np.tile(np.arange(width, dtype=np.int32), rows)
    return scipy.sparse.csr_array(
        (X.reshape(-1), indices, np.arange(rows + 1, dtype=np.int32) * width), shape=X.shape
    )


def _cut(block: Block, start: int, stop: int) -> Block:
    if start == 0 and stop == block.rows:
        return block
    weight, offset = (part if part is None else part[start:stop] for part in (block.weight, block.offset))
    return replace(block, X=block.X[start:stop], y=block.y[start:stop], weight=weight, offset=offset)


def _join(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    X = _joined_features([block.X for block in blocks])
    y = np.concatenate([block.y for block in blocks])
    weight, offset = (_joined([getattr(block, name) for block in blocks]) for name in ("weight", "offset"))
    return replace(blocks[0], X=X, y=y, weight=weight, offset=offset)


def _joined_features(parts: list[Features]) -> Features:
    partly = [rows for rows in parts if isinstance(rows, PartlyDense)]
    if len(partly) == len(parts):  # of one encoder
        return PartlyDense.joined(partly)
    dense = [rows for rows in parts if isinstance(rows, np.ndarray)]
    if len(dense) == len(parts):
        return np.concatenate(dense)
    return scipy.sparse.vstack([as_csr(_stored(rows)) for rows in parts], format="csr")


def _joined(parts: list[Array | None]) -> Array | None:
    """Join an array that either all blocks have or none."""
    found = [part for part in parts if part is not None]
    return np.concatenate(found) if found else None
