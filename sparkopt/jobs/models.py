"""Saved models of every kind, loaded by the class in their metadata; a file never names what is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING

from sparkopt.errors import DataError
from sparkopt.io.secrets import mask
from sparkopt.jobs.locations import JobLocation
from sparkopt.jobs.runtimes.base import Runtime
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.ml import Model
    from pyspark.sql import SparkSession

__all__ = ["KINDS", "SavedModel", "find_model", "load_model"]

KINDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "sparkopt.ml.classification.LogisticRegressionModel": ("sparkopt.ml", "LogisticRegressionModel"),
        "sparkopt.ml.svm.LinearSVCModel": ("sparkopt.ml", "LinearSVCModel"),
        "sparkopt.ml.regression.LinearRegressionModel": ("sparkopt.ml", "LinearRegressionModel"),
        "sparkopt.ml.regression.QuantileRegressionModel": ("sparkopt.ml", "QuantileRegressionModel"),
        "sparkopt.ml.generalized.GeneralizedLinearRegressionModel": (
            "sparkopt.ml",
            "GeneralizedLinearRegressionModel",
        ),
        "sparkopt.ml.multilabel.MultiLabelLogisticRegressionModel": (
            "sparkopt.ml",
            "MultiLabelLogisticRegressionModel",
        ),
        "sparkopt.ml.factorization.FMClassificationModel": ("sparkopt.ml", "FMClassificationModel"),
        "sparkopt.ml.factorization.FMRegressionModel": ("sparkopt.ml", "FMRegressionModel"),
        "sparkopt.ml.multilayer.MultilayerPerceptronClassificationModel": (
            "sparkopt.ml",
            "MultilayerPerceptronClassificationModel",
        ),
        "sparkopt.ml.multilayer.MultilayerPerceptronRegressionModel": (
            "sparkopt.ml",
            "MultilayerPerceptronRegressionModel",
        ),
        "sparkopt.ml.calibration.ProbabilityCalibrationModel": ("sparkopt.ml", "ProbabilityCalibrationModel"),
        "sparkopt.ml.ordinal.OrdinalRegressionModel": ("sparkopt.ml", "OrdinalRegressionModel"),
        "sparkopt.ml.negative_binomial.NegativeBinomialRegressionModel": (
            "sparkopt.ml",
            "NegativeBinomialRegressionModel",
        ),
        "sparkopt.ml.survival.AFTSurvivalRegressionModel": ("sparkopt.ml", "AFTSurvivalRegressionModel"),
        **dict.fromkeys(
            (
                "sparkopt.ml.pipeline.PipelineModel",
                "pyspark.ml.pipeline.PipelineModel",
                "org.apache.spark.ml.PipelineModel",
            ),
            ("sparkopt.ml", "PipelineModel"),
        ),
        **dict.fromkeys(
            ("sparkopt.ml.tuning.CrossValidatorModel", "pyspark.ml.tuning.CrossValidatorModel"),
            ("sparkopt.ml", "CrossValidatorModel"),
        ),
        **dict.fromkeys(
            ("sparkopt.ml.tuning.TrainValidationSplitModel", "pyspark.ml.tuning.TrainValidationSplitModel"),
            ("sparkopt.ml", "TrainValidationSplitModel"),
        ),
        "sparkopt.deep.model.TorchModel": ("sparkopt.deep", "TorchModel"),
    }
)
"""Classes that metadata may name, with module and name to import."""


@dataclass(frozen=True)
class SavedModel:
    """A model on disk.

    Parameters
    ----------
    uri : str
        The model's own folder.
    kind : str
        Its class, one of ``KINDS``.
    labels : list of str
        Names of its classes 0, 1, …, where the job that trained it left them next to it.
    """

    uri: str
    kind: str
    labels: list[str] = field(default_factory=list)

    @property
    def is_deep(self) -> bool:
        """Whether the model is a network."""
        return self.kind.startswith("sparkopt.deep.")

    def load(self, runtime: Runtime) -> Model:
        """Return the model; of a search, the best one."""
        module, name = KINDS[self.kind]
        if name.endswith("Model") and name in SEVERAL:
            _check_parts(runtime.location(self.uri), self.uri)
        loaded = runtime.load(module, name, self.uri)
        return getattr(loaded, "bestModel", loaded)


def find_model(runtime: Runtime, path: str) -> SavedModel:
    """Find a saved model: at ``path``, or in a job's output there.

    Raises
    ------
    DataError
        Where there is none, or it is none of sparkopt's.
    """
    given = runtime.location(path)
    for folder in (given, given.child("model")):
        if folder.child("metadata").exists():
            kind = _kind(folder, path)
            metrics = folder.sibling("metrics.json") if folder.name == "model" else None
            return SavedModel(folder.uri, kind, _labels(metrics))
    raise DataError(f"{mask(path)!r} holds no saved model: there is neither metadata/ nor model/metadata/ in it.")


def load_model(spark: SparkSession, path: str) -> Model:
    """Return the model saved at ``path``, or in a job's output there.

    Raises
    ------
    DataError
        Where there is none, or it is none of sparkopt's.
    """
    from sparkopt.jobs.runtimes.spark import SparkRuntime

    runtime = SparkRuntime(spark)
    return find_model(runtime, path).load(runtime)


def _kind(folder: JobLocation, path: str) -> str:
    kind = _class_of(folder, path)
    if kind not in KINDS:
        known = ", ".join(dict.fromkeys(name for _, name in KINDS.values()))
        raise DataError(f"{mask(path)!r} holds a {kind}; jobs load {known}.")
    return kind


def _class_of(folder: JobLocation, path: str) -> str:
    metadata = folder.child("metadata")
    parts = [name for name in metadata.names() if not name.startswith((".", "_"))]
    try:
        return str(json.loads(metadata.child(parts[0]).read().splitlines()[0])["class"])
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{mask(path)!r} holds no saved model: its metadata cannot be read.") from error


SEVERAL = ("PipelineModel", "CrossValidatorModel", "TrainValidationSplitModel")
"""Models that have others below them."""
OWN = ("sparkopt.", "pyspark.ml.", "org.apache.spark.ml.")
"""How the classes begin that a file may name."""


def _check_parts(folder: JobLocation, path: str) -> None:
    """Refuse a model of which a part is of another library's class: to load it would import that.

    Raises
    ------
    DataError
        Naming the class.
    """
    for name in folder.names():
        if name == "metadata":
            kind = _class_of(folder, path)
            if not kind.startswith(OWN):
                raise DataError(f"{mask(path)!r} holds a {kind}, which is neither of sparkopt nor of pyspark.ml.")
        elif name in ("stages", "bestModel", "subModels") or name[:1].isdigit():
            _check_parts(folder.child(name), path)


def _labels(metrics: JobLocation | None) -> list[str]:
    if metrics is None or not metrics.exists():
        return []
    try:
        found = json.loads(metrics.read())
    except ValueError:
        return []
    labels = found.get("labels") if isinstance(found, dict) else None
    return [str(label) for label in labels] if isinstance(labels, list) else []
