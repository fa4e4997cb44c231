"""Functions that one message of Spark Connect does not hold.

They are cut into parts, and each becomes a temporary view on the server: a message of its own. The tasks' rows are
joined with all parts, which Spark broadcasts to the executors, and the tasks put the function together. The views are
dropped when the job has ended, so that nothing is kept for the next pass.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.cloudpickle import dumps
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkopt.errors import IncompatibleError
from sparkopt.values import dataclass

__all__ = ["MOST_SENT", "NUMBER", "PART", "WithParts", "in_parts", "joined", "refuse_large"]

MOST_SENT = 120 << 20
"""Most bytes of a function in a message: gRPC's limit of 128 MiB, less room for the rest of the plan."""

PART_BYTES = 24 << 20
"""Bytes of a part."""

NUMBER, PART = "__sparkopt_number", "__sparkopt_part"


@contextmanager
def in_parts(
    session: SparkSession, function: Any, refusal: tuple[str, str] | None = None
) -> Iterator[tuple[bytes, DataFrame | None]]:
    """Yield a pickled function and None; or where it is too large for a message, b"" and its parts as rows.

    ``refusal`` is what the function is called and what to do instead, where rows cannot carry its parts.

    Raises
    ------
    IncompatibleError
        Where it is too large and cannot be sent in parts, before any of it is sent.
    """
    whole: bytes = dumps(function)
    if len(whole) <= MOST_SENT:
        yield whole, None
        return
    if refusal is not None:
        refuse_large(len(whole), *refusal)
    names = list[str]()
    try:
        for number, start in enumerate(range(0, len(whole), PART_BYTES)):
            names.append(f"sparkopt_function_{uuid.uuid4().hex}_{number}")
            _part(session, number, whole[start : start + PART_BYTES]).createTempView(names[-1])
        yield b"", functools.reduce(DataFrame.unionAll, map(session.table, names))
    finally:
        for name in names:
            session.catalog.dropTempView(name)


def _part(session: SparkSession, number: int, part: bytes) -> DataFrame:
    """Return a part as a row inside the plan; ``createDataFrame`` would leave it on the server with the session."""
    from pyspark.sql.connect.dataframe import DataFrame as ConnectDataFrame
    from pyspark.sql.connect.plan import LocalRelation

    row = pa.table({NUMBER: pa.array([number], pa.int32()), PART: pa.array([part], pa.binary())})
    found: Any = ConnectDataFrame(LocalRelation(row), session)  # type: ignore[arg-type]  # a session of Connect
    return found  # type: ignore[no-any-return]


def joined(rows: DataFrame, parts: DataFrame | None, task: Any) -> tuple[DataFrame, Callable[..., Any]]:
    """Return the rows with the parts of the task's function, and the task that puts these together."""
    return (rows, task) if parts is None else (rows.crossJoin(F.broadcast(parts)), WithParts(task))


@dataclass(frozen=True)
class WithParts:
    """A task with a field ``pickled``, whose function comes with its rows."""

    task: Any

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts, rows = dict[int, bytes](), list[pa.RecordBatch]()
        for batch in batches:
            numbers = batch.column(NUMBER)
            for row, number in enumerate(numbers.to_pylist()):
                if number not in parts:
                    parts[number] = batch.column(PART)[row].as_py()
            once = batch.filter(pc.equal(numbers, 0))
            rows.append(once.select([name for name in once.schema.names if name not in (NUMBER, PART)]))
        whole = b"".join(parts[number] for number in sorted(parts))
        yield from replace(self.task, pickled=whole)(iter(rows))


def refuse_large(size: int, what: str, instead: str) -> None:
    """Refuse what must be in one message, and is too large for it.

    Raises
    ------
    IncompatibleError
        With both sizes.
    """
    if size > MOST_SENT:
        most = f"a message of Spark Connect holds {MOST_SENT >> 20} MiB"
        raise IncompatibleError(f"{what} has {size >> 20} MiB, and {most}. {instead}")
