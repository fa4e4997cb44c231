"""A fit reads its rows once: checks, moments, folds and the first Hessian are of the same pass, or of blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from sparkopt.machine import Table
from sparkopt.machine.part import MemoryPart, OfPart
from sparkopt.ml import (
    BinaryClassificationEvaluator,
    CrossValidator,
    GeneralizedLinearRegression,
    LinearRegression,
    LogisticRegression,
    Pipeline,
    TableFeatures,
)

ROWS, PARTS = 400, 2
NAMES = ["x0", "x1", "x2"]


def rows() -> pa.Table:
    X = np.random.default_rng(3).normal(size=(ROWS, 3))
    label = (X[:, 0] - X[:, 1] + np.random.default_rng(4).logistic(size=ROWS) > 0).astype(float)
    others = {"weight": np.linspace(0.5, 2, ROWS), "held_out": np.arange(ROWS) % 5 == 0, "fold": np.arange(ROWS) % 3}
    return pa.table({**dict(zip(NAMES, X.T, strict=True)), "label": label, **others})


@dataclass(frozen=True)
class CountedPart(OfPart):
    """A part that notes in a file, in whatever process, each time that its rows are read."""

    notes: str

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        with open(self.notes, "a") as notes:
            notes.write(f"{self.name}\n")
        return self.part.batches(columns)


FITS = {
    "Newton-CG": LogisticRegression(featuresCols=NAMES, optimizer="newton-cg"),
    "the cheapest": LogisticRegression(featuresCols=NAMES),
    "L1": LogisticRegression(featuresCols=NAMES, regParam=0.01, elasticNetParam=1.0),
    "L-BFGS": LogisticRegression(featuresCols=NAMES, optimizer="lbfgs"),
    "mini-batches": LogisticRegression(featuresCols=NAMES, optimizer="adam", miniBatchFraction=0.2, maxIter=5),
    "weights and validation": LogisticRegression(
        featuresCols=NAMES, weightCol="weight", validationIndicatorCol="held_out"
    ),
    "invalid rows": LogisticRegression(featuresCols=NAMES, handleInvalid="skip"),
    "least squares": LinearRegression(featuresCols=NAMES),
    "a family": GeneralizedLinearRegression(featuresCols=NAMES, family="binomial"),
}


@pytest.mark.parametrize("name", FITS)
def test_a_fit_reads_each_partition_once(name, tmp_path):
    assert read(tmp_path, FITS[name]) == [1] * PARTS


def read(folder: Path, estimator) -> list[int]:
    """Return how often a fit reads each partition."""
    notes = folder / "notes"
    size = ROWS // PARTS
    parts = [MemoryPart(str(number), rows().slice(number * size, size)) for number in range(PARTS)]
    estimator.fit(Table(rows().schema, tuple(CountedPart(part, str(notes)) for part in parts)))
    lines = notes.read_text().split()
    return [lines.count(part.name) for part in parts]


def search(estimator):
    last = estimator.getStages()[-1] if isinstance(estimator, Pipeline) else estimator
    grid = [{last.regParam: strength} for strength in (0.01, 0.1, 1.0)]
    return CrossValidator(
        estimator=estimator, estimatorParamMaps=grid, evaluator=BinaryClassificationEvaluator(), foldCol="fold"
    )


def test_a_search_reads_once_for_all_folds_candidates_and_metrics(tmp_path):
    assert read(tmp_path, search(LogisticRegression(featuresCols=NAMES))) == [1] * PARTS


@pytest.mark.parametrize(("kind", "times"), [("fit", 2), ("search", 5)])
def test_raw_columns_are_read_once_more_for_statistics(kind, times, tmp_path):
    """A search reads once for the statistics of all folds, once for each fold and once for the best model."""
    stages = [TableFeatures(exclude=["fold", "held_out", "weight"]), LogisticRegression()]
    pipeline = Pipeline(stages=stages)
    assert read(tmp_path, search(pipeline) if kind == "search" else pipeline) == [times] * PARTS


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("name", ["the cheapest", "L1", "weights and validation", "invalid rows", "least squares"])
def test_on_spark_each_row_is_computed_once(spark, name):
    counter = spark.sparkContext.accumulator(0)

    def counted(batches):
        for batch in batches:
            counter.add(batch.num_rows)
            yield batch

    df = spark.createDataFrame(rows()).repartition(2).cache()
    df.count()
    seen = df.mapInArrow(counted, df.schema).withColumn("fold", F.col("fold") + 0)
    FITS[name].fit(seen)
    assert counter.value == ROWS
