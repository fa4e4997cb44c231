"""Ranks that continue without one another: the same training where none is lost, nearly the same where one is."""

from __future__ import annotations

import functools
import json
import re
import types

import numpy as np
import pytest
from pyspark import SparkConf

from sparkopt.deep.config import TrainConfig
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.worker import train
from sparkopt.launch import ElasticLauncher, HorovodLauncher, TorchLauncher
from sparkopt.launch.checkpoints import module_state
from sparkopt.launch.launching import Launching
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from tests.deep.killing import calm, estimator, rows
from tests.deep.networks import Mlp
from tests.deep.test_kill import script
from tests.tiers import needs


@pytest.mark.usefixtures("horovod")
def test_where_nobody_is_lost(spark, tmp_path):
    """The weights are those of the torch launcher, as those of Horovod's ordinary ranks are (test_kill.py)."""
    df = rows(spark)
    store = write_store(df, Fields.of(df.schema, "features", "label"), str(tmp_path / "rows"))
    settings = TrainConfig(store.uri, epochs=2, batch_size=16, streams=2, seed=3, report_steps=5)
    recipe = Recipe(functools.partial(Mlp, features=3, classes=2, dropout=0.2), "multinomial", "adam")
    expected = TorchLauncher(spark.sparkContext, 2).run(train, settings, recipe)[0]
    found = ElasticLauncher(spark.sparkContext, 2, at_least=1).run(train, settings, recipe)
    assert [outcome.losses for outcome in found] == [expected.losses] * 2
    assert found[0].weights == expected.weights
    assert found[0].seconds["checkpoint"] > 0 == expected.seconds["checkpoint"]  # it was ready to lose one


@pytest.mark.usefixtures("jvms", "kills")
@pytest.mark.parametrize("launcher", ["torch", pytest.param("horovod", marks=needs("horovod"))])
@pytest.mark.parametrize("what", ["elastic", "elastic-cluster"])
def test_a_killed_rank_is_missed_for_a_while(spark, tmp_path, what, launcher):
    """The other goes on from memory with all of a step's rows; Spark starts the lost one's task again, and it joins.

    Losses are the same, but of steps that the lost one had not reported (at most 20): these are of the other's rows.
    """
    process = script(what, str(tmp_path), launcher)
    output, errors = process.communicate(timeout=300)
    found = [line.removeprefix("RESULT ") for line in output.splitlines() if line.startswith("RESULT ")]
    assert found, errors[-3000:]
    facts = json.loads(found[0])
    assert (facts["processes"], facts["restarts"], facts["resumed"] is None) == (2, 1, False)
    assert "of 2 ended unexpectedly; training continues with 1." in errors
    assert "Training continues with 2 processes instead of 1." in errors
    assert "which repeats" not in errors
    resumed = re.search(r"Training continues from step (\d+) of epoch (\d+)\.", errors)
    assert resumed, errors[-3000:]
    expected = estimator(calm(tmp_path / "calm"), "torch", dropout=0.0, epochs=6).fit(rows(spark))
    losses = expected.summary.objectiveHistory
    step = 20 * int(resumed[2]) + int(resumed[1])
    estimated = np.flatnonzero(~np.isclose(facts["losses"], losses, rtol=1e-3))
    assert set(estimated) <= set(range(step - 20, step))
    np.testing.assert_allclose(facts["losses"], losses, atol=0.2)
    for name, tensor in module_state((tmp_path / "weights").read_bytes()).items():
        np.testing.assert_allclose(tensor, module_state(expected.weights)[name], rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("horovod")
@pytest.mark.parametrize(
    ("master", "failures", "kind"),
    [
        ("local[2]", None, HorovodLauncher),
        ("local", None, HorovodLauncher),
        ("local[2, 3]", None, ElasticLauncher),
        ("local-cluster[2,1,1024]", None, ElasticLauncher),
        ("yarn", "1", HorovodLauncher),
    ],
)
def test_ranks_are_elastic_where_spark_starts_tasks_again(master, failures, kind, caplog):
    settings = SparkConf(loadDefaults=False)
    if failures:
        settings.set("spark.task.maxFailures", failures)
    context = types.SimpleNamespace(master=master, getConf=lambda: settings)
    session = types.SimpleNamespace(sparkContext=context)
    found = Launching("horovod", session, 2, 1, 1)._launcher(lambda report: False, 1)
    assert type(found) is kind
    assert ("starts no task again" in caplog.text) == (kind is HorovodLauncher)
