"""Table: rows on this machine, or on storage that it reaches, in partitions that have names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import pyarrow as pa

from sparkopt.errors import IncompatibleError, ParameterError, SchemaError
from sparkopt.machine import on_dask, on_flink, on_ray
from sparkopt.machine.arrow_files import PrivateFolder, from_arrow_files, from_stream
from sparkopt.machine.cluster import Cluster, Mapped
from sparkopt.machine.csv_format import CsvFormat
from sparkopt.machine.datasets import from_dataset
from sparkopt.machine.delimited import RFC_4180, from_csv
from sparkopt.machine.listing import files_of
from sparkopt.machine.memory import from_arrow, from_pair, from_pandas
from sparkopt.machine.parquet import from_parquet
from sparkopt.machine.part import Batches, FilteredPart, IsFalse, TablePart
from sparkopt.machine.writing import write_parquet
from sparkopt.values import dataclass

__all__ = ["Table"]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows that Arrow can read, in partitions: what estimators train on without Spark.

    ``Table.of`` makes one. Rows are read where they are used; making a table reads no more than files' footers.
    What a partition holds does not depend on the machine, so coefficients do not either.

    Parameters
    ----------
    schema : pyarrow.Schema
        Names and types of the columns.
    partitions : tuple of TablePart
        The rows. Each part is small, can be pickled, and opens its rows where it is used.
    keeps : object, default None
        What the partitions need until the last table that has it is gone, such as a folder of files.
    cluster : Cluster or None, default None
        Who runs functions on the partitions, where a framework's workers hold them; None is this machine.
    reader : str, default ""
        What reads the rows, where a framework may, and why; without, Arrow does.

    Examples
    --------
    >>> import numpy as np
    >>> table = Table.of((np.eye(3, dtype=np.float32), np.array([0.0, 1.0, 1.0])))
    >>> table.names, table.rows, len(table.partitions)
    (['features', 'label'], 3, 1)
    """

    schema: pa.Schema
    partitions: tuple[TablePart, ...] = field(repr=False)
    keeps: object = field(default=None, repr=False)
    cluster: Cluster | None = field(default=None, repr=False)
    reader: str = field(default="", repr=False)

    @classmethod
    def of(
        cls,
        data: Any,
        *,
        header: bool = True,
        types: Mapping[str, str | pa.DataType] = MappingProxyType({}),
        csv: CsvFormat = RFC_4180,
    ) -> Table:
        """Return what users have as a table.

        Parameters
        ----------
        data : object
            - a path, folder or pattern of Parquet, CSV or Arrow files, or a list of them, on any storage that
              `sparkopt.io.resolve` knows; folders named ``column=value`` are a column;
            - a pyarrow Table, RecordBatch, RecordBatchReader (which is read once) or Dataset, and anything that gives
              Arrow by ``__arrow_c_stream__``, such as Polars and DuckDB;
            - a pandas.DataFrame, whose index is left out;
            - a DataFrame of Dask, a pair (X, y) of Dask's arrays, or a Dataset of Ray, whose rows stay with the
              framework's workers;
            - a Table of PyFlink in batch mode, which a job computes now, and whose rows come to this machine;
            - a pair (X, y) of NumPy arrays or of a SciPy sparse array and labels: the columns "features", "label";
            - a Table, which is returned as it is.
        header : bool, default True
            Whether CSV files begin with a line of names; without, columns are ``_c0``, ``_c1``, …
        types : mapping of str to (str or pyarrow.DataType), default none
            Types of CSV columns, such as ``{"zip": "string"}``; those of other columns follow from the first rows.
        csv : CsvFormat, default CsvFormat()
            How the text of CSV files is cut: separator, quotes, missing cells, encoding.

        Raises
        ------
        ParameterError
            For anything else.
        DataError
            Where a path does not exist, a folder has no rows, or X and y do not fit.
        SchemaError
            Where files or columns have no type that Arrow knows, or files do not agree.
        """
        if isinstance(data, Table):
            return data
        if (framework := _framework(data)) is not None:
            found = framework.table_of(data)
            return cls(found.schema, tuple(found.parts), found.keeps, found.cluster, found.reader)
        schema, parts, folder = _opened(data, header, types, csv)
        if len(set(schema.names)) < len(schema.names):
            twice = next(name for name in schema.names if schema.names.count(name) > 1)
            raise SchemaError(f"there are several columns {twice!r}: rename or drop all but one.")
        return cls(schema, tuple(parts), folder)

    @staticmethod
    def is_one(data: object) -> bool:
        """Whether this is a Table."""
        return isinstance(data, Table)

    @staticmethod
    def accepts(data: object) -> bool:
        """Whether ``of`` takes it, as far as its type says; a Spark DataFrame is none."""
        return isinstance(data, Table) or _kind(data) is not None or _framework(data) is not None

    @classmethod
    def outline(cls, data: Any) -> Table | None:
        """Return a table whose only part stands for each partition of a framework's frame; None for anything else.

        Nothing is computed. What is made of this table, its `mapped` makes of the frame.
        """
        if isinstance(data, tuple) or (framework := _framework(data)) is None:
            return None
        schema, part, cluster = framework.outline(data)
        return cls(schema, (part,), cluster=cluster)

    def __str__(self) -> str:
        others = len(self.partitions) - 1
        more = f" and {others:,} more partition{'s' if others > 1 else ''}" if others > 0 else ""
        return f"{self.partitions[0].name}{more}" if self.partitions else "no rows"

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    @property
    def rows(self) -> int | None:
        """Number of rows; None where it is not known before they are read."""
        return _total([part.rows for part in self.partitions])

    @property
    def bytes(self) -> int | None:
        """Bytes of the rows in memory, roughly; None where that is not known."""
        return _total([part.bytes for part in self.partitions])

    def with_parts(self, partitions: Iterable[TablePart], schema: pa.Schema | None = None) -> Table:
        """Return a table of other partitions, made of this one's; ``schema`` is theirs, where it is another."""
        return replace(self, schema=self.schema if schema is None else schema, partitions=tuple(partitions))

    def without(self, name: str) -> Table:
        """Return the rows in which a boolean column is false."""
        return self.where(IsFalse(name), (name,), f"without {name}")

    def where(self, condition: Callable[[pa.RecordBatch], pa.Array], columns: Sequence[str], what: str) -> Table:
        """Return the rows of which a condition is true; it is evaluated as they are read.

        Parameters
        ----------
        condition : callable
            From a batch of rows to booleans; it must be picklable.
        columns : sequence of str
            The columns that it looks at.
        what : str
            What errors call these rows.
        """
        return self.with_parts(FilteredPart(part, condition, tuple(columns), what) for part in self.partitions)

    def mapped(self, data: Any) -> Any:
        """Return a framework's frame, lazily, as this table was made of its outline."""
        framework = _framework(data)
        if framework is None:
            raise ParameterError(f"a {type(data).__name__} is no frame of a framework.")
        (part,) = self.partitions
        return framework.mapped(data, Mapped(part, self.schema))

    def to_arrow(self) -> pa.Table:
        """Return all rows as a pyarrow.Table."""
        found = (
            map(Batches(), self.partitions) if self.cluster is None else self.cluster.run(Batches(), self.partitions)
        )
        return pa.Table.from_batches([batch for batches in found for batch in batches], self.schema)

    def write_parquet(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
        """Write all rows below a path, a Parquet file for each partition, and return how many rows they are.

        Worker processes write one partition each, batch by batch, so the rows may be more than fit in memory. The
        folder appears whole or not at all.

        Parameters
        ----------
        path : str
            A path or URI of a folder.
        overwrite : bool, default False
            Whether to replace what is there.

        Raises
        ------
        ParameterError
            Where there is something already, or the file system cannot be used.
        IncompatibleError
            Where a framework holds the rows: it writes its own frames.
        """
        if self.cluster is not None:
            raise IncompatibleError(f"{self.cluster.name}: write the frame that transform returns by its own method.")
        return write_parquet(self.partitions, self.schema, os.fspath(path), overwrite)


def _total(known: Sequence[int | None]) -> int | None:
    found = [count for count in known if count is not None]
    return sum(found) if len(found) == len(known) else None


def _framework(data: object) -> Any | None:
    """Return the module that knows the framework of a frame; None where there is none."""
    return next((module for module, is_one in FRAMEWORKS if is_one(data)), None)


FRAMEWORKS = ((on_dask, on_dask.is_dask), (on_ray, on_ray.is_ray), (on_flink, on_flink.is_flink))
"""Frameworks whose workers hold rows. To add one, add its module here."""


def _kind(data: object) -> str | None:
    """Return which kind of table this is, without importing what made it."""
    module = type(data).__module__
    if isinstance(data, (str, os.PathLike)):
        return "paths"
    if isinstance(data, (pa.Table, pa.RecordBatch)):
        return "arrow"
    if isinstance(data, pa.RecordBatchReader):
        return "stream"
    if module.startswith("pyarrow._dataset") and hasattr(data, "get_fragments"):
        return "dataset"
    if module.startswith("pandas.") and type(data).__name__ == "DataFrame":
        return "pandas"
    if module.startswith("pyspark."):  # it would come through the driver
        return None
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], (str, os.PathLike)):
        return "pair"
    if isinstance(data, (list, tuple)) and all(isinstance(path, (str, os.PathLike)) for path in data):
        return "paths"
    if hasattr(data, "__arrow_c_stream__"):
        return "c stream"
    return "c array" if hasattr(data, "__arrow_c_array__") else None


Opened: TypeAlias = tuple[pa.Schema, Sequence[TablePart], PrivateFolder | None]
"""Schema, partitions, and the folder that they need."""


def _opened(data: Any, header: bool, types: Mapping[str, str | pa.DataType], form: CsvFormat) -> Opened:
    kind = _kind(data)
    if kind == "arrow":
        return *from_arrow(data if isinstance(data, pa.Table) else pa.Table.from_batches([data])), None
    if kind == "pandas":
        return *from_pandas(data), None
    if kind == "pair":
        return *from_pair(*data), None
    if kind == "paths":
        return *_of_paths([data] if isinstance(data, (str, os.PathLike)) else data, header, types, form), None
    if kind == "dataset":
        return from_dataset(data)
    if kind == "stream":
        return from_stream(data)
    if kind == "c stream":
        return from_stream(pa.RecordBatchReader.from_stream(data))
    if kind == "c array":
        return *from_arrow(pa.Table.from_batches([pa.record_batch(data)])), None
    what = type(data).__name__
    if type(data).__module__.startswith("pyflink."):
        raise ParameterError(f"a {what} of Flink is no Table: give the Table that it is made of, or its select(...).")
    hint = " Call its to_spark() or to_pandas()." if type(data).__module__.startswith("pyspark.pandas") else ""
    raise ParameterError(
        f"a table is made of a path, Arrow, pandas, or a pair (X, y) of arrays. Got a {what} instead.{hint}"
    )


def _of_paths(
    paths: Sequence[str | os.PathLike[str]],
    header: bool,
    types: Mapping[str, str | pa.DataType],
    form: CsvFormat,
) -> tuple[pa.Schema, list[TablePart]]:
    files = files_of(paths)
    if files[0].format == "CSV":
        return from_csv(files, header, {name: _type(name, kind) for name, kind in types.items()}, form)
    if types or not header or form != RFC_4180:
        raise ParameterError(f"{files[0].name} is {files[0].format}: header, types and csv are for CSV files.")
    return (from_parquet if files[0].format == "Parquet" else from_arrow_files)(files)


def _type(name: str, kind: str | pa.DataType) -> pa.DataType:
    try:
        return pa.type_for_alias(kind) if isinstance(kind, str) else kind
    except ValueError:
        raise ParameterError(
            f"types: the type of {name!r} must be one of Arrow's, such as 'double' or 'string'. Got {kind!r} instead."
        ) from None
