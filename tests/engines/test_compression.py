"""Compressed sums on every engine: the same optimum, fewer bytes, and residuals that outlive their processes."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
from pyspark.ml.linalg import Vectors

from sparkopt import BlockStore, Columns, Stop, Trainer, codecs, losses, optim, penalties
from sparkopt.checkpoint.checkpointer import Checkpointer
from sparkopt.codecs.gradient import ErrorFeedback
from sparkopt.engines.driver import DriverEngine
from sparkopt.engines.selection import by_name
from sparkopt.errors import CorruptCheckpointWarning, IncompatibleError, ParameterError
from sparkopt.ml import LogisticRegression
from sparkopt.objective.work import LocalSteps
from sparkopt.training.trainer import fit_many

FEATURES = 200
ENGINES = {
    "collect": DriverEngine(reduction="collect"),
    "tree": DriverEngine(reduction="tree"),
    "sharded": DriverEngine(reduction="sharded"),
    "resident": by_name("resident"),
    "allreduce": by_name("allreduce"),
}


@pytest.fixture(scope="module")
def df(spark):
    rng = np.random.default_rng(5)
    X = rng.normal(size=(1200, FEATURES))
    y = X @ rng.normal(size=FEATURES) / 8 + rng.logistic(size=1200) > 0
    rows = [(x.tolist(), float(label)) for x, label in zip(X, y, strict=True)]
    return spark.createDataFrame(rows, "features array<double>, label double").repartition(4).cache()


@pytest.fixture(scope="module")
def store(df):
    with BlockStore.write(df, Columns("features", "label"), losses.Logistic().targets) as found:
        yield found


@pytest.fixture(scope="module")
def trainer():
    return Trainer(losses.Logistic(), optim.sgd(0.5), penalties.L2(0.05), Stop(16, 0.0), progress=False)


@pytest.fixture(scope="module")
def plain(store, trainer):
    """The fit without compression."""
    return replace(trainer, engine=by_name("resident")).fit(store)


@pytest.fixture(scope="module")
def three_steps(store, trainer):
    """Compressed fits of three steps."""
    short = replace(trainer, stop=Stop(3, 0.0), engine=by_name("resident"))
    return {codec: replace(short, compression=codec).fit(store) for codec, _ in CODECS}


CODECS = [("int8", 5), (ErrorFeedback(codecs.TopK(0.25)), 2.5)]


@pytest.mark.parametrize("engine", ["resident", "allreduce"])
@pytest.mark.parametrize(("codec", "less"), CODECS)
def test_the_optimum_is_reached(store, trainer, plain, engine, codec, less):
    if engine == "allreduce":
        pytest.importorskip("torch", reason="all-reduce needs torch")
    fit = replace(trainer, engine=ENGINES[engine], compression=codec).fit(store)
    assert fit.solution.objective == pytest.approx(plain.solution.objective, rel=1e-3)
    assert fit.solution.objective != plain.solution.objective
    _check_bytes(fit, 4 if engine == "resident" else min(2, store.slots), less)


@pytest.mark.parametrize("engine", ["collect", "tree", "sharded"])
@pytest.mark.parametrize(("codec", "less"), CODECS)
def test_a_job_a_pass_finds_what_resident_tasks_do(store, trainer, three_steps, engine, codec, less):
    fit = replace(trainer, engine=ENGINES[engine], compression=codec, stop=Stop(3, 0.0)).fit(store)
    np.testing.assert_allclose(fit.coefficients, three_steps[codec].coefficients, rtol=1e-9)
    _check_bytes(fit, 4 if engine == "collect" else None, less)  # the others add up on the way, and send the sums on


def _check_bytes(fit, senders: int | None, less: float) -> None:
    """So many sums are sent in each pass, in so many times fewer bytes."""
    sent = fit.receipt.bytes
    if senders is not None:
        assert sent["raw"] == pytest.approx(fit.receipt.passes * senders * 8 * (FEATURES + 1), rel=0.05)
        assert sent["raw"] > less * sent["encoded"] > 0
    assert "sums, compressed" in str(fit.receipt)


@pytest.mark.parametrize("engine", ["collect", "resident", "allreduce"])
def test_a_resumed_fit_has_its_residuals(store, trainer, engine, tmp_path, caplog):
    """Whatever ends a fit between two checkpoints, the same call ends with the same bits."""
    if engine == "allreduce":
        pytest.importorskip("torch", reason="all-reduce needs torch")
    codec = ErrorFeedback(codecs.TopK(0.05))
    whole = replace(trainer, engine=ENGINES[engine], compression=codec, stop=Stop(6, 0.0))
    calm = whole.fit(store)
    kept = replace(whole, checkpointer=Checkpointer(str(tmp_path), interval=2))
    with pytest.raises(RuntimeError, match="power cut"):
        replace(kept, callbacks=(_power_cut,)).fit(store)
    with caplog.at_level(logging.WARNING):
        resumed = kept.fit(store)
    assert resumed.receipt.resumed_at in (2, 4)
    assert "residual" not in caplog.text
    np.testing.assert_array_equal(resumed.coefficients, calm.coefficients)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "deleted", "those of a step", "those of a partition", "the folder"])
def test_a_damaged_residual_costs_the_steps_since_the_checkpoint_before(store, trainer, damage, tmp_path):
    codec = ErrorFeedback(codecs.TopK(0.05))
    whole = replace(trainer, engine=ENGINES["resident"], compression=codec, stop=Stop(6, 0.0))
    calm = whole.fit(store)
    kept = replace(whole, checkpointer=Checkpointer(str(tmp_path), interval=2))
    with pytest.raises(RuntimeError, match="power cut"):
        replace(kept, callbacks=(_power_cut,)).fit(store)
    newest = max(tmp_path.rglob("*.memory"), key=lambda path: path.name.split(".")[-2])
    if damage == "truncated":
        newest.write_bytes(newest.read_bytes()[:-1])
    elif damage == "deleted":
        newest.unlink()
    elif damage == "the folder":
        shutil.rmtree(newest.parent)
    else:
        partition, step = newest.name.rsplit(".", 2)[:2]
        for path in newest.parent.glob(f"*.{step}.memory" if damage == "those of a step" else f"{partition}.*"):
            path.unlink()
    with pytest.warns(CorruptCheckpointWarning, match="residual"):
        resumed = kept.fit(store)
    assert resumed.receipt.resumed_at == (0 if damage in ("those of a partition", "the folder") else 2)
    np.testing.assert_array_equal(resumed.coefficients, calm.coefficients)


def _power_cut(progress):
    if progress.record.step == 5:
        raise RuntimeError("power cut")


def test_with_local_steps(store, trainer):
    local = replace(trainer, local_steps=LocalSteps(4), engine=ENGINES["resident"])
    plain, packed = local.fit(store), replace(local, compression="int8").fit(store)
    assert packed.solution.objective == pytest.approx(plain.solution.objective, rel=1e-3)
    assert packed.receipt.bytes["raw"] > 5 * packed.receipt.bytes["encoded"]


def test_where_nothing_is_sent_nothing_is_encoded(store, trainer, caplog):
    with caplog.at_level(logging.INFO, logger="sparkopt"):
        fit = replace(trainer, engine=by_name("local"), compression="sign").fit(store)
    assert "compression='sign' is not used: one task sends no sums" in caplog.text
    np.testing.assert_array_equal(fit.coefficients, replace(trainer, engine=by_name("local")).fit(store).coefficients)


def test_estimators(df, store, trainer):
    estimator = LogisticRegression(maxIter=16, tol=0.0, regParam=0.05, stepSize=0.5, engine="resident")
    model = estimator.setCompression("int8").fit(df)  # "auto" takes the optimiser with fixed steps
    same = replace(trainer, engine=by_name("resident"), compression="int8").fit(store)
    np.testing.assert_allclose(model.coefficients.toArray(), same.coefficients[:, 0], rtol=1e-9)
    grid = estimator.fit(df, [{estimator.regParam: strength} for strength in (0.1, 0.05)])
    np.testing.assert_array_equal(grid[1].coefficients.toArray(), model.coefficients.toArray())


def test_sparse_sums_travel_sparse_without_asking(spark, trainer):
    """A partition's sum has 12 bytes for each feature that its rows have; the same bits as where nothing travels."""
    rng = np.random.default_rng(2)
    columns = np.sort(rng.choice(30_000, (400, 20)), axis=1)
    rows = [(Vectors.sparse(30_000, {int(c): 1.0 for c in row}), float(row[0] % 2)) for row in columns]
    df = spark.createDataFrame(rows, ["features", "label"]).repartition(4)
    trainer = replace(trainer, stop=Stop(2, 0.0))
    with BlockStore.write(df, Columns("features", "label"), losses.Logistic().targets) as store:
        alone = replace(trainer, engine=by_name("local")).fit(store)
        assert alone.receipt.bytes["encoded"] == 0
        for name, engine in ENGINES.items():
            if name == "allreduce" and not importlib.util.find_spec("torch"):
                continue
            fit = replace(trainer, engine=engine).fit(store)
            assert fit.receipt.bytes["raw"] > 4 * fit.receipt.bytes["encoded"] > 0, name
            assert f"{fit.receipt.bytes['raw'] / fit.receipt.bytes['encoded']:.1f}x less" in str(fit.receipt)
            if name in ("tree", "allreduce"):  # which add in another order
                np.testing.assert_allclose(fit.coefficients, alone.coefficients, rtol=1e-9, atol=1e-12)
            else:
                assert fit.coefficients.tobytes() == alone.coefficients.tobytes(), name


def test_what_cannot_be_is_refused(df, store, trainer):
    with pytest.raises(IncompatibleError, match="'lbfgs' needs exact gradients, which a lossy gradient codec"):
        LogisticRegression(optimizer="lbfgs").setCompression("fp16").fit(df)
    with pytest.raises(IncompatibleError, match="2 trainers with compression='fp16' cannot share passes"):
        fit_many(store, [replace(trainer, compression="fp16")] * 2)
    with pytest.raises(ParameterError, match="compression must be"):
        LogisticRegression().setCompression("zip").fit(df)
