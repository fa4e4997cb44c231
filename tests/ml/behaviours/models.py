"""What every estimator and its model do: fit, score, copy, rename, summarise."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark.ml.linalg import DenseVector, Vectors
from pyspark.sql import DataFrame

from tests.ml.behaviours.kinds import KINDS, OURS, SINGLE, THEIRS, World
from tests.ml.behaviours.register import behaviour

OUTPUTS = ("rawPrediction", "probability", "link", "prediction")
SUMMARISED = ["logistic", "multinomial", "support vectors", "least squares", "generalized"]


def output_columns(scored: DataFrame) -> list[str]:
    return [name for name in scored.columns if name in OUTPUTS]


def values(scored: DataFrame) -> Any:
    """Return the output columns as one array, a row for each row."""
    rows = scored.orderBy("row").select(*output_columns(scored)).collect()
    return np.array([np.concatenate([np.ravel(np.asarray(value)) for value in row]) for row in rows])


@behaviour(SINGLE)
def sparse_dense_and_mixed_vectors_give_one_model(world: World, kind: str) -> None:
    found = [KINDS[kind].numbers(world.fitted(kind, OURS, features)) for features in ("features", "sparse", "dense")]
    for numbers in found[1:]:
        np.testing.assert_allclose(numbers, found[0], rtol=1e-6, atol=1e-6)


@behaviour(KINDS)
def the_model_is_pysparks(world: World, kind: str) -> None:
    ours, theirs = (KINDS[kind].numbers(world.fitted(kind, package)) for package in (OURS, THEIRS))
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=KINDS[kind].close, atol=KINDS[kind].close)


@behaviour(KINDS)
def scored_rows_have_pysparks_columns_types_and_values(world: World, kind: str) -> None:
    ours, theirs = (world.fitted(kind, package).transform(world.rows) for package in (OURS, THEIRS))
    assert ours.columns == theirs.columns
    assert ours.schema.simpleString() == theirs.schema.simpleString()
    close = KINDS[kind].close
    if kind != "support vectors":
        np.testing.assert_allclose(values(ours), values(theirs), rtol=10 * close, atol=10 * close)


@behaviour(["logistic", "pipeline"])
def scored_rows_outlive_the_model(world: World, kind: str) -> None:
    estimator = KINDS[kind].estimator(OURS)

    def scored() -> DataFrame:
        found: DataFrame = estimator.fit(world.rows).transform(world.rows)
        return found

    assert scored().count() == world.rows.count()


@behaviour(KINDS)
def copies_have_their_own_values_down_to_the_stages_within(world: World, kind: str) -> None:
    inner, estimator = KINDS[kind].inner, KINDS[kind].estimator(OURS)
    before = inner(estimator).getMaxIter()
    copied = estimator.copy({inner(estimator).maxIter: 7})
    assert (inner(estimator).getMaxIter(), inner(copied).getMaxIter()) == (before, 7)
    assert copied.uid == estimator.uid
    assert type(copied) is type(estimator)
    model = world.fitted(kind, OURS)
    if kind in ("pipeline", "cross-validation", "split"):  # their outputs are those of a stage
        return
    renamed = model.copy({model.predictionCol: "answer"})
    assert (model.getPredictionCol(), renamed.getPredictionCol()) == ("prediction", "answer")
    assert renamed.transform(world.rows).columns[-1] == "answer"


@behaviour(SINGLE)
def columns_are_renamed_on_the_model(world: World, kind: str) -> None:
    model, features = world.fitted(kind, OURS).copy(), world.rows.withColumnRenamed("features", "vectors")
    theirs = world.fitted(kind, THEIRS).copy()
    wanted = {
        "setFeaturesCol": "vectors",
        "setPredictionCol": "p",
        "setProbabilityCol": "q",
        "setRawPredictionCol": "r",
    }
    for setter, name in wanted.items():
        assert hasattr(model, setter) == hasattr(theirs, setter)
        if hasattr(model, setter):
            assert getattr(model, setter)(name) is model
            getattr(theirs, setter)(name)
    assert model.transform(features).columns == theirs.transform(features).columns


@behaviour(["logistic", "least squares", "generalized", "one vs rest", "pipeline"])
def fit_takes_a_map_or_a_list_of_maps(world: World, kind: str) -> None:
    inner, estimator = KINDS[kind].inner, KINDS[kind].estimator(OURS)
    maps = [{inner(estimator).regParam: 0.5}, {inner(estimator).regParam: 2.0}]
    numbers, alone = KINDS[kind].numbers, estimator.fit(world.rows, maps[0])
    found = estimator.fit(world.rows, maps)
    assert [inner(model).getRegParam() for model in (alone, *found)] == [0.5, 0.5, 2.0]
    np.testing.assert_allclose(numbers(found[0]), numbers(alone), rtol=1e-5, atol=1e-6)
    assert not np.allclose(numbers(found[0]), numbers(found[1]))
    assert inner(estimator).getRegParam() == inner(KINDS[kind].estimator(OURS)).getRegParam()


@behaviour(SINGLE)
def one_vector_is_scored_as_its_row_is(world: World, kind: str) -> None:
    model = world.fitted(kind, OURS)
    first = model.transform(world.rows).orderBy("row").first()
    assert model.predict(first["features"]) == first["prediction"]
    for column, method in (("rawPrediction", "predictRaw"), ("probability", "predictProbability")):
        assert hasattr(model, method) == hasattr(world.fitted(kind, THEIRS), method)
        if hasattr(model, method):
            assert getattr(model, method)(first["features"]) == first[column]
            assert isinstance(first[column], DenseVector)


def shape(value: Any) -> Any:
    """Return what a value of a summary is: its type, and a DataFrame's columns."""
    if isinstance(value, DataFrame):
        return value.schema.simpleString()
    if isinstance(value, list):
        return [type(entry) for entry in value[:1]]
    return type(value)


METHOD = {"totalIterations", "numIterations", "objectiveHistory", "solver"}
"""What depends on the method; of the objective, the type and the last value do not."""
UNITS = {"r2", "r2adj"}
"""What depends on the unit of weights in pyspark.ml."""
ARGUMENTS = {"fMeasureByLabel": (0.5,), "weightedFMeasure": (0.5,), "residuals": ("pearson",)}
PREDICTIONS = {"predictions", "residuals", "roc", "pr"} | {
    f"{name}ByThreshold" for name in ("fMeasure", "precision", "recall")
}


@behaviour(SUMMARISED)
def every_entry_of_the_summary_is_of_pysparks_type_and_value(world: World, kind: str) -> None:
    models = [world.fitted(kind, package) for package in (OURS, THEIRS)]
    assert all(model.hasSummary for model in models)
    ours, theirs = (model.summary() if callable(model.summary) else model.summary for model in models)
    names = [name for name in dir(type(theirs)) if not name.startswith("_")]
    compared = 0
    for name in names:
        expected, found = getattr(theirs, name), getattr(ours, name)
        if callable(expected):
            arguments = ARGUMENTS.get(name, ())
            expected, found = expected(*arguments), found(*arguments)
        assert shape(found) == shape(expected), (name, found, expected)
        if kind == "support vectors" or name in METHOD | UNITS | PREDICTIONS:
            continue
        if isinstance(expected, str):
            assert found == expected, name
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=name)
        compared += 1
    assert kind == "support vectors" or compared >= 10
    if getattr(theirs, "objectiveHistory", [0.0]) != [0.0]:  # which is what solver="normal" has there
        assert theirs.objectiveHistory[-1] >= ours.objectiveHistory[-1] - 1e-6


@behaviour(SUMMARISED)
def evaluation_of_the_training_rows_is_the_summary(world: World, kind: str) -> None:
    model = world.fitted(kind, OURS)
    summary, evaluated = model.summary, model.evaluate(world.rows)
    training = type(summary).__name__
    assert type(evaluated).__name__ == training.replace("Training", "")
    assert isinstance(summary, type(evaluated))
    assert not hasattr(evaluated, "objectiveHistory")
    np.testing.assert_array_equal(values(evaluated.predictions), values(summary.predictions))
    for name in ("accuracy", "areaUnderROC", "r2", "deviance"):
        assert hasattr(summary, name) == hasattr(evaluated, name)
        if hasattr(summary, name):
            assert getattr(summary, name) == getattr(evaluated, name)


@behaviour(SINGLE)
def constant_and_empty_vectors_are_fitted(world: World, kind: str) -> None:
    estimator = KINDS[kind].estimator(OURS)
    label, weight = estimator.getLabelCol(), world.rows.select("row", "label", "group", "amount", "count", "weight")
    rows = [(*row, Vectors.sparse(2, [], [])) for row in weight.collect()]
    empty = world.frame(rows, [*weight.columns, "features"])
    model = estimator.fit(empty)
    assert label in empty.columns
    numbers = KINDS[kind].numbers(model)
    assert np.isfinite(numbers).all()
    slopes = (
        model.coefficientMatrix.toArray() if hasattr(model, "coefficientMatrix") else model.coefficients.toArray()
    )
    assert not slopes.any()
