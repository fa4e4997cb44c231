"""Raw predictions by pyspark.ml's own models in the JVM: rows are scored where they are, without Python workers.

Only the products of features and coefficients are theirs. The JVM's products of two dense vectors round by how long
they are, by the processor and by the libraries that are installed; where one of the two is sparse, they are added in
the order of features, as in `sparkopt.ml.arithmetic`. So coefficients are given as sparse ones with every entry.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from py4j.protocol import Py4JError
from pyspark.ml.common import _py2java
from pyspark.ml.linalg import DenseMatrix, DenseVector, SparseMatrix, SparseVector
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.columns import quoted
from sparkopt.typing import Floats

__all__ = ["with_raw"]

logger = logging.getLogger(__name__)

FEATURES = "__sparkopt_features"
WIDE = 1024
"""Features beyond which coefficients are dense: a sparse row would be merged with every one of them."""


def with_raw(
    dataset: DataFrame, features: str, arrays: tuple[Floats, Floats], name: str, *, classes: bool
) -> DataFrame | None:
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
        Column of the raw predictions: a Vector with an entry for each class, or a number.
    classes : bool
        Whether the raw predictions are of classes; one output is then of the second of two.
    """
    if is_connect(dataset):
        return None
    width = arrays[0].shape[1]
    make = _of_classes if classes else _of_numbers
    try:
        model = make(dataset.sparkSession, *arrays, name, is_sparse=0 < width <= WIDE)
    except Py4JError as error:  # clusters may allow code to use some of the JVM's classes only
        logger.warning("rows are scored by Python workers, since the JVM's models cannot be used: %s", error)
        return None
    rows, column = dataset.where(_is_of_width(F.col(quoted(features)), width)), features
    if not features.isidentifier():  # the JVM's models would take a name with a dot for a field's
        rows, column = rows.withColumn(FEATURES, F.col(quoted(features))), FEATURES
    return DataFrame(model.setFeaturesCol(column).transform(rows._jdf), dataset.sparkSession)


def _is_of_width(features: Column, width: int) -> Column:
    """Return true, or raise an error for a row of another width.

    As a condition of its own it costs next to nothing; around the features, it costs as much as their product.
    """
    row = F.unwrap_udt(features)
    size = F.coalesce(row["size"], F.size(row["values"]))
    found = F.concat(F.lit("a row has "), size.cast("string"), F.lit(f" features; the model was trained on {width}."))
    refusal = F.raise_error(F.when(features.isNull(), F.lit("a row's features are null.")).otherwise(found))
    return F.when(features.isNotNull() & (size == width), True).otherwise(refusal.cast("boolean"))


def _of_numbers(session: Any, matrix: Floats, intercept: Floats, column: str, *, is_sparse: bool) -> Any:
    """Return the JVM's model of a number."""
    coefficients: Any = DenseVector(matrix[0])
    if is_sparse:
        coefficients = SparseVector(len(matrix[0]), np.arange(len(matrix[0])), matrix[0])
    kind = session._jvm.org.apache.spark.ml.regression.LinearRegressionModel
    model = kind(f"sparkopt-{column}", _py2java(session.sparkContext, coefficients), float(intercept[0]))
    return model.setPredictionCol(column)


def _of_classes(session: Any, matrix: Floats, intercept: Floats, column: str, *, is_sparse: bool) -> Any:
    """Return the JVM's model of classes."""
    outputs, width = matrix.shape
    coefficients: Any = DenseMatrix(outputs, width, matrix.ravel(), isTransposed=True)
    if is_sparse:
        starts = np.arange(0, matrix.size + 1, width) if width else np.zeros(outputs + 1)
        places = np.tile(np.arange(width), outputs)
        coefficients = SparseMatrix(outputs, width, starts, places, matrix.ravel(), isTransposed=True)
    java = [_py2java(session.sparkContext, value) for value in (coefficients, DenseVector(intercept))]
    kind = session._jvm.org.apache.spark.ml.classification.LogisticRegressionModel
    model = kind(f"sparkopt-{column}", *java, max(2, outputs), outputs > 1)
    return model.setRawPredictionCol(column).setProbabilityCol("").setPredictionCol("")
