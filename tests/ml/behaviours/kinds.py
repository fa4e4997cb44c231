"""The estimators that sparkopt and pyspark.ml both have, alone and inside OneVsRest, pipelines and searches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from pyspark.ml import Pipeline, classification, regression, tuning
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.linalg import SparseVector, Vectors
from pyspark.sql import DataFrame, SparkSession

from sparkopt import ml

OTHERS = {"Pipeline": Pipeline}
THEIRS = SimpleNamespace(**{**vars(classification), **vars(regression), **vars(tuning), **OTHERS})
"""pyspark.ml's classes by name."""
OURS = SimpleNamespace(**{**vars(THEIRS), **{name: getattr(ml, name) for name in ml.__all__ if name in vars(THEIRS)}})
"""The same names after the change of an import: those that sparkopt does not have are pyspark.ml's still."""

TIGHT: dict[str, Any] = {"tol": 1e-12, "maxIter": 200}
ROWS = 60


@cache
def table() -> list[tuple[Any, ...]]:
    """Rows of three features, as dense, as sparse and as mixed Vectors, with a label of every kind and a weight."""
    rng = np.random.default_rng(7)
    X = np.round(rng.normal(size=(ROWS, 3)) * (rng.random((ROWS, 3)) < 0.7), 2)
    score = X @ [1.0, -0.5, 0.3]
    label = (score + rng.logistic(size=ROWS) > 0).astype(float)
    group = np.argmax(X + rng.gumbel(size=(ROWS, 3)), axis=1).astype(float)
    amount = np.round(score + rng.normal(size=ROWS), 2)
    count = rng.poisson(np.exp(0.3 * X[:, 0])).astype(float)
    weight = np.round(rng.uniform(0.5, 2.0, ROWS), 2)
    found = []
    for i, x in enumerate(X):
        dense, stored = Vectors.dense(x), SparseVector(3, np.flatnonzero(x).tolist(), x[x != 0].tolist())
        targets = float(label[i]), float(group[i]), float(amount[i]), float(count[i]), float(weight[i])
        found.append((i, *targets, i % 2, *x.tolist(), dense, stored, dense if i % 2 else stored))
    return found


COLUMNS = ["row", "label", "group", "amount", "count", "weight", "fold", "a", "b", "c", "dense", "sparse", "features"]


@dataclass
class World:
    """What behaviours work with: a session of either kind, a folder, and models that are fitted once."""

    spark: SparkSession
    folder: Path
    _known: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def rows(self) -> DataFrame:
        """The table, in one partition."""
        return self.frame(table(), COLUMNS)

    def frame(self, rows: list[Any], columns: Any) -> DataFrame:
        """Return rows in one partition, so that random folds are the same wherever they are drawn."""
        return self.spark.createDataFrame(rows, columns).coalesce(1)

    def fitted(self, name: str, package: Any, features: str = "features") -> Any:
        """Return the model of a kind, fitted once."""
        key = name, package is OURS, features
        if key not in self._known:
            self._known[key] = KINDS[name].estimator(package, features).fit(self.rows)
        return self._known[key]

    def loaded(self, name: str) -> Any:
        """Return our model of a kind, saved and loaded once."""
        key = name, "loaded"
        if key not in self._known:
            model = self.fitted(name, OURS)
            model.save(self.path("loaded", name))
            self._known[key] = type(model).load(self.path("loaded", name))
        return self._known[key]

    def path(self, *names: str) -> str:
        """Return a path below the folder."""
        return "/".join([str(self.folder), *(name.replace(" ", "-") for name in names)])


@dataclass(frozen=True)
class Kind:
    """One estimator.

    Attributes
    ----------
    build : callable from a package to an estimator
        The same call in both packages.
    inner : callable from the estimator or its model to the linear one in it
        Itself, but for stages that contain others.
    numbers : callable from a model to an array
        What two fits are compared by.
    close : float, default 1e-5
        How close the numbers are.
    """

    build: Callable[[Any], Any]
    inner: Callable[[Any], Any] = lambda stage: stage
    numbers: Callable[[Any], Any] = lambda model: np.append(model.coefficients.toArray(), model.intercept)
    close: float = 1e-5

    def estimator(self, package: Any, features: str = "features") -> Any:
        """Return the estimator of a package."""
        made = self.build(package)
        self.inner(made).setFeaturesCol(features)
        if made.hasParam("featuresCol"):
            made.setFeaturesCol(features)
        return made


def matrices(model: Any) -> Any:
    return np.append(model.coefficientMatrix.toArray(), model.interceptVector.toArray())


def logistic(package: Any, **options: Any) -> Any:
    return package.LogisticRegression(**{"regParam": 0.1, "weightCol": "weight", **TIGHT, **options})


def pipeline(package: Any) -> Any:
    assembler = VectorAssembler(inputCols=["a", "b", "c"], outputCol="assembled")
    return package.Pipeline(stages=[assembler, logistic(package)])


def search(package: Any, kind: str, **options: Any) -> Any:
    estimator = logistic(package, regParam=0.0)
    grid = package.ParamGridBuilder().addGrid(estimator.regParam, [0.05, 1]).build()
    found = getattr(package, kind)(
        estimator=estimator,
        estimatorParamMaps=grid,
        evaluator=BinaryClassificationEvaluator(weightCol="weight"),
        collectSubModels=True,
        seed=3,
    )
    return found._set(**options)


def last_stage(stage: Any) -> Any:
    return (stage.getStages() if hasattr(stage, "getStages") else stage.stages)[-1]


def searched(stage: Any) -> Any:
    return getattr(stage, "bestModel", None) or stage.getEstimator()


def one_of_many(stage: Any) -> Any:
    return stage.models[0] if hasattr(stage, "models") else stage.getClassifier()


KINDS = {
    "logistic": Kind(logistic, numbers=matrices),
    "multinomial": Kind(lambda package: logistic(package, labelCol="group"), numbers=matrices),
    "support vectors": Kind(
        # pyspark.ml's method does not come nearer to the optimum of a loss with a kink
        lambda package: package.LinearSVC(regParam=0.1, weightCol="weight"),
        close=0.2,
    ),
    "least squares": Kind(
        lambda package: package.LinearRegression(labelCol="amount", weightCol="weight", solver="normal", **TIGHT)
    ),
    "huber": Kind(
        lambda package: package.LinearRegression(labelCol="amount", loss="huber", epsilon=1.5, **TIGHT),
        close=1e-4,
    ),
    "generalized": Kind(
        lambda package: package.GeneralizedLinearRegression(
            labelCol="count", weightCol="weight", family="poisson", link="log", linkPredictionCol="link", **TIGHT
        )
    ),
    "one vs rest": Kind(
        lambda package: package.OneVsRest(
            labelCol="group", weightCol="weight", classifier=logistic(package, weightCol="weight"), parallelism=2
        ),
        one_of_many,
        lambda model: np.concatenate([matrices(found) for found in model.models]),
    ),
    "pipeline": Kind(pipeline, last_stage, lambda model: matrices(model.stages[-1])),
    "cross-validation": Kind(
        lambda package: search(package, "CrossValidator", numFolds=2),
        searched,
        lambda model: np.concatenate([matrices(model.bestModel), model.avgMetrics, model.stdMetrics]),
    ),
    "split": Kind(
        lambda package: search(package, "TrainValidationSplit", trainRatio=0.6),
        searched,
        lambda model: np.concatenate([matrices(model.bestModel), model.validationMetrics]),
    ),
}
SINGLE = [name for name, kind in KINDS.items() if kind.inner.__name__ == "<lambda>"]
"""Estimators that are no composition of others."""
