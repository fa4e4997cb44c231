"""What every estimator and its model keep: one table of estimators, one contract."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from chispa import assert_df_equality
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator, RegressionEvaluator
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder
from pyspark.sql import functions as F

from sparkopt import ml
from sparkopt.errors import DataError, ParameterError
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


@every
def test_estimators_survive_the_disk(spark, name, tmp_path):
    kind, options = KINDS[name]
    estimator = kind(**QUICK, **options)
    estimator.save(str(tmp_path / "estimator"))
    assert params(kind.load(str(tmp_path / "estimator"))) == params(estimator)


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


@every
def test_one_row_is_predicted_as_many(name, fitted, cancer):
    model = fitted(name)
    scored = model.transform(cancer.limit(5)).collect()
    assert [model.predict(row.features) for row in scored] == pytest.approx([row.prediction for row in scored])
    assert len({row.prediction for row in scored}) > 1 or name in ("logistic", "hinge", "squared hinge")


@every
def test_summaries_look_at_the_training_rows(name, fitted, cancer):
    model = fitted(name)
    assert model.summary.totalIterations >= 1
    metric = "accuracy" if hasattr(model.summary, "accuracy") else "numInstances"
    assert getattr(model.summary, metric) == getattr(model.evaluate(cancer), metric) > 0.5


@pytest.mark.parametrize("name", ["quantile", "hinge", "poisson"])  # the others: test_estimators.py
def test_pipelines_and_searches(name, cancer, tmp_path):
    kind, options = KINDS[name]
    estimator = kind(**QUICK, **options)
    is_classifier = kind in (ml.LogisticRegression, ml.LinearSVC)
    evaluator = MulticlassClassificationEvaluator(metricName="accuracy") if is_classifier else RegressionEvaluator()
    grid = ParamGridBuilder().addGrid(estimator.regParam, [0.01, 0.1]).build()
    search = CrossValidator(estimator=estimator, estimatorParamMaps=grid, evaluator=evaluator, numFolds=2, seed=1)
    found = Pipeline(stages=[search]).fit(cancer).stages[0]
    assert np.isfinite(found.avgMetrics).all()
    PipelineModel(stages=[found.bestModel]).save(str(tmp_path / "pipeline"))
    again = PipelineModel.load(str(tmp_path / "pipeline"))
    assert again.stages[0].coefficients == found.bestModel.coefficients


@every
def test_a_label_outside_the_domain_is_refused(name, cancer):
    if name in ("least squares", "huber", "quantile"):
        bad, wanted = F.lit(float("nan")), "label column"
    else:
        bad, wanted = F.lit(-1.0), "is -1; it must be"
    kind, options = KINDS[name]
    options = {key: value for key, value in options.items() if key != "classWeights"}
    with pytest.raises(DataError, match=wanted):
        kind(**QUICK, **options).fit(cancer.withColumn("label", bad))


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (ml.LinearRegression, "epsilon", 1.0),
        (ml.LinearRegression, "loss", "absolute"),
        (ml.QuantileRegression, "quantile", 1.0),
        (ml.LinearSVC, "loss", "logistic"),
        (ml.GeneralizedLinearRegression, "family", "normal"),
        (ml.GeneralizedLinearRegression, "regParam", -1.0),
        (ml.LogisticRegression, "family", "logit"),
    ],
)
def test_values_outside_their_domain_are_refused(cancer, kind, name, value):
    with pytest.raises(ParameterError, match=f"{name} must be .* Got {value!r} instead"):
        kind(**{name: value}).fit(cancer)
