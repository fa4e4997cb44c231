"""Raw predictions by pyspark.ml's own models in the JVM: rows are scored where they are, without Python workers.

Only the products of features and coefficients are theirs. The JVM's products of two dense vectors round by how long
they are, by the processor and by the libraries that are installed; where one of the two is sparse, they are added in
the order of features, as in `sparkopt.ml.arithmetic`. So coefficients are given as sparse ones with every entry.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from pyspark.core.context import SparkContext
from pyspark.ml.common import _py2java
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import DenseMatrix, DenseVector, SparseMatrix, SparseVector, VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.columns import quoted
from sparkopt.blocks.jvm_errors import Py4JError
from sparkopt.ml.expressions import FEW, twice
from sparkopt.typing import Floats

__all__ = ["struct_to_vector", "to_vector", "with_raw"]

logger = logging.getLogger(__name__)

FEATURES = "__sparkopt_features"
WIDE = 1024
"""Features beyond which coefficients are dense: a sparse row would be merged with every one of them."""


def with_raw(dataset: DataFrame, features: str, arrays: tuple[Floats, Floats], name: str) -> DataFrame | None:
    """Return the rows with their raw predictions, or None where the JVM cannot be asked, as on Spark Connect.

    Parameters
    ----------
    dataset : DataFrame
        Rows.
    features : str
        Column of their features, Vectors.
    arrays : tuple of ndarray of shape (outputs, features) and (outputs,)
        Coefficients and intercepts.
    name : str
        Column of the raw predictions: a number, or an array where there are several outputs.
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
    rows, column = dataset.where(_is_of_width(F.col(quoted(features)), width)), features
    if not features.isidentifier():  # the JVM's models would take a name with a dot for a field's
        rows, column = rows.withColumn(FEATURES, F.col(quoted(features))), FEATURES
    scored = DataFrame(model.setFeaturesCol(column).transform(rows._jdf), dataset.sparkSession)
    return scored if outputs == 1 else scored.withColumn(name, _with_intercepts(F.col(name), intercept))


def _with_intercepts(vector: Column, intercept: Floats) -> Column:
    """Return an array of a Vector's entries plus intercepts."""
    if len(intercept) <= FEW:
        values = F.unwrap_udt(vector)["values"]
        return F.array(*[values[index] + float(number) for index, number in enumerate(intercept)])
    values = F.unwrap_udt(twice(vector, is_vector=True))["values"]
    return F.zip_with(values, F.lit(intercept.tolist()), lambda value, number: value + number)


def _is_of_width(features: Column, width: int) -> Column:
    """Return true, or raise an error for a row of another width.

    As a condition of its own it costs next to nothing; around the features, it costs as much as their product.
    """
    row = F.unwrap_udt(features)
    size = F.coalesce(row["size"], F.size(row["values"]))
    found = F.concat(F.lit("a row has "), size.cast("string"), F.lit(f" features; the model was trained on {width}."))
    refusal = F.raise_error(F.when(features.isNull(), F.lit("a row's features are null.")).otherwise(found))
    return F.when(features.isNotNull() & (size == width), True).otherwise(refusal.cast("boolean"))


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
        return _typed(
            F.struct(
                F.lit(1).cast("byte").alias("type"),
                F.lit(None).cast("int").alias("size"),
                F.lit(None).cast("array<int>").alias("indices"),
                values.alias("values"),
            )
        )
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


def _typed(struct: Column) -> Column:
    """Return a struct as a Vector, without a change to it."""
    from pyspark.sql.classic.column import Column as ClassicColumn

    jvm: Any = SparkContext._active_spark_context._jvm  # type: ignore[union-attr]
    expressions, sequence = jvm.org.apache.spark.sql.classic.ExpressionUtils, jvm.PythonUtils.toSeq
    call = jvm.org.apache.spark.sql.catalyst.expressions.objects.StaticInvoke(
        jvm.java.lang.Class.forName("java.util.Objects"),
        jvm.org.apache.spark.ml.linalg.SQLDataTypes.VectorType(),
        "requireNonNull",
        sequence([expressions.expression(struct._jc)]),
        sequence([]),  # types to cast arguments to
        False,  # null where an argument is
        False,  # may return null
        True,  # deterministic
        jvm.scala.Option.empty(),
    )
    return ClassicColumn(expressions.column(call))
