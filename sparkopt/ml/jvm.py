"""Raw predictions by pyspark.ml's own models in the JVM: rows are scored where they are, without Python workers.

Only the products of features and coefficients are theirs. The JVM's products of two dense vectors round by how long
they are, by the processor and by the libraries that are installed; where one of the two is sparse, they are added in
the order of features, as in `sparkopt.ml.arithmetic`. So coefficients are given as sparse ones with every entry.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from pyspark.ml.common import _py2java
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import DenseMatrix, DenseVector, SparseMatrix, SparseVector, VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.invalid import SCORING_HINT
from sparkopt.blocks.jvm_errors import Py4JError
from sparkopt.blocks.names import quoted
from sparkopt.ml.expressions import FEW, Formulas, array, number, text
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["struct_to_vector", "to_vector", "with_outputs", "with_raw"]

logger = logging.getLogger(__name__)

FEATURES, VALUES = "__sparkopt_features", "__sparkopt_values"
WIDE = 1024
"""Features beyond which coefficients are dense: a sparse row would be merged with every one of them."""


def with_raw(
    dataset: DataFrame,
    model: Any,
    features: str,
    name: str,
    offset: str | None = None,
    problem: str | None = None,
) -> DataFrame | None:
    """Return the rows with their raw predictions, or None where the JVM cannot be asked, as on Spark Connect.

    Parameters
    ----------
    dataset : DataFrame
        Rows.
    model : LinearModel
        Its ``arrays`` are coefficients (outputs, features) and intercepts (outputs,), which never change.
    features : str
        Column of their features: Vectors, or arrays of floats or doubles.
    name : str
        Column of the raw predictions: a number, or an array where there are several outputs.
    offset : str, optional
        Column that is added to a number, in SQL.
    problem : str, optional
        Message of the error where raw predictions are NaN; without one, such rows are kept.
    """
    if is_connect(dataset):
        return None
    kind = dataset.schema[features].dataType
    checked = partial(_checked, dataset, model, features)

    def raw() -> list[Column]:
        column = checked()
        if offset is not None:
            column = column + F.expr(f"coalesce(CAST({offset} AS DOUBLE), double('NaN'))")
        if problem is not None:
            column = F.nanvl(column, F.expr(f"CAST(raise_error({text(problem)}) AS DOUBLE)"))
        return [F.col("*"), column.alias(name)]

    key, is_number = (features, kind.simpleString()), len(model.arrays[0]) == 1
    try:
        if is_number:
            return _selected(dataset, model, (*key, name, offset, problem), raw)
        rows = _selected(dataset, model, (*key, VALUES), lambda: [F.col("*"), checked().alias(VALUES)])
    except (Py4JError, TypeError) as error:  # clusters may allow code to use some of the JVM's classes only
        logger.warning("rows are scored by Python workers, since the JVM's models cannot be used: %s", error)
        return None
    sums = _sums(model.arrays[1], problem)
    return _selected(rows, model, (sums, name), lambda: [_parsed(f"* EXCEPT ({VALUES})"), _parsed(sums).alias(name)])


_SELECTED: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()
"""By model, columns in the JVM: to make them takes longer than to plan what reads them."""
MOST_SELECTED = 64


def _selected(dataset: DataFrame, model: Any, key: tuple[Any, ...], columns: Callable[[], list[Column]]) -> DataFrame:
    """Return columns of the rows, which are made once for a model and a key. Not on Spark Connect."""
    from pyspark.sql.classic.dataframe import DataFrame as ClassicDataFrame

    session, made = dataset.sparkSession, _SELECTED.setdefault(model, {})
    key = (session.sparkContext, *key)  # not an object of the JVM's, which is slow to compare
    found = made.get(key)
    if found is None:
        if len(made) >= MOST_SELECTED:
            made.clear()  # another thread may have what it took from here
        jvm = _Classes.of(session.sparkContext)
        found = made[key] = jvm.sequence([column._jc for column in columns()])
    return ClassicDataFrame(dataset._jdf.select(found), session)


def _parsed(expression: str) -> Column:
    """Return a column that is parsed here, not each time it is used; it may give no names."""
    from pyspark.core.context import SparkContext  # here, since clients of Spark Connect alone have none
    from pyspark.sql.classic.column import Column as ClassicColumn

    jvm = _Classes.of(SparkContext._active_spark_context)
    return ClassicColumn(jvm.expressions.column(jvm.expressions.expression(F.expr(expression)._jc)))


def with_outputs(
    rows: DataFrame, model: Any, raw: str, columns: Mapping[str, tuple[str, DataType]], formulas: Formulas
) -> DataFrame:
    """Return rows, which have a column ``raw``, with output columns in its place, by Spark's own expressions."""
    for step in formulas.steps:
        rows = _selected(rows, model, tuple(step.items()), partial(_step, step))
    added = [raw, *(name for step in formulas.steps for name in step)]
    wanted = {name: (formulas.outputs[key], isinstance(kind, VectorUDT)) for key, (name, kind) in columns.items()}

    def outputs() -> list[Column]:
        found = [(name, _parsed(formula), is_vector) for name, (formula, is_vector) in wanted.items()]
        named = [(to_vector(one) if is_vector else one).alias(name) for name, one, is_vector in found]
        return [_parsed(f"* EXCEPT ({', '.join(added)})"), *named]

    return _selected(rows, model, tuple(wanted.items()), outputs)


def _step(formulas: dict[str, str]) -> list[Column]:
    """Return all columns, and some more by their names."""
    return [F.col("*"), *(_parsed(formula).alias(name) for name, formula in formulas.items())]


def _sums(intercept: Floats, problem: str | None) -> str:
    """Return the entries of ``VALUES`` plus intercepts."""
    each = intercept.tolist()
    if len(each) <= FEW:
        sums = [f"{VALUES}[{index}] + {number(one)}" for index, one in enumerate(each)]
        if problem is not None:  # every entry is NaN then
            sums[0] = f"nanvl({sums[0]}, CAST(raise_error({text(problem)}) AS DOUBLE))"
        return array(sums)
    values = f"coalesce({VALUES}, {VALUES})"  # read twice: see `expressions.twice`
    if problem is not None:
        first = f"{VALUES}[0] + {number(each[0])}"
        values = f"CASE WHEN isnan({first}) THEN raise_error({text(problem)}) ELSE {VALUES} END"
    return f"zip_with({values}, {array(map(number, each))}, (value, own) -> value + own)"


def _checked(dataset: DataFrame, model: Any, features: str) -> Column:
    """Return the product of features and coefficients, or an error for a row of another width, with null or NaN.

    A condition around the product costs next to nothing; around the features, it costs as much as their product.
    """
    kind, column = dataset.schema[features].dataType, F.col(quoted(features))
    outputs, width = model.arrays[0].shape
    if isinstance(kind, ArrayType):
        column = to_vector(column.cast("array<double>"))
        is_right, message = _of_array(features, kind.elementType.simpleString(), width)
    else:
        is_right, message = _of_vector(column, width)
    product = _product(dataset, model, column)
    if outputs > 1:
        product = F.unwrap_udt(product)["values"]
    error = F.raise_error(message).cast("double" if outputs == 1 else "array<double>")
    return F.when(is_right, product).otherwise(error)


def _of_array(features: str, element: str, width: int) -> tuple[Column, Column]:
    """Return what is true of an array of this width, without null and NaN, and the message for another."""
    name = quoted(features)
    # null where an array has null and not what is looked for
    is_right = f"size({name}) = {width} AND NOT array_contains({name}, CAST(double('NaN') AS {element}))"
    place = f"CAST(array_position(transform({name}, x -> x IS NULL OR isnan(x)), TRUE) - 1 AS INT)"
    entry = f"concat(' is ', coalesce(CAST({name}[{place}] AS STRING), 'null'), ' at feature ', {place})"
    row, hint = text(f"features column {features!r}: a row"), text(f". {SCORING_HINT}")
    problem = f"concat({row}, CASE WHEN {name} IS NULL THEN ' is null' ELSE {entry} END, {hint})"
    other = f"concat('a row has ', size({name}), ' features; the model was trained on {width}.')"
    message = f"CASE WHEN size({name}) != {width} AND {name} IS NOT NULL THEN {other} ELSE {problem} END"
    return F.expr(is_right), F.expr(message)


def _of_vector(vector: Column, width: int) -> tuple[Column, Column]:
    """Return what is true of a Vector of this width, and the message for another, or for null."""
    fields = F.unwrap_udt(vector)
    size = F.coalesce(fields["size"], F.size(fields["values"]))
    found = F.concat(F.lit("a row has "), size, F.lit(f" features; the model was trained on {width}."))
    message = F.when(vector.isNull(), "a row's features are null.").otherwise(found)
    return vector.isNotNull() & (size == width), message


def _product(dataset: DataFrame, model: Any, vector: Column) -> Column:
    """Return the product of Vectors and a model's coefficients, with the intercept where it is a number.

    The JVM's model makes a column of rows that it is given: its expression is taken from there, for any rows.
    """
    from pyspark.sql.classic.column import Column as ClassicColumn

    session = dataset.sparkSession
    jvm, rows = _Classes.of(session.sparkContext), dataset.select(vector.alias(FEATURES))
    scored = _jvm_model(session, *model.arrays).setFeaturesCol(FEATURES).transform(rows._jdf)
    product = scored.queryExecution().analyzed().projectList().last().child()
    children = jvm.sequence([jvm.expressions.expression(vector._jc)])
    return ClassicColumn(jvm.expressions.column(product.withNewChildren(children)))


def _jvm_model(session: Any, matrix: Floats, intercept: Floats) -> Any:
    """Return the JVM's model: of a number, or of classes."""
    is_sparse = 0 < matrix.shape[1] <= WIDE
    return (_of_classes if len(matrix) > 1 else _of_numbers)(session, matrix, intercept, is_sparse)


def _of_numbers(session: Any, matrix: Floats, intercept: Floats, is_sparse: bool) -> Any:
    """Return the JVM's model of a number."""
    coefficients: Any = DenseVector(matrix[0])
    if is_sparse:
        coefficients = SparseVector(len(matrix[0]), np.arange(len(matrix[0])), matrix[0])
    kind = session._jvm.org.apache.spark.ml.regression.LinearRegressionModel
    return kind("sparkopt", _py2java(session.sparkContext, coefficients), float(intercept[0]))


def _of_classes(session: Any, matrix: Floats, intercept: Floats, is_sparse: bool) -> Any:
    """Return the JVM's model of classes, without intercepts.

    Sparse coefficients are given feature by feature, so that the sums of all classes advance together. The JVM then
    begins them with the intercepts, and the order of a sum is part of its bits: intercepts are added afterwards.
    """
    outputs, width = matrix.shape
    coefficients: Any = DenseMatrix(outputs, width, matrix.ravel(), isTransposed=True)
    if is_sparse:
        starts, places = np.arange(0, matrix.size + 1, outputs), np.tile(np.arange(outputs), width)
        coefficients = SparseMatrix(outputs, width, starts, places, matrix.T.ravel())
    java = [_py2java(session.sparkContext, value) for value in (coefficients, DenseVector(np.zeros(outputs)))]
    kind = session._jvm.org.apache.spark.ml.classification.LogisticRegressionModel
    return kind("sparkopt", *java, outputs, True).setProbabilityCol("").setPredictionCol("")


def to_vector(values: Column) -> Column:
    """Return arrays of doubles, of which none is null, as dense Vectors.

    To Spark a Vector is a struct: this makes the struct, and gives it the Vector's type by a call that returns what
    it is given. ``array_to_vector``, a function of Scala, costs as much as the product of a hundred features.
    """
    if is_connect(values):
        return array_to_vector(values)
    try:
        return _typed(_dense(values))
    except (Py4JError, TypeError) as error:  # TypeError: py4j takes a class that there is not for a package
        logger.warning("Vectors are made by array_to_vector, since Spark's expressions cannot be used: %s", error)
        return array_to_vector(values)


def struct_to_vector(struct: Column) -> Column:
    """Return structs of type, size, indices and values, of which none is null, as Vectors, sparse ones too."""
    if not is_connect(struct):
        try:
            return _typed(struct)
        except (Py4JError, TypeError) as error:
            logger.warning("Vectors are made by Python, since Spark's expressions cannot be used: %s", error)
    made: Column = F.udf(_vector_of, VectorUDT(), useArrow=False)(struct)
    return made


def _vector_of(row: Any) -> Any:
    return DenseVector(row["values"]) if row["type"] else SparseVector(row["size"], row["indices"], row["values"])


def _dense(values: Column) -> Column:
    """Return the structs of dense Vectors with these values."""
    unset = [
        F.expr(part) for part in ("1Y AS type", "CAST(NULL AS INT) AS size", "CAST(NULL AS ARRAY<INT>) AS indices")
    ]
    return F.struct(*unset, values.alias("values"))


def _typed(struct: Column) -> Column:
    """Return a struct as a Vector, without a change to it."""
    from pyspark.core.context import SparkContext  # here, since clients of Spark Connect alone have none
    from pyspark.sql.classic.column import Column as ClassicColumn

    jvm = _Classes.of(SparkContext._active_spark_context)
    call = jvm.static_invoke(
        jvm.objects,
        jvm.vector,
        "requireNonNull",
        jvm.sequence([jvm.expressions.expression(struct._jc)]),
        jvm.sequence([]),  # types to cast arguments to
        False,  # null where an argument is
        False,  # may return null
        True,  # deterministic
        jvm.none,
    )
    return ClassicColumn(jvm.expressions.column(call))


@dataclass(frozen=True)
class _Classes:
    """Classes and values of the JVM. To look one up takes a call for each part of its name."""

    expressions: Any
    static_invoke: Any
    objects: Any
    vector: Any
    none: Any
    sequence: Any

    @classmethod
    @lru_cache(maxsize=1)
    def of(cls, context: Any) -> _Classes:
        """Look them up, once for each application."""
        jvm = context._jvm
        sql = jvm.org.apache.spark.sql
        return cls(
            sql.classic.ExpressionUtils,
            sql.catalyst.expressions.objects.StaticInvoke,
            jvm.java.lang.Class.forName("java.util.Objects"),
            jvm.org.apache.spark.ml.linalg.SQLDataTypes.VectorType(),
            jvm.scala.Option.empty(),
            jvm.PythonUtils.toSeq,
        )
