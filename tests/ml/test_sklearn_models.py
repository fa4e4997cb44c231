"""Models to scikit-learn and back: the predictions of the one are those of the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn import linear_model, svm
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.ml import (
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    QuantileRegression,
    from_sklearn,
)

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 3)) * [1.0, 5.0, 0.2] + [3.0, 0.0, -1.0]
    two = (X[:, 0] - 3 + 0.1 * X[:, 1] + rng.logistic(size=150) > 0).astype(float)
    three = np.digitize(X[:, 1], [-3, 3]).astype(float)
    return X, {"amount": X @ [1.0, -0.2, 3.0] + rng.normal(size=150), "two": two, "three": three}


@pytest.fixture(scope="module")
def rows(data):
    X, targets = data
    columns = {name: X[:, i] for i, name in enumerate(NAMES)}
    return pa.table({**columns, "features": pa.array(X.tolist()), **targets})


OURS = {
    "least squares": LinearRegression(labelCol="amount"),
    "lasso": LinearRegression(labelCol="amount", regParam=0.1, elasticNetParam=1.0),
    "huber": LinearRegression(labelCol="amount", loss="huber", epsilon=1.5),
    "quantile": QuantileRegression(labelCol="amount", quantile=0.8),
    "logistic": LogisticRegression(labelCol="two", regParam=0.01),
    "multinomial": LogisticRegression(labelCol="three", regParam=0.01),
    "support vectors": LinearSVC(labelCol="two", regParam=0.01),
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("columns", [None, NAMES], ids=["vectors", "columns"])
def test_theirs_predict_what_ours_do(data, rows, name, columns):
    estimator = OURS[name].copy()
    model = (estimator if columns is None else estimator.setFeaturesCols(columns)).fit(rows)
    theirs, scored = model.toSklearn(), model.transform(rows)
    X = data[0] if columns is None else pd.DataFrame(data[0], columns=NAMES)
    np.testing.assert_allclose(theirs.predict(X), scored["prediction"].to_numpy(), rtol=1e-12, atol=1e-14)
    if "probability" in scored.column_names:
        np.testing.assert_allclose(theirs.predict_proba(X), scored["probability"].to_pylist(), rtol=1e-10, atol=1e-14)
    back = from_sklearn(theirs)
    assert type(back) is type(model)
    again = back.transform(rows)
    for column in set(scored.column_names) - set(rows.column_names):
        np.testing.assert_allclose(again[column].to_pylist(), scored[column].to_pylist(), rtol=1e-12, atol=1e-14)
    if name == "huber":
        assert back.scale == pytest.approx(model.scale)


LEAST_SQUARES, LOGISTIC = linear_model.Ridge(), linear_model.LogisticRegression(max_iter=2000)
THEIRS = {
    "ridge": (linear_model.Ridge(), "amount"),
    "elastic net": (linear_model.ElasticNet(alpha=0.1), "amount"),
    "no intercept": (linear_model.Lasso(alpha=0.1, fit_intercept=False), "amount"),
    "huber": (linear_model.HuberRegressor(max_iter=2000), "amount"),
    "quantile": (linear_model.QuantileRegressor(quantile=0.3, alpha=0.0), "amount"),
    "logistic": (linear_model.LogisticRegression(), "two"),
    "multinomial": (linear_model.LogisticRegression(max_iter=2000), "three"),
    "support vectors": (svm.LinearSVC(), "two"),
    "sgd, hinge": (linear_model.SGDClassifier(random_state=0), "two"),
    "sgd, log loss": (linear_model.SGDClassifier(loss="log_loss", random_state=0), "two"),
    "scaled": (make_pipeline(StandardScaler(), linear_model.LogisticRegression()), "two"),
    "scaled twice": (make_pipeline(StandardScaler(with_mean=False), StandardScaler(), LEAST_SQUARES), "amount"),
    "centred, multinomial": (make_pipeline(StandardScaler(with_std=False), LOGISTIC), "three"),
}


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("is_named", [False, True])
def test_ours_predict_what_theirs_do(data, rows, name, is_named):
    (estimator, target), X = THEIRS[name], data[0]
    X = pd.DataFrame(X, columns=NAMES) if is_named else X
    estimator.fit(X, data[1][target])
    model = from_sklearn(estimator)
    assert model._features() == (NAMES if is_named else "features")
    scored = model.transform(rows)
    np.testing.assert_allclose(scored["prediction"].to_numpy(), estimator.predict(X), rtol=1e-10, atol=1e-12)
    if hasattr(estimator, "predict_proba"):
        np.testing.assert_allclose(
            scored["probability"].to_pylist(), estimator.predict_proba(X), rtol=1e-9, atol=1e-14
        )


def test_what_has_no_counterpart_is_refused(data, rows):
    X, targets = data
    with pytest.raises(IncompatibleError, match="a GeneralizedLinearRegressionModel has no counterpart"):
        GeneralizedLinearRegression(labelCol="amount").fit(rows).toSklearn()
    with pytest.raises(IncompatibleError, match="threshold=0.3 has no counterpart"):
        LogisticRegression(labelCol="two", threshold=0.3).fit(rows).toSklearn()
    with pytest.raises(IncompatibleError, match="threshold=1 has no counterpart"):
        LinearSVC(labelCol="two", threshold=1.0).fit(rows).toSklearn()
    with pytest.raises(IncompatibleError, match="thresholds have no counterpart"):
        LogisticRegression(labelCol="three", thresholds=[0.2, 0.5, 0.3]).fit(rows).toSklearn()
    with pytest.raises(ParameterError, match="fit it first"):
        from_sklearn(linear_model.Ridge())
    with pytest.raises(IncompatibleError, match="a Pipeline with MinMaxScaler is no linear model"):
        from_sklearn(make_pipeline(MinMaxScaler(), linear_model.Ridge()).fit(X, targets["amount"]))
    with pytest.raises(IncompatibleError, match="has 2 targets"):
        from_sklearn(linear_model.Ridge().fit(X, np.stack([targets["amount"]] * 2, axis=1)))
    with pytest.raises(IncompatibleError, match="the labels of this LogisticRegression are -1.0, 1.0"):
        from_sklearn(linear_model.LogisticRegression().fit(X, 2 * targets["two"] - 1))
    with pytest.raises(IncompatibleError, match="a LinearSVC of 3 classes"):
        from_sklearn(svm.LinearSVC().fit(X, targets["three"]))
    with pytest.raises(IncompatibleError, match="a PoissonRegressor has no counterpart"):
        from_sklearn(linear_model.PoissonRegressor().fit(X, targets["three"]))
