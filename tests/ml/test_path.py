"""Regularisation paths, against scikit-learn's paths, single fits, optimality conditions and pyspark.ml."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LassoCV, enet_path
from sklearn.model_selection import PredefinedSplit

from sparkopt.errors import DataError, IncompatibleError, NoSummaryError, ParameterError, SchemaError
from sparkopt.ml import LinearRegression, LinearRegressionModel
from sparkopt.ml import path_fit as paths

ROWS, FEATURES = 600, 8
NAMES = [f"x{index}" for index in range(FEATURES)]


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, FEATURES)) * rng.uniform(0.2, 5.0, FEATURES) + rng.normal(size=FEATURES) * 10
    X[:, 3] = 0.7 * X[:, 2] + 0.3 * X[:, 3]
    y = X @ np.array([1.0, 0.0, -2.0, 0.0, 0.5, 0.0, 0.0, 3.0]) + rng.normal(size=ROWS) * 3 + 20
    weight = rng.integers(1, 4, ROWS).astype(float)
    fold = (np.arange(ROWS) % 7 % 3).astype(np.int32)  # of different sizes
    return X, y, weight, fold


@pytest.fixture(scope="module")
def rows(arrays):
    X, y, weight, fold = arrays
    return pa.table({name: X[:, i] for i, name in enumerate(NAMES)} | {"label": y, "weight": weight, "fold": fold})


def lasso(**options):
    return LinearRegression(featuresCols=NAMES, **{"elasticNetParam": 1.0, **options})


@pytest.mark.parametrize("ratio", [1.0, 0.3])
@pytest.mark.parametrize("weighs", [False, True])
def test_points_are_those_of_scikit_learn(arrays, rows, ratio, weighs):
    X, y, weight, _ = arrays
    weight = weight if weighs else np.ones(ROWS)
    found = lasso(elasticNetParam=ratio, standardization=False, weightCol="weight" if weighs else None).fitPath(
        rows, numLambdas=30
    )
    mean = weight / weight.sum()
    root = np.sqrt(mean * ROWS)
    Xc, yc = (X - mean @ X) * root[:, None], (y - mean @ y) * root
    deviation = np.sqrt(yc @ yc / ROWS)  # pyspark.ml's objective is over the target divided by it
    l1, l2 = ratio, (1 - ratio) / deviation
    alphas = found.lambdas * (l1 + l2)
    _, expected, _ = enet_path(Xc, yc, l1_ratio=l1 / (l1 + l2), alphas=alphas, tol=1e-13, max_iter=100_000)
    np.testing.assert_allclose(found.coefficients, expected.T, atol=1e-9)
    np.testing.assert_allclose(found.intercepts, mean @ y - found.coefficients @ (mean @ X), rtol=1e-9)
    residual = yc[:, None] - Xc @ expected
    np.testing.assert_allclose(found.r2, 1 - (residual**2).sum(axis=0) / (yc @ yc), atol=1e-9)
    assert (found.df == (found.coefficients != 0).sum(axis=1)).all()


def test_the_grid_is_glmnets(arrays, rows):
    X, y, _, _ = arrays
    found = lasso(standardization=False, elasticNetParam=0.5).fitPath(rows)
    most = np.abs((X - X.mean(axis=0)).T @ (y - y.mean())).max() / ROWS / 0.5
    np.testing.assert_allclose(found.lambdas, most * np.logspace(0, -4, 100), rtol=1e-10)
    assert found.df[0] == 0 < found.df[1]
    assert lasso().fitPath(rows.slice(0, FEATURES), numLambdas=3).lambdas[[2]] == pytest.approx(
        lasso().fitPath(rows.slice(0, FEATURES), numLambdas=3).lambdas[0] * 1e-2
    )
    assert lasso().fitPath(rows, lambdas=[0.1, 2.0]).lambdas.tolist() == [2.0, 0.1]
    given = lasso().fitPath(rows, numLambdas=4, minRatio=0.5)
    assert given.lambdas[-1] == pytest.approx(given.lambdas[0] / 2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"elasticNetParam": 0.5},
        {"elasticNetParam": 0.0},
        {"elasticNetParam": 0.4, "standardization": False},
        {"fitIntercept": False},
        {"weightCol": "weight"},
    ],
)
def test_points_and_errors_are_those_of_single_fits(arrays, rows, options):
    X, y, weight, fold = arrays
    estimator = lasso(tol=1e-12, maxIter=200, **options)
    found = estimator.fitPath(rows, numLambdas=4, numFolds=3, foldCol="fold")
    weight = weight if options.get("weightCol") else np.ones(ROWS)
    for at, strength in enumerate(found.lambdas):
        single = estimator.copy({estimator.regParam: strength})
        own = single.fit(rows)
        np.testing.assert_allclose(found.coefficients[at], own.coefficients.toArray(), rtol=1e-6, atol=1e-9)
        assert found.intercepts[at] == pytest.approx(own.intercept, rel=1e-6, abs=1e-8)
        for held_out in range(3):
            inside = fold == held_out
            model = single.fit(rows.filter(pa.array(~inside)))
            error = y[inside] - X[inside] @ model.coefficients.toArray() - model.intercept
            assert found.cvErrors[at, held_out] == pytest.approx(
                np.average(error**2, weights=weight[inside]), rel=1e-6
            )
    np.testing.assert_allclose(found.cvWeights, [weight[fold == index].sum() for index in range(3)])


def test_cross_validation_is_that_of_scikit_learn(arrays, rows):
    X, y, _, fold = arrays
    found = lasso(standardization=False).fitPath(rows, numLambdas=25, numFolds=3, foldCol="fold")
    search = LassoCV(alphas=found.lambdas, cv=PredefinedSplit(fold), tol=1e-13, max_iter=100_000).fit(X, y)
    np.testing.assert_allclose(found.cvErrors, search.mse_path_, rtol=1e-9)


def test_the_best_points_by_glmnets_rules(rows):
    found = lasso().fitPath(rows, numLambdas=40, numFolds=5, seed=3)
    weights, errors = found.cvWeights, found.cvErrors
    mean = np.average(errors, axis=1, weights=weights)  # cvstats of glmnet
    spread = np.sqrt(np.average((errors - mean[:, None]) ** 2, axis=1, weights=weights) / 4)
    np.testing.assert_allclose(found.cvMean, mean)
    np.testing.assert_allclose(found.cvStandardError, spread)
    best = mean.argmin()
    assert found.lambdaMin == found.lambdas[best]
    assert found.lambda1se == max(found.lambdas[mean <= mean[best] + spread[best]])
    assert found.lambda1se > found.lambdaMin


@pytest.mark.parametrize("standardization", [True, False])
def test_groups_fulfil_the_conditions_of_their_optimum(arrays, rows, standardization):
    X, y, _, _ = arrays
    groups = [[0, 1], [2, 3, 4], [5]]  # 6 and 7 are not penalised
    found = LinearRegression(featuresCols=NAMES, standardization=standardization).fitPath(
        rows, groups=groups, numLambdas=8, minRatio=1e-2
    )
    scale = X.std(axis=0) if standardization else np.ones(FEATURES)
    Z, r = (X - X.mean(axis=0)) / scale, y - y.mean()
    for strength, coef in zip(found.lambdas, found.coefficients * scale, strict=True):
        slope = Z.T @ (Z @ coef - r) / ROWS
        np.testing.assert_allclose(slope[[6, 7]], 0, atol=1e-8)
        for group in groups:
            limit, norm = strength * np.sqrt(len(group)), np.linalg.norm(coef[group])
            if norm == 0:
                assert np.linalg.norm(slope[group]) <= limit * (1 + 1e-9)
            else:
                np.testing.assert_allclose(slope[group], -limit * coef[group] / norm, atol=1e-7)
    assert found.df[0] == 2
    assert found.df[1] > 2


@pytest.mark.parametrize("groups", [None, [[0, 1], [2, 3, 4, 5, 6, 7]]])
def test_fits_point_by_point_are_the_same(rows, groups, monkeypatch):
    estimator = lasso(elasticNetParam=0.0 if groups else 0.5, tol=1e-13, maxIter=5000)
    options = dict(numLambdas=4, minRatio=0.05, groups=groups, numFolds=2)
    by_gram = estimator.fitPath(rows, **options)
    monkeypatch.setattr(paths, "MOST_FEATURES", FEATURES - 1)
    by_fits = estimator.fitPath(rows, **options)
    assert (by_gram.method, by_fits.method) == ("gram", "fits")
    for name in ("lambdas", "coefficients", "intercepts", "r2", "cvErrors", "cvWeights"):
        np.testing.assert_allclose(getattr(by_fits, name), getattr(by_gram, name), rtol=1e-4, atol=1e-6)
    assert lasso(optimizer="owlqn").fitPath(rows, lambdas=[1.0]).method == "fits"
    assert lasso(solver="l-bfgs").fitPath(rows, lambdas=[1.0]).method == "fits"
    assert lasso(solver="normal").fitPath(rows, lambdas=[1.0]).method == "fits"  # these rows are too wide here


def test_columns_that_do_not_vary_stay_out(arrays, rows):
    _, _, _, fold = arrays
    only_in_one = np.where(fold == 1, np.arange(ROWS) % 5, 0.0)  # constant among the others
    wider = rows.append_column("same", pa.array(np.full(ROWS, 3.0))).append_column("one", pa.array(only_in_one))
    for options in ({}, {"standardization": False}, {"elasticNetParam": 0.0}):
        estimator = LinearRegression(featuresCols=[*NAMES, "same", "one"], **{"elasticNetParam": 1.0, **options})
        found = estimator.fitPath(wider, numLambdas=5, numFolds=3, foldCol="fold")
        assert (found.coefficients[:, FEATURES] == 0).all()
        assert np.isfinite(found.cvErrors).all()
        others = wider.filter(pa.array(fold != 1))
        model = estimator.copy({estimator.regParam: found.lambdas[2]}).fit(others)
        inside = wider.filter(pa.array(fold == 1))
        scored = model.transform(inside)
        error = np.square(scored["prediction"].to_numpy() - scored["label"].to_numpy()).mean()
        assert found.cvErrors[2, 1] == pytest.approx(error, rel=1e-5)


def test_the_model_at_a_point(arrays, rows, tmp_path):
    X = arrays[0]
    found = lasso(predictionCol="estimate").fitPath(rows, numLambdas=5)
    model = found.model(found.lambdas[3])
    assert isinstance(model, LinearRegressionModel)
    assert model.getRegParam() == found.lambdas[3]
    expected = X @ found.coefficients[3] + found.intercepts[3]
    model.save(str(tmp_path / "model"))
    for one in (model, LinearRegressionModel.load(str(tmp_path / "model"))):
        np.testing.assert_allclose(one.transform(rows)["estimate"].to_numpy(), expected, rtol=1e-12)
    assert found.featureNames == tuple(NAMES)
    with pytest.raises(ParameterError, match="is no point of this path; the nearest is"):
        found.model(found.lambdas[3] * 1.01)
    with pytest.raises(NoSummaryError, match="without cross-validation"):
        _ = found.lambdaMin


def test_a_plot_and_a_table(rows, tmp_path):
    pytest.importorskip("matplotlib")
    found = lasso().fitPath(rows, numLambdas=6, numFolds=2)
    for one, name in ((found, "cv.png"), (lasso().fitPath(rows, numLambdas=6), "path.png")):
        one.plot(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    table = found.toArrow()
    assert table.column_names == ["lambda", "df", "r2", "cvMean", "cvStandardError"]
    assert "6 values of regParam" in repr(found)


@pytest.mark.parametrize(
    ("estimator", "options", "error", "message"),
    [
        ({"loss": "huber"}, {}, IncompatibleError, "loss='huber' has no path"),
        ({"miniBatchFraction": 0.5}, {}, IncompatibleError, "miniBatchFraction=0.5 has no path"),
        ({"validationIndicatorCol": "label"}, {}, IncompatibleError, "validationIndicatorCol='label' has no path"),
        ({}, {"groups": [[0]]}, IncompatibleError, "groups and elasticNetParam=1 are two penalties"),
        ({"elasticNetParam": 0.0}, {"groups": [[0, 99]]}, ParameterError, "groups must name features from 0 to 7"),
        ({}, {"lambdas": []}, ParameterError, "lambdas must be a list of at least one"),
        ({}, {"lambdas": [-1.0]}, ParameterError, "lambdas must be >= 0. Got -1.0"),
        ({}, {"lambdas": [1.0, 1.0]}, ParameterError, "lambdas has a value twice"),
        ({}, {"numLambdas": 0}, ParameterError, "numLambdas must be a whole number >= 1"),
        ({}, {"minRatio": 1.0}, ParameterError, "minRatio must be in"),
        ({}, {"numFolds": 1}, ParameterError, "numFolds must be a whole number >= 2"),
        ({}, {"foldCol": "fold"}, ParameterError, "foldCol='fold' needs numFolds"),
        ({}, {"numFolds": 9, "foldCol": "fold"}, DataError, "numFolds=9: no row is in fold 3"),
        ({}, {"numFolds": 2, "foldCol": "fold"}, DataError, "fold"),
        ({"labelCol": "nothing"}, {}, SchemaError, "label column 'nothing' does not exist"),
    ],
)
def test_what_has_no_path_is_refused(rows, estimator, options, error, message):
    with pytest.raises(error, match=message):
        lasso(**estimator).fitPath(rows, **options)


def test_a_target_that_depends_on_nothing(rows):
    constant = rows.set_column(FEATURES, "label", pa.array(np.full(ROWS, 2.0)))
    with pytest.raises(DataError, match="does not depend on any feature"):
        lasso().fitPath(constant)


def test_on_spark_it_is_the_same_and_pyspark_mls(spark, rows):
    from pyspark.ml import regression
    from pyspark.ml.feature import VectorAssembler

    df = spark.createDataFrame(rows.to_pandas()).repartition(3).cache()
    estimator = lasso(elasticNetParam=0.7)
    found = estimator.fitPath(df, numLambdas=5, numFolds=3, foldCol="fold")
    here = estimator.fitPath(rows, numLambdas=5, numFolds=3, foldCol="fold")
    for name in ("lambdas", "coefficients", "intercepts", "r2", "cvErrors"):
        np.testing.assert_allclose(getattr(found, name), getattr(here, name), rtol=1e-9, atol=1e-10)
    vectors = VectorAssembler(inputCols=NAMES, outputCol="features").transform(df)
    for at in (1, 3):
        theirs = regression.LinearRegression(
            regParam=float(found.lambdas[at]), elasticNetParam=0.7, solver="normal", tol=1e-12, maxIter=1000
        ).fit(vectors)
        np.testing.assert_allclose(found.coefficients[at], theirs.coefficients.toArray(), rtol=1e-5, atol=1e-7)
        assert found.r2[at] == pytest.approx(theirs.summary.r2, rel=1e-6)
