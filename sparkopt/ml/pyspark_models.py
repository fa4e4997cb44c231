"""Linear models in pyspark.ml's files: read as sparkopt's, and written for pyspark.ml, with Spark or without it."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.ml.linalg import DenseMatrix, DenseVector, MatrixUDT, VectorUDT
from pyspark.ml.param import Param
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter
from pyspark.sql.types import BooleanType, DoubleType, IntegerType, StructField, StructType

from sparkopt.errors import DataError, IncompatibleError
from sparkopt.io.saved import FileSession
from sparkopt.losses import Huber
from sparkopt.ml.scores import LinearScores
from sparkopt.ml.warm_start import split_weights
from sparkopt.typing import Floats

__all__ = ["PYSPARK_MODELS", "class_for_pyspark", "of_pyspark", "write_for_pyspark"]

PYSPARK_MODELS = {
    f"org.apache.spark.ml.{theirs}": f"sparkopt.ml.{ours}"
    for theirs, ours in (
        ("classification.LogisticRegressionModel", "classification.LogisticRegressionModel"),
        ("classification.LinearSVCModel", "svm.LinearSVCModel"),
        ("regression.LinearRegressionModel", "regression.LinearRegressionModel"),
        ("regression.GeneralizedLinearRegressionModel", "generalized.GeneralizedLinearRegressionModel"),
        ("regression.AFTSurvivalRegressionModel", "survival.AFTSurvivalRegressionModel"),
        ("regression.FMRegressionModel", "factorization.FMRegressionModel"),
        ("classification.FMClassificationModel", "factorization.FMClassificationModel"),
        (
            "classification.MultilayerPerceptronClassificationModel",
            "multilayer.MultilayerPerceptronClassificationModel",
        ),
    )
}
"""sparkopt's models, by the class in the metadata of pyspark.ml's."""
OF_THE_FIT = "Bounds"
"""In the names of parameters that a model has no use for, whose JSON is that of a Matrix or a Vector."""
THEIR_SOLVERS = {
    "FMRegressionModel": ("gd", "adamW"),
    "FMClassificationModel": ("gd", "adamW"),
    "MultilayerPerceptronClassificationModel": ("gd", "l-bfgs"),
}
"""Solvers that pyspark.ml's models of these kinds may name; others are left to its default."""
MAPS = ("paramMap", "defaultParamMap")
"""Where metadata have parameters."""


def of_pyspark(kind: Any, metadata: dict[str, Any], row: Any) -> Any:
    """Return the model that pyspark.ml saved with this metadata and row of numbers.

    Parameters
    ----------
    kind : type
        sparkopt's class of the model.
    metadata : dict
        What its ``metadata`` file says.
    row : mapping
        Its numbers, by their names in ``data``: Vectors and Matrices, or the structs that Parquet keeps of them.

    Raises
    ------
    DataError
        Where a number is missing, as in models of Spark 1.
    """
    names = set(row.asDict() if hasattr(row, "asDict") else row)
    given, auxiliary = {**metadata.get("defaultParamMap", {}), **metadata.get("paramMap", {})}, np.zeros(0)
    try:
        if "factors" in names:
            linear, factors = _array(row["linear"], VectorUDT()), _array(row["factors"], MatrixUDT())
            matrix, auxiliary = np.concatenate([linear[None, :], factors.T]), np.array([float(row["intercept"])])
            intercept = np.zeros(len(matrix))
        elif "weights" in names:
            matrix, intercept, auxiliary = split_weights(_array(row["weights"], VectorUDT()), given["layers"])
            matrix = matrix.T
        elif "coefficientMatrix" in names:
            matrix, intercept = (
                _array(row["coefficientMatrix"], MatrixUDT()),
                _array(row["interceptVector"], VectorUDT()),
            )
        else:
            matrix, intercept = _array(row["coefficients"], VectorUDT())[None, :], np.array([float(row["intercept"])])
    except (KeyError, ValueError) as error:
        raise DataError(
            f"the {metadata['class']} of Spark {metadata.get('sparkVersion')} has no {error}. Load it with "
            f"pyspark.ml, and save it again."
        ) from None
    own = dict(metadata)
    for key in MAPS:
        own[key] = {name: value for name, value in metadata.get(key, {}).items() if not _is_of_the_fit(name)}
    params = {**own["defaultParamMap"], **own["paramMap"]}
    if params.get("loss") == "huber":
        auxiliary = np.array([Huber(params["epsilon"]).parameter(float(row["scale"]))])
    elif "AFTSurvival" in metadata["class"]:
        auxiliary = np.log([float(row["scale"])])
    model = kind(matrix, intercept, auxiliary)._resetUid(metadata["uid"])
    DefaultParamsReader.getAndSetParams(model, own)
    return model


def _is_of_the_fit(name: str) -> bool:
    return OF_THE_FIT in name or name == "initialWeights"


def _array(value: Any, kind: Any) -> Floats:
    """Return a Vector or Matrix as an array, or the struct that Parquet keeps of one."""
    if isinstance(value, dict):
        value = kind.deserialize(tuple(value.values()))
    found: Floats = np.asarray(value.toArray(), dtype=np.float64)
    return found


def class_for_pyspark(model: Any) -> str:
    """Return the class in the metadata of pyspark.ml's model of this kind.

    Raises
    ------
    IncompatibleError
        For a model that pyspark.ml has not.
    """
    own = f"{type(model).__module__}.{type(model).__name__}"
    theirs = next((theirs for theirs, ours in PYSPARK_MODELS.items() if ours == own), None)
    if theirs is None:
        raise IncompatibleError(f"pyspark.ml has no {type(model).__name__} to write one for. Use format('internal').")
    return theirs


def write_for_pyspark(model: Any, path: str, session: Any) -> None:
    """Write a linear model as pyspark.ml's own, which Spark loads in Python, Scala, Java and R.

    Parameters
    ----------
    model : LinearModel
        The model. Features that are a list of columns are those of a Vector column, in their order.
    path : str
        The folder.
    session : SparkSession or FileSession
        Writes the files.

    Raises
    ------
    IncompatibleError
        For a model that pyspark.ml has not.
    """
    theirs = class_for_pyspark(model)
    module, _, name = theirs.replace("org.apache.spark", "pyspark").rpartition(".")
    kind = getattr(import_module(module), name)
    known = {one for one in dir(kind) if isinstance(getattr(kind, one), Param) and not _is_of_the_fit(one)}
    if (
        model.hasParam("solver")
        and not isinstance(model._scores, LinearScores)
        and model.getSolver() not in THEIR_SOLVERS[name]
    ):
        known.remove("solver")
    metadata = json.loads(DefaultParamsWriter._get_metadata_to_save(model, session))
    metadata["class"] = theirs
    for key in MAPS:
        metadata[key] = {one: value for one, value in metadata[key].items() if one in known}
    line = json.dumps(metadata, separators=(",", ":"))
    session.createDataFrame([(line,)], schema=["value"]).coalesce(1).write.text(f"{path}/metadata")
    schema, values = _numbers(model)
    rows: Any = [values]
    if isinstance(session, FileSession):
        rows, schema = _in_arrow(schema, values), None
    session.createDataFrame(rows, schema).coalesce(1).write.parquet(f"{path}/data")


def _numbers(model: Any) -> tuple[StructType | None, tuple[Any, ...]]:
    """Return what pyspark.ml keeps of such a model: names and types, and their values."""
    matrix, intercept = model.arrays
    fields: list[tuple[str, Any, Any]]
    if hasattr(model, "factors"):
        fields = [
            ("intercept", DoubleType(), model.intercept),
            ("linear", VectorUDT(), model.linear),
            ("factors", MatrixUDT(), model.factors),
        ]
    elif hasattr(model, "weights"):
        fields = [("weights", VectorUDT(), model.weights)]
    elif hasattr(model, "coefficientMatrix"):
        entries = DenseMatrix(matrix.shape[0], matrix.shape[1], matrix.ravel().tolist(), isTransposed=True)
        several, classes = len(matrix) > 1, model.numClasses
        fields = [
            ("numClasses", IntegerType(), classes),
            ("numFeatures", IntegerType(), matrix.shape[1]),
            ("interceptVector", VectorUDT(), DenseVector(intercept)),
            ("coefficientMatrix", MatrixUDT(), entries),
            ("isMultinomial", BooleanType(), several),
        ]
    else:
        fields = [
            ("coefficients", VectorUDT(), DenseVector(matrix[0])),
            ("intercept", DoubleType(), float(intercept[0])),
        ]
        if hasattr(model, "scale"):
            fields.append(("scale", DoubleType(), float(model.scale)))
    types = StructType([StructField(name, kind) for name, kind, _ in fields])
    return types, tuple(value for _, _, value in fields)


ARROW = {
    VectorUDT: pa.struct(
        {"type": pa.int8(), "size": pa.int32(), "indices": pa.list_(pa.int32()), "values": pa.list_(pa.float64())}
    ),
    MatrixUDT: pa.struct(
        {
            "type": pa.int8(),
            "numRows": pa.int32(),
            "numCols": pa.int32(),
            "colPtrs": pa.list_(pa.int32()),
            "rowIndices": pa.list_(pa.int32()),
            "values": pa.list_(pa.float64()),
            "isTransposed": pa.bool_(),
        }
    ),
    IntegerType: pa.int32(),
    DoubleType: pa.float64(),
    BooleanType: pa.bool_(),
}
"""Types of the columns in files, by Spark's."""


def _in_arrow(schema: Any, values: tuple[Any, ...]) -> pa.Table:
    """Return the numbers as a table that Spark reads with Vectors and Matrices."""
    columns = {}
    for field, value in zip(schema, values, strict=True):
        kind = ARROW[type(field.dataType)]
        if pa.types.is_struct(kind):
            value = dict(zip([part.name for part in kind], field.dataType.serialize(value), strict=True))
        columns[field.name] = pa.array([value], kind)
    return pa.table(columns).replace_schema_metadata({"org.apache.spark.sql.parquet.row.metadata": schema.json()})
