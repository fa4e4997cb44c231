"""Blocks on disk: one Arrow file per partition, written once, memory-mapped at every step without a copy.

Blocks may be compressed, where disk is scarcer than time; each is then decompressed at every step.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from sparkopt.blocks.block import NO_FOLD, Block
from sparkopt.io.arrow import fixed_width_values
from sparkopt.typing import Array

__all__ = [
    "BLOCK_CODECS",
    "BlockFile",
    "block_rows",
    "drop_deleted_files",
    "in_fold_order",
    "regroup",
    "write_blocks",
]

BLOCK_BYTES = 1 << 21
"""Features of a block: small enough that the second read of a step finds them in a core's cache."""

BLOCK_CODECS = ("none", "lz4", "zstd")
"""Compression of blocks on disk."""

MOST_OPEN = 256
"""Files that a process keeps mapped."""

FEATURES, INDICES, VALUES, TARGET = "features", "indices", "values", "target"
WEIGHT, OFFSET = "weight", "offset"


def block_rows(X: Array | sparse.csr_array) -> int:
    """Return the number of rows of a block, for rows like those of ``X``.

    A sparse block is at least as large as one dense gradient, so that adding gradients costs no more than reading.
    """
    if isinstance(X, np.ndarray):
        per_row, target = X[:1].nbytes, BLOCK_BYTES
    else:
        per_row = max(1, (X.data.nbytes + X.indices.nbytes) // max(1, X.shape[0]))
        target = max(BLOCK_BYTES, 8 * X.shape[1])
    return int(np.clip(target // max(1, per_row), 1, 1 << 16))


def regroup(blocks: Iterable[Block]) -> Iterator[Block]:
    """Regroup blocks of any size into blocks of ``block_rows`` rows; only the last may be smaller.

    Training and validation rows are kept apart, and so are folds, each with a last block of its own.
    """
    queues: defaultdict[tuple[bool, int], _Queue] = defaultdict(_Queue)
    for block in blocks:
        yield from queues[block.is_validation, block.fold].add(block)
    for queue in queues.values():
        yield from queue.rest()


class _Queue:
    """Rows that do not fill a block yet."""

    def __init__(self) -> None:
        self.waiting: list[Block] = []
        self.have = self.wanted = 0

    def add(self, block: Block) -> Iterator[Block]:
        self.wanted = self.wanted or block_rows(block.X)
        start = 0
        while self.have + block.rows - start >= self.wanted:
            stop = start + self.wanted - self.have
            yield _join([*self.waiting, _cut(block, start, stop)])
            self.waiting, self.have, start = [], 0, stop
        if start < block.rows:
            self.waiting.append(_cut(block, start, block.rows))
            self.have += block.rows - start

    def rest(self) -> Iterator[Block]:
        if self.waiting:
            yield _join(self.waiting)


def _cut(block: Block, start: int, stop: int) -> Block:
    weight, offset = (part if part is None else part[start:stop] for part in (block.weight, block.offset))
    return replace(block, X=block.X[start:stop], y=block.y[start:stop], weight=weight, offset=offset)


def _join(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    X = [block.X for block in blocks]
    joined = np.concatenate(X) if isinstance(X[0], np.ndarray) else sparse.vstack(X, format="csr")
    y = np.concatenate([block.y for block in blocks])
    weight, offset = (_joined([getattr(block, name) for block in blocks]) for name in (WEIGHT, OFFSET))
    return replace(blocks[0], X=joined, y=y, weight=weight, offset=offset)


def _joined(parts: list[Array | None]) -> Array | None:
    """Join an array that either all blocks have or none."""
    found = [part for part in parts if part is not None]
    return np.concatenate(found) if found else None


def write_blocks(path: Path, blocks: Iterable[Block], codec: str = "none") -> Iterator[Block]:
    """Write blocks to ``path`` as they pass through; the file appears whole or not at all.

    Without any block, no file is written. ``codec`` is one of ``BLOCK_CODECS``.
    """
    unfinished = path.with_suffix(".unfinished")
    options = pa.ipc.IpcWriteOptions(compression=None if codec == "none" else codec)
    try:
        with contextlib.ExitStack() as files:
            writer = None
            for block in blocks:
                batch = _encode(block)
                if writer is None:
                    unfinished.touch(mode=0o600)  # rows are for their owner's eyes only
                    schema = batch.schema.with_metadata({"width": str(block.X.shape[1]), "codec": codec})
                    writer = files.enter_context(pa.ipc.new_file(str(unfinished), schema, options=options))
                writer.write_batch(batch)
                yield block
        if writer is not None:
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _encode(block: Block) -> pa.RecordBatch:
    arrays: dict[str, pa.Array]
    if block.X.shape[1] == 0:  # Arrow has no lists of a fixed size of 0; rows of nothing need none
        arrays = {}
    elif isinstance(block.X, np.ndarray):
        flat = pa.array(np.ascontiguousarray(block.X).reshape(-1))
        arrays = {FEATURES: pa.FixedSizeListArray.from_arrays(flat, block.X.shape[1])}
    else:
        offsets = pa.array(block.X.indptr.astype(np.int32, copy=False))
        arrays = {
            INDICES: pa.ListArray.from_arrays(offsets, pa.array(block.X.indices.astype(np.int32, copy=False))),
            VALUES: pa.ListArray.from_arrays(offsets, pa.array(block.X.data)),
        }
    arrays[TARGET] = pa.array(block.y)
    if block.weight is not None:
        arrays[WEIGHT] = pa.array(block.weight)
    if block.offset is not None:
        arrays[OFFSET] = pa.array(block.offset)
    return pa.RecordBatch.from_pydict(arrays)


def in_fold_order(blocks: Iterable[int], folds: Sequence[int]) -> list[int]:
    """Return numbers of a file's blocks in the order in which they are read: fold after fold."""
    return sorted(blocks, key=folds.__getitem__) if folds else list(blocks)


class OpenFiles:
    """Files that this process has mapped, kept for the next pass: mapping one costs as much as reading it.

    Several threads may open files at the same time, as the tasks of a process on one machine do.

    Parameters
    ----------
    most : int
        How many files are kept; the least recently opened one is dropped first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._readers: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, path: str) -> Any:
        """Return a reader of ``path``; readers of deleted files are dropped.

        Raises
        ------
        FileNotFoundError
            Where there is no such file.
        """
        with self._lock:
            self._drop_deleted()
            if path not in self._readers:
                if not os.path.exists(path):
                    raise FileNotFoundError(path)
                self._readers[path] = pa.ipc.open_file(pa.memory_map(path))
            self._readers.move_to_end(path)
            while len(self._readers) > self._most:
                self._readers.popitem(last=False)
            return self._readers[path]

    def drop_deleted(self) -> None:
        """Drop readers of deleted files: the system keeps a file's content for as long as it is mapped."""
        with self._lock:
            self._drop_deleted()

    def _drop_deleted(self) -> None:
        for known in [known for known in self._readers if not os.path.exists(known)]:
            del self._readers[known]


_opened = OpenFiles(MOST_OPEN)


def drop_deleted_files(_: object = None) -> None:
    """Let go of files that were deleted, whose content is kept for as long as they are mapped."""
    _opened.drop_deleted()


class BlockFile:
    """The blocks of one partition, memory-mapped: only the pages that are used are read.

    Parameters
    ----------
    path : str
        A file that ``write_blocks`` wrote, or "" for a partition without rows.
    starts : sequence of int
        First row of each block of training rows, then the number of these rows.
    validation : sequence of int, default ()
        Which of the file's blocks hold validation rows.
    folds : sequence of int, default ()
        The fold of each of the file's blocks; empty where there are no folds.
    carried : bytes, default none
        The file's content, where it was written on another machine.

    Raises
    ------
    FileNotFoundError
        Where the file is not on this machine.
    """

    def __init__(
        self,
        path: str,
        starts: Iterable[int],
        validation: Iterable[int] = (),
        folds: Sequence[int] = (),
        carried: bytes = b"",
    ) -> None:
        self._starts = np.asarray(list(starts), dtype=np.intp)
        self._validation, self._folds = in_fold_order(validation, folds), folds
        self.path = path if path and not carried else None
        self._known: dict[int, Block] = {}  # views of the file, kept since a resident task needs them in each pass
        self._are_views = True
        if path:
            self._reader = pa.ipc.open_file(pa.py_buffer(carried)) if carried else _opened.open(path)
            self._width = int(self._reader.schema.metadata[b"width"])
            self._are_views = self._reader.schema.metadata[b"codec"] == b"none"
            aside = set(self._validation)
            training = [index for index in range(self._reader.num_record_batches) if index not in aside]
            self._training = in_fold_order(training, folds)

    @property
    def starts(self) -> NDArray[np.intp]:
        """First row of each block, then the number of rows."""
        return self._starts

    def __getitem__(self, index: int) -> Block:
        if not self._are_views:
            return self._read(self._training[index])
        if index not in self._known:
            self._known[index] = self._read(self._training[index])
        return self._known[index]

    def validation(self) -> Iterator[Block]:
        """Yield the blocks of validation rows."""
        return (replace(self._read(index), is_validation=True) for index in self._validation)

    def _read(self, index: int) -> Block:
        batch = self._reader.get_batch(index)
        names = batch.schema.names
        y = fixed_width_values(batch.column(TARGET))
        weight, offset = (
            fixed_width_values(batch.column(name)) if name in names else None for name in (WEIGHT, OFFSET)
        )
        fold = self._folds[index] if self._folds else NO_FOLD
        if self._width == 0:
            return Block(np.zeros((len(y), 0)), y, weight, offset=offset, fold=fold)
        if FEATURES in names:
            X = fixed_width_values(batch.column(FEATURES).values).reshape(len(y), self._width)
            return Block(X, y, weight, offset=offset, fold=fold)
        values, indices = batch.column(VALUES), batch.column(INDICES)
        parts = tuple(map(fixed_width_values, (values.values, indices.values, values.offsets)))
        X = sparse.csr_array(parts, shape=(len(y), self._width), copy=False)
        return Block(X, y, weight, offset=offset, fold=fold)
