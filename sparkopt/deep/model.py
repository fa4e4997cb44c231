"""TorchModel: a trained network as a pyspark.ml Model that scores batches of rows on the executors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.ml import Model
from pyspark.ml.util import (
    DefaultParamsReader,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWritable,
    MLWriter,
)
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import StructType

from sparkopt.deep.batch import Decoder, contents, on_device
from sparkopt.deep.builders import Reference
from sparkopt.deep.checkpoint import module_state
from sparkopt.deep.fields import Field, Fields, dense
from sparkopt.deep.outputs import Outputs
from sparkopt.deep.params import InferenceParams, check_params
from sparkopt.errors import DataError, SchemaError
from sparkopt.images import Compose
from sparkopt.io.worker import spare_modules
from sparkopt.launch.devices import choose
from sparkopt.launch.threads import task_cores
from sparkopt.typing import Array

if TYPE_CHECKING:
    from torch import nn

    from sparkopt.deep.summary import TorchTrainingSummary

__all__ = ["TorchModel"]

SCORES, WEIGHTS = "__sparkopt_scores", "model.safetensors"
FORMAT, CHUNK = 1, 1 << 24


class TorchModel(Model, InferenceParams, MLWritable, MLReadable["TorchModel"]):
    """A trained network.

    Parameters
    ----------
    build : nn.Module or callable
        The network, or what builds it; only a name that can be imported can be saved.
    weights : bytes
        Its state as safetensors.
    task : {"classes", "binary", "values"}
        What its output means.
    output_shape : tuple of int
        What it gives for a row.

    Notes
    -----
    ``transform`` adds ``prediction``; for classes also ``probability`` and ``rawPrediction``. A column whose name is
    set to "" is left out.
    """

    def __init__(
        self, build: Any = None, weights: bytes = b"", task: str = "values", output_shape: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self._build, self._weights, self._outputs = build, weights, Outputs(task, output_shape)
        self._summary: TorchTrainingSummary | None = None

    @property
    def weights(self) -> bytes:
        """State of the network, as safetensors."""
        return self._weights

    @property
    def task(self) -> str:
        """What the output means: "classes", "binary" or "values"."""
        return self._outputs.task

    @property
    def module(self) -> nn.Module:
        """The network, on the CPU, ready to evaluate; a new one with every call."""
        return _Scorer.load(self._build, self._weights)

    @property
    def hasSummary(self) -> bool:
        """Whether the model is the result of ``fit`` in this session, and was not loaded."""
        return self._summary is not None

    @property
    def summary(self) -> TorchTrainingSummary:
        """How the training went.

        Raises
        ------
        AttributeError
            For a model that was loaded.
        """
        if self._summary is None:
            raise AttributeError("this model has no summary: it was not trained in this session.")
        return self._summary

    def _transform(self, dataset: DataFrame) -> DataFrame:
        check_params(self)
        fields = Fields.of(dataset.schema, self.features())
        wanted = self._wanted()
        for name in wanted.values():
            if name in dataset.columns:
                raise SchemaError(f"output column {name!r} exists already. Rename it, or set another name.")
        scored = dataset.withColumn(SCORES, self._scorer(fields).expression(dataset.schema))
        return scored.select(
            *[F.col(f"`{name}`") for name in dataset.columns],
            *[F.col(f"{SCORES}.{key}").alias(name) for key, name in wanted.items()],
        )

    def _wanted(self) -> dict[str, str]:
        """Return the names of the output columns, by what they hold."""
        names = {key: self.getOrDefault(f"{key}Col") for key in self._outputs.types()}
        return {key: name for key, name in names.items() if name}

    def _scorer(self, fields: Fields) -> _Scorer:
        """Return what scores rows with these fields."""
        pipeline = self.evaluation_pipeline()
        check_pipeline(fields, pipeline)
        network = (self._build, self._weights, self._outputs)
        return _Scorer(
            *network, fields, pipeline, self.value("device"), self.value("batchSize"), tuple(self._wanted())
        )

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``."""
        return TorchModelWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return a reader: ``TorchModel.read().load(path)``."""
        return TorchModelReader()


def check_pipeline(fields: Fields, pipeline: str | None) -> None:
    """Refuse encoded images without a pipeline that decodes them."""
    for entry in fields.inputs:
        if entry.kind == "bytes" and pipeline is None:
            raise SchemaError(
                f"features column {entry.title!r} holds bytes: set imagePipeline to say how images are decoded, "
                'images.Compose([images.Decode("rgb"), images.Resize(224, 224), images.Rescale(1 / 255)]), say.'
            )


@dataclass(frozen=True)
class _Scorer:
    """Scores rows in the executors: from feature columns to output columns."""

    build: Any
    weights: bytes = field(repr=False)
    outputs: Outputs
    fields: Fields
    pipeline: str | None
    device: str
    batch_size: int
    wanted: tuple[str, ...]

    @staticmethod
    def load(build: Any, weights: bytes) -> nn.Module:
        """Return the network with its weights, ready to evaluate."""
        from torch import nn

        module: nn.Module = copy.deepcopy(build) if isinstance(build, nn.Module) else build()
        module.load_state_dict(module_state(weights))
        return module.eval()

    def expression(self, schema: StructType) -> Any:
        """Return one expression: a struct of the wanted columns."""
        kinds = self.outputs.types()
        returned = StructType()
        for key in self.wanted:
            returned = returned.add(key, kinds[key])
        columns = [entry.expression(schema) for entry in self.fields.inputs]
        function = _over_one(self) if len(columns) == 1 else _over_several(self)
        return arrow_udf(function, returned)(*columns)  # type: ignore[call-overload]  # its stubs lack iterators

    def __call__(self, batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        """Score Arrow batches, one or more batches of the network at a time."""
        import torch

        torch.set_num_threads(task_cores())
        context = TaskContext.get()
        spare_modules()
        gpus = context.resources().get("gpu") if context is not None else None
        device = torch.device(choose(self.device, gpus.addresses if gpus is not None else ())[0])
        module = self.load(self.build, self.weights).to(device)
        pipeline = None if self.pipeline is None else Compose.from_json(self.pipeline)
        decoder = Decoder(self.fields, pipeline)
        for arrays in batches:
            pieces = []
            for start in range(0, max(1, len(arrays[0])), self.batch_size):
                rows = [array.slice(start, self.batch_size) for array in arrays]
                columns = {e.name: _read(e, array) for e, array in zip(self.fields.inputs, rows, strict=True)}
                with torch.inference_mode():
                    output = module(*[on_device(tensor, device) for tensor in decoder.inputs(columns)])
                found = self.outputs.columns(output)
                pieces.append(pa.StructArray.from_arrays([found[key] for key in self.wanted], list(self.wanted)))
            yield pa.concat_arrays(pieces)


def _read(entry: Field, array: pa.Array) -> Array:
    try:
        values = dense(entry, array)
    except DataError as error:
        raise DataError(f"features column {entry.title!r}, {error} of its batch.") from None
    if not isinstance(values, np.ndarray):
        return contents(values)
    return values if values.flags.writeable else np.array(values)


def _over_one(scorer: _Scorer) -> Callable[[Iterator[pa.Array]], Iterator[pa.Array]]:
    def score(columns: Iterator[pa.Array]) -> Iterator[pa.Array]:
        yield from scorer((column,) for column in columns)

    return score


def _over_several(scorer: _Scorer) -> Callable[[Iterator[tuple[pa.Array, ...]]], Iterator[pa.Array]]:
    def score(columns: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        yield from scorer(columns)

    return score


def facts_of(model: TorchModel) -> dict[str, Any]:
    """Return what is saved of a model in addition to its parameters and weights."""
    return {
        "format": FORMAT,
        "network": asdict(Reference.of(model._build)),
        "task": model.task,
        "outputShape": list(model._outputs.shape),
    }


def restored(metadata: dict[str, Any], weights: bytes) -> TorchModel:
    """Return the model whose metadata and weights these are."""
    network = metadata["network"]
    reference = Reference(network["name"], tuple(network["positional"]), network["keywords"])
    model = TorchModel(reference.builder(), weights, metadata["task"], tuple(metadata["outputShape"]))
    model._resetUid(metadata["uid"])
    DefaultParamsReader.getAndSetParams(model, metadata)
    return model


class TorchModelWriter(MLWriter):
    """Writes parameters and facts as pyspark.ml's metadata, and the weights as one file of safetensors."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.model = model

    def saveImpl(self, path: str) -> None:
        """Write ``metadata`` and ``model.safetensors`` below ``path``."""
        model, spark = self.model, self.sparkSession
        DefaultParamsWriter.saveMetadata(model, path, spark, extraMetadata=facts_of(model))
        context: Any = spark.sparkContext
        file = context._jvm.org.apache.hadoop.fs.Path(f"{path}/{WEIGHTS}")  # with Spark's own credentials
        stream = file.getFileSystem(context._jsc.hadoopConfiguration()).create(file)
        try:
            for start in range(0, len(model.weights), CHUNK):
                stream.write(bytearray(model.weights[start : start + CHUNK]))
        finally:
            stream.close()


class TorchModelReader(MLReader[TorchModel]):
    """Reads a saved model."""

    def load(self, path: str) -> TorchModel:
        """Return the model saved below ``path``.

        Raises
        ------
        DataError
            Where something else was saved there, or the network it names may not be called.
        """
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        expected = f"{TorchModel.__module__}.{TorchModel.__name__}"
        if metadata["class"] != expected:
            raise DataError(f"{path!r} holds a {metadata['class']}, not a {expected}. Load it with its own class.")
        files = self.sparkSession.read.format("binaryFile").load(f"{path}/{WEIGHTS}").select("content")
        (row,) = files.collect()
        return restored(metadata, bytes(row.content))
