"""A trained network as a pyspark.ml Model, of whatever framework: what it scores, and how well."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyspark.ml import Model
from pyspark.ml.util import MLWritable
from pyspark.sql import DataFrame
from pyspark.sql.types import BinaryType, StructType

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.rows import rows_of, schema_of
from sparkopt.blocks.sent import refuse_large
from sparkopt.deep.outputs import Outputs
from sparkopt.deep.params import check_params
from sparkopt.deep.scorer import NetworkScorer
from sparkopt.deep.setters import InferenceSetters
from sparkopt.deep.tables import scored
from sparkopt.errors import NoSummaryError, SchemaError
from sparkopt.shards.fields import Field, Fields

if TYPE_CHECKING:
    from sparkopt.deep.summary import TorchTrainingSummary

__all__ = ["NetworkModel"]


class NetworkModel(Model, InferenceSetters, MLWritable):
    """A trained network: what builds it, its weights, and what its outputs mean."""

    def __init__(self, build: Any, weights: bytes, task: str, output_shape: tuple[int, ...]) -> None:
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
        if any(one.name == self.getLabelCol() and isinstance(one.dataType, BinaryType) for one in schema.fields):
            raise SchemaError(
                f"label column {self.getLabelCol()!r} holds bytes, and evaluate compares predictions with numbers. "
                "Of masks, hold rows out in training, with metrics, or compare them with what transform adds."
            )
        fields = Fields.of(schema, self.features(), self.getLabelCol(), self.value("weightCol") or None)
        chosen = default_metrics(self.task) if metrics is None else metrics
        return evaluated(rows, self._scorer(self._fields(schema)), fields, chosen)

    def _fields(self, schema: StructType) -> Fields:
        """Return the inputs in a table: as they were trained on, if that is known."""
        if not self._inputs:
            return Fields.of(schema, self.features(), prepared=self.evaluation_pipeline() is not None)
        return Fields(self._inputs).scoring(schema, self._columns, self.features())

    def _wanted(self) -> dict[str, str]:
        """Return the names of the output columns, by what they hold."""
        names = {key: self.getOrDefault(f"{key}Col") for key in self._outputs.types()}
        return {key: name for key, name in names.items() if name}

    def _scorer(self, fields: Fields) -> NetworkScorer:
        """Return what scores rows with these fields."""
        pipeline = self.evaluation_pipeline()
        self._check_pipelines(fields, "evaluationPipeline" if self.value("evaluationPipeline") else "imagePipeline")
        network = (self._network_builder(), self._weights, self._outputs)
        return NetworkScorer(
            *network,
            fields,
            pipeline,
            self.value("device"),
            self.value("batchSize"),
            tuple(self._wanted()),
            self.value("handleInvalid") != "error",
            self._token,
            self.value("outputKey"),
        )

    def _network_builder(self) -> Any:
        """Return the network of PyTorch, or what builds one, that scores."""
        return self._build

    def hasParam(self, paramName: str) -> bool:
        """Whether there is such a parameter; ``module`` is none here, and to look at it would build the network."""
        return paramName != "module" and super().hasParam(paramName)
