"""TorchModel: a trained network as a pyspark.ml Model, which scores DataFrames of Spark and tables without Spark."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.ml import Model
from pyspark.ml.util import DefaultParamsReader, MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.rows import rows_of, schema_of
from sparkopt.blocks.sent import refuse_large
from sparkopt.deep.builders import Reference, why_nameless
from sparkopt.deep.outputs import Outputs
from sparkopt.deep.params import check_params
from sparkopt.deep.persistence import NetworkReader, NetworkWriter, Saved, read_from
from sparkopt.deep.scorer import NetworkScorer, check_pipeline
from sparkopt.deep.setters import InferenceSetters
from sparkopt.deep.tables import scored
from sparkopt.errors import CorruptDataError, DataError, NoSummaryError, SchemaError
from sparkopt.io.metadata import check_digest
from sparkopt.shards.fields import Field, Fields

if TYPE_CHECKING:
    from torch import nn

    from sparkopt.deep.summary import TorchTrainingSummary

__all__ = ["TorchModel"]

FORMAT = 1
KIND = "sparkopt.deep.model.TorchModel"


class TorchModel(Model, InferenceSetters, MLWritable, MLReadable["TorchModel"]):
    """A trained network.

    Parameters
    ----------
    build : nn.Module or callable
        The network, or what builds it; where it has no name that can be imported, ``load`` must be given it.
    weights : bytes
        Its state as safetensors.
    task : {"classes", "binary", "probability", "counts", "values"}
        What its output means.
    output_shape : tuple of int
        What it gives for a row.

    Notes
    -----
    ``transform`` adds ``prediction``; for classes also ``probability`` and ``rawPrediction``. A column whose name is
    set to "" is left out. It takes a DataFrame of Spark, or without Spark what ``sparkopt.Table.of`` takes: Arrow,
    pandas and Polars are returned as they came, with lists in place of Vectors; of files it returns a ``Table``,
    whose rows are scored as they are read.
    """

    def __init__(
        self, build: Any = None, weights: bytes = b"", task: str = "values", output_shape: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self._build, self._weights, self._outputs = build, weights, Outputs(task, output_shape)
        self._token = uuid.uuid4().hex  # what processes know the loaded network by
        self._summary: TorchTrainingSummary | None = None
        self._inputs: tuple[Field, ...] = ()
        self._columns: tuple[str, ...] = ()

    @property
    def weights(self) -> bytes:
        """State of the network, as safetensors."""
        return self._weights

    @property
    def task(self) -> str:
        """What the output means: "classes", "binary", "probability", "counts" or "values"."""
        return self._outputs.task

    @property
    def module(self) -> nn.Module:
        """The network, on the CPU, ready to evaluate; a new one with every call."""
        return NetworkScorer.load(self._build, self._weights)

    @property
    def hasSummary(self) -> bool:
        """Whether the model is the result of ``fit`` in this session, and was not loaded."""
        return self._summary is not None

    @property
    def summary(self) -> TorchTrainingSummary:
        """How the training went.

        Raises
        ------
        NoSummaryError
            For a model that was loaded.
        """
        if self._summary is None:
            raise NoSummaryError("this model has no summary: it was not trained in this session.")
        return self._summary

    def _transform(self, dataset: Any) -> Any:
        check_params(self)
        if not isinstance(dataset, DataFrame):
            return scored(self, dataset)
        if is_connect(dataset):
            refuse_large(len(self._weights), "the network", "Score df.toArrow(), or in a Spark Classic session.")
        fields = self._fields(dataset.schema)
        wanted = self._wanted()
        for name in wanted.values():
            if name in dataset.columns:
                raise SchemaError(f"output column {name!r} exists already. Rename it, or set another name.")
        return self._scorer(fields).added(dataset, wanted, self.value("handleInvalid") == "skip")

    def evaluate(self, dataset: Any, metrics: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return how good the predictions on these rows are.

        Parameters
        ----------
        dataset : DataFrame, or what ``sparkopt.Table.of`` takes
            Rows with features, label (``labelCol``) and, if ``weightCol`` is set, weights.
        metrics : dict, optional
            Names of metrics, and the metrics, as ``TorchEstimator`` takes them; those of torchmetrics need a table.
            By default the accuracy of classes and labels, and mse, rmse and mae of values and counts.

        Returns
        -------
        dict
            Each metric by its name; NaN where there are no rows.

        Raises
        ------
        SchemaError, DataError
            For a column that is missing or of a wrong type, or an invalid row; see ``handleInvalid``.
        """
        from sparkopt.deep.evaluation import default_metrics, evaluated

        check_params(self)
        rows = rows_of(dataset)
        schema = schema_of(rows)
        fields = Fields.of(schema, self.features(), self.getLabelCol(), self.value("weightCol") or None)
        chosen = default_metrics(self.task) if metrics is None else metrics
        return evaluated(rows, self._scorer(self._fields(schema)), fields, chosen)

    def _fields(self, schema: StructType) -> Fields:
        """Return the inputs in a table: as they were trained on, if that is known."""
        if not self._inputs:
            return Fields.of(schema, self.features())
        return Fields(self._inputs).scoring(schema, self._columns, self.features())

    def _wanted(self) -> dict[str, str]:
        """Return the names of the output columns, by what they hold."""
        names = {key: self.getOrDefault(f"{key}Col") for key in self._outputs.types()}
        return {key: name for key, name in names.items() if name}

    def _scorer(self, fields: Fields) -> NetworkScorer:
        """Return what scores rows with these fields."""
        pipeline = self.evaluation_pipeline()
        check_pipeline(fields, pipeline)
        network = (self._build, self._weights, self._outputs)
        return NetworkScorer(
            *network,
            fields,
            pipeline,
            self.value("device"),
            self.value("batchSize"),
            tuple(self._wanted()),
            self.value("handleInvalid") != "error",
            self._token,
        )

    def hasParam(self, paramName: str) -> bool:
        """Whether there is such a parameter; ``module`` is none here, and to look at it would build the network."""
        return paramName != "module" and super().hasParam(paramName)

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``."""
        return NetworkWriter(saved_of(self))

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return a reader: ``TorchModel.read().load(path)``."""
        return NetworkReader(KIND, restored)

    @classmethod
    def load(cls, path: str, module: Any = None) -> TorchModel:
        """Return the model saved below ``path``.

        Parameters
        ----------
        path : str
            Where ``save`` wrote it.
        module : nn.Module or callable, optional
            The network, or what builds it, where it has no name that can be imported: it was built already, or is
            from a notebook. ``TorchEstimator`` says so when it is fitted.

        Raises
        ------
        DataError
            Where something else was saved there, or a network that this process cannot build.
        """
        found: TorchModel = NetworkReader(KIND, functools.partial(restored, build=module)).load(path)
        return found


def facts_of(model: TorchModel) -> dict[str, Any]:
    """Return what is saved of a model in addition to its parameters and weights."""
    return {
        "format": FORMAT,
        **_network(model._build),
        "task": model.task,
        "outputShape": list(model._outputs.shape),
        "inputs": [asdict(entry) for entry in model._inputs],
        "columns": list(model._columns),
    }


def _network(build: Any) -> dict[str, Any]:
    """Return what builds a network by its name, or why it has none."""
    nameless = why_nameless(build)
    return {"network": asdict(Reference.of(build)) if nameless is None else None, "nameless": nameless}


def restored(metadata: dict[str, Any], weights: bytes, build: Any = None) -> TorchModel:
    """Return the model whose metadata and weights these are, built by what is named there or by ``build``."""
    check_digest(metadata, [weights])
    if not weights:
        raise CorruptDataError("its weights are missing")
    network = metadata["network"]
    if build is None and network is None:
        raise DataError(
            f"this model was saved without what builds it: {metadata['nameless']} Or give that now: "
            "TorchModel.load(path, module=...), with the module that TorchEstimator was given."
        )
    if build is None:
        build = Reference(network["name"], tuple(network["positional"]), network["keywords"]).builder()
    model = TorchModel(build, weights, metadata["task"], tuple(metadata["outputShape"]))
    model._inputs = tuple(Field(**{**one, "columns": tuple(one["columns"])}) for one in metadata.get("inputs", ()))
    model._columns = tuple(metadata.get("columns", ()))
    model._resetUid(metadata["uid"])
    DefaultParamsReader.getAndSetParams(model, metadata)
    return model


def saved_of(model: TorchModel) -> Saved:
    """Return what is saved of a model."""
    return Saved(model, facts_of(model), model.weights)


def read_model(folder: str | Path, build: Any = None) -> TorchModel:
    """Return the model in a folder of this machine, written there or by Spark; ``build`` overrides what it names.

    Raises
    ------
    DataError
        Where no network was saved there, or it names one that may not be built.
    """
    found: TorchModel = read_from(folder, KIND, functools.partial(restored, build=build))
    return found
