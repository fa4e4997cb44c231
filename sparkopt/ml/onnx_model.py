"""OnnxModel: any model of ONNX as a stage, on Spark, on Spark Connect and on one machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyspark import keyword_only
from pyspark.ml import Model
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    ByteType,
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    ShortType,
    StringType,
    StructField,
    StructType,
)

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.columns import column_type
from sparkopt.blocks.invalid import HANDLE_INVALID
from sparkopt.blocks.names import map_in_arrow
from sparkopt.blocks.rows import rows_of, schema_of
from sparkopt.blocks.sent import refuse_large
from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.io.filesystem import STORAGE_ERRORS, brief, local_path, resolve
from sparkopt.io.metadata import check_digest, digested
from sparkopt.machine import Table
from sparkopt.machine.derived import derived
from sparkopt.ml.onnx_scorer import OnnxScorer, Tensor, arrow_type, described
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.saving import StageReader, StageWriter
from sparkopt.ml.table_scoring import transformed
from sparkopt.validation import Interval, OneOf, check

__all__ = ["OnnxModel"]

O = TypeVar("O", bound="OnnxModel")  # noqa: E741
SPARK: dict[pa.DataType, DataType] = {
    pa.float64(): DoubleType(),
    pa.float32(): FloatType(),
    pa.int64(): LongType(),
    pa.int32(): IntegerType(),
    pa.int16(): ShortType(),
    pa.int8(): ByteType(),
    pa.bool_(): BooleanType(),
    pa.string(): StringType(),
}


class OnnxModel(Model, MLWritable, MLReadable["OnnxModel"]):
    """A model in ONNX's format as a stage that scores rows: of scikit-learn, XGBoost, PyTorch, Keras or CNTK.

    Parameters
    ----------
    model : bytes, str or Path
        The model, or the path or URI of its file. External data files are not read: join them into the file first.
    feedDict : dict of str to (str or list of str), optional
        For each input of the model its column, of numbers, text, lists, Vectors or tensors (those of
        ``ImageTransformer(output="tensor")``); or several columns of numbers, side by side. An input that is left out
        is the column of its name.
    fetchDict : dict of str to str, optional
        For each output column the model's output; by default all of them, under their names.
    miniBatchSize : int, default 1024
        Rows that are scored at a time; a model whose inputs have a fixed number of rows is given so many.
    handleInvalid : {"error", "skip", "keep"}, default "error"
        What becomes of rows with null, NaN or infinity: an error; left out; or null outputs.
    missing : bool, default False
        Whether the model knows missing values, as trees do, and pipelines of `PipelineModel.toOnnx`: NaN for null and
        NaN, and "" for text. Such rows are not invalid then.

    Notes
    -----
    ``transform`` takes a DataFrame of Spark or Spark Connect, or what ``sparkopt.Table.of`` takes; Arrow, pandas and
    Polars are returned as they came. A Python worker keeps its session from task to task, with as many threads as the
    task has cores. Outputs of one value a row are numbers or text, others lists of all of a row's values in order.

    Examples
    --------
    >>> from sparkopt.ml import LinearRegression, OnnxModel
    >>> LinearRegression(featuresCols=["x1", "x2"], labelCol="minutes").fit(df).toOnnx("minutes.onnx")
    >>> stage = OnnxModel(model="minutes.onnx", fetchDict={"minutes_expected": "prediction"})
    >>> stage.transform(df).columns[-1]
    'minutes_expected'
    """

    feedDict: Param[Any] = Param(Params._dummy(), "feedDict", "the column or columns of each input of the model")
    fetchDict: Param[Any] = Param(Params._dummy(), "fetchDict", "the model's output in each output column")
    miniBatchSize: Param[int] = Param(
        Params._dummy(), "miniBatchSize", "rows that are scored at a time", TypeConverters.toInt
    )
    handleInvalid: Param[str] = Param(
        Params._dummy(),
        "handleInvalid",
        "what becomes of rows with null, NaN or infinity: error, skip or keep",
        TypeConverters.toString,
    )
    missing: Param[bool] = Param(
        Params._dummy(), "missing", "whether the model knows missing values", TypeConverters.toBoolean
    )
    _input_kwargs: dict[str, Any]

    @keyword_only
    def __init__(
        self,
        *,
        model: bytes | str | Path = b"",
        feedDict: Mapping[str, str | Sequence[str]] | None = None,
        fetchDict: Mapping[str, str] | None = None,
        miniBatchSize: int = 1024,
        handleInvalid: str = "error",
        missing: bool = False,
    ) -> None:
        super().__init__()
        self._setDefault(feedDict={}, fetchDict={}, miniBatchSize=1024, handleInvalid="error", missing=False)
        self._set(**{key: v for key, v in self._input_kwargs.items() if key != "model" and v is not None})
        self._take(model if isinstance(model, bytes) else _read(model))

    def _take(self, model: bytes) -> None:
        self._bytes = model
        self._token = hashlib.sha256(model).hexdigest()
        self._tensors: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | None = None

    @property
    def modelPayload(self) -> bytes:
        """The model, as its file holds it."""
        return self._bytes

    def setModelLocation(self: O, path: str) -> O:
        """Read the model from a path or URI."""
        self._take(_read(path))
        return self

    def setFeedDict(self: O, value: Mapping[str, str | Sequence[str]]) -> O:
        """Set the column or columns of each input of the model."""
        return self._set(feedDict=dict(value))

    def setFetchDict(self: O, value: Mapping[str, str]) -> O:
        """Set the model's output in each output column."""
        return self._set(fetchDict=dict(value))

    def setMiniBatchSize(self: O, value: int) -> O:
        """Set how many rows are scored at a time."""
        return self._set(miniBatchSize=value)

    def setHandleInvalid(self: O, value: str) -> O:
        """Set what becomes of rows with null, NaN or infinity."""
        return self._set(handleInvalid=value)

    def setMissing(self: O, value: bool) -> O:
        """Set whether the model knows missing values."""
        return self._set(missing=value)

    @property
    def modelInputs(self) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        """Type and shape of each input, with the rows first; None is any number."""
        return {one.name: (one.kind, one.shape) for one in self._described()[0]}

    @property
    def modelOutputs(self) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        """Type and shape of each output."""
        return {one.name: (one.kind, one.shape) for one in self._described()[1]}

    def _described(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        if not self._bytes:
            raise ParameterError("model is not set: give OnnxModel the path or the bytes of a model.")
        if self._tensors is None:
            self._tensors = described(self._bytes)
        return self._tensors

    @illegal_arguments()
    def _transform(self, dataset: Any) -> Any:
        check("miniBatchSize", self.getOrDefault(self.miniBatchSize), Interval(1, None, whole=True))
        check("handleInvalid", self.getOrDefault(self.handleInvalid), OneOf(HANDLE_INVALID))
        rows = rows_of(dataset)
        scorer = self._scorer(schema_of(rows))
        drops = scorer.invalid == "skip"
        if isinstance(rows, Table):
            added = [pa.field(name, arrow_type(tensor)) for name, tensor in scorer.fetches]

            def scored(table: Table) -> Table:
                schema = pa.schema([*table.schema, *added], table.schema.metadata)
                return derived(table, scorer, schema, scorer.columns, [field.name for field in added], drops)

            return transformed(dataset, rows, scored)
        if is_connect(rows):
            refuse_large(len(self._bytes), "the model", "Score df.toArrow(), or in a Spark Classic session.")
        added = [StructField(name, _spark_type(tensor)) for name, tensor in scorer.fetches]
        return map_in_arrow(rows, scorer, StructType([*rows.schema.fields, *added]))

    def _scorer(self, schema: StructType) -> OnnxScorer:
        """Return what scores rows of a schema."""
        inputs, outputs = self._described()
        feeds, fetches = self.getOrDefault(self.feedDict), self.getOrDefault(self.fetchDict)
        _require_known("feedDict", feeds, inputs, "input")
        _require_known("fetchDict", fetches.values(), outputs, "output")
        by_name = {tensor.name: tensor for tensor in outputs}
        chosen = fetches or {name: name for name in by_name}
        for name in chosen:
            if name in schema.names:
                raise SchemaError(f"output column {name!r} exists already. Rename it, or set another name.")
        columns = [(tensor, _names(feeds.get(tensor.name, tensor.name))) for tensor in inputs]
        for _, names in columns:
            for name in names:
                column_type(schema, name, "input")
                if name not in schema.names:
                    known = ", ".join(schema.names)
                    raise SchemaError(f"input column {name!r} is not named as in the rows: {known}.")
        return OnnxScorer(
            self._bytes,
            self._token,
            tuple(columns),
            tuple((name, by_name[output]) for name, output in chosen.items()),
            self.getOrDefault(self.miniBatchSize),
            self.getOrDefault(self.handleInvalid),
            self.getOrDefault(self.missing),
        )

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``."""
        return _Writer(self)

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return a reader: ``OnnxModel.read().load(path)``."""
        return _Reader(cls)


def _names(columns: str | Sequence[str]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)


def _require_known(param: str, names: Any, known: Sequence[Tensor], what: str) -> None:
    every = [tensor.name for tensor in known]
    for name in names:
        if name not in every:
            raise ParameterError(f"{param}: the model has no {what} {name!r}. It has {', '.join(every)}.")


def _spark_type(tensor: Tensor) -> DataType:
    kind = arrow_type(tensor)
    return ArrayType(SPARK[kind.value_type]) if pa.types.is_list(kind) else SPARK[kind]


def _read(path: str | Path) -> bytes:
    """Return the bytes of a file."""
    name = os.fspath(path)
    try:
        local = local_path(name)
        found: bytes = Path(local).read_bytes() if local is not None else resolve(name, "model").read()
    except STORAGE_ERRORS as error:
        reason = getattr(error, "strerror", None) or brief(error)
        raise DataError(f"model: cannot read {name!r}: {reason}.") from error
    return found


class _Writer(StageWriter):
    """Writes parameters, and the model as one value of a table."""

    def __init__(self, model: OnnxModel) -> None:
        super().__init__()
        self.model = model

    def saveImpl(self, path: str) -> None:
        """Write ``metadata`` and ``data`` below ``path``."""
        session, payload = self.sparkSession, self.model.modelPayload
        DefaultParamsWriter.saveMetadata(self.model, path, session, digested(self.model, session, [payload]))
        table = pa.table({"model": pa.array([payload], pa.binary())})
        session.createDataFrame(table).coalesce(1).write.parquet(f"{path}/data")


class _Reader(StageReader[OnnxModel]):
    """Reads such a model."""

    def _load(self, path: str) -> OnnxModel:
        metadata = self._metadata(path)
        row = self.sparkSession.read.parquet(f"{path}/data").first()
        if row is None:
            raise DataError(f"{path!r} has no model: it was not written completely. Save it again.")
        payload = bytes(row["model"])
        check_digest(metadata, [payload])
        found = OnnxModel(model=payload)
        found._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(found, metadata)
        return found
