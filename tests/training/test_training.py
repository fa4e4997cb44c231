"""Training features of every estimator, without Spark: validation rows, warm starts, class weights, callbacks, grids.

test_spark.py has what needs pyspark.ml's own fits, pipelines and searches.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pyspark.ml import PipelineModel
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression
from sklearn.metrics import log_loss

from sparkopt import BlockStore, Columns, Trainer, losses, optim
from sparkopt.errors import DataError, DivergedError, IncompatibleError, ParameterError, SchemaError
from sparkopt.machine import Table
from sparkopt.ml import (
    LinearRegression,
    LinearRegressionModel,
    LinearSVC,
    LogisticRegression,
    LogisticRegressionModel,
)
from sparkopt.penalties import L2
from sparkopt.solver.callbacks import History, TimeBudget
from sparkopt.solver.progress import Stop
from sparkopt.training.smoothing import fit_smoothed
from sparkopt.training.trainer import fit_many
from sparkopt.validation import Interval
from tests.tables import Unread, in_partitions, joined

EXACT = dict(tol=1e-12, maxIter=200)


@pytest.fixture(scope="module")
def table():
    """Three classes that overlap, a rare one among them; held-out rows; weights."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 4)) * [1.0, 10.0, 0.1, 1.0]
    raw = X / [1.0, 10.0, 0.1, 1.0] @ rng.normal(size=(4, 3)) + rng.gumbel(size=(600, 3)) + [1.0, 0.5, -1.0]
    return pd.DataFrame(
        {
            "features": list(X),
            "label": (raw[:, 0] < raw[:, 1]).astype(float),
            "kind": raw.argmax(axis=1).astype(float),
            "weight": rng.uniform(0.5, 2.0, 600),
            "held": rng.random(600) < 0.3,
        }
    )


@pytest.fixture(scope="module")
def rows(table):
    return in_partitions(table, 2)


def arrays(found: pd.DataFrame, target: str = "label"):
    return np.stack(found["features"]), found[target].to_numpy()


def flat(model):
    return np.concatenate([np.ravel(part) for part in model.arrays])


# Validation rows


def test_validation_rows_measure_and_do_not_train(rows, table):
    options = dict(
        weightCol="weight", regParam=0.01, maxIter=6, tol=0.0, optimizer="lbfgs"
    )  # auto: not with held rows
    model = LogisticRegression(**options).setValidationIndicatorCol("held").setPatience(100).fit(rows)
    trained = joined([Table.of(half[~half["held"]]) for half in (table[:300], table[300:])])
    alone = LogisticRegression(**options).fit(trained)
    np.testing.assert_allclose(model.summary.objectiveHistory, alone.summary.objectiveHistory, rtol=1e-10)
    held = table[table["held"]]
    X, y = arrays(held)
    history = model.summary.validationHistory
    step = int(np.argmin(history))
    assert model.summary.receipt.chosen_step == step
    assert model.summary.receipt.validation == history
    probability = 1 / (1 + np.exp(-(X @ model.coefficients.toArray() + model.intercept)))
    assert history[step] == pytest.approx(log_loss(y, probability, sample_weight=held["weight"]), rel=1e-9)
    assert model.summary.receipt.rows == (~table["held"]).sum()
    assert "validation" in str(model.summary.receipt)
    assert model.summary.predictions.to_arrow().num_rows == (~table["held"]).sum()


def test_early_stopping_returns_the_best_step():
    """More features than rows: the training loss keeps falling, the validation loss turns."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(120, 60))
    y = X[:, 0] + rng.normal(size=120)
    rows = pd.DataFrame({"features": list(X), "label": y, "held": np.arange(120) % 3 == 0})
    estimator = LinearRegression(maxIter=500, tol=0.0, optimizer="gd", stepSize=0.1).setPatience(4)
    model = estimator.setValidationIndicatorCol("held").fit(rows)
    history, receipt = model.summary.validationHistory, model.summary.receipt
    assert receipt.reason == "validation"
    assert model.summary.totalIterations == int(np.argmin(history)) + 4 < 500
    held = np.arange(120) % 3 == 0
    spread = y[~held].std(ddof=1)  # the loss is that of the scaled target
    residual = (X[held] @ model.coefficients.toArray() + model.intercept - y[held]) / spread
    assert min(history) == pytest.approx(0.5 * np.mean(residual**2), rel=1e-9)


def test_mini_batches_look_at_validation_rows_once_an_epoch(rows):
    estimator = LogisticRegression(optimizer="sgd", miniBatchFraction=0.25, maxIter=10, tol=0.0)
    summary = estimator.setValidationIndicatorCol("held").fit(rows).summary
    looked = [step for step, loss in enumerate(summary.validationHistory) if loss is not None]
    assert looked == [0, 4, 8]
    assert summary.receipt.chosen_step in looked


WRONG = {
    "no such column": ("nope", None, SchemaError, "validation column 'nope' does not exist"),
    "not boolean": ("weight", None, SchemaError, "validation column 'weight' has type double; it must be boolean"),
    "null": (
        "some",
        lambda rows: rows["held"].where(rows["weight"] > 1, None),
        DataError,
        "validation column 'some', partition .*is null",
    ),
    "all": ("some", lambda rows: True, DataError, "'some' is true in every row: there are no rows to train on"),
    "none": ("some", lambda rows: False, DataError, "'some' is false in every row"),
    "unseen class": (
        "some",
        lambda rows: rows["kind"] == 2,
        DataError,
        "'kind' lies between 2 and 2 in the validation rows",
    ),
}


@pytest.mark.parametrize(("name", "some", "kind", "message"), WRONG.values(), ids=WRONG)
def test_wrong_validation_columns_are_refused(table, name, some, kind, message):
    rows = in_partitions(table.assign(some=some) if some else table, 2)
    with pytest.raises(kind, match=message):
        LogisticRegression(labelCol="kind").setValidationIndicatorCol(name).fit(rows)


# Warm starts


@pytest.fixture(scope="module")
def fitted(rows):
    return LogisticRegression(regParam=0.01, **EXACT).fit(rows)


def test_models_to_start_from(rows, fitted, tmp_path):
    """From the optimum there is nowhere to go: a model, one from disk, and through a copy."""
    fitted.save(str(tmp_path / "model"))
    estimator = LogisticRegression(regParam=0.01, tol=1e-8)
    for model in (fitted, LogisticRegressionModel.load(str(tmp_path / "model"))):
        warm = estimator.copy().setInitialModel(model)
        found = warm.copy().fit(rows)
        assert found.summary.totalIterations <= 1
        assert found.summary.objectiveHistory[0] == pytest.approx(fitted.summary.objectiveHistory[-1], rel=1e-9)
    assert estimator.fit(rows).summary.totalIterations > 3
    assert warm.setInitialModel(None).fit(rows).summary.totalIterations > 3


def test_other_kinds_and_shapes_start_alike(rows, table):
    multinomial = LogisticRegression(labelCol="kind", regParam=0.01, **EXACT).fit(rows)
    again = LogisticRegression(labelCol="kind", regParam=0.01, tol=1e-8).setInitialModel(multinomial).fit(rows)
    assert again.summary.totalIterations <= 1
    X, y = arrays(table, "weight")
    expected = np.linalg.lstsq(np.column_stack([X, np.ones(len(X))]), y)[0]
    theirs = LinearRegressionModel(expected[None, :-1], expected[-1:])
    linear = LinearRegression(labelCol="weight", tol=1e-8).setInitialModel(theirs).fit(rows)
    assert linear.summary.totalIterations <= 1
    np.testing.assert_allclose(flat(linear), expected, rtol=1e-6, atol=1e-9)


def test_the_scale_of_hubers_loss_is_a_part_of_the_start(rows):
    ours = LinearRegression(labelCol="weight", loss="huber", **EXACT).fit(rows)
    warm = LinearRegression(labelCol="weight", loss="huber", tol=1e-8)
    summary = warm.setInitialModel(ours).fit(rows).summary
    assert summary.totalIterations <= 1
    assert summary.objectiveHistory[0] == pytest.approx(ours.summary.objectiveHistory[-1], rel=1e-8)
    squared = LinearRegression(labelCol="weight", tol=1e-8).setInitialModel(ours).fit(rows)  # it has no such constant
    np.testing.assert_allclose(
        flat(squared), flat(LinearRegression(labelCol="weight").fit(rows)), rtol=1e-3, atol=1e-4
    )


def test_losses_with_kinks_start_near_where_they_were(rows, table):
    cold = LinearSVC(regParam=0.01)
    yesterday = cold.fit(in_partitions(table[table["weight"] > 0.515], 2))  # all but one in a hundred
    warm = cold.copy().setInitialModel(yesterday).fit(rows)
    again = cold.fit(rows)
    assert warm.summary.totalIterations < 0.75 * again.summary.totalIterations
    expected = again.summary.objectiveHistory[-1]
    assert warm.summary.objectiveHistory[-1] == pytest.approx(expected, rel=1e-4)


def test_what_one_cannot_start_from_is_refused(rows, fitted):
    with pytest.raises(ParameterError, match=r"must be a LinearRegressionModel.*Got a LogisticRegressionModel"):
        LinearRegression().setInitialModel(fitted)
    pipeline = PipelineModel([fitted])
    with pytest.raises(ParameterError, match=r"Got a PipelineModel instead. Pass the stage itself"):
        LogisticRegression().setInitialModel(pipeline)
    with pytest.raises(
        ParameterError, match=r"must have the shape \(outputs, features\).*Got \(4,\) and \(\) instead"
    ):
        LinearRegressionModel(np.ones(4), 1.0)
    with pytest.raises(ParameterError, match="4 features and 1 outputs; .* need 4 features and 3 outputs"):
        LogisticRegression(labelCol="kind").setInitialModel(fitted).fit(rows)
    with pytest.raises(ParameterError, match="4 features and 1 outputs; .* need 1 features and 1 outputs"):
        LogisticRegression(featuresCols=["weight"]).setInitialModel(fitted).fit(rows)


# Class weights


def test_class_weights_are_row_weights(rows, table):
    factors = table["weight"] * np.array([2.0, 1.0, 0.25])[table["kind"].astype(int)]
    options = dict(labelCol="kind", regParam=0.05, maxIter=8, tol=0.0)
    by_column = LogisticRegression(weightCol="w", **options).fit(in_partitions(table.assign(w=factors), 2))
    estimator = LogisticRegression(weightCol="weight", **options)
    for weights in ([2.0, 1.0, 0.25], {0: 2, 2: 0.25}):
        np.testing.assert_allclose(flat(estimator.setClassWeights(weights).fit(rows)), flat(by_column), rtol=1e-9)


def test_balanced_classes_are_scikit_learns(rows, table):
    options = dict(labelCol="kind", regParam=0.01, standardization=False, **EXACT)
    model = LogisticRegression(**options).setClassWeights("balanced").fit(rows)
    X, y = arrays(table, "kind")
    theirs = SklearnLogisticRegression(C=1 / (600 * 0.01), class_weight="balanced", tol=1e-10, max_iter=5000)
    theirs.fit(X, y)
    np.testing.assert_allclose(model.coefficientMatrix.toArray(), theirs.coef_, rtol=1e-3, atol=1e-4)


def test_balanced_classes_weigh_the_same(rows, table):
    from sparkopt.ml.class_weights import factors

    found = factors("balanced", rows, Columns("features", "kind", "weight", "held"))
    training = table[~table["held"]]
    weights = training["weight"] * np.array(found)[training["kind"].astype(int)]
    sums = weights.groupby(training["kind"]).sum()
    np.testing.assert_allclose(sums, training["weight"].sum() / 3)


def test_class_weights_survive_the_disk_and_are_checked(rows, tmp_path):
    estimator = LogisticRegression().setClassWeights({1: 3})
    estimator.save(str(tmp_path / "estimator"))
    assert LogisticRegression.load(str(tmp_path / "estimator")).getClassWeights() == {1: 3.0}
    assert LogisticRegression().setClassWeights(np.array([1, 2])).getClassWeights() == [1.0, 2.0]
    for wrong in ("even", 3, {0: -1.0}, [1.0, float("nan")], {-1: 1.0}):
        with pytest.raises(ParameterError, match="classWeights"):
            LogisticRegression().setClassWeights(wrong)
    with pytest.raises(DataError, match="classWeights has 2 entries but labels go up to 2"):
        LogisticRegression(labelCol="kind").setClassWeights([1.0, 2.0]).fit(rows)


# Callbacks


class Closing(History):
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_callbacks_see_every_model_and_are_closed_once(rows):
    watch = Closing()
    estimator = LogisticRegression(maxIter=3, tol=0.0).setCallbacks([watch])
    models = estimator.fit(rows, [{estimator.regParam: 0.1}, {estimator.regParam: 0.2}])
    assert watch.closed == 1
    found = watch.to_pandas()
    for number, model in enumerate(models):
        assert found[found["model"] == number]["objective"].tolist() == model.summary.objectiveHistory
    with pytest.raises(DivergedError):
        LogisticRegression(optimizer="sgd", stepSize=1e308, maxIter=50).setCallbacks([watch]).fit(rows)
    assert watch.closed == 2


def test_a_time_budget_ends_a_fit(rows):
    estimator = LogisticRegression(optimizer="sgd", maxIter=100_000, tol=0.0)
    receipt = estimator.setCallbacks([TimeBudget(0.5)]).fit(rows).summary.receipt
    assert receipt.reason == "callback"
    assert receipt.elapsed[-1] >= 0.5 > receipt.elapsed[-2]


# Many models in one pass


@pytest.mark.parametrize("standardization", [True, False])
def test_a_grid_gives_the_models_of_separate_fits(rows, standardization):
    base = LogisticRegression(weightCol="weight", standardization=standardization, maxIter=15, tol=1e-9)
    grid = [
        {base.regParam: 0.5},
        {base.regParam: 0.01, base.tol: 1e-3},
        {base.regParam: 0.05, base.elasticNetParam: 0.5, base.maxIter: 60},
        {base.optimizer: "adam", base.stepSize: 0.1, base.maxIter: 20, base.tol: 0.0},
        {base.optimizer: "gd", base.maxIter: 4, base.tol: 0.0, base.predictionCol: "p"},
    ]
    together = base.fit(rows, grid)
    for values, model in zip(grid, together, strict=True):
        alone = base.fit(rows, values)
        np.testing.assert_allclose(flat(model), flat(alone), rtol=1e-6, atol=1e-9)
        assert model.summary.totalIterations == alone.summary.totalIterations
        assert model.extractParamMap()[model.regParam] == values.get(base.regParam, 0.0)
    receipts = [model.summary.receipt for model in together]
    assert {receipt.models for receipt in receipts} == {5}
    assert receipts[0].passes < sum(receipt.steps + 1 for receipt in receipts)
    assert together[-1].getPredictionCol() == "p"


@pytest.fixture
def counted(monkeypatch):
    """How many stores were written, and how many models each run of the loop trained."""
    written, trained = [], []
    write, run = BlockStore.write.__func__, fit_smoothed
    monkeypatch.setattr(BlockStore, "write", classmethod(lambda cls, *args: written.append(1) or write(cls, *args)))
    monkeypatch.setattr(
        "sparkopt.ml.training.fit_smoothed",
        lambda store, trainers, initials: trained.append(len(trainers)) or run(store, trainers, initials),
    )
    return written, trained


def test_what_cannot_share_passes_still_shares_the_ingest(rows, counted):
    base = LogisticRegression(maxIter=2, tol=0.0)
    grid = [
        {base.regParam: 0.1},
        {base.regParam: 0.1, base.fitIntercept: False},
        {base.regParam: 0.2},
        {base.labelCol: "kind"},
        {base.standardization: False},
    ]
    models = base.fit(rows, grid)
    written, trained = counted
    assert (len(written), sorted(trained)) == (2, [1, 1, 1, 2])
    assert [model.numClasses for model in models] == [2, 2, 2, 3, 2]
    assert models[1].intercept == 0.0


def test_wrong_maps_are_refused_before_a_row_is_read():
    base = LogisticRegression()
    grid = [{base.regParam: 0.1}, {base.regParam: -0.1}]
    with pytest.raises(ParameterError, match=r"regParam must be >= 0. Got -0.1 instead."):
        base.fitMultiple(Unread.table(), grid)


def test_trainers_must_agree_on_what_they_share(rows):
    trainers = [Trainer(losses.Logistic()), Trainer(losses.Logistic(), fit_intercept=False)]
    with BlockStore.write(rows, Columns("features", "label"), Interval()) as store:
        with pytest.raises(IncompatibleError, match="these trainers differ in fit_intercept"):
            fit_many(store, trainers)
        kinds = [optim.lbfgs(), optim.gd(0.5)]
        together = fit_many(store, [Trainer(losses.Logistic(), kind, L2(0.1), Stop(3, 0.0)) for kind in kinds])
    assert [fit.receipt.optimizer for fit in together] == ["lbfgs", "gd"]
    assert [fit.receipt.models for fit in together] == [2, 2]
