"""Estimators on real rows, without Spark: scores, refusals, persistence, callbacks, the receipt."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pyspark.ml.linalg import Vectors
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression

from sparkopt.errors import DataError, NotConvergedWarning, SchemaError
from sparkopt.ml import LinearRegression, LinearRegressionModel, LogisticRegression, LogisticRegressionModel
from sparkopt.report import Receipt
from tests import spark_data as data

QUICK = dict(maxIter=5, tol=0.0)


@pytest.fixture(scope="module")
def cancer():
    return data.table(*data.breast_cancer_arrays())


@pytest.fixture(scope="module")
def digits():
    return data.table(*load_digits(return_X_y=True))


def rows_of(column) -> np.ndarray:
    """A column of lists as a matrix."""
    return np.array(column.to_pylist())


@pytest.fixture(scope="module")
def multinomial(digits):
    return LogisticRegression(engine="driver", regParam=0.01, **QUICK).fit(digits)


def test_probabilities_are_scikit_learns(cancer):
    """Same objective (C = 1 / (n · regParam), no standardisation), another library."""
    model = LogisticRegression(regParam=0.01, standardization=False, tol=1e-10).fit(cancer)
    X, y = rows_of(cancer["features"]), cancer["label"].to_numpy()
    theirs = SklearnLogisticRegression(C=1 / (len(y) * 0.01), tol=1e-8, max_iter=1000).fit(X, y)
    ours = rows_of(model.transform(cancer)["probability"])
    np.testing.assert_allclose(ours, theirs.predict_proba(X), atol=1e-5)


def test_scoring_agrees_with_the_model(multinomial, digits):
    scored = multinomial.transform(digits.slice(0, 50))
    X = rows_of(scored["features"])
    raw = X @ multinomial.coefficientMatrix.toArray().T + multinomial.interceptVector.toArray()
    np.testing.assert_allclose(rows_of(scored["rawPrediction"]), raw, rtol=1e-10)
    np.testing.assert_allclose(rows_of(scored["probability"]).sum(axis=1), 1.0)
    assert scored["prediction"].to_pylist() == raw.argmax(axis=1).tolist()
    first = Vectors.dense(X[0])
    assert multinomial.predict(first) == multinomial.predictRaw(first).argmax()
    assert multinomial.predictProbability(first).values.argmax() == multinomial.predict(first)


def test_multinomial_models_are_centred(digits):
    model = LogisticRegression(**QUICK).fit(digits)
    np.testing.assert_allclose(model.coefficientMatrix.toArray().sum(axis=0), 0, atol=1e-10)
    assert sum(model.interceptVector) == pytest.approx(0, abs=1e-10)
    with pytest.raises(AttributeError, match="use coefficientMatrix"):
        _ = model.coefficients


def test_outputs_can_be_left_out_and_renamed(multinomial, digits):
    bare = multinomial.copy().setRawPredictionCol("").setProbabilityCol("").setPredictionCol("digit")
    assert bare.transform(digits).column_names == [*digits.column_names, "digit"]


def test_an_existing_output_column_is_refused(multinomial, digits):
    with pytest.raises(SchemaError, match="output column 'rawPrediction' exists already"):
        multinomial.transform(multinomial.transform(digits))


def test_rows_of_another_width_are_refused(multinomial):
    with pytest.raises(DataError, match="a row has 2 features; the model was trained on 64"):
        multinomial.predict(Vectors.dense([1.0, 2.0]))


@pytest.mark.parametrize("kind", ["regression", "binomial", "multinomial"])
def test_models_survive_the_disk(kind, cancer, digits, multinomial, tmp_path):
    if kind == "multinomial":
        model, rows, loader = multinomial, digits, LogisticRegressionModel
    elif kind == "binomial":
        model, rows, loader = LogisticRegression(regParam=0.1, **QUICK).fit(cancer), cancer, LogisticRegressionModel
    else:
        model, rows, loader = LinearRegression(predictionCol="p", **QUICK).fit(cancer), cancer, LinearRegressionModel
    model.write().overwrite().save(str(tmp_path / "model"))
    loaded = loader.load(str(tmp_path / "model"))
    assert all(np.array_equal(a, b) for a, b in zip(loaded.arrays, model.arrays, strict=True))
    assert loaded.uid == model.uid
    assert not loaded.hasSummary
    with pytest.raises(AttributeError, match="no summary"):
        _ = loaded.summary
    assert loaded.transform(rows.slice(0, 20)).equals(model.transform(rows.slice(0, 20)))
    assert not [path for path in (tmp_path / "model").rglob("*") if path.suffix in (".pkl", ".pickle")]


def test_loading_as_another_kind_is_refused(multinomial, tmp_path):
    multinomial.save(str(tmp_path / "model"))
    with pytest.raises(DataError, match="LogisticRegressionModel, not a .*LinearRegressionModel"):
        LinearRegressionModel.load(str(tmp_path / "model"))


def test_estimators_survive_the_disk(tmp_path):
    estimator = LogisticRegression(regParam=0.3, optimizer="adam", stepSize=0.2, featuresCols=["a", "b"])
    estimator.save(str(tmp_path / "estimator"))
    loaded = LogisticRegression.load(str(tmp_path / "estimator"))
    assert {p.name: v for p, v in loaded.extractParamMap().items()} == {
        p.name: v for p, v in estimator.extractParamMap().items()
    }


def test_too_few_steps_are_warned_of(cancer):
    known = r"'proximal-newton' stopped at maxIter=2 before its tolerance of 1e-06 .* is about \S+ above the optimum"
    with pytest.warns(NotConvergedWarning, match=known):
        LogisticRegression(maxIter=2).fit(cancer)
    unknown = r"'gd' stopped at maxIter=3 before its tolerance of 1e-06 .* fell by \S+ in the last 3 steps"
    with pytest.warns(NotConvergedWarning, match=unknown):
        LogisticRegression(maxIter=3, optimizer="gd").fit(cancer)


def test_callbacks_see_each_step_and_may_stop(cancer):
    seen = []
    estimator = LogisticRegression(maxIter=50, tol=0.0)
    estimator.callbacks = [lambda progress: seen.append(progress.record.step) or progress.record.step >= 3]
    model = estimator.fit(cancer)
    assert seen == [0, 1, 2, 3]
    assert model.summary.totalIterations == 3
    assert model.summary.receipt.reason == "callback"


def test_the_receipt_adds_up(multinomial, digits, tmp_path):
    receipt = multinomial.summary.receipt
    assert receipt.rows == digits.num_rows
    assert receipt.rows_touched == receipt.passes * receipt.rows
    phases = sum(receipt.seconds[name] for name in ("ingest", "compute", "reduce", "schedule", "optimizer"))
    assert phases == pytest.approx(receipt.seconds["total"], rel=0.05)
    assert receipt.objective == multinomial.summary.objectiveHistory
    assert receipt.objective[0] == pytest.approx(np.log(10))
    point, hessian = 650, 650 * 651 // 2  # coefficients go out; a gradient and the triangle of a Hessian come back
    assert receipt.bytes["sent"] == receipt.passes * receipt.partitions * (2 * point + hessian) * 8
    assert sum(receipt.sent) == receipt.bytes["sent"]
    assert len(receipt.sent) in (receipt.steps + 1, receipt.steps + 2)
    receipt.save(tmp_path / "receipt.json")
    assert Receipt.from_dict(json.loads((tmp_path / "receipt.json").read_text())) == receipt
    receipt.plot(tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert f"{receipt.rows:,}" in str(receipt)
