"""Metrics of a search's models from blocks are those of pyspark.ml's evaluators over scored rows."""

from __future__ import annotations

import re
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.sql import functions as F
from sklearn import metrics as sk

from sparkopt import BlockStore, Columns, ml
from sparkopt.ml.arithmetic import products
from sparkopt.ml.metrics import held_out
from sparkopt.ml.metrics.held_out import held_out_metrics
from sparkopt.ml.metrics.tallies import ClassTally, LogLossTally, ResidualTally, ScoreTally, merged
from sparkopt.validation import Interval
from tests.tiers import needs

FOLDS, NAMES = 2, ["x0", "x1", "x2"]
RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def rows(spark):
    X = RNG.integers(-2, 3, size=(300, 3)) / 4  # so that rows are equal and scores tie
    frame = pd.DataFrame(X, columns=NAMES)
    frame["label"] = (X @ [1.0, -1.0, 0.5] + RNG.logistic(size=300) > 0).astype(float)
    frame["kind"] = RNG.integers(0, 3, 300).astype(float)
    frame["amount"] = 5 + X @ [1.0, 2.0, 0.0] + RNG.normal(size=300)
    frame["weight"] = RNG.uniform(0.5, 2.0, 300)
    frame["offset"], frame["aside"] = RNG.normal(size=300), RNG.random(300) < 0.3
    frame["fold"] = RNG.integers(0, FOLDS, 300)
    return spark.createDataFrame(frame).repartition(2).cache()


def models_of(kind, label, outputs=1, **options):
    """Two models for each fold."""
    shapes = RNG.normal(size=(FOLDS, 2, outputs, len(NAMES))), RNG.normal(size=(FOLDS, 2, outputs))
    made = [[kind(*arrays) for arrays in zip(*fold, strict=True)] for fold in zip(*shapes, strict=True)]
    return [[model._set(featuresCols=NAMES, labelCol=label, **options) for model in fold] for fold in made]


MODELS = {
    "logistic": models_of(ml.LogisticRegressionModel, "label", threshold=0.4),
    "two classes": models_of(ml.LogisticRegressionModel, "label", 2),
    "classes": models_of(ml.LogisticRegressionModel, "kind", 3, thresholds=[0.3, 0.3, 0.4]),
    "support vectors": models_of(ml.LinearSVCModel, "label"),
    "linear": models_of(ml.LinearRegressionModel, "amount"),
    "offset": models_of(ml.GeneralizedLinearRegressionModel, "amount", family="poisson", offsetCol="offset"),
}
MULTICLASS = [
    "f1", "accuracy", "weightedPrecision", "weightedRecall", "weightedTruePositiveRate", "weightedFalsePositiveRate",
    "weightedFMeasure", "truePositiveRateByLabel", "falsePositiveRateByLabel", "precisionByLabel", "recallByLabel",
    "fMeasureByLabel", "hammingLoss",
]  # fmt: skip


def binary(*outputs):
    options = [{"metricName": name} for name in ("areaUnderROC", "areaUnderPR")]
    options += [{"rawPredictionCol": output} for output in outputs]
    return [BinaryClassificationEvaluator(**values) for values in options]


def multiclass(*names):
    return [MulticlassClassificationEvaluator(metricName=name, metricLabel=1.0, beta=0.5) for name in names]


def regression():
    named = [RegressionEvaluator(metricName=name) for name in ("rmse", "mse", "r2", "mae", "var")]
    return [*named, RegressionEvaluator(metricName="r2", throughOrigin=True)]


EVALUATORS = {
    "logistic": lambda: [*binary("probability", "prediction"), *multiclass("logLoss", *MULTICLASS)],
    "two classes": lambda: [*binary(), *multiclass("logLoss")],
    "classes": lambda: multiclass("logLoss", *MULTICLASS),
    "support vectors": lambda: [*binary(), *multiclass("f1")],
    "linear": regression,
    "offset": regression,
}


def test_every_metric_of_pysparks_evaluators_is_among_them(spark):
    """Their own descriptions name them: a|b|c, or one of: a - … b - …"""
    tried: dict[type, set[str]] = {}
    for make in EVALUATORS.values():
        for made in make():
            tried.setdefault(type(made), set()).add(made.getMetricName())
    assert {kind.__name__ for kind in tried} == {
        "BinaryClassificationEvaluator", "MulticlassClassificationEvaluator", "RegressionEvaluator"
    }  # fmt: skip
    for kind, names in tried.items():
        text = kind.metricName.doc.partition("metric name in evaluation")[2]
        listed = re.findall(r"(\w+)(?=\s*[|)])", text) if "|" in text else re.findall(r"(\w+) - (?!one of)", text)
        assert names == set(listed)


@pytest.mark.parametrize("weight", [pytest.param(None, marks=needs("minutes")), "weight"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[needs("minutes")] * (name in ("two classes", "offset"))) for name in MODELS]
)
def test_metrics_are_the_evaluators(rows, name, weight):
    models = MODELS[name]
    label = models[0][0].getLabelCol()
    offset = "offset" if name == "offset" else None
    columns = Columns(NAMES, label, weight, "aside" if weight else None, offset=offset, fold="fold", folds=FOLDS)
    with BlockStore.write(rows, columns, Interval()) as store:
        for own in EVALUATORS[name]():
            own.setLabelCol(label)
            if weight:
                own.setWeightCol(weight)
            found = held_out_metrics(store, models, own)
            for fold, (metrics, fold_models) in enumerate(zip(found, models, strict=True)):
                scored = rows.where(F.col("fold") == fold)
                # the evaluators take longest, so each sees one of the models of a fold
                expected = own.evaluate(fold_models[fold].transform(scored))
                assert metrics[fold] == pytest.approx(expected, rel=1e-12, abs=1e-13), own.getMetricName()


def test_what_only_the_evaluator_can_tell_is_left_to_it(rows):
    models = MODELS["logistic"]
    columns = Columns(NAMES, "label", "weight", class_weights=(1.0, 2.0), fold="fold", folds=FOLDS)

    class Own(BinaryClassificationEvaluator):
        pass

    left = [
        Own(),
        BinaryClassificationEvaluator(weightCol="weight"),  # the store's are the class weights' too
        BinaryClassificationEvaluator(labelCol="kind"),
        BinaryClassificationEvaluator(numBins=0),
        BinaryClassificationEvaluator(rawPredictionCol="score"),
        MulticlassClassificationEvaluator(metricName="recallByLabel", metricLabel=7.0),
    ]
    with BlockStore.write(rows, columns, Interval()) as store:
        assert [held_out_metrics(store, models, evaluator) for evaluator in left] == [None] * len(left)
        assert held_out_metrics(store, models, BinaryClassificationEvaluator()) is not None


def area_under_pr(label, score):
    precision, recall, _ = sk.precision_recall_curve(label, score)
    return sk.auc(recall, precision)


@pytest.mark.parametrize("sample", [2, 0.01])
def test_areas_of_many_scores_are_within_their_bins(spark, monkeypatch, sample):
    monkeypatch.setattr(held_out, "SAMPLE", sample)
    n, bins = 4000, 50
    X = RNG.normal(size=(n, 3))
    frame = pd.DataFrame(X, columns=NAMES)
    frame["label"] = (X @ [1.0, -1.0, 0.5] + RNG.logistic(size=n) > 0).astype(float)
    frame["fold"] = np.arange(n) % FOLDS
    many = spark.createDataFrame(frame).repartition(3).cache()
    models = models_of(ml.LogisticRegressionModel, "label")
    with BlockStore.write(many, Columns(NAMES, "label", fold="fold", folds=FOLDS), Interval()) as store:
        # the precision of the first few rows, which binning leaves out, is most of what areas under PR differ by
        for name, exact, gap in (("areaUnderROC", sk.roc_auc_score, 2e-3), ("areaUnderPR", area_under_pr, 2e-2)):
            evaluator = BinaryClassificationEvaluator(metricName=name, numBins=bins)
            found = held_out_metrics(store, models, evaluator)
            for fold, (metrics, fold_models) in enumerate(zip(found, models, strict=True)):
                mine = frame[frame["fold"] == fold]
                for metric, model in zip(metrics, fold_models, strict=True):
                    raw = mine[NAMES].to_numpy() @ model.arrays[0][0]
                    assert metric == pytest.approx(exact(mine["label"], raw), abs=gap)
            theirs = evaluator.evaluate(models[0][0].transform(many.where("fold = 0")))
            assert found[0][0] == pytest.approx(theirs, abs=gap)


def test_scores_far_from_those_that_are_counted_at_need_not_be_exact():
    exact, y = RNG.normal(size=5000).round(2), RNG.integers(0, 2, 5000).astype(float)
    exact[:2] = -np.inf, np.inf
    weight, asked = RNG.uniform(size=5000), []
    first = ScoreTally(40)
    first.add(y, weight, exact)
    one, other = first.settle().at(), first.settle().at()
    one.add(y, weight, exact)

    def of(rows):
        asked.append(len(rows))
        return exact[rows]

    within = RNG.uniform(1e-4, 2e-3, 5000)
    other.add_near(y, weight, exact + within * RNG.uniform(-1, 1, 5000), within, of)
    np.testing.assert_array_equal(other.positives, one.positives)
    np.testing.assert_array_equal(other.negatives, one.negatives)
    assert 0 < sum(asked) < 1000


@pytest.mark.parametrize("outputs", [1, 2, 5, 40])
@pytest.mark.parametrize("rows", [1, 37, 3000])
def test_products_are_sums_in_the_order_of_features(rows, outputs):
    X, matrix = RNG.normal(size=(rows, 7)).astype(np.float32), RNG.normal(size=(outputs, 7))
    expected = np.zeros((rows, outputs))
    for feature in range(7):
        expected = expected + X[:, feature].astype(np.float64)[:, None] * matrix[:, feature]
    np.testing.assert_array_equal(products(X, matrix), expected)


TALLIES = {
    "residuals": (ResidualTally, lambda y: y + RNG.normal(size=len(y)), ["squares", "prediction_spread", "rows"]),
    "classes": (ClassTally, lambda y: RNG.integers(0, 2, len(y)), ["pairs"]),
    "log loss": (lambda: LogLossTally(1e-15), lambda y: RNG.dirichlet([1, 1], len(y)), ["loss", "weight"]),
    "scores": (lambda: ScoreTally(50), lambda y: RNG.integers(0, 30, len(y)) / 7, ["scores", "positives"]),
}


@pytest.mark.parametrize("name", TALLIES)
def test_tallies_of_parts_are_those_of_all_rows(name):
    make, model, facts = TALLIES[name]
    y, weight = RNG.integers(0, 2, 400).astype(float), RNG.uniform(size=400)
    found = model(y)
    whole, parts = make(), [make() for _ in range(3)]
    whole.add(y, weight, found)
    for part, at in zip(parts, np.split(np.arange(400), [10, 300]), strict=True):
        for piece in np.array_split(at, 2):
            part.add(y[piece], weight[piece], found[piece])
    together = merged(deepcopy(parts))
    for tally in (whole, together):
        if name == "scores":
            tally.settle()
    for fact in facts:
        one, other = getattr(together, fact), getattr(whole, fact)
        if isinstance(one, dict):
            assert one == pytest.approx(other, rel=1e-12)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-12)
