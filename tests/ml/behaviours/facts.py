"""Figures that pyspark.ml's and spark-rapids-ml's Python tests state for data sets of a few rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyspark.ml.linalg import Matrices, Vectors
from sklearn.datasets import load_iris

from tests.ml.behaviours.kinds import OURS, THEIRS, World
from tests.ml.behaviours.register import behaviour

POINTS = [(0.0, 5.0), (1.0, 2.0), (2.0, 1.0), (3.0, 3.0)]


def points(world: World, labels: list[float], vectors: list[Any] | None = None) -> Any:
    """Four points with weights of 1 to 4."""
    rows = [
        (label, float(i + 1), Vectors.dense(x) if isinstance(x, tuple) else x)
        for i, (label, x) in enumerate(zip(labels, vectors or POINTS, strict=False))
    ]
    return world.frame(rows, ["label", "weight", "features"])


@behaviour()
def bounds_on_two_classes_hold(world: World) -> None:
    estimator = OURS.LogisticRegression(
        regParam=0.01,
        weightCol="weight",
        lowerBoundsOnCoefficients=Matrices.dense(1, 2, [-1.0, -1.0]),
        upperBoundsOnIntercepts=Vectors.dense(0.0),
    )
    model = estimator.fit(points(world, [1.0, 0.0, 1.0, 0.0]))
    np.testing.assert_allclose(model.coefficients, [-0.2944, -0.0484], atol=1e-4)
    assert abs(model.intercept) < 1e-4


@behaviour()
def bounds_on_three_classes_hold(world: World) -> None:
    """Intercepts below no bound are determined up to a constant: their differences are the optimum's."""
    X, label = load_iris(return_X_y=True)
    scaled = np.round(2 * (X - X.min(axis=0)) / np.ptp(X, axis=0) - 1, 2)
    rows = world.frame(
        [(float(y), Vectors.dense(x)) for x, y in zip(scaled, label, strict=True)], ["label", "features"]
    )
    bounds = {
        "lowerBoundsOnCoefficients": Matrices.dense(3, 4, list(range(12))),
        "upperBoundsOnIntercepts": Vectors.dense(0.0, 0.0, 0.0),
    }
    ours, theirs = (package.LogisticRegression(regParam=0.01, **bounds).fit(rows) for package in (OURS, THEIRS))
    found, expected = (model.coefficientMatrix.toArray() for model in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert (found == np.arange(12).reshape(4, 3).T).sum() > 3
    found, expected = (model.interceptVector.toArray() for model in (ours, theirs))
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=2e-3)
    assert found.max() <= 0.0


@behaviour()
def sparse_bounds_are_saved(world: World) -> None:
    bounds = {
        "LowerBoundsOnIntercepts": Vectors.dense([1, 2, 3, 4]),
        "UpperBoundsOnIntercepts": Vectors.sparse(4, [(1, 1.0), (3, 5.5)]),
        "LowerBoundsOnCoefficients": Matrices.dense(3, 2, [0, 1, 4, 5, 9, 10]),
        "UpperBoundsOnCoefficients": Matrices.sparse(1, 1, [0, 1], [0], [2.0]),
    }
    estimator = OURS.LogisticRegression(**{name[0].lower() + name[1:]: value for name, value in bounds.items()})
    estimator.save(world.path("bounds"))
    for found in (estimator, OURS.LogisticRegression.load(world.path("bounds"))):
        for name, value in bounds.items():
            np.testing.assert_array_equal(getattr(found, f"get{name}")().toArray(), value.toArray())


@behaviour()
def thresholds_on_the_model_decide(world: World) -> None:
    rows = points(world, [1.0, 0.0, 1.0, 0.0])
    model = OURS.LogisticRegression(weightCol="weight").fit(rows)
    expected = {0.0: [1, 1, 1, 1], 0.5: [0, 1, 1, 0], 1.0: [0, 0, 0, 0]}
    for threshold, predictions in expected.items():
        scored = model.setThreshold(threshold).transform(rows).orderBy("weight").collect()
        assert [row.prediction for row in scored] == predictions
        assert [model.predict(row.features) for row in scored] == predictions
    model.clear(model.threshold)
    assert model.getThreshold() == 0.5


LINES = {
    "coefficientStandardErrors": [1.2859821149611763, 0.6248749874975031, 3.1645497310044184],
    "devianceResiduals": [-0.7424621202458727, 0.7875000000000003],
    "pValues": [0.7020630236843428, 0.8866003086182783, 0.9298746994547682],
    "tValues": [0.5054502643838291, 0.1800360108036021, -0.11060025272186746],
    "explainedVariance": 0.07997500000000031,
    "meanAbsoluteError": 0.4200000000000002,
    "meanSquaredError": 0.20212500000000005,
    "rootMeanSquaredError": 0.44958314025327956,
    "degreesOfFreedom": 1,
    "numInstances": 4,
}


@behaviour()
def weighted_least_squares_on_four_points(world: World) -> None:
    rows = points(world, [1.0, 0.0, 1.5, 0.7], [(0.0, 5.0), (1.0, 2.0), (2.0, 1.0), (1.5, 3.0)])
    model = OURS.LinearRegression(regParam=0.0, maxIter=2, solver="normal", weightCol="weight").fit(rows)
    np.testing.assert_allclose(
        [*model.coefficients, model.intercept, model.scale], [0.65, 0.1125, -0.35, 1], atol=1e-8
    )
    assert abs(model.predict(Vectors.dense(0.0, 5.0)) - 0.2125) < 1e-8
    for summary in (model.summary, model.evaluate(rows)):
        for name, value in LINES.items():
            np.testing.assert_allclose(getattr(summary, name), value, rtol=1e-6, err_msg=name)
        assert summary.residuals.columns == ["residuals"]
        assert summary.residuals.count() == 4


@behaviour()
def an_exact_line_through_the_origin(world: World) -> None:
    rows = points(world, [1.0, 0.0], [Vectors.dense(1.0), Vectors.sparse(1, [], [])])
    model = OURS.LinearRegression(maxIter=5, solver="normal", weightCol="weight", fitIntercept=False).fit(rows)
    summary = model.summary
    np.testing.assert_allclose([summary.r2, summary.r2adj, *model.coefficients], 1.0)
    assert summary.meanSquaredError < 1e-12
    assert (summary.numInstances, summary.degreesOfFreedom) == (2, 1)
    other = OURS.GeneralizedLinearRegression(family="gaussian", weightCol="weight", fitIntercept=False).fit(rows)
    found = other.summary
    assert found.numIterations >= 1
    assert (found.rank, found.degreesOfFreedom, found.numInstances) == (1, 1, 2)
    assert (found.residualDegreeOfFreedom, found.residualDegreeOfFreedomNull) == (1, 2)


@behaviour()
def two_and_three_classes_on_a_line(world: World) -> None:
    vectors = [Vectors.dense(1.0), Vectors.sparse(1, [], []), Vectors.dense(2.0), Vectors.dense(1.9)]
    for labels, expected in (
        ([1.0, 0.0], [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]),
        ([1.0, 0.0, 2.0, 2.0], [0.75, 0.75, 0.25, 0.75, 0.583, 0.65]),
    ):
        rows = points(world, labels, vectors).drop("weight")
        model = OURS.LogisticRegression(maxIter=5, regParam=0.01, fitIntercept=False).fit(rows)
        found = model.summary
        shares = [found.accuracy, found.weightedTruePositiveRate, found.weightedFalsePositiveRate]
        shares += [found.weightedRecall, found.weightedPrecision, found.weightedFMeasure(1.0)]
        np.testing.assert_allclose(shares, expected, atol=5e-3)
        assert found.labels == sorted(set(labels))


@behaviour()
def supports_of_two_points(world: World) -> None:
    rows = points(world, [1.0, 0.0], [(1.0, 1.0, 1.0), (1.0, 2.0, 3.0)])
    model = OURS.LinearSVC(maxIter=50, weightCol="weight").fit(rows)
    assert model.summary().scoreCol == "rawPrediction"
    for found in (model.summary(), model.evaluate(rows)):
        shares = [found.areaUnderROC, found.accuracy, found.weightedRecall, found.weightedPrecision]
        assert shares == [1.0] * 4
        assert found.weightedFalsePositiveRate == 0.0


@behaviour()
def four_points_without_standardisation(world: World) -> None:
    table = [([1.0, 2.0], 1.0), ([1.0, 3.0], 1.0), ([2.0, 1.0], 0.0), ([3.0, 1.0], 0.0)]
    arrays = world.frame(table, "features array<float>, label float")
    model = OURS.LogisticRegression(standardization=False, regParam=1.0, tol=1e-12, probabilityCol="p").fit(arrays)
    np.testing.assert_allclose(model.coefficients, [-0.287264, 0.287264], atol=1e-6)
    assert abs(model.intercept) < 1e-6
    scored = model.transform(arrays).collect()
    assert [row.prediction for row in scored] == [row.p[1] > 0.5 for row in scored] == [1.0, 1.0, 0.0, 0.0]
    vectors = points(world, [label for _, label in table], [tuple(x) for x, _ in table])
    for standardised, slope in ((True, 2.48197058), (False, 2.42377087)):
        model = OURS.LogisticRegression(regParam=0.01, standardization=standardised, tol=1e-9).fit(vectors)
        np.testing.assert_allclose(model.coefficients, [-slope, slope], rtol=1e-3)


@behaviour()
def integers_of_every_width_are_features_and_labels(world: World) -> None:
    table = [(1, 4, 4, 4, 0), (2, 2, 2, 2, 1), (3, 3, 3, 2, 2), (3, 3, 3, 2, 3), (5, 2, 1, 3, 4)]
    found = []
    for kind in ("byte", "short", "long", "decimal(9, 2)"):
        names = ["a", "b", "c", "d", "label"]
        rows = world.frame([tuple(map(float, row)) for row in table], names)
        rows = rows.select(*[rows[name].cast(kind).alias(name) for name in names])
        model = OURS.LinearRegression(featuresCols=names[:-1], regParam=0.1, tol=1e-12).fit(rows)
        found.append(np.append(model.coefficients.toArray(), model.intercept))
    byte, short, long, decimal = found
    np.testing.assert_allclose(short, byte, rtol=1e-12)  # both are kept as float32
    np.testing.assert_allclose(decimal, long, rtol=1e-12)  # both as float64
    np.testing.assert_allclose(short, long, rtol=1e-5)


@behaviour()
def labels_that_are_no_classes_are_refused(world: World) -> None:
    for wrong in (-3.0, 0.4):
        rows = points(world, [1.0, 0.0, wrong, 2.0])
        with pytest.raises(ValueError, match=f"{wrong:g}"):
            OURS.LogisticRegression().fit(rows)
