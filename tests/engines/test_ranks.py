"""A fit on ranks, by each launcher: the objective of the other engines, and what happens when a rank is killed."""

from __future__ import annotations

import os

import numpy as np
import pytest
from pyspark.sql import functions as F

from sparkopt import BlockStore, Columns, Stop, Trainer, losses
from sparkopt.checkpoint.checkpointer import Checkpointer
from sparkopt.engines.allreduce import AllReduceEngine
from sparkopt.engines.driver import DriverEngine
from sparkopt.errors import LostRankError
from sparkopt.validation import Interval
from tests.launch.ranks import DieOnce
from tests.tiers import needs

pytestmark = pytest.mark.usefixtures("kills")

LAUNCHERS = ["torch", pytest.param("horovod", marks=needs("horovod"))]


@pytest.fixture(scope="module")
def store(spark):
    rows = spark.range(0, 1000, 1, 4).select(F.array(*[F.randn(seed) for seed in range(3)]).alias("features"))
    rows = rows.withColumn("label", (F.col("features")[0] + F.randn(7) > 0).cast("double"))
    with BlockStore.write(rows, Columns("features", "label"), Interval(0, 1, whole=True)) as store:
        yield store


def trainer(engine, **options):
    return Trainer(losses.Logistic(), stop=Stop(6, 0.0), engine=engine, progress=False, **options)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_rank_begins_again_from_its_checkpoint(store, launcher, tmp_path):
    """To the coefficients that an undisturbed fit on another engine has."""
    expected = trainer(DriverEngine()).fit(store)
    found = trainer(
        AllReduceEngine(launcher=launcher, retries=1),
        checkpointer=Checkpointer(str(tmp_path / "state"), interval=1),
        callbacks=[DieOnce(str(tmp_path / "killed"), step=3)],
    ).fit(store)
    assert int((tmp_path / "killed").read_text()) != os.getpid()
    assert found.receipt.engine == "allreduce"
    assert found.receipt.resumed_at >= 2
    np.testing.assert_allclose(found.receipt.objective, expected.receipt.objective, rtol=1e-9)
    np.testing.assert_allclose(found.coefficients, expected.coefficients, rtol=1e-6)


def test_without_retries_a_killed_rank_is_told(store, tmp_path):
    killed = trainer(AllReduceEngine(retries=0), callbacks=[DieOnce(str(tmp_path / "killed"), step=2)])
    with pytest.raises(LostRankError, match="lost another rank|ended unexpectedly"):
        killed.fit(store)
