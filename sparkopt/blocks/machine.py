"""A block store on one machine, without Spark: handles are a list, and functions run in this process."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from sparkopt.blocks.backend import Backend, Shared
from sparkopt.blocks.columns import Columns
from sparkopt.blocks.tables import TableReader
from sparkopt.blocks.tasks import Handle, WriteBlocks
from sparkopt.errors import IncompatibleError
from sparkopt.machine.limits import available_cores
from sparkopt.machine.table import Table
from sparkopt.validation import Interval

__all__ = ["MachineBackend", "TableSource"]

T = TypeVar("T")

IN_MEMORY = 64 << 20
"""Most bytes of a table whose blocks stay in memory: small data need no files."""


@dataclass(frozen=True)
class TableSource:
    """A table, and how to write its rows.

    Parameters
    ----------
    table : Table
        Read again where a file is lost.
    columns : Columns
        What is read.
    targets : Interval
        What a label may be.
    name : str
        The store's folder.
    codec : str, default "none"
        Compression of blocks there.
    """

    table: Table
    columns: Columns
    targets: Interval
    name: str
    codec: str = "none"

    @property
    def is_small(self) -> bool:
        """Whether its blocks stay in memory."""
        size = self.table.bytes
        return self.codec == "none" and size is not None and size <= IN_MEMORY


class MachineBackend(Backend):
    """Handles in a list; functions run here, one partition after the other."""

    has_rdds = False
    needs_spark = False
    pass_seconds = 0.001

    def __init__(self, source: TableSource) -> None:
        self._source = source
        self._read = TableReader.of(source.table.schema, source.columns)
        self._writer = WriteBlocks(source.columns, source.targets, source.name, codec=source.codec)
        self._folder: Path | None = None
        self._close: Callable[[], object] = _nothing
        if not source.is_small:
            self._folder = Path(tempfile.mkdtemp(prefix=f"{source.name}-"))  # nobody else can read it
            self._close = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._handles: list[Handle] | None = None

    def run(self, function: Callable[[Handle], T], tasks: int | None = None) -> list[T]:
        """Apply the function to one handle after the other."""
        if self._handles is None:
            self._handles = [self._written(index) for index in range(len(self._source.table.partitions))]
        return [function(handle) for handle in self._handles]

    def run_fresh(self, function: Callable[[Handle], T], partitions: Sequence[int]) -> list[T]:
        """Read these partitions again."""
        return [function(self._written(index)) for index in partitions]

    def _written(self, index: int) -> Handle:
        batches = self._read(self._source.table.partitions[index])
        if self._folder is None:
            return self._writer.keep(index, batches)
        return self._writer.write(index, batches, self._folder)

    def share(self, value: bytes) -> Shared:
        """Keep it: functions run in this process."""
        return _Held(value)

    @property
    def slots(self) -> int:
        """The cores that this process may use."""
        return available_cores()

    @property
    def context(self) -> NoReturn:
        """Refuse: there is no Spark."""
        raise _refusal("a SparkContext")

    @property
    def handles(self) -> NoReturn:
        """Refuse: there are no RDDs."""
        raise _refusal("RDDs")

    def release(self) -> None:
        """Delete the files and drop the blocks."""
        self._handles = []
        self._close()


@dataclass(frozen=True)
class _Held:
    """Bytes that functions refer to."""

    value: bytes

    def destroy(self) -> None:
        """Do nothing: there is no copy elsewhere."""


def _nothing() -> None:
    pass


def _refusal(what: str) -> IncompatibleError:
    return IncompatibleError(f"this needs {what}, and a table on one machine has no Spark. Use engine='auto'.")
