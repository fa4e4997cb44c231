"""A rank's batches: read from the store, shuffled, and prepared while the network computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

import torch

from sparkopt.deep.batch import Batch, Decoder
from sparkopt.shards.groups import Columns, RowGroups, step_columns
from sparkopt.shards.sampler import EpochSampler

__all__ = ["load_batches"]


@contextmanager
def load_batches(
    groups: RowGroups,
    sampler: EpochSampler,
    streams: range,
    decoder: Decoder,
    *,
    first_step: int = 0,
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
            args=(groups, sampler, streams, first_step, _maker(decoder, pin), pool, waiting, ended),
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


def _maker(decoder: Decoder, pin: bool) -> Callable[[list[tuple[Columns, int]]], Batch]:
    def make(parts: list[tuple[Columns, int]]) -> Batch:
        chosen = [part for part in parts if part[1]] or parts[:1]
        batches = [decoder.batch(columns, counted) for columns, counted in chosen]
        whole = batches[0] if len(batches) == 1 else _one(batches)
        return whole.pinned() if pin else whole

    return make


def _one(batches: list[Batch]) -> Batch:
    inputs = tuple(torch.cat(parts) for parts in zip(*[batch.inputs for batch in batches], strict=True))
    labels = [batch.label for batch in batches if batch.label is not None]
    weight = torch.cat([batch.weight for batch in batches])
    return Batch(inputs, torch.cat(labels) if labels else None, weight, sum(batch.counted for batch in batches))


def _read(
    groups: RowGroups,
    sampler: EpochSampler,
    streams: range,
    first_step: int,
    make: Callable[[list[tuple[Columns, int]]], Batch],
    pool: ThreadPoolExecutor,
    waiting: queue.Queue[Future[Batch] | None],
    ended: threading.Event,
) -> None:
    """Put the future of each batch into the queue; or of an error."""
    try:
        sources = [step_columns(groups, sampler, stream, first_step) for stream in streams]
        for parts in zip(*sources, strict=True):
            if ended.is_set():
                return
            waiting.put(pool.submit(make, list(parts)))
    except Exception as error:  # noqa: BLE001  # raised where the batch is taken
        failed: Future[Batch] = Future()
        failed.set_exception(error)
        waiting.put(failed)
    waiting.put(None)
