"""Names of columns as Spark resolves them: a real name first, then any case, then fields of structs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.types import DataType, StructType

from sparkopt.errors import SchemaError
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["NamedColumns", "column_text", "map_in_arrow", "path_of", "plain_types", "quoted", "type_at"]


def quoted(name: str) -> str:
    """Return the column name as Spark takes it literally, dots included."""
    return "`" + name.replace("`", "``") + "`"


def map_in_arrow(
    rows: DataFrame,
    function: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]],
    schema: StructType | str,
) -> DataFrame:
    """Return ``rows.mapInArrow(function, schema)``, which itself finds no column whose name has a dot."""
    if not any("." in name or "`" in name for name in rows.columns):
        return rows.mapInArrow(function, schema)
    plain = [f"c{place}" for place, _ in enumerate(rows.columns)]
    return rows.toDF(*plain).mapInArrow(_OfNames(function, tuple(rows.columns)), schema)


@dataclass(frozen=True)
class _OfNames:
    """A function of batches whose columns are named first."""

    function: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
    names: tuple[str, ...]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return self.function(batch.rename_columns(list(self.names)) for batch in batches)


def path_of(schema: StructType, name: str, role: str) -> tuple[str, ...] | None:
    """Return where a column is: its real name, or those of a struct and its fields; None where there is none.

    Parameters
    ----------
    schema : StructType
        The columns.
    name : str
        A name; a real one wins, dots included. Otherwise any case, a name in backticks, or ``struct.field``.
    role : str
        What errors call the column.

    Raises
    ------
    SchemaError
        Where several columns have the name.
    """
    found = _among(schema.names, name, role)
    if found is not None:
        return (found,)
    if len(name) > 2 and name[0] == name[-1] == "`" and "`" not in name[1:-1].replace("``", ""):
        found = _among(schema.names, name[1:-1].replace("``", "`"), role)
        return None if found is None else (found,)
    for end in (place for place, sign in enumerate(name) if sign == "."):
        first = path_of(schema, name[:end], role) if name[:end] else None
        kind = None if first is None else type_at(schema, first)
        rest = path_of(kind, name[end + 1 :], role) if isinstance(kind, StructType) else None
        if first is not None and rest is not None:
            return (*first, *rest)
    return None


class _Names:
    """The names of a schema, in which one is found at once: thousands are asked for, one after the other.

    Parameters
    ----------
    names : sequence of str
        The names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._given, self._count = names, len(names)
        self._times = Counter(names)
        self._alike = defaultdict[str, list[str]](list)
        for name in names:
            self._alike[name.lower()].append(name)
        self.places = {name: place for place, name in reversed([*enumerate(names)])}

    def is_of(self, names: Sequence[str]) -> bool:
        """Whether these are the names, which a schema may have been given more of."""
        return self._given is names and self._count == len(names)

    def like(self, name: str) -> list[str]:
        """Return each occurrence of a name; where there is none, the names that differ from it in case only."""
        return [name] * self._times[name] or self._alike.get(name.lower(), [])


_KNOWN: dict[int, _Names] = {}
"""The names that were asked last, by the identity of their list: callers ask for column after column."""
MOST_KNOWN = 16


def _names_of(names: Sequence[str]) -> _Names:
    known = _KNOWN.get(id(names))
    if known is None or not known.is_of(names):
        if len(_KNOWN) >= MOST_KNOWN:
            _KNOWN.clear()
        known = _KNOWN[id(names)] = _Names(names)
    return known


def _among(names: Sequence[str], name: str, role: str) -> str | None:
    """Return the one of the names that is meant."""
    alike = _names_of(names).like(name)
    if len(alike) > 1:
        exact = name in alike
        shown = f"exists {len(alike)} times" if exact else f"may be any of {', '.join(alike)}"
        raise SchemaError(f"{role} column {name!r} {shown}: rename or drop the others.")
    return alike[0] if alike else None


def plain_types(schema: StructType) -> dict[str, DataType]:
    """Return the types of the columns that are alone with their names: where thousands are asked for by these."""
    times = Counter(schema.names)
    return {field.name: field.dataType for field in schema if times[field.name] == 1}


def type_at(schema: StructType, path: Sequence[str]) -> DataType:
    """Return the type of a column or field."""
    kind: DataType = schema
    for name in path:
        assert isinstance(kind, StructType)  # noqa: S101  # path_of has seen it
        kind = kind.fields[_names_of(kind.names).places[name]].dataType  # ``kind[name]`` looks at one after the other
    return kind


def column_text(schema: StructType, name: str, role: str) -> str:
    """Return a column's name, or that of a field, as Spark's SQL has it; a name that is not there stays as it is."""
    path = path_of(schema, name, role)
    return quoted(name) if path is None else ".".join(map(quoted, path))


@dataclass(frozen=True)
class NamedColumns:
    """A function of Arrow batches that adds columns under the names by which they are asked for.

    Parameters
    ----------
    paths : tuple of (str, tuple of str)
        Each name, and where the column is.
    """

    paths: tuple[tuple[str, tuple[str, ...]], ...]

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the columns of batches with these columns too."""
        fields = list(schema)
        for name, (first, *rest) in self.paths:
            field = schema.field(first)
            for each in rest:
                field = field.type.field(each)
            fields.append(field.with_name(name))
        return pa.schema(fields, schema.metadata)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches with these columns too."""
        return map(self.added, batches)

    def added(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with these columns too."""
        for name, (first, *fields) in self.paths:
            column = batch.column(first)
            batch = batch.append_column(name, pc.struct_field(column, fields) if fields else column)
        return batch
