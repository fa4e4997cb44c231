"""The base of the linear models: coefficients, scoring of rows, and saving as data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import scipy  # loads scipy.sparse where it is used
from pyspark.ml import Model
from pyspark.ml.linalg import DenseVector, SparseVector, Vector, VectorUDT
from pyspark.ml.util import MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import ArrayType, DataType, DoubleType, FloatType, StructType

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.columns import (
    FeatureEncoder,
    column_type,
    features_column,
    features_type,
)
from sparkopt.blocks.encoded import encoder_of
from sparkopt.blocks.invalid import (
    HANDLE_INVALID,
)
from sparkopt.blocks.names import column_text
from sparkopt.blocks.row_functions import once, row_wise
from sparkopt.blocks.sent import refuse_large
from sparkopt.blocks.validity import valid_rows
from sparkopt.errors import DataError, NoSummaryError, ParameterError, SchemaError
from sparkopt.ml.encoded_rows import raw_struct
from sparkopt.ml.exports import Exports
from sparkopt.ml.expressions import Formulas, twice
from sparkopt.ml.jvm import to_vector, with_outputs, with_raw
from sparkopt.ml.online import OnlineState
from sparkopt.ml.params import LinearParams
from sparkopt.ml.persistence import ModelReader, ModelWriter
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.responses import OneNumber, Response
from sparkopt.ml.row_scorer import NOT_A_NUMBER, RowScorer, respond_in_task, score_in_task
from sparkopt.ml.scores import LinearScores, Scores
from sparkopt.ml.summary.base import Summary, TrainingSummary
from sparkopt.ml.table_scoring import is_scored_here, scored
from sparkopt.training.trainer import Fit
from sparkopt.typing import Array, Floats
from sparkopt.validation import OneOf, check

__all__ = ["NUMBER", "VECTOR", "LinearModel", "NamedCoefficient", "ScalarModel", "wanted_columns"]

S = TypeVar("S", bound=TrainingSummary)

RAW = "__sparkopt_raw"
INPUTS, SCORES = "__sparkopt_inputs", "__sparkopt_scores"
NUMBER, VECTOR = DoubleType(), VectorUDT()
Outputs: TypeAlias = dict[str, tuple[str, DataType]]
"""Name and type of output columns, by the keys of ``_outputs``."""


class NamedCoefficient(NamedTuple):
    """A coefficient.

    Attributes
    ----------
    feature : str
        The feature's name.
    output : int
        Which output it is of: the class of a multinomial model; 0 where there is one output.
    value : float
        The coefficient.
    """

    feature: str
    output: int
    value: float


class LinearModel(Model, Exports, LinearParams, MLWritable, MLReadable["LinearModel[Any]"], Generic[S]):
    """A trained linear model.

    Parameters
    ----------
    matrix : ndarray of shape (outputs, features)
        Coefficients in the user's units.
    intercept : ndarray of shape (outputs,)
        Intercepts.
    auxiliary : ndarray of shape (auxiliary,), optional
        Auxiliary parameters of the loss.

    Attributes
    ----------
    onlineState : OnlineState or None
        What ``partialFit`` continues from; None in models of ``fit``.
    """

    def __init__(self, matrix: Floats, intercept: Floats, auxiliary: Floats | None = None) -> None:
        super().__init__()
        if np.ndim(matrix) != 2 or np.shape(intercept) != np.shape(matrix)[:1]:
            raise ParameterError(
                "coefficients must have the shape (outputs, features), and intercepts (outputs,). Got "
                f"{np.shape(matrix)} and {np.shape(intercept)} instead."
            )
        # sparse products round differently in another memory order: one order, so that a loaded model predicts to the
        # last bit what the fitted one did
        self._matrix, self._intercept = np.ascontiguousarray(matrix), intercept
        self.auxiliary = np.zeros(0) if auxiliary is None else auxiliary
        self._summary: S | None = None
        self._names: tuple[str, ...] = ()
        self.onlineState: OnlineState | None = None

    def __repr__(self) -> str:
        facts = {"uid": self.uid, **self._facts(), "numFeatures": self.numFeatures}
        return f"{type(self).__name__}: {', '.join(f'{name}={value}' for name, value in facts.items())}"

    def _facts(self) -> dict[str, Any]:
        """Return what the model's text says of it, in addition to its uid and number of features."""
        return {}

    @property
    def arrays(self) -> tuple[Floats, Floats]:
        """Coefficients (outputs, features) and intercepts (outputs,) as arrays."""
        return self._matrix, self._intercept

    @property
    def numFeatures(self) -> int:
        """Number of features."""
        return int(self._matrix.shape[1])

    @property
    def featureNames(self) -> list[str]:
        """Names of the features, in the order of the coefficients; empty where none were known in training.

        They are those of featuresCols, of `TableFeatures`, or of pyspark.ml's stages, such as VectorAssembler.
        """
        return list(self._names)

    @property
    def namedCoefficients(self) -> list[NamedCoefficient]:
        """The coefficients with the names of their features, the largest first.

        In the user's units: a feature in metres has a smaller coefficient than the same one in kilometres. Features
        without a known name are called "feature 0", "feature 1", …

        Examples
        --------
        >>> from sparkopt.ml import LogisticRegression
        >>> model = LogisticRegression(featuresCols=["x1", "x2"]).fit(df)
        >>> sorted(one.feature for one in model.namedCoefficients)
        ['x1', 'x2']
        >>> sizes = [abs(one.value) for one in model.namedCoefficients]
        >>> sizes == sorted(sizes, reverse=True)
        True
        """
        return self._largest()

    def _largest(self, count: int | None = None) -> list[NamedCoefficient]:
        """Return so many of ``namedCoefficients``; None is all."""
        order = np.argsort(-np.abs(self._matrix), axis=None, kind="stable")[:count]
        return [
            NamedCoefficient(
                self._names[at] if self._names else f"feature {at}", int(of), float(self._matrix[of, at])
            )
            for of, at in zip(*np.unravel_index(order, self._matrix.shape), strict=True)
        ]

    @property
    def hasSummary(self) -> bool:
        """Whether the model was trained in this session, not loaded."""
        return self._summary is not None

    @property
    def summary(self) -> S:
        """How the training went, and how good the predictions on its rows are.

        Raises
        ------
        NoSummaryError
            For a model that was loaded.
        """
        if self._summary is None:
            raise NoSummaryError("this model has no summary: it was not trained in this session.")
        return self._summary

    def _summarise(self, dataset: Any, fit: Fit) -> None:
        """Keep how the model was trained, and on which rows."""
        solution = fit.solution
        self._summary = self._training_summary(
            model=self.copy(),
            dataset=dataset,
            objectiveHistory=[record.objective for record in solution.history],
            validationHistory=[record.validation for record in solution.history],
            totalIterations=solution.iterations,
            converged=solution.converged,
            receipt=fit.receipt,
        )

    @property
    @abstractmethod
    def _training_summary(self) -> type[S]:
        """The class of ``summary``."""

    @abstractmethod
    def evaluate(self, dataset: DataFrame) -> Summary:
        """Return how good the predictions on these rows are; a metric is computed when it is first used.

        Parameters
        ----------
        dataset : DataFrame
            Rows with features, label and, where the model was trained with them, weights.
        """

    def predict(self, value: Vector) -> float:
        """Return the prediction for one row's features."""
        return float(self._outputs_of(value)["prediction"][0])

    def _outputs_of(self, value: Vector) -> dict[str, Array]:
        """Return the output columns of one row's features, to the bit what ``transform`` makes of them.

        Of dense Vectors of more than `sparkopt.ml.jvm.WIDE` features, on Spark Classic, to rounding.
        """
        X: Any = (value.toArray() if hasattr(value, "toArray") else np.asarray(value, dtype=np.float64))[None, ...]
        if X.shape != (1, self.numFeatures):
            raise DataError(f"a row has {X[0].size} features; the model was trained on {self.numFeatures}.")
        if isinstance(value, SparseVector):
            X = scipy.sparse.csr_array((value.values, value.indices, [0, len(value.indices)]), shape=(1, value.size))
        scores = self._scores
        return scores.outputs(scores.raw(X))

    @property
    @abstractmethod
    def _response(self) -> Response:
        """What raw predictions are turned into."""

    @property
    def _scores(self) -> Scores:
        """What scores rows, wherever they are."""
        return LinearScores(self._matrix, self._response, self._intercept)

    @abstractmethod
    def _output_columns(self) -> Outputs:
        """Return the output columns; one without a name is left out."""

    def _formulas(self, raw: str) -> Formulas | None:
        """Return output columns, to the bit those of ``_response``; None where Spark has no such functions.

        Parameters
        ----------
        raw : str
            Column of raw predictions: a number, or an array where there are several outputs.
        """
        return None

    @illegal_arguments()
    def _transform(self, dataset: Any) -> Any:
        check("handleInvalid", self.getHandleInvalid(), OneOf(HANDLE_INVALID))
        return scored(self, dataset) if is_scored_here(dataset) else self._transform_on_spark(dataset)

    def _transform_on_spark(self, dataset: DataFrame) -> DataFrame:
        columns, invalid = self._wanted(dataset.columns), self.getHandleInvalid()
        if invalid == "skip":
            dataset = valid_rows(dataset, self._features(), [self._columns().offset])
        if is_connect(dataset):
            refuse_large(self._matrix.nbytes, "the model", "Score df.toArrow(), or in a Spark Classic session.")
        encoder = encoder_of(dataset, self._features())
        # the JVM's models know no null, and no raw columns
        rows = None if invalid == "keep" or encoder is not None else self._with_raw(dataset)
        formulas = None if rows is None else self._formulas(RAW)
        if rows is not None and formulas is not None:
            return with_outputs(rows, self, RAW, columns, formulas)
        if rows is None:
            rows_scorer = replace(self._row_scorer(columns), encoder=encoder)
            scorer, inputs = score_in_task(rows_scorer), self._inputs(dataset.schema, encoder)
        else:
            scorer, inputs = respond_in_task(self._response, tuple(columns)), F.col(RAW)
        udf = arrow_udf(scorer, self._scores_type(columns))  # type: ignore[call-overload]  # no structs
        scored = row_wise(dataset if rows is None else rows, {INPUTS: inputs}).withColumn(SCORES, udf(F.col(INPUTS)))
        own = [INPUTS, SCORES] if rows is None else [INPUTS, SCORES, RAW]
        # by what they are not: several of the user's columns may have one name
        return once(scored, SCORES).select(F.expr(f"* EXCEPT ({', '.join(own)})"), *self._named(columns, SCORES))

    def _with_raw(self, dataset: DataFrame) -> DataFrame | None:
        """Return the rows with a column ``RAW``, where the JVM can compute it."""
        features, offset = self._features(), self._columns().offset
        kind = features_type(dataset.schema, features)
        if not isinstance(features, str) or features not in dataset.columns:
            return None
        if not _is_taken(kind, dataset.schema[features].dataType):
            return None
        if offset is not None:
            column_type(dataset.schema, offset, "offset")
            offset = column_text(dataset.schema, offset, "offset")
        problem = f"features column {self._columns().feature_names!r}: a row {NOT_A_NUMBER}"
        is_error = self.getHandleInvalid() == "error"
        return with_raw(dataset, self, features, RAW, offset, problem if is_error else None)

    def _wanted(self, taken: Sequence[str], among: Collection[str] | None = None) -> Outputs:
        """Return the wanted output columns, or those ``among`` some names; none may be ``taken``."""
        columns = wanted_columns(self._output_columns(), taken)
        return {key: column for key, column in columns.items() if among is None or column[0] in among}

    def _inputs(self, schema: StructType, encoder: FeatureEncoder | None = None) -> Column:
        """Return what is scored: the features, or what they are made of, or a struct of that and the offset."""
        offset = self._columns().offset
        if encoder is not None:
            rows = raw_struct(schema, encoder.columns)
        else:
            rows = features_column(schema, self._features())
            if features_type(schema, self._features()) == "vector":
                rows = F.unwrap_udt(rows)
        if offset is None:
            return rows
        column_type(schema, offset, "offset")
        return F.struct(
            rows.alias("features"), F.col(column_text(schema, offset, "offset")).cast("double").alias("offset")
        )

    def _named(self, columns: Outputs, scores: str) -> list[Column]:
        """Return output columns under their names, from the column of structs that ``_score`` made."""
        return [_as(kind, F.col(f"{scores}.{key}")).alias(name) for key, (name, kind) in columns.items()]

    def _scores_type(self, columns: Outputs) -> StructType:
        """Return the type of what ``_score`` makes."""
        scored = StructType()
        for key, (_, kind) in columns.items():
            # as arrays, since Spark 4.3 cannot take Vectors from a UDF over columnar input (Parquet, cached rows)
            scored = scored.add(key, ArrayType(NUMBER) if kind == VECTOR else kind)
        return scored

    def _row_scorer(self, columns: Outputs) -> RowScorer:
        """Return what makes a struct of the output columns of ``_inputs`` in Arrow, in one pass for all of them."""
        keeps, read = self.getHandleInvalid() != "error", self._columns()
        return RowScorer(self._scores, self._features(), tuple(columns), read.offset, keeps)

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().save(path)``; with ``.format("pyspark")``, pyspark.ml's class loads it."""
        return ModelWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return a reader: ``Model.read().load(path)``. It reads pyspark.ml's models of the same name too."""
        return ModelReader(cls)


class ScalarModel(LinearModel[S]):
    """A model of one raw prediction a row."""

    @property
    def coefficients(self) -> DenseVector:
        """Coefficients, one per feature."""
        return DenseVector(self._matrix[0])

    @property
    def intercept(self) -> float:
        """Intercept; 0 without one."""
        return float(self._intercept[0])

    @property
    def _response(self) -> Response:
        return OneNumber()

    def _formulas(self, raw: str) -> Formulas | None:
        return Formulas({"prediction": twice(raw)})

    def _output_columns(self) -> dict[str, tuple[str, DataType]]:
        return {"prediction": (self.getPredictionCol(), NUMBER)}


def wanted_columns(outputs: Outputs, taken: Sequence[str]) -> Outputs:
    """Return the output columns that have a name, none of which may be ``taken``.

    Raises
    ------
    SchemaError
        Naming the column.
    """
    columns = {key: column for key, column in outputs.items() if column[0]}
    for name, _ in columns.values():
        if name in taken:
            raise SchemaError(f"output column {name!r} exists already. Rename it, or set another name.")
    return columns


def _is_taken(kind: str, column: DataType) -> bool:
    """Whether the JVM's models take features as they are, or as Spark makes doubles of floats."""
    return kind == "vector" or (
        isinstance(column, ArrayType) and isinstance(column.elementType, FloatType | DoubleType)
    )


def _as(kind: DataType, scored: Column) -> Column:
    """Return a column of scores in its own type."""
    return F.when(scored.isNotNull(), to_vector(scored)) if kind == VECTOR else scored
