"""Raw predictions by pyspark.ml's own models in the JVM: rows are scored where they are, without Python workers.

Only the products of features and coefficients are theirs. The JVM's products of two dense vectors round by how long
they are, by the processor and by the libraries that are installed; where one of the two is sparse, they are added in
the order of features, as in `sparkopt.ml.arithmetic`. So coefficients are given as sparse ones with every entry.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from pyspark.ml.common import _py2java
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import DenseMatrix, DenseVector, SparseMatrix, SparseVector, VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.invalid import SCORING_HINT
from sparkopt.blocks.jvm_errors import Py4JError
from sparkopt.blocks.names import quoted
from sparkopt.ml.expressions import FEW, array, number, text
from sparkopt.typing import Floats

__all__ = ["struct_to_vector", "to_vector", "with_raw"]

logger = logging.getLogger(__name__)

FEATURES, SIZE, VALUES = "__sparkopt_features", "__sparkopt_size", "__sparkopt_values"
WIDE = 1024
"""Features beyond which coefficients are dense: a sparse row would be merged with every one of them."""


def with_raw(
    dataset: DataFrame, features: str, arrays: tuple[Floats, Floats], name: str
) -> tuple[DataFrame, list[str]] | None:
    """Return the rows with their raw predictions, or None where the JVM cannot be asked, as on Spark Connect.

    Parameters
    ----------
    dataset : DataFrame
        Rows.
    features : str
        Column of their features: Vectors, or arrays of floats or doubles.
    arrays : tuple of ndarray of shape (outputs, features) and (outputs,)
        Coefficients and intercepts.
    name : str
        Column of the raw predictions: a number, or an array where there are several outputs.

    Returns
    -------
    tuple or None
        The rows, and which other columns they have in addition.
    """
    if is_connect(dataset):
        return None
    (matrix, intercept), (outputs, width) = arrays, arrays[0].shape
    is_sparse = 0 < width <= WIDE
    try:
        if outputs > 1:
            model = _of_classes(dataset.sparkSession, matrix, name, is_sparse)
        else:
            model = _of_numbers(dataset.sparkSession, matrix, intercept, name, is_sparse)
    except Py4JError as error:  # clusters may allow code to use some of the JVM's classes only
        logger.warning("rows are scored by Python workers, since the JVM's models cannot be used: %s", error)
        return None
    rows, column, added = _vectors(dataset, features, width)
    scored = DataFrame(model.setFeaturesCol(column).transform(rows._jdf), dataset.sparkSession)
    return scored if outputs == 1 else _with_intercepts(scored, name, intercept), added


def _vectors(dataset: DataFrame, features: str, width: int) -> tuple[DataFrame, str, list[str]]:
    """Return the rows, the column of their Vectors, all of this width, and which columns were added."""
    kind = dataset.schema[features].dataType
    if isinstance(kind, ArrayType):
        rows = dataset.where(_is_whole(features, kind.elementType.simpleString(), width))
        vector = to_vector(F.col(quoted(features)).cast("array<double>"))
        return rows.withColumn(FEATURES, vector), FEATURES, [FEATURES]
    if features.isidentifier():
        return _of_width(dataset, features, width), features, [SIZE]
    # the JVM's models would take a name with a dot for a field's
    rows = dataset.withColumn(FEATURES, F.col(quoted(features)))
    return _of_width(rows, FEATURES, width), FEATURES, [FEATURES, SIZE]


def _is_whole(features: str, element: str, width: int) -> str:
    """Return true, or raise an error for an array of another width, with null or with NaN."""
    name = quoted(features)
    # null where an array has null and not what is looked for
    is_whole = f"size({name}) = {width} AND NOT array_contains({name}, CAST(double('NaN') AS {element}))"
    place = f"CAST(array_position(transform({name}, x -> x IS NULL OR isnan(x)), TRUE) - 1 AS INT)"
    entry = f"concat(' is ', coalesce(CAST({name}[{place}] AS STRING), 'null'), ' at feature ', {place})"
    row, hint = text(f"features column {features!r}: a row"), text(f". {SCORING_HINT}")
    problem = f"concat({row}, CASE WHEN {name} IS NULL THEN ' is null' ELSE {entry} END, {hint})"
    other = f"concat('a row has ', size({name}), ' features; the model was trained on {width}.')"
    message = f"CASE WHEN size({name}) != {width} AND {name} IS NOT NULL THEN {other} ELSE {problem} END"
    return f"CASE WHEN {is_whole} THEN TRUE ELSE CAST(raise_error({message}) AS BOOLEAN) END"


def _with_intercepts(rows: DataFrame, name: str, intercept: Floats) -> DataFrame:
    """Return the rows with a column of Vectors as arrays of their entries plus intercepts."""
    vector, is_few = F.col(name), len(intercept) <= FEW
    values = F.unwrap_udt(vector if is_few else F.coalesce(vector, vector))["values"]  # see `expressions.twice`
    if is_few:
        sums = array(f"{VALUES}[{index}] + {number(one)}" for index, one in enumerate(intercept.tolist()))
    else:
        sums = f"zip_with({VALUES}, {array(map(number, intercept.tolist()))}, (value, own) -> value + own)"
    return rows.withColumn(VALUES, values).selectExpr(f"* EXCEPT ({name}, {VALUES})", f"{sums} AS {name}")


def _of_width(rows: DataFrame, features: str, width: int) -> DataFrame:
    """Return the rows, of which one of another width is an error, with a column ``SIZE``.

    As a condition of its own it costs next to nothing; around the features, it costs as much as their product.
    """
    vector = F.unwrap_udt(F.col(features))
    rows = rows.withColumn(SIZE, F.coalesce(vector["size"], F.size(vector["values"])))
    found = f"concat('a row has ', CAST({SIZE} AS STRING), ' features; the model was trained on {width}.')"
    message = f"CASE WHEN `{features}` IS NULL THEN 'a row\\'s features are null.' ELSE {found} END"
    refusal = f"CAST(raise_error({message}) AS BOOLEAN)"
    return rows.where(f"CASE WHEN `{features}` IS NOT NULL AND {SIZE} = {width} THEN TRUE ELSE {refusal} END")


def _of_numbers(session: Any, matrix: Floats, intercept: Floats, column: str, is_sparse: bool) -> Any:
    """Return the JVM's model of a number."""
    coefficients: Any = DenseVector(matrix[0])
    if is_sparse:
        coefficients = SparseVector(len(matrix[0]), np.arange(len(matrix[0])), matrix[0])
    kind = session._jvm.org.apache.spark.ml.regression.LinearRegressionModel
    model = kind(f"sparkopt-{column}", _py2java(session.sparkContext, coefficients), float(intercept[0]))
    return model.setPredictionCol(column)


def _of_classes(session: Any, matrix: Floats, column: str, is_sparse: bool) -> Any:
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
    model = kind(f"sparkopt-{column}", *java, outputs, True)
    return model.setRawPredictionCol(column).setProbabilityCol("").setPredictionCol("")


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
