"""Batches that are read and prepared on other threads, while the rank computes; or where they are taken."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from typing import TypeAlias, TypeVar

from sparkopt.shards.groups import Columns, RowGroups, step_columns
from sparkopt.shards.sampler import EpochSampler

__all__ = ["Parts", "prepared_batches"]

T = TypeVar("T")

Parts: TypeAlias = "list[tuple[Columns, int]]"
"""A step's rows of each of a rank's streams, and how many of these count."""


@contextmanager
def prepared_batches(
    groups: RowGroups,
    sampler: EpochSampler,
    streams: range,
    make: Callable[[Parts, int], T],
    *,
    first_step: int = 0,
    ahead: int = 4,
    threads: int = 1,
) -> Iterator[Iterator[T]]:
    """Give the batches of an epoch, prepared ahead on other threads; leaving the context ends these.

    A batch that goes from thread to thread makes both wait for Python's lock. With ``ahead=0`` no thread is started:
    that suits what is soon made, where the steps themselves are computed on other threads.

    Parameters
    ----------
    groups : RowGroups
        What to read.
    sampler : EpochSampler
        In which order.
    streams : range
        Whose parts make up this rank's batches.
    make : callable
        Makes a batch of the rows of a step, and the step's number; it is called on several threads.
    first_step : int, default 0
        The first step; steps before it are not read.
    ahead : int, default 4
        Batches that are prepared ahead; 0 prepares each where it is taken.
    threads : int, default 1
        How many are made at the same time; 0 makes them on the thread that reads, which suits what is soon made: each
        thread that a batch goes through makes the others wait.
    """
    if not ahead:
        yield _made(groups, sampler, streams, first_step, make)
        return
    ended = threading.Event()
    waiting: queue.Queue[Future[T] | None] = queue.Queue(ahead)
    with ThreadPoolExecutor(threads, "sparkopt-decode") if threads else nullcontext() as pool:
        reader = threading.Thread(
            target=_read,
            args=(groups, sampler, streams, first_step, make, pool, waiting, ended),
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


def _steps(groups: RowGroups, sampler: EpochSampler, streams: range, first_step: int) -> Iterator[tuple[int, Parts]]:
    """Yield the numbers of steps, and their rows."""
    sources = [step_columns(groups, sampler, stream, first_step) for stream in streams]
    for step, parts in enumerate(zip(*sources, strict=True), first_step):
        yield step, list(parts)


def _made(
    groups: RowGroups, sampler: EpochSampler, streams: range, first_step: int, make: Callable[[Parts, int], T]
) -> Iterator[T]:
    for step, parts in _steps(groups, sampler, streams, first_step):
        yield make(parts, step)


def _taken(waiting: queue.Queue[Future[T] | None]) -> Iterator[T]:
    while (future := waiting.get()) is not None:
        yield future.result()


def _read(
    groups: RowGroups,
    sampler: EpochSampler,
    streams: range,
    first_step: int,
    make: Callable[[Parts, int], T],
    pool: ThreadPoolExecutor | None,
    waiting: queue.Queue[Future[T] | None],
    ended: threading.Event,
) -> None:
    """Put the future of each batch into the queue; or of an error."""
    try:
        for step, parts in _steps(groups, sampler, streams, first_step):
            if ended.is_set():
                return
            waiting.put(_done(make(parts, step)) if pool is None else pool.submit(make, parts, step))
    except Exception as error:  # noqa: BLE001  # raised where the batch is taken
        failed: Future[T] = Future()
        failed.set_exception(error)
        waiting.put(failed)
    waiting.put(None)


def _done(batch: T) -> Future[T]:
    found: Future[T] = Future()
    found.set_result(batch)
    return found
