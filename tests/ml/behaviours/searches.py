"""What searches do: choose, measure, keep the models of folds, take folds from a column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyspark.ml import Pipeline
from pyspark.ml.classification import OneVsRest
from pyspark.ml.evaluation import MulticlassClassificationEvaluator, RegressionEvaluator
from pyspark.ml.feature import HashingTF, Tokenizer
from pyspark.ml.tuning import ParamGridBuilder
from pyspark.sql import functions as F
from pyspark.testing.mlutils import DummyEvaluator, DummyLogisticRegression

from tests.ml.behaviours.kinds import OURS, THEIRS, World, search
from tests.ml.behaviours.register import behaviour
from tests.ml.behaviours.stages import TEXTS, require_same, require_same_value

SEARCHES = {"cross-validation": "CrossValidator", "split": "TrainValidationSplit"}


def metrics(model: Any) -> list[float]:
    found: list[float] = model.validationMetrics if hasattr(model, "validationMetrics") else model.avgMetrics
    return found


@behaviour(SEARCHES)
def the_best_metric_wins_whether_it_is_large_or_small(world: World, kind: str) -> None:
    rows = world.rows.select("features", "amount", "weight")
    estimator = OURS.LinearRegression(labelCol="amount")
    grid = ParamGridBuilder().addGrid(estimator.regParam, [1000.0, 0.0, 10.0]).build()
    for name, choose in (("rmse", np.argmin), ("r2", np.argmax)):
        evaluator = RegressionEvaluator(labelCol="amount", metricName=name)
        found = getattr(OURS, SEARCHES[kind])(
            estimator=estimator, estimatorParamMaps=grid, evaluator=evaluator, seed=1
        ).fit(rows)
        assert len(metrics(found)) == 3
        assert int(choose(metrics(found))) == 1
        assert found.bestModel.getRegParam() == 0.0
        alone = evaluator.evaluate(estimator.copy(grid[1]).fit(rows).transform(rows))
        np.testing.assert_allclose(evaluator.evaluate(found.transform(rows)), alone, rtol=1e-9)


@behaviour(SEARCHES)
def threads_change_no_metric(world: World, kind: str) -> None:
    serial = world.fitted(kind, OURS)
    parallel = search(OURS, SEARCHES[kind], parallelism=2)
    parallel._set(**({"numFolds": 2} if kind == "cross-validation" else {"trainRatio": 0.6}))
    found = parallel.fit(world.rows)
    np.testing.assert_allclose(metrics(found), metrics(serial), rtol=1e-9)


@behaviour(SEARCHES)
def models_of_folds_are_kept_where_they_are_wanted(world: World, kind: str) -> None:
    model, path = world.fitted(kind, OURS), world.path("sub-models", kind)
    nested = model.subModels if kind == "cross-validation" else [model.subModels]
    assert [len(models) for models in nested] == [2] * (2 if kind == "cross-validation" else 1)
    require_same_value(world.loaded(kind).copy().subModels, model.subModels)
    model.write().option("persistSubModels", "false").save(path)
    assert type(model).load(path).subModels is None


@behaviour(SEARCHES)
def copies_of_a_search_are_their_own(world: World, kind: str) -> None:
    estimator = search(OURS, SEARCHES[kind])
    copied = estimator.copy()
    for param in estimator.params:
        if param.name in ("estimator", "evaluator"):
            assert estimator.getOrDefault(param).uid == copied.getOrDefault(param).uid
        elif estimator.isDefined(param):
            assert estimator.getOrDefault(param) == copied.getOrDefault(param), param.name
    model = world.fitted(kind, OURS)
    found = model.copy()
    require_same(found.bestModel, model.bestModel)
    before = list(metrics(model))
    metrics(found)[0] = -1.0
    assert metrics(model) == before
    assert found.subModels is not model.subModels
    assert found.getSeed() == model.getSeed() == 3


@behaviour(SEARCHES)
def a_loaded_search_knows_all_of_its_parameters(world: World, kind: str) -> None:
    model, loaded = world.fitted(kind, OURS), world.loaded(kind)
    for name in ("estimator", "estimatorParamMaps", "evaluator", "seed"):
        assert loaded.isSet(loaded.getParam(name)), name
    assert metrics(loaded) == metrics(model)
    assert getattr(loaded, "stdMetrics", None) == getattr(model, "stdMetrics", None)
    assert all(isinstance(value, float) for value in metrics(model))


@behaviour()
def a_search_without_deviations_is_saved(world: World) -> None:
    """Models of before pyspark.ml 3.3 have none."""
    model = world.fitted("cross-validation", OURS).copy()
    model.stdMetrics, model.subModels = [], None
    path = world.path("without")
    model.write().option("persistSubModels", "false").save(path)
    assert type(model).load(path).stdMetrics == []


@behaviour()
def grids_turn_whole_numbers_into_floats(world: World) -> None:
    estimator = OURS.LogisticRegression(maxIter=10)
    grid = ParamGridBuilder().addGrid(estimator.regParam, [0.5, 1]).addGrid(estimator.tol, [1]).build()
    assert {type(value) for values in grid for value in values.values()} == {float}
    with pytest.raises(TypeError):
        ParamGridBuilder().addGrid("regParam", [1.0])


def folded(package: Any, folds: int, column: str) -> Any:
    return search(package, "CrossValidator", numFolds=folds, foldCol=column)


@behaviour()
def folds_of_a_column_are_pysparks(world: World) -> None:
    ours, theirs = (folded(package, 2, "fold").fit(world.rows) for package in (OURS, THEIRS))
    np.testing.assert_allclose(ours.avgMetrics, theirs.avgMetrics, rtol=1e-6)
    np.testing.assert_allclose(ours.stdMetrics, theirs.stdMetrics, rtol=1e-4, atol=1e-9)


@behaviour()
def folds_outside_of_the_range_or_without_rows_are_refused(world: World) -> None:
    for package in (OURS, THEIRS):
        for folds, column, words in (
            (2, F.col("fold") + 1, "must be"),
            (4, F.col("fold"), "fold [23]"),
            (2, F.lit("0"), "fold"),
        ):
            rows = world.rows.withColumn("fold", column)
            with pytest.raises(Exception, match=words):
                folded(package, folds, "fold").fit(rows)


@behaviour()
def a_search_over_a_pipeline_of_one_vs_rest(world: World) -> None:
    """Stages within stages, as parameters of a grid too, are trained, saved and loaded."""
    rows = world.frame(TEXTS, ["row", "text", "label"])
    hashed = HashingTF(inputCol="words", outputCol="features")
    many = OneVsRest(classifier=OURS.LogisticRegression(), parallelism=2)
    few, some = OURS.LogisticRegression(maxIter=5), OURS.LogisticRegression(maxIter=10)
    grid = ParamGridBuilder().addGrid(hashed.numFeatures, [10, 20]).addGrid(many.classifier, [few, some]).build()
    estimator = Pipeline(stages=[Tokenizer(inputCol="text", outputCol="words"), Pipeline(stages=[hashed, many])])
    for name in SEARCHES.values():
        tuned = getattr(OURS, name)(
            estimator=estimator, estimatorParamMaps=grid[:2], evaluator=MulticlassClassificationEvaluator(), seed=1
        )
        tuned = tuned._set(**({"numFolds": 2} if name == "CrossValidator" else {}))
        path = world.path("nested", name)
        tuned.save(path)
        loaded = type(tuned).load(path)
        require_same_value(loaded.getEstimatorParamMaps(), tuned.getEstimatorParamMaps())
        assert loaded.getEstimator().uid == estimator.uid
        if name == "TrainValidationSplit":
            continue
        model = tuned.fit(rows)
        model.write().overwrite().save(path)
        found = type(model).load(path)
        require_same(found.bestModel, model.bestModel)
        require_same_value(found.getEstimatorParamMaps(), tuned.getEstimatorParamMaps())


@behaviour()
def a_search_over_pythons_estimator_and_evaluator(world: World) -> None:
    """pyspark.ml's own dummies, which are no classes of the JVM's: one model after the other."""
    estimator = DummyLogisticRegression(maxIter=1)
    grid = ParamGridBuilder().addGrid(estimator.maxIter, [0, 1]).build()
    tuned = OURS.CrossValidator(
        estimator=estimator, estimatorParamMaps=grid, evaluator=DummyEvaluator(), numFolds=2, collectSubModels=True
    )
    path = world.path("dummies")
    tuned.save(path)
    require_same(type(tuned).load(path), tuned)
    model = tuned.fit(world.rows)
    assert len(model.avgMetrics) == 2
    model.write().overwrite().save(path)
    loaded = type(model).load(path)
    require_same(loaded.bestModel, model.bestModel)
    assert [len(models) for models in loaded.subModels] == [2, 2]
    assert loaded.getEstimatorParamMaps() == grid
