"""BlockStore: a DataFrame's rows as memory-mapped blocks, on the executors that compute on them.

One job writes each partition's rows once, into the executor's own local directory, and yields a small *handle* that
Spark caches. Spark's locality then sends each step's task to the executor that holds the file. When an executor
is lost, so are its handles: Spark recomputes them from lineage and the file is written on another. Where a task
finds its file missing all the same, it returns that, and the partition is read from its source again; the new file is
known from then on. A partition that is read again must have the rows that it had: ``digest``.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from pyspark.sql import DataFrame

from sparkopt.blocks.backend import Backend, RowSource, Shared, is_connect
from sparkopt.blocks.classic import ClassicBackend
from sparkopt.blocks.cluster import ClusterBackend
from sparkopt.blocks.columns import FEATURES, Columns, features_type
from sparkopt.blocks.connect import ConnectBackend
from sparkopt.blocks.descriptions import described
from sparkopt.blocks.encoded import encoder_of
from sparkopt.blocks.failures import data_errors
from sparkopt.blocks.files import BLOCK_CODECS
from sparkopt.blocks.handles import Handle, KnownRows
from sparkopt.blocks.machine import MachineBackend, TableSource
from sparkopt.blocks.moments import Moments, total
from sparkopt.blocks.parquet import NotReadHere
from sparkopt.blocks.scan import ParquetScan, parquet_scan
from sparkopt.blocks.session_settings import session_settings
from sparkopt.blocks.summaries import PartitionSummary, moments_of_all
from sparkopt.blocks.tables import named_table, unencoded
from sparkopt.blocks.tasks import (
    GroupTask,
    Located,
    OpenInTask,
    OpenPartition,
    PartFunction,
    PartitionTask,
    Result,
    TaskFunction,
    carry,
)
from sparkopt.blocks.vectors import packed
from sparkopt.errors import DataError
from sparkopt.io.hadoop import provide
from sparkopt.machine.table import Table
from sparkopt.validation import Interval, OneOf, check

if TYPE_CHECKING:
    from pyspark import RDD

__all__ = ["BlockStore", "Located", "OpenPartition", "Result", "reader_of"]

logger = logging.getLogger(__name__)
provide(session_settings)  # checkpoints go where the session's own files go
T = TypeVar("T")


class BlockStore:
    """The rows of a DataFrame, ready for many passes.

    ``write`` makes one. Use it as a context manager, or call ``release``: its files live as long as the store or the
    executor, whichever ends first.

    Attributes
    ----------
    columns : Columns
        The columns it was written from.
    moments : Moments
        Of features and target, over all training rows.
    validation : Moments or None
        The same over validation rows; None without a validation column.
    rows : list of int
        Training rows of each partition.
    bytes : int
        Size of all files.
    skipped : int
        Invalid rows that were left out.
    seconds : float
        Time that writing took.
    reader : str
        What read the rows: "arrow", or "spark" and the reason.
    """

    def __init__(
        self, columns: Columns, backend: Backend, facts: Sequence[PartitionSummary], seconds: float, reader: str
    ) -> None:
        self._backend = backend
        self.columns, self.seconds, self.reader = columns, seconds, reader
        by_partition = {fact.handle.partition: fact for fact in facts}
        found = [by_partition.get(index) for index in range(1 + max(by_partition))]
        self.rows = [fact.handle.starts[-1] if fact else 0 for fact in found]
        self.bytes = sum(fact.handle.bytes for fact in facts)
        self.skipped = sum(fact.handle.skipped for fact in facts)
        self._digests = [fact.handle.digest if fact else 0 for fact in found]
        self._copies: dict[int, list[Handle]] = {}
        self._training, self._validation = moments_of_all(backend, facts)
        self.moments = self.moments_without(None)
        self.validation = total(self._validation.values())

    @classmethod
    def write(cls, df: DataFrame | Table, columns: Columns, targets: Interval, codec: str = "none") -> BlockStore:
        """Read the DataFrame or table once and write its rows as blocks.

        Parameters
        ----------
        df : DataFrame or Table
            The source; it is read again where an executor or file is lost, so it should be deterministic. A table
            needs no Spark.
        columns : Columns
            The columns to read.
        targets : Interval
            The values that a label may have.
        codec : {"none", "lz4", "zstd"}, default "none"
            Compression of blocks on disk: with none they are memory-mapped, else decompressed at every step.

        Raises
        ------
        SchemaError
            Before any job, for a wrong column.
        DataError
            For a row that cannot be trained on, or where there are no rows; no file is left.
        """
        begin = time.perf_counter()
        check("codec", codec, OneOf(BLOCK_CODECS))
        name = f"sparkopt-{uuid.uuid4().hex}"
        if isinstance(df, Table):
            named, encoder = unencoded(named_table(df, columns.names), columns.features)
            columns = replace(columns, encoder=encoder)
            backend, facts = _written(TableSource(named, columns, targets, name, codec))
            return cls._of(columns, backend, facts, begin, df.reader or f"arrow: {df}")
        columns = replace(columns, encoder=encoder_of(df, columns.features))
        with described(df.sparkSession, "reading rows"):
            return cls._of_rows(df, columns, targets, name, codec, begin)

    @classmethod
    def _of_rows(
        cls, df: DataFrame, columns: Columns, targets: Interval, name: str, codec: str, begin: float
    ) -> BlockStore:
        """Return the store of a DataFrame's rows."""
        selected = columns.select(df)
        scan, reader = reader_of(selected)
        is_vector = columns.encoder is None and features_type(df.schema, columns.features) == "vector"
        rows = packed(selected, FEATURES) if is_vector else selected
        source = RowSource(rows, columns, targets, name, codec)
        backend, facts = _written(replace(source, scan=scan))
        unread = next((fact.handle.unread for fact in facts if fact.handle.unread), None)
        if unread is not None:
            backend.release()
            reader = f"spark: {unread}"
            backend, facts = _written(source)
        return cls._of(columns, backend, facts, begin, reader)

    @classmethod
    def _of(
        cls, columns: Columns, backend: Backend, facts: Sequence[PartitionSummary], begin: float, reader: str
    ) -> BlockStore:
        """Return the store of what was written, if every row can be trained on."""
        logger.info("rows were read by %s", reader)
        if skipped := sum(fact.handle.skipped for fact in facts):
            logger.warning("%s invalid rows, with null, NaN or infinity, were left out", f"{skipped:,}")
        complete = False
        try:
            store = cls(columns, backend, _checked(facts, columns), 0.0, reader)
            complete = True
        finally:
            if not complete:
                backend.release()
        store.seconds = time.perf_counter() - begin
        return store

    def moments_without(self, fold: int | None) -> Moments:
        """Return the moments of the training rows of all folds but one: those of the model that does not see it.

        Raises
        ------
        DataError
            Where that is no row to train on, or none to validate on.
        """
        found = total(moments for other, moments in self._training.items() if other != fold)
        if found is None or not found.weight:
            raise DataError(f"without the rows of fold {fold} there are none to train on. Take other folds.")
        held_out = [moments for other, moments in self._validation.items() if other != fold]
        if self._validation and not sum(moments.weight for moments in held_out):
            raise DataError(f"without the rows of fold {fold} there are none to validate on. Take other folds.")
        return found

    def fold_rows(self, fold: int) -> int:
        """Return how many rows a fold has, for training and for validation."""
        return sum(found[fold].rows for found in (self._training, self._validation) if fold in found)

    @property
    def context(self) -> Any:
        """The SparkContext that runs its jobs.

        Raises
        ------
        IncompatibleError
            On Spark Connect, which has none; so do the methods that return an RDD.
        """
        return self._backend.context

    @property
    def session(self) -> Any | None:
        """The session that runs its jobs; None where Spark does not."""
        return self._backend.session

    @property
    def shuffles(self) -> bool:
        """Whether results can be folded where they are computed."""
        return self._backend.shuffles

    @property
    def has_rdds(self) -> bool:
        """Whether its session has RDDs, as Spark Classic has; without them, only ``collect`` works."""
        return self._backend.has_rdds

    @property
    def backend(self) -> str:
        """What runs its functions: Spark Classic, Spark Connect, or one machine."""
        return self._backend.name

    @property
    def needs_spark(self) -> bool:
        """Whether Spark runs its functions; a table's are run by this machine alone."""
        return self._backend.needs_spark

    @property
    def pass_seconds(self) -> float:
        """Seconds of a ``collect`` that are neither arithmetic nor transport."""
        return self._backend.pass_seconds

    @property
    def slots(self) -> int:
        """How many tasks can run at the same time."""
        return self._backend.slots

    @property
    def partitions(self) -> int:
        """Number of partitions, empty ones included."""
        return len(self.rows)

    def collect(self, function: PartFunction[T], tasks: int | None = None) -> list[Result[T]]:
        """Apply ``function(part, blocks)`` to each partition, where its blocks are, and return the results.

        Partitions whose file is missing are read from their source. Results come in the order of partitions.

        Parameters
        ----------
        function : callable
            The function to apply.
        tasks : int or None, default None
            Let at most so many tasks take several partitions each, since a task costs Spark some 10 ms; None is one
            task a partition.
        """
        task = PartitionTask(function, self._known())
        with self.data_errors():
            results = self._backend.run(task, tasks)
            missing = [result.partition for result in results if result.value is None]
            if missing:
                results = [result for result in results if result.value is not None] + self._recompute(task, missing)
        return sorted(results, key=lambda result: result.partition)

    def map(self, function: PartFunction[T]) -> RDD[Result[T]]:
        """Apply ``function(part, blocks)`` to each partition, where its blocks are; lazily."""
        results: RDD[Result[T]] = self._backend.handles.map(PartitionTask(function, self._known()))
        return results

    def map_tasks(self, function: TaskFunction[T], tasks: int) -> RDD[T]:
        """Apply ``function`` to the partitions of each of ``tasks`` tasks, near their blocks; lazily.

        A task takes several partitions where there are more of them than tasks.
        """
        handles = self._backend.handles.coalesce(tasks)
        results: RDD[T] = handles.mapPartitions(GroupTask(function, self._known()))
        return results

    def map_whole(self, function: TaskFunction[T]) -> RDD[T]:
        """Apply ``function`` to all partitions in one task; blocks on other machines are sent there. Lazily."""
        if self.context.master.startswith("local"):
            return self.map_tasks(function, 1)
        carried = self._backend.handles.map(carry).coalesce(1, shuffle=True)
        results: RDD[T] = carried.mapPartitions(GroupTask(function, self._known()))
        return results

    def run_whole(self, function: TaskFunction[T]) -> list[T]:
        """Apply ``function`` to all partitions in one task, in one job; return what it yields."""
        if not isinstance(self._backend, ConnectBackend):
            return self.map_whole(function).collect()
        with self.data_errors():
            return self._backend.run_whole(GroupTask(function, self._known()))

    def grouped(self, function: PartFunction[T], cut: Any, fold: Any, groups: int) -> list[Result[T]]:
        """Apply ``function``, cut each result into pieces of ``groups`` groups, and fold these on the executors.

        Parameters
        ----------
        function : callable
            Applied to each partition.
        cut : callable
            A Result to pairs of a group's number and a Result.
        fold : callable
            A group's number and its Results, in a pair, to a Result.
        groups : int
            How many groups there are.
        """
        if isinstance(self._backend, ConnectBackend):
            with self.data_errors():
                return self._backend.run_grouped(PartitionTask(function, self._known()), cut, fold, groups)
        pieces: RDD[Any] = self.map(function).flatMap(cut).groupByKey(groups, _identity)
        return pieces.map(fold).collect()

    def located(self) -> Located:
        """Return where every partition's file is now; those of lost executors are rebuilt first."""
        if isinstance(self._backend, ConnectBackend):
            handles = self._backend.run(_itself)
        else:
            handles = self._backend.handles.collect()
        return Located(sorted(handles, key=lambda handle: handle.partition), self._known())

    def read_in_task(self) -> tuple[DataFrame, OpenInTask] | None:
        """Return the rows, and what opens a partition in the task that reads them; None where files stay.

        For a job that reads, keeps and trains, where the server keeps nothing from one job to the next.
        """
        if not isinstance(self._backend, ConnectBackend) or self._backend.keeps:
            return None
        rows, keep = self._backend.read_in_task()
        return rows, OpenInTask(keep, self._known())

    def _recompute(self, task: PartitionTask[T], partitions: Sequence[int]) -> list[Result[T]]:
        logger.warning("blocks of partitions %s are missing; reading them from the source again", partitions)
        results = self._backend.run_fresh(replace(task, is_fresh=True), partitions)
        for result in results:
            if result.handle is not None:
                self._copies.setdefault(result.partition, []).append(result.handle)
        return [replace(result, handle=None) for result in results]

    def data_errors(self) -> AbstractContextManager[None]:
        """Return a context in which errors of tasks about the data are one line each, which names their source."""
        return data_errors(lambda: self._backend.source)

    def share(self, value: bytes) -> Shared:
        """Return ``value`` in a form that functions can refer to in every task: a broadcast, where Spark has them.

        Its caller destroys it.
        """
        return self._backend.share(value)

    def release(self) -> None:
        """Delete the files and drop the handles; harmless when repeated."""
        self._backend.release()

    def __enter__(self) -> BlockStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _known(self) -> KnownRows:
        """Return what tasks check the partitions against that they open."""
        firsts = [0]
        for rows in self.rows:
            firsts.append(firsts[-1] + rows)
        return KnownRows(firsts, self._digests, dict(self._copies))


def _itself(handle: Handle) -> Handle:
    return handle


def _identity(key: int) -> int:
    return key


def reader_of(selected: DataFrame) -> tuple[ParquetScan | None, str]:
    """Return the files that tasks can read by Arrow, if so, and what reads the rows, with the reason.

    Parameters
    ----------
    selected : DataFrame
        The columns of ``Columns.select``.
    """
    if is_connect(selected):
        return None, "spark: Spark Connect does not show which files are read"
    try:
        scan = parquet_scan(selected)
    except NotReadHere as reason:
        return None, f"spark: {reason}"
    return (scan, f"arrow: Parquet files, {scan.files:,}") if scan.partitions else (None, "spark: there are no files")


def _backend(source: RowSource | TableSource) -> Backend:
    """Return who runs functions on the partitions of these rows."""
    if isinstance(source, TableSource):
        cluster = source.table.cluster
        return MachineBackend(source) if cluster is None else ClusterBackend(source, cluster)
    return ConnectBackend(source) if is_connect(source.df) else ClassicBackend(source)


def _written(source: RowSource | TableSource) -> tuple[Backend, list[PartitionSummary]]:
    """Write the rows, and return what keeps them and what each partition has."""
    backend = _backend(source)
    complete = False
    try:
        with data_errors(lambda: backend.source):
            facts = sorted(backend.run(PartitionSummary.read), key=lambda fact: fact.handle.partition)
        complete = True
    finally:
        if not complete:
            backend.release()
    return backend, facts


def _checked(facts: Sequence[PartitionSummary], columns: Columns) -> Sequence[PartitionSummary]:
    """Return what was written, where every row can be trained on."""
    errors = [fact.handle.error for fact in facts if fact.handle.error]
    if errors:
        more = f" ({len(errors) - 1} more partitions have errors)" if len(errors) > 1 else ""
        raise DataError(errors[0] + more)
    widths = {fact.features: fact.handle.partition for fact in facts if fact.features is not None}
    if not widths:
        skipped = sum(fact.handle.skipped for fact in facts)
        why = "the DataFrame or table is empty"
        why = f"all {skipped:,} are invalid, with null, NaN or infinity" if skipped else why
        raise DataError(f"there are no rows to train on: {why}.")
    if len(widths) > 1:
        (one, first), (two, second) = sorted(widths.items())[:2]
        raise DataError(
            f"features column {columns.feature_names!r} has {one} entries in partition {first} and {two} in "
            f"partition {second}. Every row needs the same number."
        )
    if columns.validation is not None:
        _refuse_one_sided(facts, columns.validation)
    if sum(moments.weight for fact in facts for moments in fact.moments.values()) == 0:
        raise DataError(f"weight column {columns.weight!r} is 0 in every row.")
    return facts


def _refuse_one_sided(facts: Sequence[PartitionSummary], name: str) -> None:
    """Refuse data without rows to train on, or without rows to validate on."""
    if not any(fact.handle.starts[-1] for fact in facts):
        raise DataError(f"validation column {name!r} is true in every row: there are no rows to train on.")
    if not sum(moments.weight for fact in facts for moments in fact.validation.values()):
        raise DataError(
            f"validation column {name!r} is false in every row that has a weight: nothing to validate on."
        )
