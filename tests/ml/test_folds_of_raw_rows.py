"""Searches over TableFeatures: a fold's features are learnt of its training rows, and passes are shared."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml import Transformer
from pyspark.ml.evaluation import Evaluator

from sparkopt.blocks.store import BlockStore
from sparkopt.ml import (
    BinaryClassificationEvaluator,
    CrossValidator,
    LogisticRegression,
    Pipeline,
    TableFeatures,
    TrainValidationSplit,
    table_features,
    table_statistics,
)

FOLDS, STRENGTHS = 3, (0.01, 1.0)


def rows() -> pa.Table:
    """Raw columns whose categories, means and medians differ by fold, in order of the label."""
    rng = np.random.default_rng(4)
    fold = rng.integers(0, FOLDS, 300)
    towns = np.where(rng.random(300) < 0.1, np.char.add("only ", fold.astype(str)), rng.choice(["Bonn", "Rome"], 300))
    age = rng.normal(40 + 5 * fold, 9)
    label = (rng.logistic(size=300) + (towns == "Bonn") + (age - 45) / 9 > 0).astype(float)
    return pa.table(
        {
            "age": pa.array(age, mask=rng.random(300) < 0.2),
            "town": pa.array(towns.tolist(), mask=rng.random(300) < 0.1),
            "member": rng.random(300) < 0.5,
            "label": label,
            "fold": fold.astype(np.int32),
        }
    )


class Brier(Evaluator):
    """A user's own metric."""

    def _evaluate(self, dataset):
        frame = dataset.to_pandas() if isinstance(dataset, pa.Table) else dataset.toPandas()
        one = np.array([found[1] for found in frame["probability"]])
        return float(np.square(one - frame["label"]).mean())

    def isLargerBetter(self):
        return False


def pipeline(**settings):
    last = LogisticRegression(tol=1e-13, maxIter=100)
    features = TableFeatures(exclude=["fold"], minCount=3, **settings)
    return Pipeline(stages=[features, last]), [{last.regParam: strength} for strength in STRENGTHS]


def one_by_one(data, estimator, grid, evaluator, folds=FOLDS):
    """What a search has to give: fits of the whole pipeline, a fold and a candidate at a time."""
    table = rows()
    inside = [pa.compute.equal(table["fold"], fold) for fold in range(folds)]
    return [
        [
            evaluator.evaluate(estimator.fit(data(table.filter(pa.compute.invert(own))), values).transform(
                data(table.filter(own))))
            for values in grid
        ]
        for own in inside
    ]  # fmt: skip


@pytest.fixture
def counted(monkeypatch):
    """How often the rows are read, and for what."""
    found = Counter()
    statistics, write = table_statistics.statistics_of, BlockStore.write.__func__

    def counting(*args):
        found["statistics"] += 1
        return statistics(*args)

    def writing(cls, *args, **options):
        found["blocks"] += 1
        return write(cls, *args, **options)

    for module in (table_statistics, table_features):
        monkeypatch.setattr(module, "statistics_of", counting)
    monkeypatch.setattr(BlockStore, "write", classmethod(writing))
    return found


@pytest.mark.parametrize("evaluator", [BinaryClassificationEvaluator(), Brier()], ids=["known", "own"])
@pytest.mark.parametrize("impute", ["mean", "median"])
def test_metrics_are_those_of_fits_one_by_one(evaluator, impute, counted, caplog):
    estimator, grid = pipeline(impute=impute)
    search = CrossValidator(
        estimator=estimator, estimatorParamMaps=grid, evaluator=evaluator, numFolds=FOLDS, foldCol="fold",
        collectSubModels=True,
    )  # fmt: skip
    found = search.fit(rows())
    assert counted == {"statistics": 1, "blocks": FOLDS + 1}
    assert "one after the other" not in caplog.text
    expected = one_by_one(lambda table: table, estimator, grid, evaluator)
    np.testing.assert_allclose(found.avgMetrics, np.mean(expected, axis=0), rtol=1e-9)
    best = min if isinstance(evaluator, Brier) else max
    alone = estimator.fit(rows(), grid[found.avgMetrics.index(best(found.avgMetrics))])
    assert found.bestModel.stages[0].featureNames == alone.stages[0].featureNames
    np.testing.assert_allclose(found.bestModel.stages[1].arrays[0], alone.stages[1].arrays[0], rtol=1e-9)
    names = [models[0].stages[0].featureNames for models in found.subModels]
    for fold, own in enumerate(names):  # a category of the held-out fold alone is not known to its models
        assert [f"town=only {other}" in own for other in range(FOLDS)] == [other != fold for other in range(FOLDS)]
    assert found.subModels[0][0].stages[1].summary.receipt.models == len(grid)


def test_one_split(counted):
    estimator, grid = pipeline()
    evaluator = BinaryClassificationEvaluator()
    search = TrainValidationSplit(
        estimator=estimator, estimatorParamMaps=grid, evaluator=evaluator, trainRatio=0.6, seed=2
    )
    found = search.fit(rows())
    assert counted == {"statistics": 1, "blocks": 2}
    assert all(0.6 < metric < 1 for metric in found.validationMetrics)


class Doubled(Transformer):
    """A stage without state before the features."""

    def _transform(self, dataset):
        from sparkopt.machine import Table

        table = Table.of(dataset).to_arrow()
        at = table.schema.get_field_index("age")
        return Table.of(table.set_column(at, "age", pa.compute.multiply(table["age"], 2.0)))


def test_stages_before_the_features(counted):
    estimator, grid = pipeline()
    evaluator = BinaryClassificationEvaluator()
    found = [
        CrossValidator(
            estimator=Pipeline(stages=[*before, *estimator.getStages()]), estimatorParamMaps=grid,
            evaluator=evaluator, numFolds=FOLDS, foldCol="fold",
        ).fit(rows())
        for before in ([], [Doubled()])
    ]  # fmt: skip
    assert counted["statistics"] == 2
    np.testing.assert_allclose(found[1].avgMetrics, found[0].avgMetrics, rtol=1e-9)  # features are standardised
    assert [type(stage).__name__ for stage in found[1].bestModel.stages][:2] == ["Doubled", "TableFeaturesModel"]


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("evaluator", [BinaryClassificationEvaluator(), Brier()], ids=["known", "own"])
def test_on_spark(spark, evaluator, counted):
    estimator, grid = pipeline()
    search = CrossValidator(
        estimator=estimator, estimatorParamMaps=grid, evaluator=evaluator, numFolds=FOLDS, foldCol="fold"
    )
    here = search.fit(rows())
    counted.clear()
    there = search.fit(spark.createDataFrame(rows()).repartition(2))
    assert counted == {"statistics": 1, "blocks": FOLDS + 1}
    np.testing.assert_allclose(there.avgMetrics, here.avgMetrics, rtol=1e-9)
    names = [found.bestModel.stages[0].featureNames for found in (there, here)]
    assert names[0] == names[1]
    np.testing.assert_allclose(there.bestModel.stages[1].arrays[0], here.bestModel.stages[1].arrays[0], rtol=1e-9)
