"""Every engine finds the same coefficients: one table of engines × data, and what each does in trouble."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyspark.ml.linalg import SparseVector
from pyspark.sql import functions as F

from sparkopt import BlockStore, Columns, Stop, Trainer, losses, optim
from sparkopt.engines import resident
from sparkopt.engines.allreduce import AllReduceEngine
from sparkopt.engines.driver import DriverEngine
from sparkopt.engines.local import LocalEngine
from sparkopt.engines.resident import ResidentEngine
from sparkopt.engines.selection import AutoEngine
from sparkopt.errors import ParameterError
from sparkopt.launch.connections import Listener
from sparkopt.ml import LogisticRegression
from sparkopt.objective.work import LocalSteps
from sparkopt.penalties import L2, ElasticNet
from sparkopt.validation import Interval
from tests.tiers import needs

SAME_BITS = {
    "collect": DriverEngine(reduction="collect"),
    "sharded": DriverEngine(reduction="sharded"),
    "resident": ResidentEngine(),
    "local": LocalEngine(),
}
"""All of these add partition by partition, in order."""

RANKS = {"allreduce": AllReduceEngine()}

EVERY = SAME_BITS | RANKS | {"tree": DriverEngine(reduction="tree"), "auto": AutoEngine()}


@pytest.fixture(scope="module")
def rows(spark):
    """A dense and a sparse table of 3,000 rows in 7 partitions, one of them empty."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 6)) * (rng.random((3000, 6)) < 0.2)
    y = (X @ rng.normal(size=(6, 3)) + rng.gumbel(size=(3000, 3))).argmax(axis=1)
    plain = [(int(i), int(label), [float(v) for v in x]) for i, (x, label) in enumerate(zip(X, y, strict=True))]
    table = spark.createDataFrame(plain, "id long, three long, dense array<double>")
    vector = F.udf(lambda v: SparseVector(6, [(i, x) for i, x in enumerate(v) if x]), _vector_type())
    table = table.repartition(6, "id").withColumn("sparse", vector("dense"))
    table = table.union(table.where("id < 0").coalesce(1))
    return table.withColumn("two", (F.col("three") > 0).cast("long")).cache()


def _vector_type():
    from pyspark.ml.linalg import VectorUDT

    return VectorUDT()


@pytest.fixture(scope="module")
def small(rows):
    with BlockStore.write(rows, Columns("dense", "two"), Interval(0, 1, whole=True)) as store:
        yield store


def trainer(engine, loss=None, **options):
    options = {"penalty": L2(0.01), "stop": Stop(5, 0.0), "progress": False, **options}
    return Trainer(loss or losses.Logistic(), engine=engine, **options)


@pytest.mark.parametrize(
    ("column", "loss"),
    [
        ("dense", losses.Multinomial(3)),
        ("sparse", losses.SquaredError()),
        ("dense", losses.MultilayerPerceptron(losses.Multinomial(3), (4, 3))),
        ("sparse", losses.FactorizationMachine(losses.SquaredResidual(), 2)),
    ],
    ids=["dense", "sparse", "network", "machine"],
)
def test_engines_agree(rows, column, loss):
    """Bit by bit where they add in the order of partitions, else within rounding."""
    with BlockStore.write(rows, Columns(column, "three"), Interval(0, 2, whole=True)) as store:
        fits = {name: trainer(engine, loss, stop=Stop(2, 0.0)).fit(store) for name, engine in EVERY.items()}
    expected = fits.pop("collect")
    for name, found in fits.items():
        assert found.solution.objective == pytest.approx(expected.solution.objective, rel=1e-9), name
        np.testing.assert_allclose(found.coefficients, expected.coefficients, rtol=1e-6, atol=1e-9, err_msg=name)
        if name in SAME_BITS:
            assert found.coefficients.tobytes() == expected.coefficients.tobytes(), name
            assert found.intercept.tobytes() == expected.intercept.tobytes(), name
            assert found.auxiliary.tobytes() == expected.auxiliary.tobytes(), name


@pytest.mark.parametrize("column", ["dense", "sparse"])
def test_hessians_are_the_same_on_every_engine(rows, column):
    loss = losses.Multinomial(3)
    options = {"optimizer": optim.proximal_newton(), "penalty": ElasticNet(0.02, 0.5), "stop": Stop()}
    with BlockStore.write(rows, Columns(column, "three"), loss.targets) as store:
        fits = {name: trainer(engine, loss, **options).fit(store) for name, engine in EVERY.items()}
    expected = fits["collect"]
    assert expected.solution.reason == "tolerance"
    for name, fit in fits.items():
        if name in SAME_BITS:
            assert fit.coefficients.tobytes() == expected.coefficients.tobytes()
        np.testing.assert_allclose(fit.coefficients, expected.coefficients, rtol=1e-8, atol=1e-10)


def test_losses_from_expressions_reach_the_tasks_of_every_engine(small):
    torch = pytest.importorskip("torch", reason="it differentiates the expression")

    def logistic(y, raw):
        return torch.nn.functional.softplus(raw) - y * raw

    loss = losses.of(logistic, targets=Interval(0, 1, whole=True))
    expected = trainer(LocalEngine(), stop=Stop(50, 1e-12)).fit(small)
    for name, engine in EVERY.items():
        found = trainer(engine, loss, stop=Stop(50, 1e-12)).fit(small)
        np.testing.assert_allclose(found.coefficients, expected.coefficients, rtol=1e-6, atol=1e-9, err_msg=name)


def test_mini_batches_are_the_same_on_every_engine(small):
    batches = {"optimizer": optim.adam(0.05), "mini_batch_fraction": 0.1, "seed": 4, "stop": Stop(3, 0.0)}
    fits = {name: trainer(engine, **batches).fit(small) for name, engine in SAME_BITS.items()}
    expected = fits.pop("collect")
    for name, found in fits.items():
        assert found.coefficients.tobytes() == expected.coefficients.tobytes(), name
        assert found.receipt.rows_touched == expected.receipt.rows_touched, name


def test_the_start_of_resident_tasks_is_in_no_pass(small):
    receipt = trainer(resident.ResidentEngine(), stop=Stop(3, 0.0)).fit(small).receipt
    assert receipt.engine == "resident"
    assert 0 < receipt.startup <= receipt.seconds["schedule"]


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(LocalSteps(4, 2), id="post-local", marks=needs("minutes")),
        pytest.param(LocalSteps(4, outer=optim.diloco()), id="diloco"),
    ],
)
def test_local_steps_are_the_same_on_every_engine(small, rounds):
    """They send what plain steps send, and go further."""
    options = {"optimizer": optim.sgd(0.3), "seed": 4, "stop": Stop(3, 0.0)}
    local = {**options, "mini_batch_fraction": 0.05, "local_steps": rounds}
    fits = {name: trainer(engine, **local).fit(small) for name, engine in (SAME_BITS | RANKS).items()}
    expected, plain = fits.pop("collect"), trainer(SAME_BITS["collect"], **options).fit(small)
    assert expected.solution.objective < plain.solution.objective
    assert expected.receipt.optimizer == f"sgd, 4 local steps, {rounds.outer.name}"
    assert expected.receipt.sent[:-1] == plain.receipt.sent[:-1]  # the last step ends with losses of all rows
    local_steps = sum(rounds.length(number) for number in range(4))
    assert expected.receipt.rows_touched == pytest.approx(150 * local_steps + 3000, rel=0.02)
    for name, found in fits.items():
        np.testing.assert_allclose(found.coefficients, expected.coefficients, rtol=1e-6, atol=1e-9, err_msg=name)
        assert found.solution.objective == pytest.approx(expected.solution.objective, rel=1e-9), name
        if name in SAME_BITS:
            assert found.coefficients.tobytes() == expected.coefficients.tobytes(), name


@pytest.mark.parametrize("name", SAME_BITS | RANKS)
def test_callbacks_see_each_step_and_can_end_a_fit_on_every_engine(small, name):
    """By an error, after which the slots are free for the next fit; and by their answer."""
    seen = []

    def fail(progress):
        raise ZeroDivisionError("mine")

    def watch(progress):
        seen.append((progress.record.step, progress.record.objective, progress.coef.copy()))
        return progress.record.step == 2

    with pytest.raises(ZeroDivisionError, match="mine"):
        trainer((SAME_BITS | RANKS)[name], callbacks=[fail]).fit(small)
    fit = trainer((SAME_BITS | RANKS)[name], callbacks=[watch]).fit(small)
    assert fit.solution.reason == "callback"
    assert [step for step, _, _ in seen] == [0, 1, 2]
    assert [objective for _, objective, _ in seen] == [record.objective for record in fit.solution.history]
    np.testing.assert_array_equal(seen[-1][2], fit.solution.coef)


@pytest.fixture(scope="module")
def two_steps(small):
    """What the driver engine finds where no block is missing."""
    return trainer(SAME_BITS["collect"], stop=Stop(2, 0.0)).fit(small)


def test_missing_blocks_are_rebuilt_by_the_driver_engine(rows, two_steps, caplog):
    for name in ("resident", "local", "allreduce"):
        with BlockStore.write(rows, Columns("dense", "two"), Interval()) as store:
            Path(store.located().handles[1].path).unlink()
            caplog.clear()
            repaired = trainer((SAME_BITS | RANKS)[name], stop=Stop(2, 0.0)).fit(store)
            assert repaired.coefficients.tobytes() == two_steps.coefficients.tobytes(), name
            assert repaired.receipt.engine.endswith("driver"), name
            assert "engine='driver'" in caplog.text, name


def test_a_second_worker_pool_does_not_wait_for_the_first(small, caplog):
    """Two fits at once, as CrossValidator(parallelism=2) makes them: one stays, the other takes the driver engine."""
    results = []
    entered, leave = threading.Event(), threading.Event()

    def hold(progress):
        entered.set()
        leave.wait(60)

    first = threading.Thread(
        target=lambda: results.append(trainer(ResidentEngine(), callbacks=[hold], stop=Stop(1, 0.0)).fit(small))
    )
    first.start()
    assert entered.wait(60)
    assert resident._pool_lock.locked()
    with caplog.at_level(logging.INFO, logger="sparkopt.engines.resident"):
        second = threading.Thread(target=lambda: results.append(trainer(ResidentEngine()).fit(small)))
        second.start()
        second.join(0.5)
        leave.set()
    first.join(60)
    second.join(60)
    assert {fit.receipt.engine for fit in results} == {"resident", "driver"}
    assert not resident._pool_lock.locked()


def test_tasks_that_cannot_reach_the_driver_do_not_stop_the_fit(small, two_steps, caplog, monkeypatch):
    class Elsewhere(Listener):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.address = replace(self.address, key=b"of another driver")

    monkeypatch.setattr("sparkopt.engines.worker_pool.Listener", Elsewhere)
    found = trainer(ResidentEngine(), stop=Stop(2, 0.0)).fit(small)
    assert found.coefficients.tobytes() == two_steps.coefficients.tobytes()
    assert found.receipt.engine == "resident, then driver"
    assert "cannot reach the driver at Address(host='127.0.0.1', port=" in caplog.text


def test_estimators_take_engines_by_name(rows, caplog):
    with caplog.at_level(logging.INFO, logger="sparkopt.engines.selection"):
        auto = LogisticRegression(featuresCol="dense", labelCol="two", regParam=0.1).fit(rows)
    assert auto.summary.receipt.engine == "local"  # a few hundred kilobytes
    assert "engine local: 0.2 MB a pass in 7 partitions on 2 slots" in caplog.text
    driver = LogisticRegression(featuresCol="dense", labelCol="two", regParam=0.1, engine="driver").fit(rows)
    assert driver.summary.receipt.engine == "driver"
    assert np.array_equal(driver.coefficients, auto.coefficients)
    with pytest.raises(ParameterError, match="engine must be one of 'auto', 'driver', 'resident'"):
        LogisticRegression(engine="gpu").fit(rows)
