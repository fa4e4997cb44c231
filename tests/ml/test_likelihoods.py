"""Models with parameters of their own in the likelihood: SciPy's optimum of SciPy's densities, and statsmodels'."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy import optimize, stats

from sparkopt import ml
from sparkopt.errors import DataError, IncompatibleError, ParameterError
from tests.ml.tables import COLUMNS, ROWS, WIDTH, X

EXACT = {"tol": 1e-13, "maxIter": 500, "engine": "local"}
WEIGHT = COLUMNS["weight"]


def best(loss, size):
    """The minimum of a mean loss by SciPy, from zeros."""
    found = optimize.minimize(loss, np.zeros(size), method="BFGS", options={"gtol": 1e-9, "maxiter": 2000})
    return found.x, found.fun


def survival(p):
    scale = np.exp(p[-1])
    log_time, raw = np.log(COLUMNS["time"]), X @ p[:WIDTH] + p[WIDTH]
    seen = stats.gumbel_l.logpdf(log_time, raw, scale)
    return -np.average(np.where(COLUMNS["ended"], seen, stats.gumbel_l.logsf(log_time, raw, scale)), weights=WEIGHT)


def ordinal(p):
    above = np.concatenate([[-np.inf, p[WIDTH]], p[WIDTH] + np.cumsum(np.exp(p[WIDTH + 1 :])), [np.inf]])
    raw, grade = X @ p[:WIDTH], COLUMNS["grade"]
    share = stats.logistic.cdf(above[grade + 1] - raw) - stats.logistic.cdf(above[grade] - raw)
    return -np.average(np.log(share), weights=WEIGHT)


def counts(p):
    mean, size = np.exp(X @ p[:WIDTH] + p[WIDTH] + COLUMNS["offset"]), np.exp(-p[-1])
    return -np.average(stats.nbinom.logpmf(COLUMNS["many"], size, size / (size + mean)), weights=WEIGHT)


def as_survival(model):
    return [*model.coefficients, model.intercept, np.log(model.scale)]


def as_ordinal(model):
    return [*model.coefficients, model.cutPoints[0], *np.log(np.diff(model.cutPoints))]


def as_counts(model):
    return [*model.coefficients, model.intercept, np.log(model.dispersion)]


COLUMNS = {**COLUMNS, "many": np.random.default_rng(5).negative_binomial(2, 2 / (2 + np.exp(X[:, 0] + 1)))}
TABLE = ROWS.append_column("many", pa.array(COLUMNS["many"]))
MODELS = {
    "survival": (ml.AFTSurvivalRegression(labelCol="time", censorCol="ended"), survival, as_survival, WIDTH + 2),
    "ordinal": (ml.OrdinalRegression(labelCol="grade"), ordinal, as_ordinal, WIDTH + 2),
    "negative binomial": (
        ml.NegativeBinomialRegression(labelCol="many", offsetCol="offset"),
        counts,
        as_counts,
        WIDTH + 2,
    ),
}


@pytest.mark.parametrize("optimizer", ["auto", "lbfgs"])
@pytest.mark.parametrize("name", MODELS)
def test_the_optimum_is_scipys(name, optimizer):
    estimator, loss, parameters, size = MODELS[name]
    model = estimator.copy()._set(weightCol="weight", optimizer=optimizer, **EXACT).fit(TABLE)
    found = np.array(parameters(model))
    expected, least = best(loss, size)
    assert loss(found) <= least * (1 + 1e-9)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert model.summary.objectiveHistory[-1] == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_a_penalty_is_on_coefficients_alone(name):
    """So strong that they vanish, it leaves the best constant model."""
    estimator, loss, parameters, size = MODELS[name]
    model = estimator.copy()._set(weightCol="weight", regParam=1e6, **EXACT).fit(TABLE)
    expected, _ = best(lambda p: loss(np.concatenate([np.zeros(WIDTH), p])), size - WIDTH)
    np.testing.assert_allclose(parameters(model)[WIDTH:], expected, rtol=1e-3, atol=1e-4)


def test_ordered_classes_are_statsmodels():
    ordinal_model = pytest.importorskip("statsmodels.miscmodels.ordinal_model", reason="statsmodels is not installed")
    theirs = ordinal_model.OrderedModel(COLUMNS["grade"], X, distr="logit")
    fit = theirs.fit(method="bfgs", disp=0, gtol=1e-9, maxiter=1000)
    ours = ml.OrdinalRegression(labelCol="grade", **EXACT).fit(TABLE)
    np.testing.assert_allclose(ours.coefficients, fit.params[:WIDTH], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours.cutPoints, theirs.transform_threshold_params(fit.params)[1:-1], rtol=1e-4)


def test_counts_are_statsmodels():
    discrete = pytest.importorskip("statsmodels.discrete.discrete_model", reason="statsmodels is not installed")
    design = np.column_stack([X, np.ones(len(X))])
    fit = discrete.NegativeBinomial(COLUMNS["many"], design, offset=COLUMNS["offset"]).fit(
        method="bfgs", disp=0, gtol=1e-9, maxiter=1000
    )
    ours = ml.NegativeBinomialRegression(labelCol="many", offsetCol="offset", **EXACT).fit(TABLE)
    found = [*ours.coefficients, ours.intercept, ours.dispersion]
    np.testing.assert_allclose(found, fit.params, rtol=1e-4, atol=1e-6)


def test_what_is_no_time_no_mark_and_no_order_is_refused():
    times = ml.AFTSurvivalRegression(labelCol="time", censorCol="ended")
    for column, value, message in (
        (
            "time",
            0.0,
            "label column 'time', partition 0 .*, row 5 is 0; it must be > 0. A time of 0 has",
        ),
        ("ended", 2.0, r"label column 'ended', partition 0 .*, row 5 is 2; it must be a whole number in \[0, 1\]"),
        ("ended", None, "label column 'ended', partition 0 .*, row 5 is null"),
    ):
        values = ROWS[column].cast(pa.float64()).to_pylist()
        values[5] = value
        rows = ROWS.set_column(ROWS.column_names.index(column), column, pa.array(values))
        with pytest.raises(DataError, match=message):
            times.fit(rows)
        if value is None:
            model = times.copy()._set(handleInvalid="skip").fit(rows)
            assert model.summary.receipt.rows == len(ROWS) - 1
    with pytest.raises(DataError, match="label column 'label' is 1 in every row"):
        ml.OrdinalRegression().fit(ROWS.filter(pa.array(COLUMNS["label"] == 1)))
    with pytest.raises(DataError, match="label column 'label', .* must be a whole number >= 0"):
        ml.NegativeBinomialRegression().fit(ROWS.drop_columns("label").append_column("label", ROWS["amount"]))


LABELS = ["label", "ended", "positive"]
MANY = TABLE.append_column("positive", pa.array((COLUMNS["amount"] > 0).astype(float)))


def labels_estimator(**options):
    return ml.MultiLabelLogisticRegression(labelCols=LABELS, weightCol="weight", regParam=0.01, **options)


@pytest.mark.parametrize("optimizer", ["auto", "lbfgs"])
def test_several_labels_are_logistic_regressions_one_by_one(optimizer, tmp_path):
    model = labels_estimator(optimizer=optimizer, **EXACT).fit(MANY)
    scored = model.transform(MANY)
    for place, label in enumerate(LABELS):
        alone = ml.LogisticRegression(labelCol=label, weightCol="weight", regParam=0.01, **EXACT).fit(MANY)
        np.testing.assert_allclose(model.arrays[0][place], alone.coefficients, rtol=1e-4, atol=1e-6)
        assert model.arrays[1][place] == pytest.approx(alone.intercept, rel=1e-4, abs=1e-6)
        by_one = alone.transform(MANY)
        found, expected = (np.array(rows["probability"].to_pylist()) for rows in (scored, by_one))
        np.testing.assert_allclose(found[:, place], expected[:, 1], atol=1e-5)
    model.save(str(tmp_path / "model"))
    again = ml.MultiLabelLogisticRegressionModel.load(str(tmp_path / "model"))
    assert again.transform(MANY).equals(scored)


def test_wrong_labels_are_named():
    for names, message in (
        (["label"], r"labelCols must be 2 to 52 columns. Got \['label'\]: for one label use LogisticRegression"),
        (["label", "label"], "labelCols must be different columns"),
    ):
        with pytest.raises(ParameterError, match=message):
            ml.MultiLabelLogisticRegression(labelCols=names).fit(MANY)
    with pytest.raises(
        DataError, match=r"label column 'amount', partition 0 .* it must be a whole number in \[0, 1\]"
    ):
        ml.MultiLabelLogisticRegression(labelCols=["label", "amount"]).fit(MANY)


def test_spark_scores_several_labels_as_one_machine_does(spark):
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions as F

    model = labels_estimator(**EXACT).fit(MANY)
    rows = MANY.select(["features", *LABELS, "weight"])
    frame = spark.createDataFrame(rows.to_pandas()).withColumn("features", F.col("features").cast("array<double>"))
    here = model.transform(rows)
    for features in ("features", array_to_vector("features")):
        given = frame if isinstance(features, str) else frame.withColumn("features", features)
        there = model.transform(given).toPandas()
        for name in ("rawPrediction", "probability", "prediction"):
            found = np.stack([one.toArray() for one in there[name]])
            np.testing.assert_array_equal(found, np.array(here[name].to_pylist()), err_msg=name)
    again = labels_estimator(**EXACT).fit(frame)
    np.testing.assert_allclose(again.arrays[0], model.arrays[0], rtol=1e-6)


@pytest.mark.parametrize(
    "kind",
    [
        ml.AFTSurvivalRegressionModel,
        ml.OrdinalRegressionModel,
        ml.NegativeBinomialRegressionModel,
        ml.MultiLabelLogisticRegressionModel,
        ml.ProbabilityCalibrationModel,
    ],
)
def test_models_without_an_export_say_so(kind, tmp_path):
    model = kind(np.zeros((1, 2)), np.zeros(1))
    with pytest.raises(IncompatibleError, match=f"a {kind.__name__} has no export to ONNX"):
        model.toOnnx(str(tmp_path / "model.onnx"))
    with pytest.raises(IncompatibleError, match=f"a {kind.__name__} has no counterpart in scikit-learn"):
        model.toSklearn()
