"""Calibration of scores: scikit-learn's functions on the same scores."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression

from sparkopt import ml
from sparkopt.errors import DataError
from sparkopt.ml.isotonic import ascending
from tests.ml.tables import COLUMNS, N

rng = np.random.default_rng(3)
SCORE = np.round(rng.normal(size=N) * 2, 2)  # many are equal
LABEL = (rng.random(N) < 1 / (1 + np.exp(-2 * SCORE - 1))).astype(float)
WEIGHT = COLUMNS["weight"]
ROWS = pa.table(
    {"score": SCORE, "rawPrediction": list(np.stack([-SCORE, SCORE], axis=1)), "label": LABEL, "weight": WEIGHT}
)
NEW = pa.table({"score": np.linspace(-9, 9, 101)})
EXACT = {"tol": 1e-14, "maxIter": 500, "engine": "local", "weightCol": "weight"}


class Scores(ClassifierMixin, BaseEstimator):
    """A classifier of scikit-learn whose scores are its only feature."""

    def fit(self, X, y):
        self.classes_ = np.array([0.0, 1.0])
        return self

    def decision_function(self, X):
        return X[:, 0]

    def predict(self, X):
        return (X[:, 0] > 0).astype(float)


def by_scikit_learn(method, scores):
    X = SCORE[:, None]
    theirs = CalibratedClassifierCV(FrozenEstimator(Scores().fit(X, LABEL)), method=method, ensemble=False, cv=2)
    with pytest.warns(UserWarning, match="sample weights will only be used for the calibration itself"):
        theirs.fit(X, LABEL, sample_weight=WEIGHT)
    return theirs.predict_proba(scores[:, None])


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_probabilities_are_scikit_learns(method, tmp_path):
    model = ml.ProbabilityCalibration(method=method, featuresCols=["score"], **EXACT).fit(ROWS)
    scored = model.transform(NEW)
    found = np.array(scored["calibratedProbability"].to_pylist())
    np.testing.assert_allclose(found, by_scikit_learn(method, NEW["score"].to_numpy()), atol=1e-4)
    np.testing.assert_array_equal(scored["calibratedPrediction"], (found[:, 1] > 0.5).astype(float))
    assert (np.diff(found[:, 1]) >= 0).all()
    model.save(str(tmp_path / "model"))
    again = ml.ProbabilityCalibrationModel.load(str(tmp_path / "model"))
    assert again.transform(NEW).equals(scored)
    assert again.points == model.points
    assert bool(model.points) == (method == "isotonic")


def test_isotonic_points_are_scikit_learns():
    model = ml.ProbabilityCalibration(method="isotonic", featuresCols=["score"], **EXACT).fit(ROWS)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(SCORE, LABEL, sample_weight=WEIGHT)
    scores, values = np.array(model.points).T
    np.testing.assert_array_equal(scores, theirs.X_thresholds_)
    np.testing.assert_allclose(values, theirs.y_thresholds_, atol=1e-12)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_a_vector_of_both_classes_scores_is_the_same_as_the_score(method):
    one = ml.ProbabilityCalibration(method=method, featuresCols=["score"], **EXACT).fit(ROWS)
    both = ml.ProbabilityCalibration(method=method, **EXACT).fit(ROWS)
    found, expected = (np.array(model.transform(ROWS)["calibratedProbability"].to_pylist()) for model in (both, one))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert both.evaluate(ROWS).accuracy == pytest.approx(((expected[:, 1] > 0.5) == LABEL) @ WEIGHT / WEIGHT.sum())


def test_ascending_numbers_are_scikit_learns():
    values, weights = rng.normal(size=300) + np.linspace(0, 2, 300), rng.uniform(0.1, 2, 300)
    theirs = IsotonicRegression().fit_transform(np.arange(300), values, sample_weight=weights)
    np.testing.assert_allclose(ascending(values, weights), theirs, atol=1e-12)


def test_it_is_a_stage_after_a_classifier():
    pipeline = ml.Pipeline(
        stages=[ml.LinearSVC(featuresCols=["score"]), ml.ProbabilityCalibration(method="isotonic")]
    )
    scored = pipeline.fit(ROWS.drop_columns("rawPrediction")).transform(ROWS.drop_columns("rawPrediction"))
    assert {"rawPrediction", "calibratedProbability", "calibratedPrediction"} <= set(scored.column_names)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_rows_of_one_class_are_refused(method):
    with pytest.raises(DataError, match="label column 'label' is 1 in every row: probabilities need rows of both"):
        ml.ProbabilityCalibration(method=method).fit(ROWS.filter(pa.array(LABEL == 1)))


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_spark_scores_as_one_machine_does(spark, method):
    frame = spark.createDataFrame(ROWS.select(["score", "label", "weight"]).to_pandas())
    estimator = ml.ProbabilityCalibration(method=method, featuresCols=["score"], **EXACT)
    model = estimator.fit(frame)
    here = estimator.fit(ROWS).transform(ROWS)["calibratedProbability"].to_pylist()
    there = model.transform(frame).toPandas()["calibratedProbability"]
    np.testing.assert_allclose(np.stack([one.toArray() for one in there]), np.array(here), atol=1e-9)
