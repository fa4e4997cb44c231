"""Stages of a pyspark.ml Pipeline for images: one runs an image pipeline, one learns a normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import keyword_only
from pyspark.ml import Estimator, Model, Transformer
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasInputCol, HasOutputCol, HasSeed
from pyspark.sql import DataFrame

from sparkopt.blocks.names import map_in_arrow, quoted
from sparkopt.blocks.rows import rows_of, rows_to_fit
from sparkopt.errors import DataError, SchemaError
from sparkopt.images import Compose, ImageKernel, Normalize
from sparkopt.images.batches import BatchFunction
from sparkopt.images.schemas import check_image_column, check_image_field, with_nulls
from sparkopt.images.statistics import ChannelMoments
from sparkopt.machine import ProcessPool, Table, TablePart
from sparkopt.ml.saving import ParamsReadable, ParamsWritable
from sparkopt.ml.table_scoring import transformed
from sparkopt.values import dataclass

__all__ = ["ImageNormalizer", "ImageNormalizerModel", "ImageTransformer"]

_MOMENTS = "count double, mean array<double>, deviations array<double>"


def _to_json(value: Compose | str) -> str:
    """Return a pipeline as JSON, which pyspark.ml can save; parsing JSON checks it."""
    return (value if isinstance(value, Compose) else Compose.from_json(value)).to_json()


class _ImageParams(HasInputCol, HasOutputCol, HasSeed, ParamsWritable):
    """Parameters and constructor of the stages for images."""

    _input_kwargs: dict[str, Any]  # what keyword_only gathers

    pipeline: Param[str] = Param(Params._dummy(), "pipeline", "the transforms, as JSON", _to_json)
    output: Param[str] = Param(
        Params._dummy(),
        "output",
        "type of the results: vector, array, tensor, bytes, image",
        TypeConverters.toString,
    )
    mode: Param[str] = Param(
        Params._dummy(), "mode", "what a bad image does: PERMISSIVE, DROPMALFORMED, FAILFAST", TypeConverters.toString
    )
    errorCol: Param[str] = Param(
        Params._dummy(),
        "errorCol",
        "column of reasons, in mode PERMISSIVE; default outputCol + '_error'",
        TypeConverters.toString,
    )
    keyCol: Param[str] = Param(
        Params._dummy(),
        "keyCol",
        "column that identifies a row, for random transforms; default the content",
        TypeConverters.toString,
    )
    epoch: Param[int] = Param(
        Params._dummy(), "epoch", "another epoch augments every row differently", TypeConverters.toInt
    )

    @keyword_only
    def __init__(
        self,
        *,
        pipeline: Compose | str = "[]",
        inputCol: str = "image",
        outputCol: str = "features",
        output: str = "vector",
        mode: str = "PERMISSIVE",
        errorCol: str | None = None,
        keyCol: str | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        super().__init__()
        self._setDefault(
            pipeline="[]", inputCol="image", outputCol="features", output="vector", mode="PERMISSIVE", seed=0, epoch=0
        )
        self._set(**self._input_kwargs)

    def getPipeline(self) -> Compose:
        """Return the transforms."""
        return Compose.from_json(self.getOrDefault(self.pipeline))

    def getErrorCol(self) -> str:
        """Name of the column of reasons in mode PERMISSIVE."""
        return self.getOrDefault(self.errorCol) if self.isDefined(self.errorCol) else f"{self.getOutputCol()}_error"

    def _key(self) -> str | None:
        return self.getOrDefault(self.keyCol) if self.isDefined(self.keyCol) else None

    def _kernel(self, output: str) -> ImageKernel:
        """Return the checked pipeline; no row is read."""
        chosen = {name: self.getOrDefault(name) for name in ("mode", "seed", "epoch")}
        return ImageKernel(self.getPipeline(), output, **chosen)

    def _checked(self, dataset: DataFrame | Table) -> DataFrame | Table:
        """Return the rows, if they have the columns."""
        if isinstance(dataset, Table):
            dataset, names = with_nulls(dataset, self.getInputCol()), dataset.names
            check_image_field(dataset.schema, self.getInputCol())
        else:
            names = dataset.columns
            check_image_column(dataset.schema, self.getInputCol())
        key = self._key()
        if key is not None and key not in names:
            raise SchemaError(f"keyCol: there is no column {key!r}. The columns are {', '.join(names)}.")
        return dataset


class ImageTransformer(_ImageParams, Transformer, ParamsReadable["ImageTransformer"]):
    """Run an image pipeline on a column, as a stage of a pyspark.ml Pipeline, or without Spark on a table.

    ``transform`` takes a DataFrame, or what ``sparkopt.Table.of`` takes: Arrow and pandas are returned as they came;
    of files it returns a table, whose images are processed where and when they are read.

    Parameters
    ----------
    pipeline : sparkopt.images.Compose
        What to do with each image.
    inputCol : str, default "image"
        Encoded images (binary), paths (string), or Spark's image schema.
    outputCol : str, default "features"
        Column of the results.
    output : {"vector", "array", "tensor", "bytes", "image"}, default "vector"
        Type of the results; see :func:`sparkopt.images.udf`.
    mode : {"PERMISSIVE", "DROPMALFORMED", "FAILFAST"}, default "PERMISSIVE"
        What a bad image does: it becomes null with its reason in ``errorCol``, its row is dropped, or the job fails.
        Estimators do not take nulls: train with DROPMALFORMED.
    errorCol : str, default ``outputCol`` + "_error"
        Column of reasons in mode PERMISSIVE; null where the image is good.
    keyCol : str, optional
        Column that identifies a row (integer, string or binary): random transforms depend on (seed, key, epoch)
        alone. By default the image's content is the key.
    seed, epoch : int, default 0
        For random transforms.

    Raises
    ------
    SchemaError, ParameterError
        From ``transform``, before any job.

    Examples
    --------
    >>> from pyspark.ml import Pipeline
    >>> from sparkopt import images
    >>> from sparkopt.ml import LogisticRegression
    >>> small = images.Compose([images.Decode("gray"), images.Resize(8, 8), images.Rescale(1 / 255)])
    >>> stage = ImageTransformer(pipeline=small, inputCol="content", outputCol="pixels", mode="DROPMALFORMED")
    >>> model = Pipeline(stages=[stage, LogisticRegression(featuresCol="pixels", regParam=0.1)]).fit(df)
    >>> model.stages[-1].numFeatures
    64
    """

    def _transform(self, dataset: Any) -> Any:
        rows = self._checked(rows_of(dataset))
        kernel = self._kernel(self.getOrDefault(self.output))
        reason = self.getErrorCol() if kernel.mode == "PERMISSIVE" else None
        batches = BatchFunction(
            kernel, self.getInputCol(), self.getOutputCol(), reason, self._key(), drop_input=False
        )
        if isinstance(rows, Table):
            return transformed(dataset, rows, batches.applied)
        # Whole batches rather than an expression: Spark bounds their bytes whatever the source, and evaluates once.
        return map_in_arrow(rows, batches, batches.schema(rows.schema, any_names=True))


class ImageNormalizerModel(Model, ImageTransformer):
    """An :class:`ImageTransformer` whose pipeline ends in the learnt normalisation."""

    @property
    def normalization(self) -> Normalize:
        """Mean and standard deviation of each channel."""
        last = self.getPipeline().transforms[-1]
        if not isinstance(last, Normalize):
            raise DataError("the pipeline of an ImageNormalizerModel must end in Normalize.")
        return last


class ImageNormalizer(_ImageParams, Estimator[ImageNormalizerModel], ParamsReadable["ImageNormalizer"]):
    """Learn the mean and standard deviation of each channel over the data set, in one pass, after ``pipeline``.

    The model runs ``pipeline`` followed by ``Normalize(mean, std)``. A channel that is constant is divided by 1. Bad
    images are left out; in mode FAILFAST they fail the job. Parameters are those of :class:`ImageTransformer`.

    Examples
    --------
    >>> from sparkopt import images
    >>> small = images.Compose([images.Decode(), images.Resize(32, 32), images.Rescale(1 / 255)])
    >>> model = ImageNormalizer(pipeline=small, inputCol="content").fit(df)
    >>> [round(mean, 1) for mean in model.normalization.mean]
    [0.5, 0.5, 0.5]
    """

    def _fit(self, dataset: Any) -> ImageNormalizerModel:
        rows = self._checked(rows_to_fit(dataset))
        kernel = self._kernel("tensor")
        key = self._key()
        columns = [self.getInputCol(), *([] if key is None or key == self.getInputCol() else [key])]
        measure = _Moments(BatchFunction(kernel, columns[0], "tensor", "error", key))
        if isinstance(rows, Table):
            with ProcessPool.shared() as pool:
                parts = [one for found in pool.run(_PartMoments(measure, columns), rows.partitions) for one in found]
        else:
            chosen = rows.select(*map(quoted, columns))
            parts = [tuple(row) for row in map_in_arrow(chosen, measure, _MOMENTS).collect()]
        if not parts:
            raise DataError(f"inputCol: column {columns[0]!r} holds no image that can be decoded.")
        moments = reduce(
            add, (ChannelMoments(count, np.array(mean), np.array(squares)) for count, mean, squares in parts)
        )
        std = np.where(moments.std > 0, moments.std, 1.0)
        normalize = Normalize(tuple(moments.mean.tolist()), tuple(std.tolist()))
        model = self._copyValues(ImageNormalizerModel())
        return model._set(pipeline=Compose([*kernel.pipeline.transforms, normalize]))


class _Moments:
    """Reduce each partition to the moments of its images."""

    def __init__(self, batches: BatchFunction) -> None:
        self._batches = batches

    def __call__(self, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total: ChannelMoments | None = None
        for batch in self._batches(rows):
            for tensor in batch.column("tensor"):
                if not tensor.is_valid:
                    continue
                image = np.frombuffer(tensor["data"].as_buffer(), tensor["dtype"].as_py())
                moments = ChannelMoments.of(image.reshape(tensor["shape"].as_py()))
                total = moments if total is None else total + moments
        if total is not None:
            columns = [[total.count], [total.mean.tolist()], [total.deviations.tolist()]]
            yield pa.RecordBatch.from_arrays(
                [pa.array(column) for column in columns], ["count", "mean", "deviations"]
            )


@dataclass(frozen=True)
class _PartMoments:
    """The moments of a table's partition, as Spark's rows have them."""

    measure: _Moments
    columns: list[str]

    def __call__(self, part: TablePart) -> list[tuple[Any, ...]]:
        batches = self.measure(part.batches(self.columns))
        return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]
