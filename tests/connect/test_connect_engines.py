"""Each engine on Spark Connect, also where what serverless compute refuses is refused: it runs, or says why."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sparkopt.ml import LogisticRegression
from tests.connect.connect_data import QUICK, dense, network, numbers, searched
from tests.connect.serverless import REFUSED

pytestmark = [pytest.mark.usefixtures("jvms", "minutes"), pytest.mark.timeout(1200)]  # all in the first one's fixture

SERVERS = ("connect", "serverless")
EXACT = ("driver", "local")  # to the last bit
ONE_LINE = {
    ("connect", "resident"): "cannot run in this Spark session: use a Spark Classic session",
    ("serverless", "resident"): "cannot run in this Spark session: use a Spark Classic session",
    ("serverless", "allreduce"): "needs a task for each of 3 partitions at the same time",
}


@pytest.fixture(scope="module")
def found(client, tmp_path_factory):
    """What the client reports."""
    return client("tests.connect.engines_client", tmp_path_factory.mktemp("engines"), 1100)


def expected(spark, engine):
    model = LogisticRegression(engine="driver", regParam=0.01, **QUICK)
    if engine != "driver":  # the optimiser is chosen for the engine
        model = LogisticRegression(engine=engine, regParam=0.01, **QUICK)
    return numbers(model.fit(dense(spark, 2)))


@pytest.mark.parametrize("engine", ["auto", "driver", "resident", "allreduce", "local"])
@pytest.mark.parametrize("limits", SERVERS)
def test_an_engine_fits_or_says_why(spark, found, limits, engine):
    outcome = found[limits][engine]
    if (limits, engine) in ONE_LINE:
        assert ONE_LINE[limits, engine] in outcome
        assert "\n" not in outcome
        return
    assert engine in ("auto", outcome["engine"])
    np.testing.assert_allclose(outcome["numbers"], expected(spark, engine), rtol=0 if engine in EXACT else 1e-6)
    assert 0 < outcome["ones"] < 1500


@pytest.mark.parametrize("limits", SERVERS)
def test_ranks_that_hold_a_partition_each(spark, found, limits):
    outcome = found[limits]["two partitions"]
    assert outcome["engine"] == "allreduce"
    np.testing.assert_allclose(outcome["numbers"], expected(spark, "driver"), rtol=1e-6)


@pytest.mark.parametrize("engine", ["driver", "allreduce", "local"])
def test_functions_larger_than_a_message_travel_in_parts(found, engine):
    assert found["connect"]["in parts"][engine] == found["connect"][engine]
    refused = found["serverless"]["in parts"][engine]  # rows of data carry no parts
    assert "and a message of Spark Connect holds 0 MiB" in refused
    assert "\n" not in refused


@pytest.mark.parametrize("engine", ["driver", "allreduce", "local"])
def test_two_million_coefficients(found, engine):
    outcome = found["wide"][engine]
    assert (outcome["size"], outcome["equal"], outcome["right"]) == (2_000_000, True, 200)
    assert outcome["sum"] == pytest.approx(found["wide"]["driver"]["sum"], rel=1e-9)


@pytest.mark.parametrize("limits", SERVERS)
def test_callbacks_are_called_or_refused(found, limits):
    for engine in ("auto", "driver"):
        assert found[limits]["callbacks"][engine]["engine"] == "driver"
        assert found[limits]["callbacks"][engine]["steps"] > 0
    for engine in ("allreduce", "local"):
        assert "does not reach this process to call callbacks" in found[limits]["callbacks"][engine]


@pytest.mark.parametrize("limits", SERVERS)
def test_errors_of_tasks_are_one_line(found, limits):
    for engine, outcome in found[limits]["wrong"].items():
        if (limits, engine) not in ONE_LINE:
            assert outcome.startswith("DivergedError: 'sgd' diverged at step")
    text = str(found[limits])
    assert "raw " not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("launcher", ["torch", "local"])
@pytest.mark.parametrize("limits", SERVERS)
def test_networks_are_those_of_classic(spark, found, limits, launcher, tmp_path):
    settings = {} if launcher == "torch" else {"launcher": "local", "numProc": 1}
    classic = network(str(tmp_path), **settings).fit(dense(spark, 2))
    outcome = found[limits]["networks"][launcher]
    np.testing.assert_allclose(outcome["losses"], [one["loss"] for one in classic.summary.history], rtol=1e-6)
    assert outcome["ones"] == classic.transform(dense(spark, 2)).where("prediction = 1").count()
    assert outcome["left"] == []


@pytest.mark.parametrize("limits", SERVERS)
def test_networks_that_connect_cannot_train_are_refused(found, limits):
    refused = found[limits]["networks"]
    assert "numProc=50 needs 50 tasks that run at the same time; the server" in refused["too many"]
    assert "storePath must be set on Spark Connect" in refused["no store"]
    assert "launcher='horovod' starts its processes by a SparkContext" in refused["horovod"]
    assert "which the tasks of a Spark Connect server do not reach" in refused["callbacks"]


@pytest.mark.parametrize("limits", SERVERS)
def test_searches_and_sums_on_the_server(spark, found, limits):
    classic = searched(spark)
    assert found[limits]["searched"]["driver"]["best"] == classic["best"]
    for engine, outcome in found[limits]["searched"].items():
        if (limits, engine) in ONE_LINE:
            assert ONE_LINE[limits, engine] in outcome
            assert "\n" not in outcome
        else:
            np.testing.assert_allclose(outcome["metrics"], classic["metrics"], rtol=1e-6)
    assert found[limits]["sharded"]["sharded"] == found[limits]["sharded"]["collect"]
    assert "engine         local; " in found[limits]["plan"]


def test_each_refusal_of_the_page_is_raised(found):
    page = (Path(__file__).parents[2] / "docs/guides/databricks.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([^|]+) \| `\[(\w+)\]` \|", page, re.MULTILINE)
    assert {name for name, _ in listed} == set(REFUSED) == set(found["provoked"])
    for name, code in listed:
        assert f"[{code}]" in found["provoked"][name]


def test_refusals_were_met_and_nothing_is_left(found):
    assert {"CACHE TABLE"} <= set(found["refused"]) <= REFUSED.keys()  # a setting is asked for by nothing here
    assert found["views"] == []
