"""What a plan knows of the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparkopt.blocks.block import Blocks, Part
from sparkopt.blocks.store import BlockStore
from sparkopt.values import dataclass

__all__ = ["DataProfile"]


@dataclass(frozen=True)
class DataProfile:
    """What a plan knows of the rows.

    Attributes
    ----------
    rows : list of int
        Rows of each partition that has any.
    partitions : int
        Number of partitions, empty ones included.
    features : int
        Number of features.
    row_bytes : float
        Bytes that a row takes in blocks.
    is_sparse : bool
        Whether blocks are sparse.
    target_max : float
        Largest label.
    row_entries : float, default 0
        Entries of a row that are stored: without zeros where rows are sparse.
    reader : str, default ""
        What would read the rows: "arrow", or "spark" and why not Arrow.
    """

    rows: Sequence[int]
    partitions: int
    features: int
    row_bytes: float
    is_sparse: bool
    target_max: float
    row_entries: float = 0.0
    reader: str = ""

    @classmethod
    def of(cls, store: BlockStore) -> DataProfile:
        """Profile the rows of a store; the first block of each partition says how they are stored."""
        first = [found.value for found in store.collect(_layout) if found.value is not None]
        rows, entries, sparse = (sum(column) for column in zip(*first, strict=True))
        features = store.moments.features
        return cls(
            [count for count in store.rows if count],
            store.partitions,
            features,
            store.bytes / max(1, sum(store.rows)),
            2 * sparse > rows,
            store.moments.target_max,
            entries / max(1, rows),
            store.reader,
        )


def _layout(part: Part, blocks: Blocks) -> tuple[int, int, int]:
    """Return rows and entries of the first block, and its rows again where it is sparse."""
    if len(blocks.starts) < 2:
        return 0, 0, 0
    X = blocks[0].X
    return (len(X), X.size, 0) if isinstance(X, np.ndarray) else (X.shape[0], X.nnz, X.shape[0])
