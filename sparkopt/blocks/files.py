"""Blocks on disk: one Arrow file per partition, written once, memory-mapped at every step without a copy.

Blocks may be compressed, where disk is scarcer than time; each is then decompressed at every step.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy  # loads scipy.sparse where it is used
from numpy.typing import NDArray

from sparkopt.blocks.block import NO_FOLD, Block
from sparkopt.errors import IncompatibleError
from sparkopt.io.arrow import array_of, fixed_width_values
from sparkopt.matrices import Features, PartlyDense
from sparkopt.typing import Array

__all__ = [
    "BLOCK_CODECS",
    "BlockFile",
    "drop_deleted_files",
    "in_fold_order",
    "write_blocks",
]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk, a quota or a limit that is reached."""
BLOCK_CODECS = ("none", "lz4", "zstd")
"""Compression of blocks on disk."""

MOST_OPEN = 256
"""Files that a process keeps mapped."""

FEATURES, COLUMNS, VALUES, INDICES, STARTS = "features", "columns", "values", "indices", "starts"
"""Dense rows have features alone, sparse rows the last three, partly dense rows all; values that are all 1 are left
out."""
TARGET, WEIGHT, OFFSET = "target", "weight", "offset"


def write_blocks(path: Path, blocks: Iterable[Block], codec: str = "none") -> Iterator[Block]:
    """Write blocks to ``path`` as they pass through; the file appears whole or not at all.

    Without any block, no file is written. ``codec`` is one of ``BLOCK_CODECS``.

    Raises
    ------
    IncompatibleError
        Where the disk is full, naming folder and machine.
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
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise IncompatibleError(
            f"no space is left for blocks in {path.parent} on {os.uname().nodename}. Set SPARK_LOCAL_DIRS (of "
            "executors, spark.local.dir) to a folder with more room, or compress blocks: blockCodec='zstd'."
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)


def _encode(block: Block) -> pa.RecordBatch:
    """Return a block as one row of lists: dense and sparse blocks are of one schema then."""
    X = block.X
    arrays: dict[str, Array | None] = dict.fromkeys((FEATURES, COLUMNS, VALUES, INDICES, STARTS))
    if isinstance(X, np.ndarray):
        arrays[FEATURES] = X.reshape(-1)
    else:
        rows = X.rest if isinstance(X, PartlyDense) else X
        if isinstance(X, PartlyDense):
            arrays |= {FEATURES: X.dense.reshape(-1), COLUMNS: X.columns}
        arrays[INDICES], arrays[STARTS] = (part.astype(np.int32, copy=False) for part in (rows.indices, rows.indptr))
        if not (isinstance(X, PartlyDense) and X.has_ones):
            arrays[VALUES] = rows.data
    arrays |= {TARGET: block.y, WEIGHT: block.weight, OFFSET: block.offset}
    types = {FEATURES: X.dtype, VALUES: X.dtype, COLUMNS: np.int32, INDICES: np.int32, STARTS: np.int32}
    lists = [
        _no_list(np.dtype(types.get(name, np.float64))) if values is None else _one_list(values)
        for name, values in arrays.items()
    ]
    return pa.RecordBatch.from_arrays(lists, [*arrays])


def _one_list(values: Array) -> pa.Array:
    """Return one row: a list of these numbers."""
    return pa.LargeListArray.from_arrays(array_of(np.array([0, len(values)])), array_of(values))


@lru_cache(maxsize=16)
def _no_list(kind: np.dtype[Any]) -> pa.Array:
    """Return one row: null, of a list of such numbers."""
    return pa.nulls(1, pa.large_list(pa.from_numpy_dtype(kind)))


def in_fold_order(blocks: Iterable[int], folds: Sequence[int]) -> list[int]:
    """Return numbers of a file's blocks in the order in which they are read: fold after fold."""
    return sorted(blocks, key=folds.__getitem__) if folds else list(blocks)


class _OpenFile:
    """A file that is mapped, and its blocks, which are views of it.

    Parameters
    ----------
    source : pyarrow.NativeFile or pyarrow.Buffer
        The content.
    """

    def __init__(self, source: Any) -> None:
        self.reader = pa.ipc.open_file(source)
        self._known: dict[tuple[int, int], Block] = {}

    def block(self, index: int, fold: int) -> Block:
        """Return a block of the file. Views are kept: each pass needs them."""
        if (index, fold) in self._known:
            return self._known[index, fold]
        block = self._read(index, fold)
        if self.reader.schema.metadata[b"codec"] == b"none":
            self._known[index, fold] = block
        return block

    def _read(self, index: int, fold: int) -> Block:
        batch = self.reader.get_batch(index)
        found = {
            name: fixed_width_values(column.values)
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
            if not column.null_count
        }
        y = found[TARGET]
        shape = (len(y), int(self.reader.schema.metadata[b"width"]))
        return Block(_features(found, shape), y, found.get(WEIGHT), offset=found.get(OFFSET), fold=fold)


def _features(found: dict[str, Array], shape: tuple[int, int]) -> Features:
    """Return the features of a block, given its lists."""
    if STARTS not in found:
        return found[FEATURES].reshape(shape)
    if COLUMNS not in found:
        return _rows(found, shape)
    columns = found[COLUMNS]
    dense = found[FEATURES].reshape(shape[0], len(columns))
    if VALUES in found:
        return PartlyDense(columns, dense, _rows(found, shape))
    return PartlyDense.of_ones(columns, dense, found[INDICES], found[STARTS], shape[1])


def _rows(found: dict[str, Array], shape: tuple[int, int]) -> scipy.sparse.csr_array:
    parts = tuple(found[name] for name in (VALUES, INDICES, STARTS))
    return scipy.sparse.csr_array(parts, shape=shape, copy=False)


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
        self._readers: OrderedDict[str, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, path: str) -> _OpenFile:
        """Return the file ``path``; readers of deleted files are dropped.

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
                self._readers[path] = _OpenFile(pa.memory_map(path))
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
        if path:
            self._file = _OpenFile(pa.py_buffer(carried)) if carried else _opened.open(path)
            aside = set(self._validation)
            training = [index for index in range(self._file.reader.num_record_batches) if index not in aside]
            self._training = in_fold_order(training, folds)

    @property
    def starts(self) -> NDArray[np.intp]:
        """First row of each block, then the number of rows."""
        return self._starts

    def __getitem__(self, index: int) -> Block:
        return self._block(self._training[index])

    def validation(self) -> Iterator[Block]:
        """Yield the blocks of validation rows."""
        return (replace(self._block(index), is_validation=True) for index in self._validation)

    def _block(self, index: int) -> Block:
        return self._file.block(index, self._folds[index] if self._folds else NO_FOLD)
