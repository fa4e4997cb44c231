"""Frames of Dask, Ray and Flink: the bits of one machine on the same partitions, and frames of their own back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.ml.tuning import ParamGridBuilder

from sparkopt import Table
from sparkopt.ml import (
    BinaryClassificationEvaluator,
    CrossValidator,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionModel,
    OneVsRest,
    Pipeline,
    TableFeatures,
    TrainValidationSplit,
)
from sparkopt.optim import OPTIMIZERS
from tests.frameworks.conftest import NAMES, PARTS, ROWS, Framework, columns, here

KINDS = ("columns", "list", "sparse", "mixed")
TRAININGS = {
    "L-BFGS": {"optimizer": "lbfgs", "maxIter": 30},
    "mini-batches": {"optimizer": "sgd", "miniBatchFraction": 0.3, "maxIter": 12, "seed": 3},
    "local steps": {"optimizer": "sgd", "localSteps": 3, "maxIter": 6, "tol": 0.0, "seed": 3},
    "int8": {"optimizer": "sgd", "compression": "int8", "maxIter": 8, "tol": 0.0, "seed": 3},
}


def _estimator(kind: str, **params: object) -> LogisticRegression:
    features = {"featuresCols": NAMES} if kind == "columns" else {}
    return LogisticRegression(regParam=0.01, **features, **params)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", TRAININGS)
def test_coefficients_are_those_of_one_machine_to_the_bit(framework: Framework, kind: str, training: str):
    frame = framework.frame(columns(kind))
    estimator = _estimator(kind, **TRAININGS[training])
    there, one = estimator.fit(frame), estimator.fit(here(frame))
    assert np.array_equal(there.coefficients.toArray(), one.coefficients.toArray())
    assert there.intercept == one.intercept


@pytest.fixture(scope="module")
def tables(framework: Framework) -> tuple[Table, Table]:
    """Rows of a framework's frame, which are read once for several fits, and the same rows here."""
    frame = framework.frame(columns("columns"))
    return Table.of(frame), here(frame)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_has_the_bits_of_one_machine(tables: tuple[Table, Table], optimizer: str):
    estimator = _estimator("columns", optimizer=optimizer, maxIter=4, tol=0.0, seed=3)
    there, one = map(estimator.fit, tables)
    assert np.array_equal(there.coefficients.toArray(), one.coefficients.toArray())
    assert there.summary.objectiveHistory == one.summary.objectiveHistory


def test_a_fit_that_a_callback_ends_resumes_from_its_checkpoint(framework: Framework, tmp_path):
    frame = framework.frame(columns("columns"))
    estimator = _estimator("columns", optimizer="gd", maxIter=12, tol=0.0, checkpointInterval=2)
    expected = estimator.fit(here(frame))

    def end(progress: Any) -> None:
        if progress.record.step == 5:
            raise InterruptedError("in the middle")

    estimator = estimator.copy().setCheckpointDir(str(tmp_path / "checkpoints"))
    with pytest.raises(InterruptedError, match="in the middle"):
        estimator.copy().setCallbacks([end]).fit(frame)
    found = estimator.fit(frame)
    assert found.summary.receipt.resumed_at == 4
    assert np.array_equal(found.coefficients.toArray(), expected.coefficients.toArray())


@pytest.mark.parametrize("kind", KINDS)
def test_scores_come_as_a_frame_of_the_framework(framework: Framework, kind: str, tmp_path):
    rows = columns(kind)
    frame = framework.frame(rows)
    model = _estimator(kind).fit(frame)
    model.save(str(tmp_path / "model"))
    scored = LogisticRegressionModel.load(str(tmp_path / "model")).transform(frame)
    assert type(scored) is type(frame) or type(scored).__name__ == "Dataset"
    found = framework.pandas(scored).sort_values("id")
    expected = model.transform(here(frame)).to_arrow().to_pandas()
    assert list(found["id"]) == list(range(ROWS))
    np.testing.assert_array_equal(found["prediction"], expected["prediction"])
    np.testing.assert_array_equal(np.stack(found["probability"]), np.stack(expected["probability"]))
    evaluator = BinaryClassificationEvaluator()
    assert evaluator.evaluate(scored) == evaluator.evaluate(model.transform(here(frame)))


@pytest.mark.parametrize("kind", KINDS)
def test_searches_have_the_metrics_of_one_machine(framework: Framework, kind: str):
    frame, estimator = framework.frame(columns(kind)), _estimator(kind)
    grid = ParamGridBuilder().addGrid(estimator.regParam, [0.01, 0.1]).build()
    evaluator = BinaryClassificationEvaluator()
    folds = CrossValidator(estimator=estimator, estimatorParamMaps=grid, evaluator=evaluator, numFolds=3, seed=1)
    assert folds.fit(frame).avgMetrics == folds.fit(here(frame)).avgMetrics
    split = TrainValidationSplit(estimator=estimator, estimatorParamMaps=grid, evaluator=evaluator, seed=1)
    assert split.fit(frame).validationMetrics == split.fit(here(frame)).validationMetrics


def test_raw_columns_become_features_where_they_are(framework: Framework):
    rows = columns("columns")
    rows["word"] = pd.array(np.where(rows["x0"] > 0, "yes", "no"), "string[pyarrow]")
    rows.loc[::7, "x1"] = np.nan
    frame = framework.frame(rows)
    pipeline = Pipeline(stages=[TableFeatures(labelCol="label", exclude=["id"]), LogisticRegression(regParam=0.01)])
    there, one = pipeline.fit(frame), pipeline.fit(here(frame))
    assert np.array_equal(there.stages[-1].coefficients.toArray(), one.stages[-1].coefficients.toArray())
    found = framework.pandas(there.transform(frame)).sort_values("id")
    assert "features" not in found.columns
    assert "word" in found.columns
    np.testing.assert_array_equal(found["prediction"], one.transform(here(frame)).to_arrow()["prediction"])


def test_the_other_estimators_and_summaries(framework: Framework):
    rows = columns("columns")
    rows["line"] = rows[NAMES].sum(axis=1)
    frame = framework.frame(rows)
    line = LinearRegression(featuresCols=NAMES, labelCol="line")
    assert line.fit(frame).summary.r2 == pytest.approx(1.0)
    three = framework.frame(columns("list").assign(three=np.arange(ROWS) % 3.0))
    several = OneVsRest(classifier=LogisticRegression(), labelCol="three")
    assert len(several.fit(three).models) == 3
    model = _estimator("columns").fit(frame)
    one = _estimator("columns").fit(here(frame))
    assert model.summary.areaUnderROC == pytest.approx(one.summary.areaUnderROC, rel=1e-12)
    receipt = model.summary.receipt
    assert framework.name in (receipt.reader if framework.name == "flink" else receipt.backend).lower()


def test_rows_that_are_left_out_are_left_out_of_the_scores(framework: Framework):
    rows = columns("columns")
    rows.loc[rows["id"] % 5 == 0, "x2"] = np.nan
    frame = framework.frame(rows)
    model = _estimator("columns", handleInvalid="skip").fit(frame)
    assert len(framework.pandas(model.transform(frame))) == ROWS - ROWS // 5
    assert model.summary.receipt.skipped == ROWS // 5


def test_empty_partitions(framework: Framework):
    rows = columns("columns")
    frame = framework.frame(rows)
    few = ROWS // PARTS
    some = framework.where(frame, "id", few)
    kept = rows[rows["id"] < few]
    expected = _estimator("columns").fit(kept).coefficients.toArray()
    np.testing.assert_allclose(_estimator("columns").fit(some).coefficients.toArray(), expected, rtol=1e-9)
