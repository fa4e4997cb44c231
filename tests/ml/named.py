"""Columns by names as Spark resolves them: on one machine, Spark Classic and Spark Connect."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt import ml

N = 90
RNG = np.random.default_rng(21)
X, Z = RNG.normal(size=N).round(3), RNG.normal(size=N).round(3)
LABEL = (X + Z + RNG.logistic(size=N) > 0).astype(float)
WEIGHT = RNG.uniform(0.5, 2.0, N).round(2)
POINTS = pa.array([{"x1": x, "Z": z, "vip": {"w": w}} for x, z, w in zip(X, Z, WEIGHT, strict=True)])
OTHERS = pa.array([{"x1": 0.0, "Z": 1.0}] * N)


@dataclass(frozen=True)
class Named:
    """Columns, and how an estimator names them.

    Attributes
    ----------
    columns : dict
        The columns.
    features, label, weight
        What featuresCols, labelCol and weightCol are.
    """

    columns: dict[str, Any]
    features: list[str]
    label: str = "label"
    weight: str = "weight"

    def table(self) -> pa.Table:
        """The rows."""
        return pa.table({"label": LABEL, "weight": WEIGHT, **self.columns})

    def estimator(self) -> ml.LogisticRegression:
        """Return a classifier of them."""
        return ml.LogisticRegression(
            featuresCols=self.features, labelCol=self.label, weightCol=self.weight, regParam=0.1, maxIter=20
        )

    def require(self, rows: Any, names: list[str]) -> None:
        """The model, its scores and its figures are those of rows with plain names."""
        expected, shares, accuracy = plain()
        model = self.estimator().fit(rows)
        np.testing.assert_array_equal(model.coefficients.toArray(), expected)
        scored = model.transform(rows)
        columns = getattr(scored, "column_names", None) or scored.columns
        assert list(columns) == [*names, "rawPrediction", "probability", "prediction"]
        assert model.evaluate(rows).accuracy == accuracy
        found = scored["probability"].to_pylist() if isinstance(scored, pa.Table) else _shares(scored)
        np.testing.assert_allclose(found, shares, rtol=1e-12)
        assert self.estimator().setHandleInvalid("skip").fit(rows).coefficients == model.coefficients
        balanced = self.estimator().setClassWeights("balanced").fit(rows)
        assert balanced.coefficients == plain_balanced()


def _shares(scored: Any) -> list[Any]:
    return [row.probability.toArray().tolist() for row in scored.select("probability").collect()]


@cache
def plain() -> tuple[Any, Any, float]:
    """Coefficients, probabilities and accuracy with plain names."""
    case = Named({"x": X, "z": Z}, ["x", "z"])
    model = case.estimator().fit(case.table())
    shares = model.transform(case.table())["probability"].to_pylist()
    return model.coefficients.toArray(), shares, model.evaluate(case.table()).accuracy


@cache
def plain_balanced() -> Any:
    """Coefficients with balanced classes."""
    case = Named({"x": X, "z": Z}, ["x", "z"])
    return case.estimator().setClassWeights("balanced").fit(case.table()).coefficients


CASES = {
    "as they are": Named({"x": X, "z": Z}, ["x", "z"]),
    "another case": Named({"x": X, "Zeta": Z}, ["X", "zeta"], "LABEL", "Weight"),
    "fields": Named({"p": POINTS}, ["p.x1", "p.Z"]),
    "fields in another case": Named({"p": POINTS}, ["P.X1", "p.z"], "Label", "p.vip.w"),
    "names with a dot": Named({"p.x1": X, "a b.c": Z}, ["p.x1", "a b.c"]),
    "a real name with a dot wins": Named({"p": OTHERS, "p.x1": X, "p.Z": Z}, ["p.x1", "p.Z"]),
    "in backticks": Named({"p.x1": X, "z": Z}, ["`p.x1`", "`z`"], "`label`", "`weight`"),
    "with a backtick": Named({"a`b": X, "z": Z}, ["a`b", "z"]),
    "fields in backticks": Named({"q.r": POINTS}, ["`q.r`.x1", "`q.r`.`Z`"]),
    "letters of other scripts": Named({"yaş": X, "城市 等级": Z}, ["YAŞ", "城市 等级"]),
    "a map beside them": Named(
        {"x": X, "z": Z, "m": pa.array([[("a", 1)]] * N, pa.map_(pa.string(), pa.int64()))}, ["x", "z"]
    ),
}
