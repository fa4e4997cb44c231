"""Coefficients of an earlier model to start from: fitted or loaded, of sparkopt or of pyspark.ml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.losses import Huber
from sparkopt.training.coordinates import Initial
from sparkopt.typing import Floats

__all__ = ["coefficients_of", "require_kind", "split_weights"]


UNSEEN = 20.0
"""Log-odds, up to their sign, from which a class that had never occurred before starts."""


def require_kind(estimator: Any, model: Any) -> None:
    """Refuse a model of another kind of estimator.

    Raises
    ------
    ParameterError
        Naming both kinds, and the model's attribute in a pipeline or a search.
    """
    wanted = estimator._model_name
    kinds = {wanted, *(f"{kind.__name__}Model" for kind in type(estimator).__mro__)}
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
    elif hasattr(model, "factors"):
        matrix = np.concatenate([model.linear.toArray()[None, :], model.factors.toArray().T])
        intercept, auxiliary = np.zeros(len(matrix)), np.array([model.intercept])
    elif hasattr(model, "weights"):
        return split_weights(model.weights.toArray(), model.getLayers())
    elif hasattr(model, "coefficientMatrix"):
        matrix, intercept = model.coefficientMatrix.toArray(), model.interceptVector.toArray()
    else:
        matrix, intercept = model.coefficients.toArray()[None, :], np.array([model.intercept])
        if model.hasParam("loss") and model.getOrDefault("loss") == "huber":
            auxiliary = np.array([Huber(model.getOrDefault("epsilon")).parameter(model.scale)])
    # infinite intercepts are those of labels that never occurred; they may now
    finite = np.clip(np.asarray(intercept, dtype=np.float64), -UNSEEN, UNSEEN)
    return np.asarray(matrix, dtype=np.float64).T, finite, auxiliary


def split_weights(weights: Floats, layers: Sequence[int]) -> tuple[Floats, Floats, Floats]:
    """Return a network's weights, in the order of pyspark.ml, as those of the first layer, its biases, and others."""
    inputs, units = layers[:2]
    matrix, intercept, others = np.split(np.asarray(weights, np.float64), [inputs * units, (inputs + 1) * units])
    return matrix.reshape(inputs, units), intercept, others
