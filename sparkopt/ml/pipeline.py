"""pyspark.ml's pipelines, which can be saved and loaded without Spark too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyspark.ml import Estimator, Transformer, pipeline
from pyspark.ml.util import MLReader, MLWriter
from pyspark.ml.wrapper import JavaParams

from sparkopt.blocks.rows import rows_of, schema_of
from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.machine import Table
from sparkopt.ml.onnx_export import save_onnx
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.saving import StageReader, StageWriter, is_written_here, load_stage
from sparkopt.ml.string_labels import with_labels
from sparkopt.ml.table_features import TableFeatures, TableFeaturesModel
from sparkopt.ml.table_scoring import transformed
from sparkopt.validation import instances

__all__ = ["Pipeline", "PipelineModel", "check_labels"]

Shared = pipeline.PipelineSharedReadWrite


class _PipelineWriter(StageWriter, pipeline.PipelineWriter):
    """Writes a pipeline."""

    @property
    def needs_jobs(self) -> bool:
        return not all(map(is_written_here, self.instance.getStages()))


class _PipelineModelWriter(StageWriter, pipeline.PipelineModelWriter):
    """Writes the model of a pipeline."""

    @property
    def needs_jobs(self) -> bool:
        return not all(map(is_written_here, self.instance.stages))


class _PipelineReader(StageReader[Any]):
    """Reads a pipeline, or the model of one, that either package saved."""

    def _load(self, path: str) -> Any:
        metadata = self._metadata(path)
        uids = metadata["paramMap"]["stageUids"]
        places = [Shared.getStagePath(uid, place, len(uids), f"{path}/stages") for place, uid in enumerate(uids)]
        stages = [load_stage(place, self.sparkSession) for place in places]
        return self.kind(stages=stages)._resetUid(metadata["uid"])


class Pipeline(pipeline.Pipeline):
    """pyspark.ml's Pipeline; without Spark, its stages are sparkopt's, and it is saved and loaded all the same.

    Parameters
    ----------
    stages : list of Estimator and Transformer
        The stages, in order.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from sparkopt.ml import LinearRegression, Pipeline
    >>> table = pa.table({"x": [0.0, 1.0, 2.0, 3.0], "label": [1.0, 3.0, 5.0, 7.0]})
    >>> model = Pipeline(stages=[LinearRegression(featuresCols=["x"])]).fit(table)
    >>> model.transform(table).column_names
    ['x', 'label', 'prediction']
    """

    @illegal_arguments()
    def _fit(self, dataset: Any) -> PipelineModel:
        stages = self._checked(dataset)
        takes_raw = any(isinstance(stage, TableFeatures) for stage in stages)
        rows: Any = rows_of(dataset) if takes_raw else dataset  # a table's features are computed while it is read
        return PipelineModel(pipeline.Pipeline(stages=with_labels(stages, rows))._fit(rows).stages)

    def _checked(self, dataset: Any) -> Any:
        """Return the stages, or refuse what are none."""
        if not self.isDefined(self.stages):
            raise ParameterError("stages is not set: a Pipeline needs a list of stages.")
        stages = instances("stages", self.getStages())
        for stage in stages:
            if not isinstance(stage, (Estimator, Transformer)):
                raise ParameterError(f"stages has {stage!r}, which is neither an Estimator nor a Transformer.")
            if isinstance(stage, JavaParams) and isinstance(rows_of(dataset), Table):
                raise IncompatibleError(
                    f"{type(stage).__name__} is pyspark.ml's stage, which takes a DataFrame of Spark: give "
                    f"spark.createDataFrame(rows), or a stage that needs no Spark, such as TableFeatures."
                )
        check_labels(stages, dataset)
        return stages

    def write(self) -> MLWriter:
        """Return a writer: ``pipeline.write().overwrite().save(path)``. pyspark.ml's class can load it too."""
        return super().write() if _is_java(self.getStages()) else _PipelineWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:  # type: ignore[override]  # without Spark too
        """Return a reader: ``Pipeline.read().load(path)``. It reads pyspark.ml's pipelines too."""
        return _PipelineReader(cls)


def check_labels(stages: Sequence[Any], dataset: Any) -> None:
    """Refuse features that are made of the label of an estimator behind them: it would be predicted by itself.

    Raises
    ------
    ParameterError
        With what `TableFeatures` has to be told.
    """
    for place, features in enumerate(stages):
        if not isinstance(features, TableFeatures) or features.isDefined(features.formula):
            continue
        named = features.getInputCols() if features.isDefined(features.inputCols) else None
        aside = {features.getLabelCol(), *features.getOrDefault(features.exclude)}
        for stage in stages[place + 1 :]:
            if not stage.hasParam("labelCol") or stage.getLabelCol() in aside:
                continue
            label = stage.getLabelCol()
            if label in (schema_of(rows_of(dataset)).names if named is None else named):
                raise ParameterError(
                    f"{type(stage).__name__} has labelCol={label!r}, of which TableFeatures would make features. "
                    f"Give TableFeatures(labelCol={label!r}) too."
                )


class PipelineModel(pipeline.PipelineModel):
    """pyspark.ml's PipelineModel, which can be saved and loaded without Spark.

    Arrow, pandas and Polars get the outputs of all stages but the features of `TableFeatures`: they may be thousands.

    Parameters
    ----------
    stages : list of Transformer
        The stages, in order.
    """

    def _transform(self, dataset: Any) -> Any:
        features = {stage.getOutputCol() for stage in self.stages if isinstance(stage, TableFeaturesModel)}
        if not features or not Table.accepts(dataset) or isinstance(dataset, Table):
            return super()._transform(dataset)
        outline = Table.outline(dataset)
        if outline is not None:
            found = self._of_table(outline)
            schema = pa.schema([field for field in found.schema if field.name not in features])
            return found.with_parts(found.partitions, schema).mapped(dataset)
        return transformed(dataset, Table.of(dataset), self._of_table, features)

    def _of_table(self, rows: Any) -> Any:
        """Return a table with the outputs."""
        return super()._transform(rows)

    def copy(self, extra: Any = None) -> PipelineModel:
        """Return a copy, with other values of some parameters."""
        return PipelineModel([stage.copy(extra or {}) for stage in self.stages])

    def toOnnx(self, path: str, precision: str = "double") -> None:
        """Write `TableFeatures` or VectorAssembler, and the linear model after it, as one model in ONNX's format.

        Its inputs are the columns of the rows, rows × 1 each: numbers, with NaN for missing ones; categories as text,
        with "" for missing ones, "1" for numbers, "true" for booleans; dates and timestamps as days since 1970-01-01,
        with a fraction. Its outputs are those of the last stage.

        Parameters
        ----------
        path : str
            The file, or its URI.
        precision : {"double", "float"}, default "double"
            Type of the numbers. In "double" predictions are equal to rounding.

        Raises
        ------
        MissingDependencyError
            Where the package onnx is not installed.
        IncompatibleError
            For another stage, or a column whose categories are hashed.
        """
        save_onnx(list(self.stages), path, precision)

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``. pyspark.ml's class can load it too."""
        return super().write() if _is_java(self.stages) else _PipelineModelWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:  # type: ignore[override]  # without Spark too
        """Return a reader: ``PipelineModel.read().load(path)``. It reads pyspark.ml's models too."""
        return _PipelineReader(cls)


def _is_java(stages: Any) -> bool:
    return bool(stages) and Shared.checkStagesForJava(stages)
