"""Tables of PyFlink: a batch table's rows come to this machine as Arrow, and models score tables inside Flink's jobs.

Flink keeps no rows between two jobs, and says of no worker that a later job runs there: so there are no blocks beside
its workers. One job computes the table, whose Arrow batches are read once, in bounded memory, as any stream is. Where
a process of Flink ends unexpectedly meanwhile, what was read is dropped, and the job is run again.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.errors import DataError, IncompatibleError, LostProcessError, SchemaError
from sparkopt.machine.arrow_files import PrivateFolder, from_stream
from sparkopt.machine.cluster import FrameRows, Mapped, RemotePart
from sparkopt.machine.memory import refuse_names
from sparkopt.machine.part import BATCH, UNREADABLE, TablePart
from sparkopt.machine.runs import MOST_ATTEMPTS
from sparkopt.values import dataclass

__all__ = ["is_flink", "mapped", "outline", "table_of"]

ROW, OUTPUTS, KEPT = "sparkopt_row", "sparkopt_outputs", "sparkopt_kept"
"""Columns that exist only inside a plan: a row's number in its batch, what was made of it, whether it stays."""

RESTARTS = "restart-strategy.type"
"""Flink's setting of how often a job whose tasks fail is run again."""

ENDED = re.compile(
    r"Process died with exit code|StatusRuntimeException: (CANCELLED|UNAVAILABLE)|[a-z]TransportException: |"
    r"TaskManager with id \S+ (is no longer reachable|timed out)|The TaskExecutor is shutting down|"
    r"Partition(NotFound|Connection)Exception: "
)
"""What a cause says where a process of Flink ended, a Python worker or a TaskManager, and no function has failed."""

logger = logging.getLogger(__name__)


class _EndedError(Exception):
    """A process of Flink ended while a job ran; the message is the cause that Flink gives."""


def is_flink(data: Any) -> bool:
    """Whether it is a Table of PyFlink."""
    return type(data).__module__.startswith("pyflink.table.") and type(data).__name__ == "Table"


def table_of(data: Any) -> FrameRows:
    """Return schema and partitions of a table, which a job of Flink computes now.

    Raises
    ------
    IncompatibleError
        Where the table is a stream.
    SchemaError
        Where a column has no type that Arrow knows, and no other can be read.
    DataError
        Where the job fails.
    LostProcessError
        Where processes of Flink ended unexpectedly, again and again, or its JVM here did.
    """
    if not _is_batch(data):
        raise IncompatibleError(
            "a Table of Flink in streaming mode has no end to train at. Make its environment by "
            "TableEnvironment.create(EnvironmentSettings.in_batch_mode()); models score streams by transform."
        )
    schema, parts, folder = _read(data, _schema(data))
    return FrameRows(schema, parts, None, "flink: Arrow batches of a job", folder)


def _read(data: Any, schema: pa.Schema) -> tuple[pa.Schema, list[TablePart], PrivateFolder | None]:
    """Return schema and partitions of what a job computes, and their folder; it is run again where a process ends."""
    for attempt in range(1, MOST_ATTEMPTS + 1):
        try:
            return from_stream(pa.RecordBatchReader.from_batches(schema, _batches(data, schema)))
        except _EndedError as error:
            how = str(error)
        if attempt < MOST_ATTEMPTS:
            logger.warning(
                "a process of Flink ended: %s; the job that computes the Table is run again (%d of %d)",
                how,
                attempt,
                MOST_ATTEMPTS - 1,
            )
    raise LostProcessError(
        f"processes of Flink ended in each of {MOST_ATTEMPTS} jobs that compute the Table, the last time: {how} "
        f"The logs of its TaskManagers say more; python.executable must be a Python with PyFlink and sparkopt."
    )


def outline(data: Any) -> tuple[pa.Schema, RemotePart, None]:
    """Return the schema of a table, and a part that stands for each batch of a Python function."""
    schema = _schema(data).append(pa.field(ROW, pa.int64()))
    return schema, RemotePart("a batch", _as_it_is), None


def _as_it_is(rows: pa.Table) -> pa.Table:
    return rows


def _is_batch(data: Any) -> bool:
    return str(data._t_env.get_config().get("execution.runtime-mode", "STREAMING")).upper() == "BATCH"


def _schema(data: Any) -> pa.Schema:
    """Return the columns; those that Arrow has no type for keep the reason, and are refused where they are used."""
    found = data.get_resolved_schema()
    refuse_names(list(found.get_column_names()))
    return pa.schema(
        [_field(*one) for one in zip(found.get_column_names(), found.get_column_data_types(), strict=True)]
    )


def _field(name: str, kind: Any) -> pa.Field:
    from pyflink.table.types import LocalZonedTimestampType, to_arrow_type

    try:
        if isinstance(kind, LocalZonedTimestampType):
            raise TypeError("a time of a zone, whose value depends on a setting: cast it to TIMESTAMP")
        return pa.field(name, to_arrow_type(kind))
    except (TypeError, ValueError) as error:
        reason = f"{type(kind).__name__} of Flink: {' '.join(str(error).split())}"
        return pa.field(name, pa.null(), metadata={UNREADABLE: reason})


def _readable(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if UNREADABLE not in (field.metadata or {})]


def _batches(data: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield a table's rows as one job of Flink gives them."""
    from py4j.protocol import Py4JError, Py4JJavaError
    from pyflink.java_gateway import get_gateway
    from pyflink.table.expressions import col

    names = _readable(schema)
    if not names:
        raise SchemaError("the Table of Flink has no column that can be read.")
    chosen = data.select(*map(col, names))
    data._t_env._before_execute()
    utilities = get_gateway().jvm.org.apache.flink.table.runtime.arrow.ArrowUtils
    try:
        with _without_restarts(data._t_env):
            collected = utilities.collectAsPandasDataFrame(chosen._j_table, BATCH)
        pieces = _Pieces(collected)
        if not pieces:
            return
        for batch in pa.ipc.open_stream(pa.PythonFile(pieces, mode="r")):
            columns = [
                batch.column(field.name).cast(field.type) if field.name in names else pa.nulls(batch.num_rows)
                for field in schema
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)
    except Py4JJavaError as error:
        raise _failure(str(error).splitlines()) from None
    except (Py4JError, OSError) as error:
        raise LostProcessError(f"Flink's JVM ended while it computed the Table: {type(error).__name__}.") from None


@contextlib.contextmanager
def _without_restarts(tables: Any) -> Iterator[None]:
    """Let jobs that begin here end where they fail, whatever the cluster's strategy.

    Flink would start such a job again, and end the collection of its rows by "Job restarted", without the cause, and
    the job would wait on for somebody who takes its rows.
    """
    from pyflink.common import Configuration
    from pyflink.util.java_utils import get_j_env_configuration

    beneath = Configuration(j_configuration=get_j_env_configuration(tables._get_j_env()))  # a job is told both
    settings = [tables.get_config().get_configuration(), beneath]
    before = [each.get_string(RESTARTS, "") if each.contains_key(RESTARTS) else None for each in settings]
    settings[0].set_string(RESTARTS, "none")
    try:
        yield
    finally:
        for each, value in zip(settings, before, strict=True):
            if value is None:
                each.remove_config(RESTARTS)
            else:
                each.set_string(RESTARTS, value)


def _failure(lines: Sequence[str]) -> Exception:
    """Return the error of a job that failed: what a Python function says, or else the innermost cause of the JVM."""
    python = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    java = [found[1] for found in (re.match(r"(?:Caused by)?: (.+)", line) for line in lines) if found]
    cause = (python or java or list(lines) or [""])[-1][:300]
    if not python and any(map(ENDED.search, java)):
        return _EndedError(cause)
    return DataError(f"Flink could not compute the Table: {cause}")


class _Pieces:
    """A stream of Arrow as the JVM gives it, piece by piece, for Arrow's reader."""

    closed = False

    def __init__(self, pieces: Any) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")
        self._fill()

    def _fill(self) -> None:
        while not self._left and self._pieces.hasNext():
            self._left = memoryview(self._pieces.next())

    def __bool__(self) -> bool:
        return bool(self._left)

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer at the end alone."""
        found = list[memoryview]()
        while size and self._left:
            some = self._left[:size]
            found.append(some)
            self._left, size = self._left[len(some) :], size - len(some)
            self._fill()
        return b"".join(found)

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it cannot be read from elsewhere."""
        return False

    def close(self) -> None:
        """Do nothing: the JVM closes it at its end."""


def mapped(data: Any, made: Mapped) -> Any:
    """Return a Table of Flink with what was made of its outline, lazily; its jobs call a Python function."""
    from pyflink.table.expressions import col
    from pyflink.table.types import DataTypes, from_arrow_type
    from pyflink.table.udf import udf

    schema = _schema(data)
    added = [field for field in made.schema if field.name not in (ROW, *schema.names)]
    read = _columns_read(made.part, [*(field.name for field in added), ROW])
    wanted = Mapped(made.part, pa.schema([*added, pa.field(ROW, pa.int64())]))
    fields = [DataTypes.FIELD(field.name, from_arrow_type(field.type)) for field in added]
    kind = DataTypes.ROW([*fields, DataTypes.FIELD(KEPT, DataTypes.BOOLEAN())])
    function = udf(
        _function(wanted, pa.schema([schema.field(name) for name in read])), None, kind, None, "sparkopt", "pandas"
    )
    rows = data.add_columns(function(*map(col, read)).alias(OUTPUTS))
    outputs = [col(OUTPUTS).get(field.name).alias(field.name) for field in added]
    return rows.filter(col(OUTPUTS).get(KEPT)).select(
        *(col(name) for name in made.schema.names if name in schema.names), *outputs
    )


@dataclass(frozen=True)
class _Asked(TablePart):
    """A part of no rows that notes which columns are read of it."""

    noted: list[str]
    name = "a batch"
    rows = bytes = None

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Note the columns."""
        self.noted.extend(columns or ())
        return iter(())


def _columns_read(part: Any, wanted: Sequence[str]) -> list[str]:
    """Return the columns of an outline's rows that some columns of what was made of it need."""
    noted = list[str]()
    list(_on(part, _Asked(noted)).batches(wanted))
    return [name for name in dict.fromkeys(noted) if name != ROW]


def _on(part: Any, leaf: TablePart) -> Any:
    return leaf if isinstance(part, RemotePart) else replace(part, part=_on(part.part, leaf))


def _function(made: Mapped, schema: pa.Schema) -> Callable[..., Any]:
    """Return a function of pandas Series, as PyFlink takes them, that returns a DataFrame of as many rows."""
    scores = _Scores(made, schema)

    def sparkopt(*columns: Any) -> Any:  # PyFlink asks functions for a name
        return scores(columns)

    return sparkopt


@dataclass(frozen=True)
class _Scores:
    """What a Python worker of Flink computes of a batch.

    Parameters
    ----------
    made : Mapped
        What is made of its rows, and of their numbers.
    schema : pyarrow.Schema
        The columns that it is given.
    """

    made: Mapped
    schema: pa.Schema

    def __call__(self, columns: Sequence[Any]) -> Any:
        import pandas as pd

        count = len(columns[0])
        arrays = [_arrow(found, field.type) for found, field in zip(columns, self.schema, strict=True)]
        schema = self.schema.append(pa.field(ROW, pa.int64()))
        found = self.made(pa.table([*arrays, pa.array(np.arange(count))], schema=schema))
        kept = found[ROW].to_numpy()
        outputs = found.drop_columns(ROW).to_pandas().set_index(kept)
        frame = outputs if len(kept) == count else outputs.reindex(np.arange(count))
        return frame.assign(**{KEPT: pd.Series(np.isin(np.arange(count), kept), frame.index)})


def _arrow(column: Any, kind: pa.DataType) -> pa.Array:
    """Return a column that PyFlink made of Arrow as Arrow again; a row of columns is a DataFrame there."""
    if pa.types.is_struct(kind):
        fields = [_arrow(column[field.name], field.type) for field in kind]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=pa.array(column.isna().all(axis=1)))
    if pa.types.is_floating(kind):
        return pa.array(column.to_numpy(), kind)  # a NaN is no null; a null is NaN by now
    return pa.array(column, kind, from_pandas=True)
