"""CrossValidator with all folds in the same passes: models, metrics and choice are those of pyspark.ml's own."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pyspark.ml import Pipeline, classification, tuning
from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    Evaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.ml.feature import StandardScaler, VectorAssembler
from pyspark.ml.linalg import SparseVector, VectorUDT
from pyspark.sql import functions as F

from sparkopt import BlockStore, Columns, Stop, Trainer, losses, ml
from sparkopt.checkpoint.checkpointer import Checkpointer
from sparkopt.engines.selection import by_name
from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.ml.search import ApartError
from sparkopt.penalties import L2
from sparkopt.training.trainer import fit_many
from tests.tiers import needs

COLUMNS = ["x0", "x1", "x2"]
TIGHT = {"tol": 1e-10, "engine": "local"}


class MeanAbsolute(Evaluator):
    """Somebody's own evaluator, which needs a column that is neither label nor prediction."""

    def _evaluate(self, dataset):
        return dataset.select(F.avg(F.abs(F.col("amount") - F.col("prediction")) * F.col("x0") ** 2)).first()[0]

    def isLargerBetter(self):
        return False


@pytest.fixture(scope="module")
def rows(spark):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(240, 3)) * [1.0, 3.0, 0.2] + [0.0, 5.0, 1.0]
    table = pd.DataFrame(
        {
            **{name: X[:, i] for i, name in enumerate(COLUMNS)},
            "label": (X[:, 0] + rng.logistic(size=240) > 0).astype(float),
            "kind": rng.integers(0, 3, 240).astype(float),
            "amount": 10 + X @ [1.0, 2.0, 0.0] + rng.normal(size=240),
            "n": rng.poisson(np.exp(0.5 * X[:, 0])).astype(float),
            "weight": rng.uniform(0.5, 2.0, 240),
            "exposure": rng.normal(size=240) * 0.1,
            "aside": rng.random(240) < 0.3,
            "fold": rng.integers(0, 2, 240),
        }
    )
    vector = F.udf(lambda *x: SparseVector(8, [(i, v) for i, v in enumerate(x) if v > 0]), VectorUDT())
    return spark.createDataFrame(table).repartition(2).withColumn("sparse", vector(*COLUMNS)).cache()


def logistic(**options):
    return ml.LogisticRegression(featuresCol="sparse", weightCol="weight", **{**TIGHT, **options})


def linear(**options):
    return ml.LinearRegression(featuresCols=COLUMNS, labelCol="amount", **{**TIGHT, **options})


CASES = {
    "logistic, sparse, weights": (
        logistic(),
        "regParam",
        [0.001, 1.0],
        lambda: BinaryClassificationEvaluator(weightCol="weight"),
    ),
    "classes, class weights": (
        ml.LogisticRegression(featuresCols=COLUMNS, labelCol="kind", classWeights=[1.0, 2.0, 0.5], **TIGHT),
        "regParam",
        [0.01, 0.5],
        lambda: MulticlassClassificationEvaluator(labelCol="kind", metricName="logLoss"),
    ),
    "elastic net, in the user's units": (
        linear(regParam=0.3, standardization=False),
        "elasticNetParam",
        [0.0, 0.9],
        lambda: RegressionEvaluator(labelCol="amount"),
    ),
    "poisson with an offset": (
        ml.GeneralizedLinearRegression(
            featuresCols=COLUMNS, labelCol="n", family="poisson", offsetCol="exposure", **TIGHT
        ),
        "regParam",
        [0.01, 1.0],
        lambda: RegressionEvaluator(labelCol="n"),
    ),
    "early stopping, own evaluator": (
        linear(validationIndicatorCol="aside", optimizer="gd", patience=2, maxIter=30, tol=0.0),
        "stepSize",
        [0.05, 0.5],
        MeanAbsolute,
    ),
    "nonsmooth": (
        ml.QuantileRegression(featuresCols=COLUMNS, labelCol="amount", **{**TIGHT, "tol": 1e-9}),
        "regParam",
        [0.01, 0.3],
        lambda: RegressionEvaluator(labelCol="amount", metricName="mae"),
    ),
}


SELDOM = ("classes, class weights", "elastic net, in the user's units", "nonsmooth")
"""The others show drawn and given folds, vectors and columns, weights, offsets, validation rows and evaluators."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs("minutes")) if name in SELDOM else name for name in CASES]
)
def test_models_and_metrics_are_those_of_folds_one_by_one(rows, name, monkeypatch, caplog):
    estimator, parameter, values, evaluator_of = CASES[name]
    evaluator = evaluator_of()
    grid = [{estimator.getParam(parameter): value} for value in values]
    folds = {"foldCol": "fold"} if "offset" in name else {"seed": 4}
    options = dict(
        estimator=estimator, estimatorParamMaps=grid, evaluator=evaluator, numFolds=2, collectSubModels=True, **folds
    )
    separate = tuning.CrossValidator(**options).fit(rows)
    written = []
    write = BlockStore.write
    monkeypatch.setattr(BlockStore, "write", lambda *args: written.append(write(*args)) or written[-1])
    caplog.clear()
    together = ml.CrossValidator(**options).fit(rows)
    assert "one after the other" not in caplog.text
    assert len(written) == 1
    close = {"rtol": 1e-3, "atol": 1e-3} if name == "nonsmooth" else {"rtol": 1e-4, "atol": 1e-7}
    passes = []
    for ours, theirs in zip(together.subModels, separate.subModels, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            for mine, alone in zip(one.arrays, other.arrays, strict=True):
                np.testing.assert_allclose(mine, alone, **close)
            assert one.summary.dataset.count() == other.summary.dataset.count()
            passes.append(other.summary.receipt.passes)
    np.testing.assert_allclose(together.avgMetrics, separate.avgMetrics, rtol=1e-3 if name == "nonsmooth" else 1e-6)
    np.testing.assert_allclose(together.stdMetrics, separate.stdMetrics, rtol=1e-2, atol=1e-5)
    for mine, alone in zip(together.bestModel.arrays, separate.bestModel.arrays, strict=True):
        np.testing.assert_allclose(mine, alone, **close)
    best = [one.bestModel.extractParamMap() for one in (together, separate)]
    mine, alone = ({param.name: value for param, value in found.items()} for found in best)
    assert mine == alone
    receipt = together.subModels[0][0].summary.receipt
    assert receipt.models == 4 or name == "nonsmooth"  # there, of the models that needed most stages
    fewest = 0.9 if name == "nonsmooth" else 1.0  # there rounding decides in which step a stage ends
    assert fewest * max(passes) <= receipt.passes < passes[0] + passes[2]  # what each fold took, in one


@pytest.fixture(scope="module")
def folded(rows):
    with BlockStore.write(rows, Columns(COLUMNS, "label", fold="fold", folds=2), losses.Logistic().targets) as store:
        yield store


def trainers(steps: int = 8, **options) -> list[Trainer]:
    base = Trainer(losses.Logistic(), stop=Stop(steps, 0.0), progress=False, **options)
    return [replace(base, penalty=L2(strength), held_out=fold) for fold in (0, 1, None) for strength in (0.01, 1.0)]


def test_every_engine_finds_the_same(folded):
    expected = fit_many(folded, trainers(steps=4, engine=by_name("driver")))
    for name in ("local", "resident", "allreduce"):
        for one, other in zip(fit_many(folded, trainers(steps=4, engine=by_name(name))), expected, strict=True):
            np.testing.assert_allclose(one.coefficients, other.coefficients, rtol=1e-9, err_msg=name)


def test_an_interrupted_fit_goes_on_with_its_own_folds_only(folded, rows, tmp_path):
    kept = {"engine": by_name("local"), "checkpointer": Checkpointer(str(tmp_path), interval=2)}
    undisturbed = fit_many(folded, trainers(engine=by_name("local")))
    fit_many(folded, trainers(callbacks=(lambda progress: progress.record.step == 5,), **kept))
    other = Columns(COLUMNS, "label", fold="other", folds=2)
    with BlockStore.write(rows.withColumn("other", 1 - F.col("fold")), other, losses.Logistic().targets) as store:
        assert fit_many(store, trainers(**kept))[0].receipt.resumed_at == 0
    resumed = fit_many(folded, trainers(**kept))
    assert resumed[0].receipt.resumed_at == 4
    for one, expected in zip(resumed, undisturbed, strict=True):
        assert one.coefficients.tobytes() == expected.coefficients.tobytes()


ALONE = {
    "no linear estimator of sparkopt": (None, "regParam", [0.1, 0.2], {}),
    "mini-batches": (linear(miniBatchFraction=0.5, optimizer="sgd"), "regParam", [0.1, 0.2], {}),
    "local steps": (linear(localSteps=2), "regParam", [0.1, 0.2], {}),
    "columns": (linear(), "labelCol", ["amount", "n"], {}),
    "balanced": (logistic(classWeights="balanced"), "regParam", [0.1, 0.2], {}),
    "no integer column": (linear(), "regParam", [0.1, 0.2], {"foldCol": "label"}),
}


@pytest.mark.parametrize("reason", ALONE)
def test_what_cannot_be_trained_together_is_known_before(rows, reason):
    estimator, parameter, values, folds = ALONE[reason]
    estimator = estimator or classification.LogisticRegression()  # it needs a JVM
    grid = [{estimator.getParam(parameter): value} for value in values]
    search = ml.CrossValidator(estimator=estimator, estimatorParamMaps=grid, numFolds=2, **folds)
    with pytest.raises(ApartError, match=reason):
        search._plan(rows)


def without_a_class(rows):
    """Without the second fold, no row is of the third class: a search over it, and its rows."""
    estimator = ml.LogisticRegression(featuresCols=COLUMNS, labelCol="class", maxIter=3, **{**TIGHT, "tol": 0.0})
    evaluator = MulticlassClassificationEvaluator(labelCol="class")
    label = F.when(F.col("fold") == 1, F.col("kind")).otherwise(F.col("label"))
    return estimator, evaluator, rows.withColumn("class", label)


def test_fewer_classes_without_a_fold_are_known_with_the_data(rows):
    estimator, evaluator, rows = without_a_class(rows)
    grid = [{estimator.regParam: 0.1}]
    search = ml.CrossValidator(
        estimator=estimator, estimatorParamMaps=grid, evaluator=evaluator, numFolds=2, foldCol="fold"
    )
    with pytest.raises(ApartError, match="without fold 1 there are fewer classes"):
        search._fit_together(rows, search._plan(rows), rows)


@pytest.mark.parametrize("why", ["before", pytest.param("with the data", marks=needs("minutes"))])
def test_and_is_trained_as_pyspark_does(rows, why, caplog):
    estimator, evaluator = (
        linear(miniBatchFraction=0.5, optimizer="sgd", maxIter=3),
        RegressionEvaluator(labelCol="amount"),
    )
    if why == "with the data":
        estimator, evaluator, rows = without_a_class(rows)
    options = dict(
        estimator=estimator,
        estimatorParamMaps=[{estimator.regParam: 0.1}],
        evaluator=evaluator,
        numFolds=2,
        foldCol="fold",
    )
    with caplog.at_level(logging.WARNING, "sparkopt.ml.search"):
        found = ml.CrossValidator(**options).fit(rows)
    assert "the folds are trained one after the other: " in caplog.text
    assert isinstance(found, ml.CrossValidatorModel)
    np.testing.assert_allclose(found.avgMetrics, tuning.CrossValidator(**options).fit(rows).avgMetrics, rtol=1e-12)


def pipeline(*stages):
    """A search over a pipeline that ends in a logistic regression."""
    last = ml.LogisticRegression(featuresCol="assembled", maxIter=4, **{**TIGHT, "tol": 0.0})
    grid = [{last.regParam: strength} for strength in (0.01, 10.0)]
    return dict(
        estimator=Pipeline(stages=[*stages, last]),
        estimatorParamMaps=grid,
        evaluator=BinaryClassificationEvaluator(),
        numFolds=2,
        seed=3,
        collectSubModels=True,
    )


def test_a_pipelines_last_stage_shares_passes(rows, caplog):
    # rows with a hole are left out, after folds were drawn
    assembler = VectorAssembler(inputCols=COLUMNS, outputCol="assembled", handleInvalid="skip")
    holes = rows.withColumn("x0", F.when(F.col("x0") > 1.5, None).otherwise(F.col("x0")))
    options = pipeline(assembler)
    together, separate = (kind(**options).fit(holes) for kind in (ml.CrossValidator, tuning.CrossValidator))
    assert "one after the other" not in caplog.text
    np.testing.assert_allclose(together.avgMetrics, separate.avgMetrics, rtol=1e-9)
    assert len({id(fold[0].stages[-1].summary.receipt) for fold in together.subModels}) <= 2
    assert together.subModels[0][0].stages[-1].summary.receipt.models == 4
    predicted = [model.transform(holes).agg(F.sum("prediction")).first()[0] for model in (together, separate)]
    assert predicted[0] == predicted[1]
    assert [type(stage) for stage in together.bestModel.stages] == [VectorAssembler, ml.LogisticRegressionModel]


def test_stages_that_are_fitted_are_so_once_a_fold(rows, caplog):
    assembler = VectorAssembler(inputCols=COLUMNS, outputCol="raw")
    scaler = StandardScaler(inputCol="raw", outputCol="assembled", withMean=True)
    options = pipeline(assembler, scaler)
    together, separate = (kind(**options).fit(rows) for kind in (ml.CrossValidator, tuning.CrossValidator))
    assert "one after the other" not in caplog.text
    np.testing.assert_allclose(together.avgMetrics, separate.avgMetrics, rtol=1e-9)
    for fold in range(2):
        means = [[model.stages[1].mean for model in found.subModels[fold]] for found in (together, separate)]
        assert means[0] == means[1]
        assert together.subModels[fold][0].stages[-1].summary.receipt.models == 2
    assert together.subModels[0][0].stages[1].mean != together.bestModel.stages[1].mean
    assert [type(stage).__name__ for stage in together.bestModel.stages] == [
        "VectorAssembler",
        "StandardScalerModel",
        "LogisticRegressionModel",
    ]


def test_a_grid_over_other_stages_is_trained_one_fold_after_the_other(rows):
    assembler = VectorAssembler(inputCols=COLUMNS, outputCol="assembled")
    options = {**pipeline(assembler), "estimatorParamMaps": [{assembler.inputCols: ["x0"]}]}
    with pytest.raises(ApartError, match="the grid is over other stages"):
        ml.CrossValidator(**options)._plan(rows)


BAD_FOLDS = {
    "must be": "7",
    "no row is in fold 2": "fold",
    "got null": "CASE WHEN fold = 1 THEN 1 END",
}


@pytest.mark.parametrize("message", BAD_FOLDS)
def test_bad_folds_are_refused(rows, message):
    estimator = linear()
    search = ml.CrossValidator(
        estimator=estimator,
        estimatorParamMaps=[{}],
        evaluator=RegressionEvaluator(labelCol="amount"),
        numFolds=3,
        foldCol="fold",
    )
    with pytest.raises(Exception if message == "got null" else DataError, match=message):
        search.fit(rows.withColumn("fold", F.expr(BAD_FOLDS[message])))


UNFIT = {
    "evaluator is not set": {"evaluator": None},
    "estimatorParamMaps is not set": {"estimatorParamMaps": []},
    "numFolds must be a whole number >= 2": {"numFolds": 1},
    "fold column 'folds' does not exist": {"foldCol": "folds"},
    "label column 'y' does not exist. Columns: (?!.*__)": {
        "estimator": ml.LinearRegression(featuresCols=COLUMNS, labelCol="y")
    },
}


@pytest.mark.parametrize("message", UNFIT)
def test_what_a_search_lacks_is_told_before_the_first_job(rows, message):
    options = {"estimator": linear(), "estimatorParamMaps": [{}], "evaluator": RegressionEvaluator(labelCol="amount")}
    given = {name: value for name, value in {**options, **UNFIT[message]}.items() if value is not None}
    with pytest.raises((ParameterError, SchemaError), match=message):
        ml.CrossValidator(**given).fit(rows)


def test_saved_and_loaded(rows, tmp_path):
    estimator = linear()
    search = ml.CrossValidator(
        estimator=estimator,
        estimatorParamMaps=[{estimator.regParam: 0.1}, {estimator.regParam: 1.0}],
        evaluator=RegressionEvaluator(labelCol="amount"),
        numFolds=2,
        seed=3,
        parallelism=2,
        collectSubModels=True,
    )
    search.save(str(tmp_path / "search"))
    loaded = ml.CrossValidator.load(str(tmp_path / "search"))
    assert (type(loaded), loaded.uid, loaded.getNumFolds(), loaded.getSeed()) == (ml.CrossValidator, search.uid, 2, 3)
    assert [list(values.values()) for values in loaded.getEstimatorParamMaps()] == [[0.1], [1.0]]
    model = loaded.fit(rows)
    model.save(str(tmp_path / "model"))
    again = ml.CrossValidatorModel.load(str(tmp_path / "model"))
    assert type(again) is ml.CrossValidatorModel
    assert (again.uid, again.avgMetrics, again.stdMetrics) == (model.uid, model.avgMetrics, model.stdMetrics)
    for one in (again, model.copy()):
        for fold, others in zip(one.subModels, model.subModels, strict=True):
            for mine, other in zip(fold, others, strict=True):
                np.testing.assert_array_equal(mine.arrays[0], other.arrays[0])
    model.subModels = None
    assert model.copy().subModels is None
    predicted = [m.transform(rows).select(F.sum("prediction")).first()[0] for m in (again, model)]
    assert predicted[0] == predicted[1]
