"""What every estimator and its model keep: one table of estimators, one contract."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from chispa import assert_df_equality

from sparkopt import ml
from tests.spark import data

QUICK = {"maxIter": 3, "tol": 0.0, "engine": "local"}
KINDS = {
    "least squares": (ml.LinearRegression, {}),
    "huber": (ml.LinearRegression, {"loss": "huber", "epsilon": 2.0}),
    "quantile": (ml.QuantileRegression, {"quantile": 0.3}),
    "logistic": (ml.LogisticRegression, {"threshold": 0.4, "lowerBoundsOnCoefficients": [[-1.0] * 10]}),
    "hinge": (ml.LinearSVC, {"threshold": 0.1}),
    "squared hinge": (ml.LinearSVC, {"loss": "squaredHinge", "classWeights": "balanced"}),
    "poisson": (ml.GeneralizedLinearRegression, {"family": "poisson", "linkPredictionCol": "link"}),
    "tweedie": (
        ml.GeneralizedLinearRegression,
        {"family": "tweedie", "variancePower": 1.5, "linkPower": 0.0},
    ),
}
every = pytest.mark.parametrize("name", KINDS)


@pytest.fixture(scope="module")
def cancer(spark):
    return data.breast_cancer(spark)


@pytest.fixture(scope="module")
def fitted(cancer):
    known = {}

    def fit(name):
        if name not in known:
            kind, options = KINDS[name]
            known[name] = kind(**QUICK, **options).fit(cancer)
        return known[name]

    return fit


def params(instance):
    return {param.name: value for param, value in instance.extractParamMap().items()}


@pytest.mark.parametrize("kind", {kind for kind, _ in KINDS.values()}, ids=lambda kind: kind.__name__)
def test_every_constructor_argument_is_a_parameter_with_a_setter(kind):
    arguments = list(inspect.signature(inspect.unwrap(kind.__init__)).parameters)[1:]
    estimator = kind()
    for argument in arguments:
        assert estimator.hasParam(argument), argument
        assert hasattr(estimator, f"set{argument[0].upper()}{argument[1:]}"), argument
        assert f"{argument} :" in kind.__doc__ or f"{argument}, " in kind.__doc__ or f", {argument} :" in kind.__doc__
    assert {param.name for param in estimator.params} == set(arguments)


@every
def test_models_survive_the_disk(name, fitted, cancer, tmp_path):
    model = fitted(name)
    model.save(str(tmp_path / "model"))
    loaded = type(model).load(str(tmp_path / "model"))
    assert params(loaded) == params(model)
    assert np.array_equal(loaded.constants, model.constants)
    assert_df_equality(loaded.transform(cancer.limit(20)), model.transform(cancer.limit(20)))
