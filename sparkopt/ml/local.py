"""Linear models and pipelines of them on this machine, for MLflow: written, read, and applied to pandas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkopt.errors import DataError
from sparkopt.io.metadata import damage, read_metadata
from sparkopt.io.saved import FileSession
from sparkopt.ml import (
    calibration,
    classification,
    factorization,
    generalized,
    multilabel,
    multilayer,
    negative_binomial,
    one_vs_rest,
    ordinal,
    regression,
    survival,
    svm,
)
from sparkopt.ml.saving import load_stage, save_stage
from sparkopt.ml.table_features import TableFeaturesModel
from sparkopt.ml.table_scoring import frame_outputs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["is_local", "read", "score", "write"]

KINDS = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in (
        calibration.ProbabilityCalibrationModel,
        classification.LogisticRegressionModel,
        factorization.FMClassificationModel,
        factorization.FMRegressionModel,
        generalized.GeneralizedLinearRegressionModel,
        multilabel.MultiLabelLogisticRegressionModel,
        multilayer.MultilayerPerceptronClassificationModel,
        multilayer.MultilayerPerceptronRegressionModel,
        negative_binomial.NegativeBinomialRegressionModel,
        ordinal.OrdinalRegressionModel,
        regression.LinearRegressionModel,
        regression.QuantileRegressionModel,
        survival.AFTSurvivalRegressionModel,
        svm.LinearSVCModel,
    )
}
"""Classes that may be read: no other name in a file is imported."""


RESTS = ("sparkopt.ml.one_vs_rest.OneVsRestModel", "pyspark.ml.classification.OneVsRestModel")
PIPELINES = ("sparkopt.ml.pipeline.PipelineModel", "pyspark.ml.pipeline.PipelineModel")
FEATURES = "sparkopt.ml.table_features.TableFeaturesModel"


def write(model: Any, folder: Path) -> None:
    """Write a linear model or a pipeline as ``model.save`` does; with Spark, the model's class can load it."""
    save_stage(model, str(folder), FileSession())


def read(folder: str | Path) -> Any:
    """Return the model in a folder of this machine which ``write`` or Spark wrote.

    Raises
    ------
    DataError
        Where no such model was saved there.
    """
    _check_kind(Path(folder), [*KINDS, *RESTS, *PIPELINES])
    return load_stage(str(folder), FileSession())


def is_local(model: Any) -> bool:
    """Whether a model, or every stage of a pipeline, is one that needs no Spark to score."""
    stages = getattr(model, "stages", None)
    if stages:
        return type(model).__name__ == "PipelineModel" and all(map(_is_stage, stages))
    if isinstance(model, one_vs_rest.OneVsRestModel):
        return all(map(is_local, model.models))
    return f"{type(model).__module__}.{type(model).__name__}" in KINDS


def _is_stage(stage: Any) -> bool:
    return is_local(stage) or isinstance(stage, TableFeaturesModel)


def _check_kind(folder: Path, allowed: Sequence[str]) -> None:
    """Refuse a saved model of another class, and a pipeline with a stage of one: to load it would import that."""
    with damage(str(folder)):
        kind = str(read_metadata(folder)["class"])
    if kind not in allowed:
        raise DataError(f"{str(folder)!r} holds a {kind}, which is no linear model of sparkopt.")
    if kind in PIPELINES:
        for stage in sorted((folder / "stages").iterdir()):
            _check_kind(stage, [*KINDS, *RESTS, *PIPELINES, FEATURES])
    if kind in RESTS:
        for part in sorted(folder.glob("model_*")):
            _check_kind(part, list(KINDS))
        _check_kind(folder / "classifier", [_estimator_of(name) for name in KINDS])


def _estimator_of(kind: str) -> str:
    """Return the class of the estimator of a model's class."""
    name = kind.removesuffix("Model")
    return f"{name.removesuffix('Classification')}Classifier" if name.endswith("Classification") else name


def score(model: Any, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the output columns of ``model.transform`` for the rows of a pandas DataFrame; Vectors become arrays.

    Parameters
    ----------
    model : LinearModel or PipelineModel
        The model.
    frame : pandas.DataFrame
        The features: one column of lists, arrays or Vectors, or the numeric columns that the model was trained on.

    Raises
    ------
    SchemaError
        Where a column is missing.
    DataError
        Where a row has another number of features, or none.
    """
    found: pd.DataFrame
    if getattr(model, "stages", None) is None:
        found = frame_outputs(model, frame)
        return found
    found = _keeping(model).transform(frame)
    return found[[name for name in found.columns if name not in frame.columns]]


def _keeping(model: Any) -> Any:
    """Return a pipeline that scores every row: those that its model leaves out get null."""
    last = model.stages[-1]
    if not last.hasParam("handleInvalid") or last.getOrDefault("handleInvalid") != "skip":
        return model
    kept = model.copy()
    kept.stages[-1].set(kept.stages[-1].getParam("handleInvalid"), "keep")
    return kept
