"""Block: a few thousand rows as arrays, small enough for a core's cache; and a partition as a sequence of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sparkopt.matrices import Features, nbytes_of
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["NO_FOLD", "Block", "Blocks", "InMemoryBlocks", "Part", "every", "take"]

NO_FOLD = -1
"""The fold number of rows that are in none: every model sees them."""


@dataclass(frozen=True)
class Block:
    """Rows of a data set.

    Attributes
    ----------
    X : ndarray, csr_array or PartlyDense of shape (n, features)
        Features, float32 or float64 as the user's data came.
    y : ndarray of shape (n,)
        Targets, float64.
    weight : ndarray of shape (n,) or None
        Row weights, float64; None where every weight is 1.
    is_validation : bool, default False
        Whether these rows are for validation: a model is measured on them and never trained.
    offset : ndarray of shape (n,) or None, default None
        Added to the rows' raw predictions, float64; None adds nothing.
    fold : int, default NO_FOLD
        The fold of a cross-validation that these rows are in; ``NO_FOLD`` where they are in none.
    """

    X: Features
    y: Array
    weight: Array | None = None
    is_validation: bool = False
    offset: Array | None = None
    fold: int = NO_FOLD

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.y)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        X = self.X
        features = nbytes_of(X)
        return int(features + sum(part.nbytes for part in (self.y, self.weight, self.offset) if part is not None))

    def take(self, rows: NDArray[np.intp]) -> Block:
        """Return the given rows, in the given order."""
        weight, offset = (part if part is None else part[rows] for part in (self.weight, self.offset))
        return Block(self.X[rows], self.y[rows], weight, offset=offset, fold=self.fold)


class Blocks(Protocol):
    """A partition's blocks, opened one at a time: reading a few rows touches a few blocks only.

    Attributes
    ----------
    starts : ndarray of shape (blocks + 1,)
        Number of the first row of each block within the partition; the last entry is the number of rows. Blocks of
        validation rows do not count. The blocks of a fold follow each other.
    path : str or None
        Path of their file, next to which a task may keep files of its own; None where they are in memory.
    """

    @property
    def path(self) -> str | None: ...

    @property
    def starts(self) -> NDArray[np.intp]: ...

    def __getitem__(self, index: int) -> Block: ...

    def validation(self) -> Iterator[Block]:
        """Yield the blocks of validation rows."""
        ...


@dataclass(frozen=True)
class InMemoryBlocks:
    """Blocks that are already in memory: for tests and for data that needs no store."""

    blocks: Sequence[Block]
    validation_blocks: Sequence[Block] = ()
    path: str | None = None

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """First row of each block, and the number of rows."""
        return np.concatenate([[0], np.cumsum([block.rows for block in self.blocks])]).astype(np.intp)

    def __getitem__(self, index: int) -> Block:
        return self.blocks[index]

    def validation(self) -> Iterator[Block]:
        """Yield the blocks of validation rows."""
        return iter(self.validation_blocks)


@dataclass(frozen=True)
class Part:
    """Which partition this is.

    Attributes
    ----------
    index : int
        Number of the partition.
    first_row : int
        Rows in all partitions before it.
    rows : int or None, default None
        Rows in all partitions; None where this one is alone.
    """

    index: int
    first_row: int
    rows: int | None = None


def every(blocks: Blocks) -> Iterator[Block]:
    """Yield all blocks of a partition, opening one at a time."""
    return (blocks[index] for index in range(len(blocks.starts) - 1))


def take(blocks: Blocks, rows: NDArray[np.intp]) -> Iterator[Block]:
    """Yield the given rows of a partition (sorted, ascending), opening only the blocks that hold them."""
    starts = blocks.starts
    owner = np.searchsorted(starts, rows, side="right") - 1
    touched, first = np.unique(owner, return_index=True)
    for index, group in zip(touched, np.split(rows, first[1:]), strict=True):
        yield blocks[int(index)].take(group - starts[index])
