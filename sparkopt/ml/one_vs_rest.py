"""pyspark.ml's OneVsRest, of tables without Spark too, and saved and loaded without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.ml import Estimator, classification
from pyspark.ml.param.shared import HasRawPredictionCol, HasWeightCol
from pyspark.ml.util import DefaultParamsReader, JavaMLWritable, MLReader, MLWriter
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StructType

from sparkopt.blocks.columns import Columns
from sparkopt.blocks.names import column_text
from sparkopt.blocks.reader import HINT
from sparkopt.blocks.rows import Rows, rows_to_fit, schema_of
from sparkopt.blocks.tables import named_table, number_of
from sparkopt.blocks.validity import valid_rows
from sparkopt.errors import DataError, ParameterError
from sparkopt.machine import Table, TablePart
from sparkopt.machine.part import OfPart
from sparkopt.ml.class_weights import FROM_0, INFERRED_CLASSES, MOST_CLASSES
from sparkopt.ml.model import NUMBER, VECTOR, wanted_columns
from sparkopt.ml.params import FeatureParams
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.row_scorer import RestScorer
from sparkopt.ml.saving import StageReader, StageWriter, is_written_here, load_stage
from sparkopt.ml.table_scoring import is_scored_here, scored
from sparkopt.ml.table_tasks import for_each_part
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["OneVsRest", "OneVsRestModel"]

LABEL = "mc2b$"
"""Begins the names of the columns that say whether a row is of a class; pyspark.ml's."""
LABELS = Interval(0, MOST_CLASSES - 1, whole=True)


class OneVsRest(classification.OneVsRest[Any]):
    """pyspark.ml's OneVsRest: one model for each class, which is told from all others, also without Spark.

    Parameters
    ----------
    featuresCol, labelCol, predictionCol, rawPredictionCol : str
        Columns, under pyspark.ml's names by default. Where the classifier has ``featuresCols``, it reads these.
    classifier : LogisticRegression or LinearSVC
        Trains the model of each class.
    weightCol : str, optional
        Column of row weights.
    parallelism : int, default 1
        Threads that train on Spark.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from sparkopt.ml import LinearSVC, OneVsRest
    >>> rows = pa.table({"features": [[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]], "label": [0, 1, 2]})
    >>> model = OneVsRest(classifier=LinearSVC(regParam=0.01)).fit(rows)
    >>> model.transform(rows)["prediction"].to_pylist()
    [0.0, 1.0, 2.0]
    """

    @illegal_arguments()
    def _fit(self, dataset: Any) -> OneVsRestModel:
        rows = rows_to_fit(dataset)
        self._check(schema_of(rows))
        if isinstance(rows, Table) or not isinstance(self._features(), str):
            return self._copyValues(OneVsRestModel(self._models(rows)))
        self._classes(rows)
        return self._copyValues(OneVsRestModel(super()._fit(dataset).models))

    def _features(self) -> str | list[str]:
        """Return the columns of features: the classifier's own, where it names several."""
        classifier: Any = self.getClassifier()
        if not isinstance(classifier, FeatureParams) or not classifier.isSet(classifier.featuresCols):
            return str(self.getFeaturesCol())
        if self.isSet(self.featuresCol):
            raise ParameterError(
                f"featuresCol={self.getFeaturesCol()!r} and the classifier's featuresCols are both set. "
                "Leave one out."
            )
        return classifier.getFeaturesCols()

    def _check(self, schema: StructType) -> None:
        """Refuse, before the first job, what cannot be trained."""
        if not self.isSet(self.classifier):
            raise ParameterError("classifier is not set: OneVsRest needs one, such as LogisticRegression().")
        found: Any = self.getClassifier()
        if not isinstance(found, Estimator) or not isinstance(found, HasRawPredictionCol):
            raise ParameterError(
                f"classifier must be an Estimator of two classes, such as LogisticRegression() or LinearSVC(). "
                f"Got {found!r} instead."
            )
        check("parallelism", self.getParallelism(), Interval(1, None, whole=True))
        weight = self.getWeightCol() if self.isDefined(self.weightCol) and self.getWeightCol() else None
        Columns(self._features(), self.getLabelCol(), weight=weight).check(schema)

    def _refuse_many(self, largest: float | None) -> None:
        """Refuse a label that is more likely an amount than a class."""
        if (largest or 0) >= INFERRED_CLASSES:
            raise DataError(
                f"label column {self.getLabelCol()!r} has labels up to {largest:g}, and OneVsRest trains a model for "
                f"each class: {largest:g} is more than {INFERRED_CLASSES - 1}. Use LinearRegression for numbers that "
                f"are no classes, LogisticRegression(family='multinomial') for so many classes."
            )

    def _classes(self, rows: Rows) -> int:
        """Return how many classes the labels are of."""
        label = self.getLabelCol()
        if isinstance(rows, Table):
            largest: float | None = max(for_each_part(_Largest(label), rows), default=-1)
        else:
            number = F.col(column_text(rows.schema, label, "label")).cast("double")
            largest = rows.agg(F.max(F.nanvl(number, F.lit(-1.0)))).collect()[0][0]
        self._refuse_many(largest)
        return 1 + int(-1 if largest is None else largest)

    def _models(self, rows: Rows) -> list[Any]:
        """Return the model of each class."""
        classifier: Any = self.getClassifier()
        label, features = self.getLabelCol(), self._features()
        if classifier.hasParam("handleInvalid") and classifier.getOrDefault("handleInvalid") != "error":
            rows = valid_rows(rows, features, [label])
        rows = named_table(rows, [label]) if isinstance(rows, Table) else rows
        classes = self._classes(rows)
        if not classes:
            raise DataError("there are no rows to train on: the table is empty.")
        shared = {classifier.predictionCol: self.getPredictionCol()}
        if isinstance(features, str):
            shared[classifier.featuresCol] = features
        if self.isDefined(self.weightCol) and self.getWeightCol() and isinstance(classifier, HasWeightCol):
            shared[classifier.weightCol] = self.getWeightCol()
        maps = [{**shared, classifier.labelCol: f"{LABEL}{number}"} for number in range(classes)]
        found = dict(classifier.fitMultiple(_labelled(rows, label, classes), maps))
        return [found[number] for number in range(classes)]

    def write(self) -> MLWriter:
        """Return a writer: ``estimator.write().overwrite().save(path)``. pyspark.ml's class can load it too."""
        return super().write() if isinstance(self.getClassifier(), JavaMLWritable) else _Writer(self)

    @classmethod
    def read(cls) -> MLReader[Any]:  # type: ignore[override]  # without Spark too
        """Return a reader: ``OneVsRest.read().load(path)``. It reads what pyspark.ml's class saved in Python too."""
        return _Reader(cls)


def _labelled(rows: Rows, label: str, classes: int) -> Rows:
    """Return rows with a column for each class that says whether they are of it."""
    names = [f"{LABEL}{number}" for number in range(classes)]
    if isinstance(rows, Table):
        fields = [pa.field(name, pa.float64()) for name in names]
        parts = (BinaryPart(part, label, classes) for part in rows.partitions)
        return rows.with_parts(parts, pa.schema([*rows.schema, *fields], rows.schema.metadata))
    number = F.col(column_text(rows.schema, label, "label")).cast("double")
    columns = ((number == place).cast("double").alias(name) for place, name in enumerate(names))
    return rows.select("*", *columns)


class OneVsRestModel(classification.OneVsRestModel):
    """pyspark.ml's OneVsRestModel, which scores tables too.

    Parameters
    ----------
    models : list of LogisticRegressionModel or LinearSVCModel
        The model of each class.
    """

    @illegal_arguments()
    def _transform(self, dataset: Any) -> Any:
        return scored(self, dataset) if is_scored_here(dataset) else super()._transform(dataset)

    def _first(self) -> Any:
        return self.models[0]

    def _features(self) -> str | list[str]:
        features: str | list[str] = self._first()._features()
        return features

    def _columns(self) -> Columns:
        columns: Columns = self._first()._columns()
        return columns

    def _wanted(self, taken: Sequence[str]) -> dict[str, tuple[str, DataType]]:
        outputs = {
            "rawPrediction": (self.getRawPredictionCol(), VECTOR),
            "prediction": (self.getPredictionCol(), NUMBER),
        }
        return wanted_columns(outputs, taken)

    def _row_scorer(self, columns: Sequence[str]) -> RestScorer:
        models: list[Any] = list(self.models)
        keeps = self._columns().invalid != "error"
        return RestScorer([model._scores for model in models], models[0]._features(), tuple(columns), keeps)

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``. pyspark.ml's class can load it too."""
        is_java = all(isinstance(stage, JavaMLWritable) for stage in (self.getClassifier(), *self.models))
        return super().write() if is_java else _ModelWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:  # type: ignore[override]  # without Spark too
        """Return a reader: ``OneVsRestModel.read().load(path)``. It reads what pyspark.ml's class saved in Python."""
        return _ModelReader(cls)


@dataclass(frozen=True)
class _Largest:
    """The task: the largest label of a part; −1 where it has no rows."""

    label: str

    def __call__(self, part: TablePart) -> float:
        largest, first = -1.0, 0
        for batch in part.batches([self.label]):
            labels = number_of(batch, self.label)
            inside = LABELS.contains(labels)
            if not inside.all():
                row = int(np.flatnonzero(~inside)[0])
                raise DataError(
                    f"label column {self.label!r}, {part.name}, row {first + row} is {labels[row]:g}; it must be "
                    f"{LABELS}. {FROM_0 if np.isfinite(labels[row]) else HINT}"
                )
            largest, first = max(largest, labels.max(initial=-1.0)), first + batch.num_rows
        return largest


@dataclass(frozen=True)
class BinaryPart(OfPart):
    """A part whose last columns say of each class whether a row is of it.

    Parameters
    ----------
    part : TablePart
        The rows.
    label : str
        Column of classes.
    classes : int
        How many there are.
    """

    label: str
    classes: int

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        own = {f"{LABEL}{number}": float(number) for number in range(self.classes)}
        read = None if columns is None else [name for name in columns if name not in own]
        for batch in self.part.batches(read if read is None else list(dict.fromkeys([*read, self.label]))):
            wanted = [*batch.schema.names, *own] if columns is None else list(columns)
            labels = number_of(batch, self.label)
            arrays = [
                pa.array((labels == own[name]).astype(np.float64)) if name in own else batch.column(name)
                for name in wanted
            ]
            yield pa.RecordBatch.from_arrays(arrays, wanted)


class _Writer(StageWriter, classification.OneVsRestWriter):
    """Writes a OneVsRest."""

    @property
    def needs_jobs(self) -> bool:
        return not is_written_here(self.instance.getClassifier())


class _ModelWriter(StageWriter, classification.OneVsRestModelWriter):
    """Writes the model of one."""

    @property
    def needs_jobs(self) -> bool:
        return not all(map(is_written_here, [self.instance.getClassifier(), *self.instance.models]))


class _Reader(StageReader[Any]):
    """Reads a OneVsRest."""

    def _load(self, path: str) -> Any:
        metadata = self._metadata(path)
        return self._restored(self.kind(), metadata, path)

    def _restored(self, own: Any, metadata: dict[str, Any], path: str) -> Any:
        own._resetUid(metadata["uid"])
        own._set(classifier=load_stage(f"{path}/classifier", self.sparkSession))
        DefaultParamsReader.getAndSetParams(own, metadata, skipParams=["classifier"])
        return own


class _ModelReader(_Reader):
    """Reads the model of one."""

    def _load(self, path: str) -> Any:
        metadata = self._metadata(path)
        models = [load_stage(f"{path}/model_{i}", self.sparkSession) for i in range(metadata["numClasses"])]
        return self._restored(self.kind(models), metadata, path)
