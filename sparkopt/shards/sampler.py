"""The order of an epoch's rows: a pure function of (seed, epoch) and the sizes of row groups.

The groups are shuffled and concatenated, and these N rows are divided into S *streams* of ⌈N / S⌉ rows, however large
the DataFrame's partitions were. A stream is read in windows of consecutive groups, whose rows are shuffled together,
so that memory is bounded by a window. Step s takes rows s · B … (s + 1) · B − 1 of each stream: all streams
take ⌈⌈N / S⌉ / B⌉ steps. In the last step there are fewer rows than that. A rank whose streams have none left takes
one row that it has seen before, with weight 0: every row counts once an epoch, and no rank waits for another.

Streams, not processes, define the batches: two processes with a stream each and one process with both of them train
on the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sparkopt.typing import Seed
from sparkopt.values import dataclass

__all__ = ["EpochSampler", "GroupSlice", "ShuffleWindow"]

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class GroupSlice:
    """Rows ``start`` … ``stop − 1`` of a group."""

    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class ShuffleWindow:
    """Rows that are read and shuffled together.

    Attributes
    ----------
    first : int
        Number, within the stream, of the first of them.
    pieces : tuple of GroupSlice
        What to read.
    order : ndarray of shape (rows,)
        Their order: row ``order[i]`` of the concatenated pieces is the i-th.
    """

    first: int
    pieces: tuple[GroupSlice, ...]
    order: NDArray[np.int64]


@dataclass(frozen=True)
class EpochSampler:
    """The order of one epoch.

    Parameters
    ----------
    sizes : tuple of int
        Rows of each group; at least one row in all.
    streams : int
        Number of streams.
    batch_size : int
        Rows of a stream in a step.
    seed, epoch : int
        What the order depends on.
    shuffle : bool, default True
        False keeps the order of the groups: for evaluation.
    window_rows : int, default 8192
        Rows shuffled together, at least one group's.
    """

    sizes: tuple[int, ...]
    streams: int
    batch_size: int
    seed: Seed = 0
    epoch: int = 0
    shuffle: bool = True
    window_rows: int = 8192

    @cached_property
    def rows(self) -> int:
        """Rows of the epoch."""
        return sum(self.sizes)

    @property
    def stream_rows(self) -> int:
        """Rows of a stream; the last ones may have fewer."""
        return -(-self.rows // self.streams)

    @property
    def steps(self) -> int:
        """Steps of the epoch, on every stream."""
        return -(-self.stream_rows // self.batch_size)

    def own_rows(self, stream: int) -> int:
        """Rows of the epoch that belong to ``stream``."""
        return min(max(self.rows - stream * self.stream_rows, 0), self.stream_rows)

    def counted(self, stream: int, step: int) -> int:
        """Rows of the stream's batch, all of which count."""
        return min(max(self.own_rows(stream) - step * self.batch_size, 0), self.batch_size)

    def total_counted(self, step: int) -> int:
        """Rows of all streams' batches that count."""
        return sum(self.counted(stream, step) for stream in range(self.streams))

    def windows(self, stream: int, first_row: int = 0) -> Iterator[ShuffleWindow]:
        """Yield the windows of a stream, from the one that holds its row ``first_row`` on.

        A stream without rows (there are fewer rows than streams) gets the first row of all: it has to take part.
        """
        pieces = self._pieces(stream) or [GroupSlice(int(self._order[0]), 0, 1)]
        first = 0
        for number, window in enumerate(_windows(pieces, self.window_rows)):
            rows = sum(piece.stop - piece.start for piece in window)
            if first + rows > first_row:
                yield ShuffleWindow(first, tuple(window), self._shuffled(rows, stream, number))
            first += rows

    @cached_property
    def _order(self) -> Indices:
        """Groups in the order of the epoch, without empty ones."""
        filled = np.flatnonzero(self.sizes)
        return np.random.default_rng([self.seed, self.epoch]).permutation(filled) if self.shuffle else filled

    def _pieces(self, stream: int) -> list[GroupSlice]:
        ends = np.cumsum(np.asarray(self.sizes)[self._order])
        low, high = stream * self.stream_rows, stream * self.stream_rows + self.own_rows(stream)
        pieces = []
        for number in range(int(np.searchsorted(ends, low, side="right")), len(ends)):
            group = int(self._order[number])
            begin = int(ends[number]) - self.sizes[group]
            if begin >= high:
                break
            pieces.append(GroupSlice(group, max(low - begin, 0), min(high - begin, self.sizes[group])))
        return pieces

    def _shuffled(self, rows: int, stream: int, number: int) -> Indices:
        if not self.shuffle:
            return np.arange(rows)
        return np.random.default_rng([self.seed, self.epoch, stream, number]).permutation(rows)


def _windows(pieces: list[GroupSlice], most: int) -> Iterator[list[GroupSlice]]:
    window: list[GroupSlice] = []
    rows = 0
    for piece in pieces:
        size = piece.stop - piece.start
        if window and rows + size > most:
            yield window
            window, rows = [], 0
        window.append(piece)
        rows += size
    if window:
        yield window
