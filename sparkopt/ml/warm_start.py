"""Coefficients of an earlier model to start from: fitted or loaded, of sparkopt or of pyspark.ml."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.losses import Huber
from sparkopt.training.coordinates import Initial

__all__ = ["coefficients_of", "require_kind"]


UNSEEN = 20.0
"""Log-odds, up to their sign, from which a class that had never occurred before starts."""


def require_kind(estimator: Any, model: Any) -> None:
    """Refuse a model of another kind of estimator.

    Raises
    ------
    ParameterError
        Naming both kinds, and the model's attribute in a pipeline or a search.
    """
    wanted = f"{type(estimator).__name__}Model"
    kinds = {f"{kind.__name__}Model" for kind in type(estimator).__mro__}
    found = type(model).__name__
    if found in kinds:
        return
    inside = {
        "PipelineModel": " Pass the stage itself: stages[-1].",
        "CrossValidatorModel": " Pass its bestModel.",
        "TrainValidationSplitModel": " Pass its bestModel.",
    }
    raise ParameterError(
        f"initialModel must be a {wanted}, of sparkopt.ml or of pyspark.ml. Got a {found} instead."
        f"{inside.get(found, '')}"
    )


def coefficients_of(model: Any) -> Initial:
    """Return coefficients (features, outputs), intercept (outputs,) and auxiliary parameters of a linear model."""
    auxiliary = np.zeros(0)
    if hasattr(model, "arrays"):  # of sparkopt
        (matrix, intercept), auxiliary = model.arrays, model.auxiliary
    elif hasattr(model, "coefficientMatrix"):
        matrix, intercept = model.coefficientMatrix.toArray(), model.interceptVector.toArray()
    else:
        matrix, intercept = model.coefficients.toArray()[None, :], np.array([model.intercept])
        if model.hasParam("loss") and model.getOrDefault("loss") == "huber":
            auxiliary = np.array([Huber(model.getOrDefault("epsilon")).parameter(model.scale)])
    # infinite intercepts are those of labels that never occurred; they may now
    finite = np.clip(np.asarray(intercept, dtype=np.float64), -UNSEEN, UNSEEN)
    return np.asarray(matrix, dtype=np.float64).T, finite, auxiliary
