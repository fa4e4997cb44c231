"""Tables of Dask's DataFrames and arrays: rows stay with the workers of dask.distributed, where functions run."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy  # loads scipy.sparse where it is used

from sparkopt.errors import DataError, IncompatibleError, SchemaError
from sparkopt.machine.cluster import Call, Cluster, FrameRows, Mapped, Outcome, RemotePart, as_field, lost, references
from sparkopt.machine.dask_parquet import NoScan, dask_scan
from sparkopt.machine.folders import private_folders
from sparkopt.machine.memory import arrow_of_pair, arrow_of_pandas, refuse_names
from sparkopt.machine.part import UNREADABLE
from sparkopt.values import dataclass

__all__ = ["DaskCluster", "is_dask", "mapped", "outline", "table_of"]

logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds between two looks at whether tasks wait for a worker that is gone."""

INLINE = 1 << 16
"""Bytes up to which a function travels with each task, instead of once to every worker."""


def is_dask(data: Any) -> bool:
    """Whether it is a DataFrame of Dask, or a pair (X, y) of Dask's arrays."""
    if isinstance(data, tuple):
        return len(data) == 2 and any(_is(array, "Array") for array in data)
    return _is(data, "DataFrame")


def _is(data: Any, name: str) -> bool:
    return type(data).__module__.startswith("dask.") and type(data).__name__ == name


def table_of(data: Any) -> FrameRows:
    """Return schema, partitions and cluster of a frame, or of a pair of arrays, and what reads the rows.

    Raises
    ------
    IncompatibleError
        Without a dask.distributed.Client.
    DataError
        Where X and y are not divided alike.
    SchemaError
        For names that are not text, or not unique.
    """
    cluster = DaskCluster()
    if isinstance(data, tuple):
        return FrameRows(*_remote(*_of_pair(*data)), cluster, "dask: arrays")
    schema = _schema(data)
    try:
        scan = dask_scan(data)
    except NoScan as reason:
        return FrameRows(*_remote(schema, data.to_delayed()), cluster, f"dask: {reason}")
    reader = f"arrow: Parquet files of Dask, {len(scan.parts):,} partitions"
    return FrameRows(scan.schema, scan.parts, cluster, reader)


def _remote(schema: pa.Schema, rows: Sequence[Any]) -> tuple[pa.Schema, list[RemotePart]]:
    form = ToArrow(schema)
    return schema, [RemotePart(f"df.partitions[{index}]", form, one, _load) for index, one in enumerate(rows)]


def outline(data: Any) -> tuple[pa.Schema, RemotePart, DaskCluster]:
    """Return the schema of a frame, a part that stands for each of its partitions, and its cluster."""
    schema = _schema(data)
    if any(UNREADABLE in (field.metadata or {}) for field in schema):
        schema = _as_in_files(data, schema)
    return schema, RemotePart("a partition", ToArrow(schema)), DaskCluster()


def _as_in_files(data: Any, schema: pa.Schema) -> pa.Schema:
    """Return columns that pandas calls objects in the types of the Parquet files that they are, if so."""
    try:
        known = dask_scan(data).schema
    except NoScan:
        return schema
    return pa.schema([known.field(field.name) if UNREADABLE in (field.metadata or {}) else field for field in schema])


def _load(reference: Any) -> Any:
    return reference.compute()


def _schema(frame: Any) -> pa.Schema:
    """Return the columns as a partition of no rows has them; objects may be anything, and are refused where used."""
    refuse_names(list(frame.columns))
    fields = []
    for found in arrow_of_pandas(frame._meta).schema:
        kind = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
        if pa.types.is_null(kind):
            reason = (
                f"Dask knows no type of it but {frame._meta[found.name].dtype}. Give it one, such as "
                f"df[{found.name!r}].astype('string[pyarrow]') or .astype(pandas.ArrowDtype(...))"
            )
            found = pa.field(found.name, pa.null(), metadata={UNREADABLE: reason})
        fields.append(found)
    return pa.schema(fields)


def _of_pair(X: Any, y: Any) -> tuple[pa.Schema, list[Any]]:
    """Return the schema of a pair of arrays, and its partitions."""
    from dask import delayed

    if not (_is(X, "Array") and _is(y, "Array")):
        raise DataError("X and y must both be arrays of Dask: dask.array.from_array(y, chunks=X.chunks[0]).")
    if X.ndim != 2 or y.ndim != 1:
        raise DataError(f"X has {X.ndim} dimensions and y {y.ndim}: they must be (rows, features) and (rows,).")
    if math.isnan(X.shape[1]):
        raise DataError("the number of columns of X is not known: X.compute_chunk_sizes() finds it.")
    if X.numblocks[1] != 1:
        raise DataError("X is cut by columns too, and a row must be in one chunk: X.rechunk({1: -1}).")
    rows, labels = X.chunks[0], y.chunks[0]
    known = not any(math.isnan(size) for size in (*rows, *labels))
    if len(rows) != len(labels) or (known and rows != labels):
        raise DataError(
            f"X has {len(rows)} chunks of rows and y {len(labels)}, or they differ in size: "
            "y.rechunk((X.chunks[0],))."
        )
    one = np.zeros((1, int(X.shape[1])), X.dtype)
    one = scipy.sparse.csr_array(one) if scipy.sparse.issparse(X._meta) else one
    meta = arrow_of_pair(one, np.zeros(1, y.dtype)).schema
    pair = delayed(_pair, pure=True)
    pieces = zip(X.to_delayed().reshape(-1), y.to_delayed().reshape(-1), strict=True)
    return meta, [pair(block, target) for block, target in pieces]


def _pair(X: Any, y: Any) -> tuple[Any, Any]:
    return X, y


@dataclass(frozen=True)
class ToArrow:
    """The rows of a partition of pandas, or of a pair of arrays, as a table's columns."""

    schema: pa.Schema

    def __call__(self, rows: Any) -> pa.Table:
        """Return the rows.

        Raises
        ------
        SchemaError
            Where a partition has other columns or types than Dask says.
        """
        found = arrow_of_pair(*rows) if isinstance(rows, tuple) else arrow_of_pandas(rows)
        if found.schema.names != self.schema.names:
            raise SchemaError(f"a partition has the columns {found.schema.names}; Dask says {self.schema.names}.")
        columns = [as_field(found.column(field.name), field) for field in self.schema]
        return pa.table(columns, schema=self.schema)


class DaskCluster(Cluster):
    """The workers of this process's dask.distributed client."""

    pass_seconds = 0.02  # measured: a round trip to two workers

    def __init__(self) -> None:
        super().__init__()
        try:
            from distributed import default_client

            self._client = default_client()
        except (ImportError, ValueError):
            raise IncompatibleError(
                "rows of Dask are trained on by its workers, and this process has no client of any: "
                "from dask.distributed import Client; client = Client()."
            ) from None

    @property
    def _threads(self) -> dict[str, int]:
        """How many threads each worker has."""
        return dict(self._client.nthreads())

    @property
    def name(self) -> str:
        """Dask, and how many workers."""
        count = self.workers
        return f"Dask, {count} worker{'s' if count != 1 else ''}"

    @property
    def is_here(self) -> bool:
        """Whether all workers are on this machine."""
        from distributed.comm.addressing import get_address_host
        from distributed.utils import get_ip

        return {get_address_host(address) for address in self._threads} <= {"127.0.0.1", "::1", get_ip()}

    @property
    def slots(self) -> int:
        """Threads of all workers."""
        return max(1, sum(self._threads.values()))

    @property
    def workers(self) -> int:
        """Processes."""
        return max(1, len(self._threads))

    @property
    def slots_each(self) -> int:
        """Threads of the worker that has the most."""
        return max(self._threads.values(), default=1)

    def _outcomes(
        self, function: Callable[[Any], Any], tasks: Sequence[tuple[Hashable | None, list[Any]]]
    ) -> list[list[Outcome]]:
        from distributed.scheduler import KilledWorker

        sent = self._sent(function)
        futures = self._submitted(sent, tasks)
        try:
            while not _are_done(futures):
                gone = self._gone(tasks, futures)
                self._client.cancel([futures[index] for index in gone])
                again = self._submitted(sent, [(None, tasks[index][1]) for index in gone])
                for index, future in zip(gone, again, strict=True):
                    futures[index] = future
            return list(self._client.gather(futures))
        except KilledWorker as error:
            raise lost(error) from None
        except BaseException:  # an interrupt too: nothing is computed in vain
            self._client.cancel(futures)
            raise

    def _sent(self, function: Callable[[Any], Any]) -> Any:
        """Return a function as tasks receive it: pickled, and if it is large, once to each worker."""
        from pyspark.cloudpickle import dumps

        pickled = dumps(function)
        return pickled if len(pickled) <= INLINE else self._client.scatter(pickled, broadcast=True, hash=False)

    def _submitted(self, sent: Any, tasks: Sequence[tuple[Hashable | None, list[Any]]]) -> list[Any]:
        """Return the future of each task."""
        from dask import delayed
        from pyspark.cloudpickle import dumps

        call = delayed(_called, pure=False)
        calls = [call(sent, dumps(items), *references(tuple(items))) for _, items in tasks]
        anywhere = [index for index, (worker, _) in enumerate(tasks) if worker is None]
        futures: list[Any] = [None] * len(tasks)
        for index, future in zip(anywhere, self._client.compute([calls[index] for index in anywhere]), strict=True):
            futures[index] = future
        for index, (worker, _) in enumerate(tasks):
            if worker is not None:
                futures[index] = self._client.compute(calls[index], workers=[worker], allow_other_workers=True)
        return futures

    def _gone(self, tasks: Sequence[tuple[Hashable | None, list[Any]]], futures: Sequence[Any]) -> list[int]:
        """Return the tasks that wait for a worker which is gone.

        ``allow_other_workers`` should let others take them; where all are away for a moment, Dask forgets that.
        """
        there = self._threads
        if not there:
            logger.warning("Dask has no worker now; the fit waits for one")
        return [
            index
            for index, ((worker, _), future) in enumerate(zip(tasks, futures, strict=True))
            if worker is not None and worker not in there and future.status == "pending"
        ]

    def folder(self) -> Callable[[], Path]:
        """Return the folder of the worker's process, which ends with it."""
        return _own_folder

    def drop(self, name: str) -> None:
        """Delete a folder of every worker, if the client is still there."""
        if self._client.status == "running":
            self._client.run(_dropped, name, on_error="return")


def mapped(data: Any, made: Mapped) -> Any:
    """Return a DataFrame of Dask with what was made of its outline, lazily."""
    import dask.dataframe as dd

    meta = _to_pandas(made.schema.empty_table())
    return dd.map_partitions(_ToPandas(made), data, meta=meta, enforce_metadata=False)


@dataclass(frozen=True)
class _ToPandas:
    made: Callable[[Any], pa.Table]

    def __call__(self, frame: Any) -> Any:
        found = _to_pandas(self.made(frame))
        return found.set_index(frame.index) if len(found) == len(frame) else found


def _to_pandas(rows: pa.Table) -> Any:
    """Return rows as pandas; text, dates and lists keep Arrow's types, so that a frame's metadata can say them."""
    import pandas as pd

    def kind(found: pa.DataType) -> Any:
        plain = pa.types.is_floating(found) or pa.types.is_integer(found) or pa.types.is_boolean(found)
        return None if plain else pd.ArrowDtype(found)

    return rows.to_pandas(types_mapper=kind)


def _are_done(futures: Sequence[Any]) -> bool:
    """Wait for them for a while; return whether all have ended."""
    from distributed import wait

    try:
        wait(futures, timeout=PATIENCE)
    except TimeoutError:
        return False
    return True


def _called(pickled: bytes, items: bytes, *rows: Any) -> list[Outcome]:
    from pyspark.cloudpickle import loads

    return Call(_address)(loads(pickled), loads(items), *rows)


def _address() -> str:
    from distributed import get_worker

    return str(get_worker().address)


def _own_folder() -> Path:
    return private_folders()[0]


def _dropped(name: str) -> None:
    for folder in private_folders():
        shutil.rmtree(folder / name, ignore_errors=True)
