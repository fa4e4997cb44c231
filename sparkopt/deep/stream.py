"""A rank's batches: read from the store, shuffled, and prepared while the network computes."""

from __future__ import annotations

import math
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sparkopt.deep.batch import Batch, Columns, Decoder, contents
from sparkopt.deep.index import TRAINING, Index
from sparkopt.deep.mixing import BatchMixer
from sparkopt.deep.sampler import EpochSampler, GroupSlice, ShuffleWindow
from sparkopt.errors import DataError

__all__ = ["RowGroups", "load_batches"]

MOST_OPEN = 64
"""Files that a reader keeps open."""


class RowGroups:
    """Reads the row groups of one split; not thread-safe."""

    def __init__(self, index: Index, split: str = TRAINING) -> None:
        self._index, self._split = index, split
        self._folder = index.location
        shards = index.shards(split)
        self._positions = [(shard.path, number) for shard in shards for number in range(len(shard.groups))]
        self._opened: OrderedDict[str, Any] = OrderedDict()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each group."""
        return tuple(rows for shard in self._index.shards(self._split) for rows in shard.groups)

    def read(self, piece: GroupSlice) -> pa.RecordBatch:
        """Read rows of a group."""
        path, number = self._positions[piece.group]
        batch = self._open(path).get_batch(number)
        return batch.slice(piece.start, piece.stop - piece.start)

    def window(self, window: ShuffleWindow) -> Columns:
        """Read a window's rows, in their order."""
        table = pa.Table.from_batches([self.read(piece) for piece in window.pieces])
        found: Columns = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            shape = self._index.tensors[name].shape
            if self._index.tensors[name].dtype == "bytes":
                parts = [contents(part) for part in column.chunks]
            else:
                parts = [(part.flatten() if shape else part).to_numpy() for part in column.chunks]
            found[name] = np.concatenate(parts).reshape(-1, *shape)[window.order]
        return found

    def _open(self, path: str) -> Any:
        if path not in self._opened:
            file = self._folder.child(path)
            try:
                source = pa.memory_map(file.path) if file.is_local else file.filesystem.open_input_file(file.path)
            except FileNotFoundError as error:
                raise DataError(
                    f"{file.path!r} cannot be seen from this machine. Set storePath to storage that the driver "
                    "and every executor share."
                ) from error
            self._opened[path] = pa.ipc.open_file(source)
            while len(self._opened) > MOST_OPEN:
                self._opened.popitem(last=False)
        self._opened.move_to_end(path)
        return self._opened[path]


def _raw(groups: RowGroups, sampler: EpochSampler, stream: int, first_step: int) -> Iterator[tuple[Columns, int]]:
    """Yield the columns of each step's batch of one stream, and how many of its rows count."""
    size = sampler.batch_size
    step, tail, last = first_step, None, None
    for window in sampler.windows(stream, min(first_step * size, max(sampler.own_rows(stream) - 1, 0))):
        last = groups.window(window)
        rows, start = len(window.order), max(first_step * size - window.first, 0)
        if tail is not None:
            missing = size - _rows(tail)
            tail = _joined(tail, _cut(last, start, start + missing))
            start += missing
            if _rows(tail) < size:
                continue
            yield tail, sampler.counted(stream, step)
            step, tail = step + 1, None
        while rows - start >= size:
            yield _cut(last, start, start + size), sampler.counted(stream, step)
            step, start = step + 1, start + size
        if start < rows:
            tail = _cut(last, start, rows)
    assert last is not None  # noqa: S101  # every stream has a row
    for rest in range(step, sampler.steps):
        counted = sampler.counted(stream, rest)
        yield (_cut(last, 0, 1) if counted == 0 or tail is None else _cut(tail, 0, counted)), counted


def _rows(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _cut(columns: Columns, start: int, stop: int) -> Columns:
    return {name: values[start:stop] for name, values in columns.items()}


def _joined(one: Columns, two: Columns) -> Columns:
    return {name: np.concatenate([values, two[name]]) for name, values in one.items()}


@contextmanager
def load_batches(
    groups: RowGroups,
    sampler: EpochSampler,
    streams: range,
    decoder: Decoder,
    *,
    first_step: int = 0,
    mixer: BatchMixer | None = None,
    ahead: int = 4,
    threads: int = 1,
    pin: bool = False,
) -> Iterator[Iterator[Batch]]:
    """Give the batches of an epoch, prepared ahead on other threads; leaving the context ends these.

    Parameters
    ----------
    groups : RowGroups
        What to read.
    sampler : EpochSampler
        In which order.
    streams : range
        Whose parts make up this rank's batches.
    decoder : Decoder
        How rows become tensors.
    first_step : int, default 0
        The first step; steps before it are not read.
    mixer : BatchMixer or None, default None
        Mixes the rows of each stream's batch.
    ahead : int, default 4
        Batches that are prepared ahead.
    threads : int, default 1
        How many are decoded at the same time.
    pin : bool, default False
        Whether to put them into pinned memory.
    """
    ended = threading.Event()
    waiting: queue.Queue[Future[Batch] | None] = queue.Queue(ahead)
    with ThreadPoolExecutor(threads, "sparkopt-decode") as pool:
        reader = threading.Thread(
            target=_read,
            args=(groups, sampler, streams, first_step, _maker(decoder, mixer, streams, pin), pool, waiting, ended),
            name="sparkopt-read",
            daemon=True,
        )
        reader.start()
        try:
            yield _taken(waiting)
        finally:
            ended.set()
            while reader.is_alive():  # it may be waiting for room in the queue
                with suppress(queue.Empty):
                    waiting.get_nowait()
                reader.join(0.01)


def _taken(waiting: queue.Queue[Future[Batch] | None]) -> Iterator[Batch]:
    while (future := waiting.get()) is not None:
        yield future.result()


def _maker(
    decoder: Decoder, mixer: BatchMixer | None, streams: range, pin: bool
) -> Callable[[list[tuple[Columns, int]], int], Batch]:
    def made(stream: int, step: int, columns: Columns, counted: int) -> Batch:
        batch = decoder.batch(columns, counted)
        return batch if mixer is None else mixer(batch, stream, step)

    def make(parts: list[tuple[Columns, int]], step: int) -> Batch:
        numbered = list(zip(streams, parts, strict=True))
        chosen = [one for one in numbered if one[1][1]] or numbered[:1]
        batches = [made(stream, step, columns, counted) for stream, (columns, counted) in chosen]
        whole = batches[0] if len(batches) == 1 else _one(batches)
        return whole.pinned() if pin else whole

    return make


def _one(batches: list[Batch]) -> Batch:
    inputs = tuple(torch.cat(parts) for parts in zip(*[batch.inputs for batch in batches], strict=True))
    labels = [batch.label for batch in batches if batch.label is not None]
    weight = torch.cat([batch.weight for batch in batches])
    return Batch(
        inputs, torch.cat(_alike(labels)) if labels else None, weight, sum(batch.counted for batch in batches)
    )


def _alike(labels: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return labels of streams, boxes or keypoints of which may be fewer in one than in the other."""
    if labels[0].ndim != 3 or not labels[0].is_floating_point() or len({one.shape[1] for one in labels}) == 1:
        return labels
    most = max(one.shape[1] for one in labels)
    return [torch.nn.functional.pad(one, (0, 0, 0, most - one.shape[1]), value=math.nan) for one in labels]


def _read(
    groups: RowGroups,
    sampler: EpochSampler,
    streams: range,
    first_step: int,
    make: Callable[[list[tuple[Columns, int]], int], Batch],
    pool: ThreadPoolExecutor,
    waiting: queue.Queue[Future[Batch] | None],
    ended: threading.Event,
) -> None:
    """Put the future of each batch into the queue; or of an error."""
    try:
        sources = [_raw(groups, sampler, stream, first_step) for stream in streams]
        for step, parts in enumerate(zip(*sources, strict=True), first_step):
            if ended.is_set():
                return
            waiting.put(pool.submit(make, list(parts), step))
    except Exception as error:  # noqa: BLE001  # raised where the batch is taken
        failed: Future[Batch] = Future()
        failed.set_exception(error)
        waiting.put(failed)
    waiting.put(None)
