"""Rows without Spark, scored by a model: as much at a time as a batch, and given back as they were given.

A model is duck-typed here: ``_features``, ``_columns``, ``_wanted`` and ``_row_scorer`` say what it reads and writes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import scipy  # loads scipy.sparse where it is used
from pyspark.sql.types import NullType, StructField, StructType

from sparkopt.blocks.columns import FEATURES, OFFSET, shown_names
from sparkopt.blocks.invalid import InvalidRowError
from sparkopt.blocks.names import NamedColumns, path_of
from sparkopt.blocks.parquet import ParquetReader
from sparkopt.blocks.rows import rows_of
from sparkopt.blocks.tables import named_columns, named_table, number_of, scoring_reader, spark_schema
from sparkopt.errors import DataError, SchemaError
from sparkopt.machine import Table, TablePart
from sparkopt.machine.derived import computed
from sparkopt.machine.part import MemoryPart, OfPart
from sparkopt.ml.table_columns import from_objects
from sparkopt.ml.table_tasks import for_each_part
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = [
    "ScoredPart",
    "Scorer",
    "applied",
    "frame_outputs",
    "is_in_memory",
    "is_scored_here",
    "like",
    "numbered",
    "of_each_row",
    "scored",
    "scored_table",
]


@dataclass(frozen=True)
class Scorer:
    """A model's output columns of Arrow batches. It can be pickled.

    Parameters
    ----------
    reader : ParquetReader
        How features, and offsets, are made of the rows' columns.
    score : callable
        The model's function from those to a struct of its outputs.
    fields : tuple of pyarrow.Field
        The output columns.
    what : str
        The features' columns, as errors name them.
    skips : bool
        Whether rows whose outputs are null are left out.
    """

    reader: ParquetReader
    score: Callable[[pa.Array], pa.Array]
    fields: tuple[pa.Field, ...]
    what: str
    skips: bool

    @classmethod
    def of(cls, model: Any, schema: pa.Schema, features: str | Sequence[str] | None = None) -> Scorer:
        """Return the scorer of rows of a schema; ``features`` are other columns than the model's.

        Raises
        ------
        SchemaError
            For a column that is missing, of a wrong type, or there already.
        """
        columns, features = model._wanted(schema.names), model._features() if features is None else features
        reader = scoring_reader(spark_schema(schema), features, model._columns().offset)
        fields = tuple(pa.field(name, _arrow_type(kind)) for name, kind in columns.values())
        skips = model._columns().invalid == "skip"
        return cls(reader, model._row_scorer(columns), fields, model._columns().feature_names, skips)

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys(name for source in self.reader.every_source for name in source.names))

    def __call__(self, batch: pa.RecordBatch, where: str, first: int) -> dict[str, pa.Array]:
        """Return the output columns of a batch by name.

        Parameters
        ----------
        batch : pyarrow.RecordBatch
            Rows; columns that are not read may be left out.
        where : str
            What errors call the rows it is of.
        first : int
            Number of its first row there.

        Raises
        ------
        DataError
            For features that are null, or of another number than the model's.
        """
        made = self.reader.made(batch, {})
        rows = made.column(FEATURES)
        if OFFSET in made.schema.names:
            rows = pa.StructArray.from_arrays([rows, made.column(OFFSET)], [FEATURES, OFFSET])
        try:
            found = self.score(rows)
        except InvalidRowError as error:
            raise error.at(where, first) from None
        except DataError as error:
            raise DataError(f"features column {self.what!r}, {where}, from row {first}: {error}") from None
        return {field.name: array for field, array in zip(self.fields, found.flatten(), strict=True)}

    def kept(self, batch: pa.RecordBatch, found: dict[str, pa.Array]) -> pa.RecordBatch:
        """Return the rows of a batch that are not left out, given their outputs."""
        return batch.filter(next(iter(found.values())).is_valid()) if self.skips and found else batch


def _arrow_type(kind: Any) -> pa.DataType:
    return pa.float64() if kind.typeName() == "double" else pa.list_(pa.float64())


@dataclass(frozen=True)
class ScoredPart(OfPart):
    """The rows of a part with a model's outputs, which are computed as they are read.

    Parameters
    ----------
    part : TablePart
        The rows.
    scorer : Scorer
        The model's.
    columns : tuple of str
        All columns of the rows.
    """

    scorer: Scorer
    columns: tuple[str, ...]

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows; a model's outputs are computed where they are asked for."""
        outputs = {field.name: field for field in self.scorer.fields}
        wanted = [*self.columns, *outputs] if columns is None else list(columns)
        given = [name for name in wanted if name not in outputs]
        scores = len(given) < len(wanted) or self.scorer.skips
        read = list(dict.fromkeys([*given, *(self.scorer.names if scores else [])]))
        first = 0
        for batch in self.part.batches(read):
            found = self.scorer(batch, self.part.name, first) if scores else {}
            first += batch.num_rows
            fields = [outputs[name] if name in outputs else batch.schema.field(name) for name in wanted]
            arrays = [found[name] if name in outputs else batch.column(name) for name in wanted]
            yield self.scorer.kept(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)), found)


def scored_table(model: Any, table: Table) -> Table:
    """Return a table of the rows with a model's outputs, which are computed as they are read.

    Raises
    ------
    SchemaError
        For a column that is missing, of a wrong type, or there already.
    """
    named = named_table(table, _read_names(model))
    scorer = Scorer.of(model, named.schema)
    schema = table.schema
    for field in scorer.fields:
        schema = schema.append(field)
    names = tuple(table.schema.names)
    return table.with_parts((ScoredPart(part, scorer, names) for part in named.partitions), schema)


def _read_names(model: Any) -> list[str | None]:
    """Return the columns that a model reads."""
    features = model._features()
    return [*([features] if isinstance(features, str) else features), model._columns().offset]


def is_scored_here(data: Any) -> bool:
    """Whether these are rows without Spark: what `sparkopt.Table.of` takes, or features alone.

    Raises
    ------
    ParameterError
        For what are no rows.
    """
    if Table.accepts(data) or _is_matrix(data) or isinstance(data, pa.RecordBatchReader):
        return True
    rows_of(data)  # refuses what is no DataFrame of Spark either
    return False


def is_in_memory(data: Any) -> bool:
    """Whether rows are given back at once, as what they came as, rather than as a table."""
    return isinstance(data, (pa.Table, pa.RecordBatch)) or hasattr(data, "__arrow_c_stream__") or _is_pandas(data)


def _is_matrix(data: Any) -> bool:
    return isinstance(data, np.ndarray) or scipy.sparse.issparse(data)


def scored(model: Any, data: Any) -> Any:
    """Return rows with a model's outputs, of the kind that was given; Vectors are lists of doubles.

    Arrow, pandas and Polars are scored at once. A stream of batches is scored as it is read, and so is a table of
    files, which may be larger than memory. Of NumPy's and SciPy's features, the outputs alone are returned as Arrow.
    """
    if isinstance(data, pa.RecordBatchReader):
        return _stream(model, data)
    if _is_matrix(data):
        return _of_matrix(model, data)
    if _is_pandas(data):
        return _of_frame(model, data)
    outline = Table.outline(data)
    if outline is not None:
        return scored_table(model, outline).mapped(data)
    table = scored_table(model, Table.of(data))
    if not isinstance(data, (pa.Table, pa.RecordBatch)) and not hasattr(data, "__arrow_c_stream__"):
        return table
    return like(data, table.to_arrow())


def _stream(model: Any, rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
    named = named_columns(rows.schema, _read_names(model)) or NamedColumns(())
    scorer = Scorer.of(model, named.schema(rows.schema))
    schema = pa.schema([*rows.schema, *scorer.fields], rows.schema.metadata)

    def batches() -> Iterator[pa.RecordBatch]:
        first = 0
        for batch in rows:
            found = scorer(named.added(batch), "the stream", first)
            first += batch.num_rows
            yield scorer.kept(pa.RecordBatch.from_arrays([*batch.columns, *found.values()], schema=schema), found)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _of_matrix(model: Any, X: Any) -> pa.Table:
    """Return the outputs of features alone, which are the model's in their order."""
    table = Table.of((X, np.zeros(X.shape[0], np.int8)))
    scorer = Scorer.of(model, table.schema, table.names[0])
    return pa.Table.from_batches(list(_outputs(scorer, table)), pa.schema(scorer.fields))


def _of_frame(model: Any, frame: Any) -> Any:
    """Return a pandas DataFrame with the outputs; what is not read stays as it is."""
    import pandas as pd

    model._wanted([str(name) for name in frame.columns])
    found = _frame_scores(model, frame)
    outputs = found.to_pandas().set_index(frame.index)
    if model._columns().invalid == "skip" and found.num_columns:
        kept = found.column(0).is_valid().to_numpy()
        frame, outputs = frame[kept], outputs[kept]
    return pd.concat([frame, outputs], axis=1)


def frame_outputs(model: Any, frame: Any) -> Any:
    """Return the outputs for all rows of a pandas DataFrame, under its index; Vectors are arrays.

    Features may be a column of lists, of arrays or of pyspark.ml's Vectors, or several columns of numbers.

    Raises
    ------
    SchemaError
        For a column that is missing, or of a wrong type.
    DataError
        For features that are null, or of another number than the model's.
    """
    return _frame_scores(model, frame).to_pandas().set_index(frame.index)


def _frame_scores(model: Any, frame: Any) -> pa.Table:
    """Return the outputs in Arrow: null for rows that are left out."""
    features = model._features()
    names = [name for name in _read_names(model) if name is not None]
    known = set(frame.columns)
    read = [name if name in known else _column_of(frame, name) for name in names]
    rows = frame[list(dict.fromkeys(read))].reset_index(drop=True)
    if isinstance(features, str) and features in rows.columns and rows[features].dtype == object:
        rows = pa.table({name: _chunks(rows, name, name == features) for name in rows.columns})
    table = named_table(Table.of(rows), names)
    scorer = replace(Scorer.of(model, table.schema), skips=False)
    return pa.Table.from_batches(list(_outputs(scorer, table)), pa.schema(scorer.fields))


def _column_of(frame: Any, name: str) -> str:
    """Return the column of a frame in which another name is found: in another case, or of a struct."""
    empty = StructType([StructField(str(column), NullType()) for column in frame.columns])
    for end in [len(name), *(place for place, sign in enumerate(name) if sign == ".")]:
        if path := path_of(empty, name[:end], FEATURES):
            return path[0]
    raise SchemaError(f"features column {name!r} does not exist. Columns: {shown_names(empty.names)}.")


def _chunks(rows: Any, name: str, is_features: bool) -> pa.ChunkedArray:
    """Return a column of pandas; features may be objects."""
    if is_features:
        return pa.chunked_array([from_objects(list(rows[name]), name)])
    return pa.Table.from_pandas(rows[[name]], preserve_index=False).column(0)


def _outputs(scorer: Scorer, table: Table) -> Iterator[pa.RecordBatch]:
    """Yield the outputs alone."""
    names = [field.name for field in scorer.fields]
    for part in table.partitions:
        yield from ScoredPart(part, scorer, tuple(table.names)).batches(names)


_ROW = "__sparkopt_row"
"""A column for the place of each row."""


def transformed(data: Any, rows: Table, function: Callable[[Table], Table], without: Collection[str] = ()) -> Any:
    """Return what a function makes of rows, as the kind that was given; pandas keeps its index and columns.

    Parameters
    ----------
    data : object
        The rows as they were given.
    rows : Table
        The same rows.
    function : callable
        What adds columns to a table, and may leave out rows.
    without : collection of str, default none
        Columns among those that are added which are not returned.
    """
    if not is_in_memory(data):
        return function(rows)
    is_pandas = _is_pandas(data)
    found = function(_numbered(rows) if is_pandas else rows)
    names = [name for name in found.names if name not in without and not (is_pandas and name in data.columns)]
    outputs = computed(found, in_processes=True, columns=names)
    if not is_pandas:
        return like(data, outputs)
    import pandas as pd

    made: Any = outputs.to_pandas()
    kept = data.iloc[made.pop(_ROW).to_numpy()]
    return pd.concat([kept, made.set_index(kept.index)], axis=1)


def _numbered(rows: Table) -> Table:
    """Return the rows of a pandas DataFrame, which are in memory, with their places."""
    held = [part.held for part in rows.partitions if isinstance(part, MemoryPart)]
    table = pa.concat_tables(held) if held else rows.schema.empty_table()
    return Table.of(table.append_column(_ROW, pa.array(np.arange(len(table)))))


def numbered(data: Any) -> Table:
    """Return rows as a table; those of pandas with their places, by which ``of_each_row`` finds their index."""
    rows = Table.of(data)
    return _numbered(rows) if _is_pandas(data) else rows


def of_each_row(data: Any, name: str, function: Callable[..., Array], columns: Sequence[str], rows: Table) -> Any:
    """Return a function of columns of numbers as one column, of the kind that was given; pandas keeps its index.

    Parameters
    ----------
    data : object
        The rows as they were given.
    name : str
        What the column is called.
    function : callable
        Of as many arrays as there are columns.
    columns : sequence of str
        Columns of numbers.
    rows : Table
        The table of ``numbered``, or what was made of it: columns may be added to it, and rows left out.
    """
    found = like(data, pa.table({name: applied(function, columns, rows)}))
    if not _is_pandas(data):
        return found
    places = applied(np.positive, [_ROW], rows).to_numpy().astype(np.int64)
    return found.set_index(data.index[places])


def like(data: Any, rows: pa.Table) -> Any:
    """Return Arrow rows as pandas or Polars where ``data`` is of one of them, as one batch where it is one.

    Rows of pandas are numbered from 0: ``transformed`` and ``of_each_row`` give those of the user their index.
    """
    if _is_pandas(data):
        return rows.to_pandas()
    if isinstance(data, pa.RecordBatch):
        return rows.combine_chunks().to_batches()[0] if rows.num_rows else pa.RecordBatch.from_pylist([], rows.schema)
    if type(data).__module__.partition(".")[0] == "polars":
        return sys.modules["polars"].from_arrow(rows)
    return rows


def _is_pandas(data: Any) -> bool:
    return type(data).__module__.startswith("pandas.") and type(data).__name__ == "DataFrame"


def applied(function: Callable[..., Array], columns: Sequence[str], table: Table) -> pa.ChunkedArray:
    """Return a function of columns of numbers for every row of a table."""
    pieces = for_each_part(_Apply(function, list(columns)), named_table(table, columns))
    return pa.chunked_array([piece for pieces_of in pieces for piece in pieces_of], pa.float64())


@dataclass(frozen=True)
class _Apply:
    """The task: the values of a part's rows."""

    function: Callable[..., Array]
    columns: list[str]

    def __call__(self, part: TablePart) -> list[pa.Array]:
        return [
            pa.array(np.asarray(self.function(*[number_of(batch, name) for name in self.columns]), np.float64))
            for batch in part.batches(self.columns)
        ]
