"""pyspark.ml's pipelines, which can be saved and loaded without Spark too."""

from __future__ import annotations

from typing import Any

from pyspark.ml import pipeline
from pyspark.ml.util import MLReader, MLWriter

from sparkopt.ml.saving import StageReader, StageWriter, load_stage

__all__ = ["Pipeline", "PipelineModel"]

Shared = pipeline.PipelineSharedReadWrite


class _PipelineWriter(StageWriter, pipeline.PipelineWriter):
    """Writes a pipeline."""


class _PipelineModelWriter(StageWriter, pipeline.PipelineModelWriter):
    """Writes the model of a pipeline."""


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

    def _fit(self, dataset: Any) -> PipelineModel:
        return PipelineModel(super()._fit(dataset).stages)

    def write(self) -> MLWriter:
        """Return a writer: ``pipeline.write().overwrite().save(path)``. pyspark.ml's class can load it too."""
        return super().write() if _is_java(self.getStages()) else _PipelineWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:  # type: ignore[override]  # without Spark too
        """Return a reader: ``Pipeline.read().load(path)``. It reads pyspark.ml's pipelines too."""
        return _PipelineReader(cls)


class PipelineModel(pipeline.PipelineModel):
    """pyspark.ml's PipelineModel, which can be saved and loaded without Spark.

    Parameters
    ----------
    stages : list of Transformer
        The stages, in order.
    """

    def copy(self, extra: Any = None) -> PipelineModel:
        """Return a copy, with other values of some parameters."""
        return PipelineModel([stage.copy(extra or {}) for stage in self.stages])

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``. pyspark.ml's class can load it too."""
        return super().write() if _is_java(self.stages) else _PipelineModelWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:  # type: ignore[override]  # without Spark too
        """Return a reader: ``PipelineModel.read().load(path)``. It reads pyspark.ml's models too."""
        return _PipelineReader(cls)


def _is_java(stages: Any) -> bool:
    return bool(stages) and Shared.checkStagesForJava(stages)
