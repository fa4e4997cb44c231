"""Backend: what a block store needs of a Spark session, so that it works on Spark Classic and on Spark Connect."""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from sparkopt.blocks.columns import Columns
from sparkopt.blocks.handles import Handle
from sparkopt.blocks.jvm_errors import Py4JError
from sparkopt.blocks.scan import ParquetScan
from sparkopt.blocks.tasks import WriteBlocks
from sparkopt.validation import Interval
from sparkopt.values import dataclass

__all__ = ["Backend", "Carried", "RowSource", "Shared", "cached", "fixed", "is_connect", "uncached"]

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Shared(Protocol):
    """Bytes that every task can read."""

    @property
    def value(self) -> bytes | memoryview:
        """The bytes, or a view of them."""
        ...

    def destroy(self) -> None:
        """Delete them everywhere."""
        ...


@dataclass(frozen=True)
class Carried:
    """Bytes inside the functions that need them."""

    value: bytes

    def destroy(self) -> None:
        """Do nothing: there is no copy elsewhere."""


@dataclass(frozen=True)
class RowSource:
    """The selected columns of a DataFrame, and how to write them.

    Parameters
    ----------
    df : DataFrame
        Read again where an executor is lost.
    columns : Columns
        What is read.
    targets : Interval
        What a label may be.
    name : str
        The store's folder on each executor.
    codec : str, default "none"
        Compression of blocks there.
    scan : ParquetScan or None, default None
        The files behind the DataFrame, where tasks read them themselves.
    """

    df: DataFrame
    columns: Columns
    targets: Interval
    name: str
    codec: str = "none"
    scan: ParquetScan | None = None

    @property
    def shown(self) -> str:
        """What the rows are read from, as errors call it."""
        if self.scan is not None:
            return ""  # each partition knows its files
        try:
            files = self.df.inputFiles()
        except (PySparkException, Py4JError) as error:  # another error is being reported
            logger.debug("the files of the DataFrame are not known: %s", error)
            files = []
        more = f" and {len(files) - 1} more files" if len(files) > 1 else ""
        return f"{files[0]}{more}" if files else "a DataFrame that is computed from no files"

    def writer(self, only: frozenset[int] | None = None) -> WriteBlocks:
        """Return the function that writes all partitions, or some."""
        return WriteBlocks(self.columns, self.targets, self.name, only, self.codec)


class Backend(ABC):
    """Keeps the handles of a store cached where their files are, and runs functions on them there.

    Attributes
    ----------
    has_rdds : bool
        Whether the session has ``handles`` and ``context``.
    needs_spark : bool
        Whether there is a session; one machine's own processes need none.
    shuffles : bool
        Whether its tasks can send each other pieces of results, which are then folded there.
    pass_seconds : float
        Seconds of a ``run`` on all handles that are neither arithmetic nor transport.
    """

    has_rdds: bool
    needs_spark: ClassVar[bool] = True
    shuffles: ClassVar[bool] = False
    pass_seconds: float = 0.1  # a Spark job, measured on Spark 4.3

    @property
    @abstractmethod
    def name(self) -> str:
        """What runs the functions, as receipts call it."""

    @property
    def source(self) -> str:
        """What the rows are read from, as errors call it; "" where their tasks know."""
        return ""

    @abstractmethod
    def run(self, function: Callable[[Handle], T], tasks: int | None = None) -> list[T]:
        """Apply ``function`` to each cached handle, on the executor that holds its file; in any order.

        In at most ``tasks`` tasks, where handles can be gathered without moving their files.
        """

    @abstractmethod
    def run_fresh(self, function: Callable[[Handle], T], partitions: Sequence[int]) -> list[T]:
        """Read some partitions from the source again, write them, and apply ``function`` to their handles."""

    def added(self, piece: Callable[[Handle, int], T | None], add: Callable[[list[T]], T], pieces: int) -> list[T]:
        """Add up, over all partitions in their order, each of several pieces of what they have.

        Parameters
        ----------
        piece : callable
            Returns a partition's piece of a number, or None where its file is missing: it is read again then.
        add : callable
            Adds up the pieces of all partitions, here or where they are.
        pieces : int
            How many pieces there are.
        """
        return [add(self._pieces(_OnePiece(piece, index))) for index in range(pieces)]

    def _pieces(self, function: _OnePiece[T]) -> list[T]:
        """Return every partition's piece, with a job of its own."""
        found = dict(self.run(function))
        if missing := [partition for partition, piece in sorted(found.items()) if piece is None]:
            found |= dict(self.run_fresh(function, missing))
        return [piece for _, piece in sorted(found.items(), key=itemgetter(0)) if piece is not None]

    @abstractmethod
    def share(self, value: bytes) -> Shared:
        """Return ``value`` in a form that functions can refer to in every task."""

    @property
    def session(self) -> Any | None:
        """The Spark session; None where there is none."""
        return None

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many tasks run at the same time."""

    @property
    @abstractmethod
    def context(self) -> Any:
        """The SparkContext.

        Raises
        ------
        IncompatibleError
            Where the session has none.
        """

    @property
    @abstractmethod
    def handles(self) -> Any:
        """The cached handles as an RDD.

        Raises
        ------
        IncompatibleError
            Where the session has none.
        """

    @abstractmethod
    def release(self) -> None:
        """Delete the files and drop the handles; harmless when repeated."""


def cached(df: DataFrame) -> DataFrame:
    """Cache a DataFrame where the session allows for it, as serverless compute does not; ``uncached`` undoes it."""
    try:
        return df.cache()
    except PySparkException as error:
        reason = str(error).strip().partition("\n")[0]
        logger.warning("this session caches nothing, so rows are computed again in each job: %s", reason)
        return df


def fixed(df: DataFrame) -> DataFrame:
    """Return the rows as they are now, kept by the executors: whatever follows sees the same rows in one order.

    Where the session keeps nothing, as serverless compute, they are computed again, as they come.
    """
    try:
        return df.localCheckpoint()
    except PySparkException as error:
        reason = str(error).strip().partition("\n")[0]
        logger.warning("this session keeps no rows, so the order of the source's must not vary: %s", reason)
        return df


def uncached(df: DataFrame) -> None:
    """Drop what ``cached`` has kept; harmless where it has not."""
    with contextlib.suppress(PySparkException):
        df.unpersist()


@dataclass(frozen=True)
class _OnePiece(Generic[T]):
    """The task that returns a partition's piece of one number."""

    piece: Callable[[Handle, int], T | None]
    index: int

    def __call__(self, handle: Handle) -> tuple[int, T | None]:
        return handle.partition, self.piece(handle, self.index)


def is_connect(thing: object) -> bool:
    """Whether a DataFrame or session is one of Spark Connect.

    By its module rather than with ``isinstance``: importing Connect's classes needs gRPC, which Classic does not.
    """
    return type(thing).__module__.startswith("pyspark.sql.connect.")
