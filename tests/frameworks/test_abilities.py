"""What the guide says works on tables of Flink: fits and scores are those of one machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from sparkopt import Table
from sparkopt.engines.selection import ENGINES
from sparkopt.ml import (
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    OneVsRest,
)
from tests.frameworks.conftest import NAMES, ROWS, Framework, columns, here

X = {"featuresCols": NAMES}
LOGISTIC = {**X, "regParam": 0.01}
FITS = {
    "weights": LogisticRegression(weightCol="w", **LOGISTIC),
    "an offset": GeneralizedLinearRegression(family="poisson", labelCol="three", offsetCol="w", **X),
    "a validation column": LogisticRegression(validationIndicatorCol="held", **LOGISTIC),
    "rows that are kept": LogisticRegression(handleInvalid="keep", **LOGISTIC),
    "rows that are skipped": LogisticRegression(handleInvalid="skip", **LOGISTIC),
    "three classes": LogisticRegression(labelCol="three", **LOGISTIC),
    "least squares": LinearRegression(labelCol="line", **X),
    "Huber": LinearRegression(labelCol="line", loss="huber", **X),
    "a hinge": LinearSVC(regParam=0.01, **X),
}


@pytest.fixture(autouse=True)
def only_flink(framework: Framework) -> None:
    """Skip frameworks that these tests have not been tried on."""
    if framework.name != "flink":
        pytest.skip("tried on Flink alone so far")


def _rows() -> pd.DataFrame:
    rows, rng = columns("columns"), np.random.default_rng(3)
    rows["w"], rows["held"] = rng.random(ROWS) + 0.5, rng.random(ROWS) < 0.25
    rows["three"] = np.arange(ROWS) % 3.0
    rows["line"] = rows[NAMES].sum(axis=1) + rng.normal(size=ROWS)
    return rows


def _fitted(model: Any) -> np.ndarray:
    if hasattr(model, "coefficientMatrix"):
        return np.concatenate([model.coefficientMatrix.toArray().ravel(), model.interceptVector.toArray()])
    return np.append(model.coefficients.toArray(), model.intercept)


def _predictions(framework: Framework, scored: Any) -> np.ndarray:
    return framework.pandas(scored).sort_values("id")["prediction"].to_numpy()


@pytest.mark.parametrize("name", FITS)
def test_fits_and_scores_are_those_of_one_machine(framework: Framework, name: str):
    rows, estimator = _rows(), FITS[name]
    if estimator.getHandleInvalid() != "error":
        rows.loc[rows["id"] % 5 == 0, "x2"] = np.nan
    frame = framework.frame(rows)
    there, one = estimator.fit(frame), estimator.fit(here(frame))
    assert np.array_equal(_fitted(there), _fitted(one))
    assert there.summary.objectiveHistory == one.summary.objectiveHistory
    expected = one.transform(here(frame)).to_arrow()["prediction"].to_numpy()
    np.testing.assert_array_equal(_predictions(framework, there.transform(frame)), expected)


def test_engines_are_those_of_one_machine(framework: Framework):
    table = Table.of(framework.frame(_rows()))
    for engine in ENGINES:
        estimator = LogisticRegression(engine=engine, **LOGISTIC)
        there, one = estimator.fit(table), estimator.fit(_rows())
        assert np.array_equal(_fitted(there), _fitted(one))
        assert there.summary.receipt.engine == one.summary.receipt.engine


def test_one_against_the_rest_scores_where_the_rows_are(framework: Framework):
    frame = framework.frame(_rows())
    several = OneVsRest(classifier=LogisticRegression(**LOGISTIC), labelCol="three")
    there, one = several.fit(frame), several.fit(here(frame))
    expected = one.transform(here(frame)).to_arrow()["prediction"].to_numpy()
    np.testing.assert_array_equal(_predictions(framework, there.transform(frame)), expected)
