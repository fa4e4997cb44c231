"""Where a DataFrame is a bare scan of Parquet files: which parts of which files each of its partitions reads.

Spark's own plan says so: the files after pruning, cut and packed into partitions. Only what keeps the rows as they
are is understood: projections, renames, casts between numbers, VectorAssembler over columns of numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from sparkopt.blocks.columns import FEATURES, RAW
from sparkopt.blocks.filters import COMPARISONS, Filter
from sparkopt.blocks.jvm_errors import Py4JError
from sparkopt.blocks.parquet import (
    ANY,
    ARRAY,
    ASSEMBLED,
    DECIMAL,
    EXACT_DIGITS,
    NUMBER,
    SIMPLE,
    VECTOR,
    ColumnSource,
    FilePart,
    NotReadHere,
    ParquetReader,
)
from sparkopt.errors import ParameterError
from sparkopt.io.filesystem import local_path
from sparkopt.io.object_stores import ObjectStores
from sparkopt.validation import OneOf, check
from sparkopt.values import dataclass

__all__ = ["SETTING", "ParquetScan", "parquet_scan"]

SETTING = "spark.sparkopt.reader"
"""Spark's setting that chooses: "auto", or "spark" for Spark's own readers alone."""

PASSED = ("WholeStageCodegenExec", "InputAdapter", "ColumnarToRowExec")
"""Nodes of a plan that neither choose nor change rows."""

PARQUET = "org.apache.spark.sql.execution.datasources.parquet.ParquetFileFormat"
VECTOR_CLASS = "org.apache.spark.ml.linalg.VectorUDT"
ASSEMBLER = "org.apache.spark.ml.feature.VectorAssembler"
HARMLESS = {"path", "paths", "basepath", "mergeschema", "recursivefilelookup", "pathglobfilter", "compression"}
"""Options of Parquet that decide which files are read, not what they mean."""
IF_TRUE = {
    "spark.sql.files.ignoreCorruptFiles": "corrupt files are to be ignored",
    "spark.sql.files.ignoreMissingFiles": "missing files are to be ignored",
    "spark.sql.parquet.fieldId.read.enabled": "columns are found by their ids",
}
"""Settings under which Spark reads otherwise."""

Expression: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class ParquetScan:
    """The files behind a DataFrame.

    Attributes
    ----------
    partitions : list of list of FilePart
        What each partition reads.
    reader : ParquetReader
        How its rows are made of the files'.
    hosts : list of list of str, default ()
        The machines that have most of a partition's bytes, as Spark names them; none where all are equally near.
    """

    partitions: list[list[FilePart]]
    reader: ParquetReader
    hosts: Sequence[Sequence[str]] = ()

    @property
    def files(self) -> int:
        """How many files there are."""
        return len({part.uri for parts in self.partitions for part in parts})


def parquet_scan(selected: DataFrame) -> ParquetScan:
    """Return the files that a DataFrame's rows come from.

    Parameters
    ----------
    selected : DataFrame
        The columns of ``Columns.select``.

    Raises
    ------
    NotReadHere
        Where it is no bare scan; the message says why.
    ParameterError
        Where ``spark.sparkopt.reader`` is neither "auto" nor "spark".
    """
    _refuse_settings(selected)
    try:
        plan = selected._jdf.queryExecution().executedPlan()
        projections, scan = _nodes(plan)
        relation = scan.relation()
        _refuse_relation(relation)
        constants = json.loads(relation.partitionSchema().json())["fields"]
        reader = _reader(json.loads(plan.toJSON()), projections, selected.columns)
        used = {name for source in reader.every_source for name in source.names}
        folders = {place: field for place, field in enumerate(constants) if field["name"] in used}
        found = scan.inputRDDs().head().filePartitions()
        each = [found.apply(index) for index in range(found.size())]
        stores = ObjectStores(selected._jdf.sparkSession().sessionState().newHadoopConf().get)
        partitions = [list(_parts(partition, folders, stores)) for partition in each]
        is_local = all(local_path(part.uri) is not None for parts in partitions for part in parts)
        hosts = [] if is_local else [list(partition.preferredLocations()) for partition in each]
    except (Py4JError, PySparkException) as error:  # another Spark's plan
        raise NotReadHere(f"Spark's plan is not understood: {str(error).splitlines()[0]}") from error
    return ParquetScan(partitions, reader, hosts if any(hosts) else ())


def _refuse_settings(df: DataFrame) -> None:
    conf = df.sparkSession.conf
    chosen = check(SETTING, conf.get(SETTING, "auto"), OneOf(["auto", "spark"]))
    if chosen != "auto":
        raise NotReadHere(f"{SETTING} is {chosen!r}")
    for name, reason in IF_TRUE.items():
        if str(conf.get(name, "false")).lower() == "true":
            raise NotReadHere(reason)


def _nodes(plan: Any) -> tuple[list[Any], Any]:
    """Return a plan's projections, the first one last, and the scan below them."""
    projections: list[Any] = []
    while True:
        name = plan.getClass().getSimpleName()
        if name == "FileSourceScanExec":
            return projections, plan
        if name == "ProjectExec":
            projections.append(plan)
        elif name not in (*PASSED, "FilterExec"):
            raise NotReadHere(f"its plan has {name.removesuffix('Exec')}")
        plan = plan.children().head()


def _refuse_relation(relation: Any) -> None:
    """Refuse files of another format, or with options that may change what they mean."""
    kind = relation.fileFormat().getClass().getName()
    if kind != PARQUET:
        raise NotReadHere(f"its files are read by {kind.rsplit('.', 1)[-1]}")
    options = relation.options().iterator()
    while options.hasNext():
        name = options.next()._1()
        if name.lower() not in HARMLESS:
            raise NotReadHere(f"it is read with the option {name}")


def _parts(partition: Any, folders: Mapping[int, Any], stores: ObjectStores) -> Iterator[FilePart]:
    for file in partition.files():
        uri = file.urlEncodedPath()
        try:
            location = stores.location(uri) if local_path(uri) is None else None
        except ParameterError as reason:
            raise NotReadHere(str(reason)) from None
        values = {}
        for place, field in folders.items():
            row, kind = file.partitionValues(), field["type"]
            if kind not in GETTERS:
                raise NotReadHere(f"the folders' column {field['name']!r} has type {kind}")
            value = None if row.isNullAt(place) else getattr(row, GETTERS[kind])(place)
            values[field["name"]] = value.toString() if kind == "string" and value is not None else value
        listed = file.fileSize(), file.modificationTime()
        yield FilePart(uri, file.start(), file.length(), *listed, values, location=location)


GETTERS = {
    "byte": "getByte",
    "short": "getShort",
    "integer": "getInt",
    "long": "getLong",
    "float": "getFloat",
    "double": "getDouble",
    "boolean": "getBoolean",
    "string": "getUTF8String",
}


def _reader(nodes: Sequence[Expression], projections: Sequence[Any], roles: Sequence[str]) -> ParquetReader:
    """Return how a plan's rows are made of those of its files, from its nodes, the scan last."""
    known = dict(map(_scanned, nodes[-1]["output"]))
    made = list(known.values())
    conditions, looked_at = list[Filter](), list[ColumnSource]()
    left = list(projections)
    for node in reversed(nodes[:-1]):
        if _name(node) == "FilterExec":
            conditions.append(Conditions(known, looked_at).parsed(node["condition"]))
        elif _name(node) == "ProjectExec":
            projection = left.pop()
            columns = [_column(tree, place, projection, known) for place, tree in enumerate(node["projectList"])]
            known, made = dict(columns), [source for _, source in columns]
    sources = dict(zip(roles, made, strict=True))
    for role, source in sources.items():
        if (source.kind == NUMBER) == (role == FEATURES):
            raise NotReadHere(f"its {role} are of the kind {source.kind}")
        if role.startswith(RAW) and not source.casts[0] and source.types[0] in ("string", "date"):
            continue
        for kind in source.types:
            if source.kind != VECTOR and not _is_number(kind):
                raise NotReadHere(f"its {role} are of the type {kind}")
    return ParquetReader(sources, conditions, looked_at)


@dataclass
class Conditions:
    """Turns a condition of Spark's plan into a filter.

    Parameters
    ----------
    known : mapping of int to ColumnSource
        How columns are made, by their ids.
    looked_at : list of ColumnSource
        Takes up the columns that conditions look at.
    """

    known: Mapping[int, ColumnSource]
    looked_at: list[ColumnSource]

    def parsed(self, tree: list[Expression]) -> Filter:
        """Return the filter of a tree in prefix order."""
        return self._at(tree, 0)[0]

    def _at(self, tree: list[Expression], at: int) -> tuple[Filter, int]:
        node, name = tree[at], _name(tree[at])
        if name in ("And", "Or", "Not"):
            parts, at = [], at + 1
            for _ in range(node["num-children"]):
                part, at = self._at(tree, at)
                parts.append(part)
            return Filter(name, parts), at
        if name in ("IsNull", "IsNotNull", "AtLeastNNonNulls"):
            numbers, at = [], at + 1
            for _ in range(node["num-children"]):
                number, at = self._column(tree, at, of_any_type=True)
                numbers.append(number)
            return Filter(name, columns=numbers, value=node.get("n")), at
        if name == "In" or name in COMPARISONS:
            number, at = self._column(tree, at + 1)
            kind = (self.looked_at[number].casts[0] or self.looked_at[number].types)[-1]
            values = [_literal(literal, kind) for literal in tree[at : at + node["num-children"] - 1]]
            return Filter(name, columns=[number], value=values if name == "In" else values[0]), at + len(values)
        raise NotReadHere(f"it filters by {name}")

    def _column(self, tree: list[Expression], at: int, of_any_type: bool = False) -> tuple[int, int]:
        """Return the number of the column at this place, and where the next expression begins."""
        source, end = _made(tree, at, self.known)
        if source.kind != NUMBER or not (_is_number(source.types[0]) or source.types[0] == "string"):
            if not of_any_type or source.kind == ASSEMBLED:
                raise NotReadHere(f"it filters by a column of type {source.types[0]}")
            source = ColumnSource(NUMBER, source.names, [ANY], [()])  # only its nulls count
        self.looked_at.append(source)
        return len(self.looked_at) - 1, end


def _literal(node: Expression, kind: str) -> float | str | bool:
    """Return a literal of the type of the column that it is compared with."""
    if _name(node) != "Literal" or node["dataType"] != kind or node["value"] is None:
        raise NotReadHere(f"it compares with {_name(node)}")
    value = str(node["value"])
    if kind == "string":
        return value
    if kind == "boolean":
        return value == "true"
    if kind in ("float", "double"):
        if math.isnan(float(value)):
            raise NotReadHere("it compares with NaN")
        return float(value)
    if kind in WIDER or kind == "long":
        return int(value)
    raise NotReadHere(f"it compares numbers of the type {kind}")


def _scanned(attribute: Sequence[Expression]) -> tuple[int, ColumnSource]:
    """Return a column of the scan as itself; one of another type is refused where it is used."""
    (found,) = attribute
    kind = found["dataType"]
    if isinstance(kind, dict) and kind.get("class") == VECTOR_CLASS:
        source = ColumnSource(VECTOR, [found["name"]], [VECTOR], [()])
    elif isinstance(kind, dict) and kind.get("type") == "array":
        source = ColumnSource(ARRAY, [found["name"]], [str(kind["elementType"])], [()])
    else:
        source = ColumnSource(NUMBER, [found["name"]], [str(kind)], [()])
    return found["exprId"]["id"], source


def _column(
    tree: list[Expression], place: int, projection: Any, known: Mapping[int, ColumnSource]
) -> tuple[int, ColumnSource]:
    """Return a projection's column: its id and how it is made."""
    own = tree[0]["exprId"]["id"]
    if len(tree) > 1 and _name(tree[1]) == "ScalaUDF":
        function = projection.projectList().apply(place).child().function().getClass().getName()
        if not function.startswith(ASSEMBLER):
            raise NotReadHere("it computes a user-defined function")
        return own, _assembler(tree, known)
    return own, _made(tree, 0, known)[0]


def _assembler(tree: list[Expression], known: Mapping[int, ColumnSource]) -> ColumnSource:
    """Return the Vector that VectorAssembler makes of the struct of its columns."""
    struct, at, parts = tree[2], 3, []
    if _name(struct) != "CreateNamedStruct":
        raise NotReadHere(f"it assembles {_name(struct)}")
    for _ in range(struct["num-children"] // 2):
        source, at = _made(tree, at + 1, known)  # after its name
        parts.append(source)
    return replace(_joined(parts), as_vector=True)


def _made(tree: list[Expression], at: int, known: Mapping[int, ColumnSource]) -> tuple[ColumnSource, int]:
    """Return how the expression at this place of a tree in prefix order is made, and where the next one begins."""
    node = tree[at]
    name = _name(node)
    if name == "AttributeReference":
        return known[node["exprId"]["id"]], at + 1
    if name == "Alias":
        return _made(tree, at + 1, known)
    if name == "Cast":
        source, end = _made(tree, at + 1, known)
        return _cast(source, node["dataType"]), end
    if name == "CreateArray":
        return _together(node, tree, at, known)
    raise NotReadHere(f"it computes {name}")


def _together(
    node: Expression, tree: list[Expression], at: int, known: Mapping[int, ColumnSource]
) -> tuple[ColumnSource, int]:
    """Return an array of columns."""
    parts, at = [], at + 1
    for _ in range(node["num-children"]):
        source, at = _made(tree, at, known)
        parts.append(source)
    return _joined(parts), at


def _joined(parts: Sequence[ColumnSource]) -> ColumnSource:
    """Return several columns of numbers as one of lists."""
    if any(part.kind != NUMBER for part in parts):
        raise NotReadHere("it puts together what are not numbers")
    names, types, casts = ([getattr(part, what)[0] for part in parts] for what in ("names", "types", "casts"))
    return ColumnSource(ASSEMBLED, names, types, casts)


def _cast(source: ColumnSource, kind: Any) -> ColumnSource:
    """Return a source with its numbers cast."""
    if source.kind == ARRAY and isinstance(kind, dict) and kind.get("type") == "array":
        kind = kind["elementType"]
    elif source.kind != NUMBER:
        raise NotReadHere(f"it casts {source.names[0]!r} to {kind}")
    now = (source.casts[0] or (source.types[0],))[-1]
    if kind == now:
        return source
    is_wider = kind in WIDER.get(now, ()) or (kind in ("float", "double") and _is_number(now))
    if not is_wider:
        raise NotReadHere(f"it casts {source.names[0]!r} from {now} to {kind}")
    return replace(source, casts=[(*source.casts[0], kind)])


WIDER = {"byte": ("short", "integer", "long"), "short": ("integer", "long"), "integer": ("long",)}


def _is_number(kind: str) -> bool:
    """Whether numbers of this type are cast to floating point as the JVM does it."""
    decimal = DECIMAL.fullmatch(kind)
    return kind in SIMPLE or (decimal is not None and int(decimal[1]) <= EXACT_DIGITS)


def _name(node: Expression) -> str:
    return str(node["class"]).rsplit(".", 1)[-1]
