"""Local steps through the estimators: parameters, grids, validation rows, checkpoints, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sparkopt import BlockStore, Columns, Stop, Trainer, losses, optim
from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.machine import Table
from sparkopt.ml import LinearRegression, LogisticRegression
from sparkopt.objective.work import LocalSteps
from sparkopt.training.trainer import fit_many
from sparkopt.validation import Interval
from tests.tables import Unread, in_partitions


def table() -> pd.DataFrame:
    """600 rows of three classes, a fifth of them for validation."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 4))
    kind = (X[:, :3] + 0.5 * rng.normal(size=(600, 3))).argmax(axis=1)
    number = np.arange(600)
    return pd.DataFrame(
        {
            "features": list(X),
            "kind": kind.astype(float),
            "label": (kind > 0).astype(float),
            "held": number % 5 == 0,
            "weight": 1.0 + number % 3,
        }
    )


@pytest.fixture(scope="module")
def rows() -> Table:
    return in_partitions(table(), 3)


def local(kind=LogisticRegression, **options):
    options = {"optimizer": "sgd", "stepSize": 0.5, "maxIter": 8, "tol": 0.0, "regParam": 0.01, **options}
    return kind(localSteps=5, **options)


def test_a_few_rounds_reach_what_many_steps_do(rows):
    plain = LogisticRegression(optimizer="sgd", stepSize=0.5, maxIter=40, tol=0.0, regParam=0.01).fit(rows)
    model = local().fit(rows)
    assert model.summary.totalIterations == 8
    assert model.summary.objectiveHistory[-1] == pytest.approx(plain.summary.objectiveHistory[-1], rel=1e-3)
    assert "sgd, 5 local steps, average" in str(model.summary.receipt)
    by_name = local(optimizer="auto").fit(rows)  # which is sgd, since the default takes no local steps
    np.testing.assert_array_equal(by_name.coefficients, model.coefficients)
    best = LogisticRegression(regParam=0.01, tol=1e-10).fit(rows)
    assert model.summary.objectiveHistory[-1] > best.summary.objectiveHistory[-1]


def test_an_outer_optimizer_and_warm_up(rows):
    model = local().setLocalStepsWarmUp(2).setOuterOptimizer("diloco").setOuterStepSize(0.5).fit(rows)
    assert model.summary.receipt.optimizer == "sgd, 5 local steps, diloco"
    assert model.summary.receipt.rows_touched == 600 * (1 + 1 + 7 * 5)
    alone = (
        LogisticRegression(optimizer="sgd", stepSize=0.5, maxIter=5, tol=0.0).setOuterOptimizer("average").fit(rows)
    )
    plain = LogisticRegression(optimizer="sgd", stepSize=0.5, maxIter=5, tol=0.0).fit(rows)
    np.testing.assert_allclose(alone.coefficients, plain.coefficients, rtol=1e-9)


@pytest.mark.parametrize("what", ["three classes, weights", "regression, sparse"])
def test_every_kind_of_rows(what):
    """On one partition, rounds are plain steps whatever the rows are; tests/objective has each kind by itself."""
    one = table()
    common = {"optimizer": "sgd", "stepSize": 0.3, "tol": 0.0}
    if what == "regression, sparse":
        kind, classes = LinearRegression, {}
        X = np.stack(one["features"])
        one = (sparse.csr_array(np.where(np.abs(X) > 1.2, X, 0.0)), one["label"].to_numpy())
    else:
        kind, classes = LogisticRegression, {"classWeights": "balanced"}
        common |= {"labelCol": "kind", "weightCol": "weight"}
    estimators = kind(maxIter=3, localSteps=4, **classes, **common), kind(maxIter=12, **classes, **common)
    models = [estimator.fit(one) for estimator in estimators]
    np.testing.assert_allclose(models[0].arrays[0], models[1].arrays[0], rtol=1e-8)
    assert models[0].summary.objectiveHistory[-1] == pytest.approx(models[1].summary.objectiveHistory[-1], rel=1e-10)


def test_validation_rows_are_evaluated_once_an_epoch(rows):
    estimator = local(miniBatchFraction=0.05, maxIter=11).setValidationIndicatorCol("held")
    evaluated = [step for step, loss in enumerate(estimator.fit(rows).summary.validationHistory) if loss is not None]
    assert evaluated == [0, 4, 8]  # rounds of 5 x 5%


def test_a_grid_trains_each_model_alone(rows):
    estimator = local()
    maps = [{estimator.regParam: strength} for strength in (0.1, 0.1)] + [{estimator.localSteps: 1}] * 2
    found = dict(estimator.fitMultiple(rows, maps))
    alone = [estimator.copy(maps[number]).fit(rows) for number in (0, 2)]
    for number in range(4):
        np.testing.assert_allclose(found[number].coefficients, alone[number // 2].coefficients, rtol=1e-9)
        assert found[number].summary.receipt.models == (1 if number < 2 else 2)


def test_a_run_resumes_from_its_checkpoint(rows, tmp_path):
    options = {"miniBatchFraction": 0.2, "checkpointDir": str(tmp_path), "checkpointInterval": 1}
    whole = local(miniBatchFraction=0.2).setOuterOptimizer("diloco").fit(rows)

    def fail(progress):
        if progress.record.step == 5:
            raise ZeroDivisionError

    broken = local(**options).setOuterOptimizer("diloco").setCallbacks([fail])
    with pytest.raises(ZeroDivisionError):
        broken.fit(rows)
    again = broken.setCallbacks([]).fit(rows)
    assert again.summary.receipt.resumed_at >= 4
    np.testing.assert_array_equal(again.coefficients, whole.coefficients)
    assert again.summary.objectiveHistory == whole.summary.objectiveHistory


REFUSED = {
    "no gradients": (
        dict(optimizer="lbfgs", stepSize=None),
        IncompatibleError,
        "'lbfgs' needs gradients.*localSteps=1",
    ),
    "nonsmooth": (dict(elasticNetParam=1.0), IncompatibleError, "local steps cannot serve an L1 penalty.*such as L2"),
}


@pytest.mark.parametrize(("options", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_before_a_row_is_read(options, kind, message):
    options = {name: value for name, value in options.items() if value is not None}
    options |= {} if options.get("optimizer") == "lbfgs" else {"optimizer": "sgd", "stepSize": 0.1}
    with pytest.raises(kind, match=message):
        LogisticRegression(regParam=0.1, **options).setLocalSteps(4).fit(Unread.table())


@pytest.mark.parametrize(
    ("setter", "value", "message"),
    [
        ("setLocalSteps", 0, "localSteps must be"),
        ("setLocalStepsWarmUp", -1, "localStepsWarmUp must be"),
        ("setOuterOptimizer", "mean", "outerOptimizer must be one of 'average', 'diloco'"),
        ("setOuterStepSize", 0.0, "outerStepSize must be"),
    ],
)
def test_wrong_values_are_refused(rows, setter, value, message):
    with pytest.raises(ParameterError, match=message):
        getattr(local(), setter)(value).fit(rows)


def test_an_outer_optimizer_needs_fixed_steps(rows):
    with pytest.raises(IncompatibleError, match="as outer optimizer, optimizer='lbfgs' needs gradients"):
        local().setOuterOptimizer("lbfgs").fit(rows)


def test_trainers_with_local_steps_share_no_passes(rows):
    trainer = Trainer(losses.Logistic(), optim.sgd(0.5), stop=Stop(3, 0.0), local_steps=LocalSteps(4), progress=False)
    with BlockStore.write(rows, Columns("features", "label"), Interval(0, 1, whole=True)) as store:
        with pytest.raises(IncompatibleError, match="2 trainers with local steps cannot share.*one by one"):
            fit_many(store, [trainer, replace(trainer, stop=Stop(4, 0.0))])
        assert trainer.fit(store).receipt.passes == 4
    with pytest.raises(IncompatibleError, match="'lbfgs' needs gradients"):
        Trainer(losses.Logistic(), local_steps=LocalSteps(4))
