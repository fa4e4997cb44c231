"""Each engine on each kind of cluster, with each setting that concerns it: it runs, or says why in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyspark
import pytest

from sparkopt.engines.selection import ENGINES
from tests.connect.connect_data import dense, fitted, network, searched

pytestmark = [pytest.mark.usefixtures("jvms", "minutes"), pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
CLUSTER = "local-cluster[2,1,1024]"
SECRET = {"spark.authenticate": "true", "spark.authenticate.secret": "tests"}
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "local": ("local[2]", {}),
    "standalone": ("standalone", {}),
    "local-cluster": (CLUSTER, {}),
    "dynamic allocation": (
        CLUSTER,
        {
            "spark.dynamicAllocation.enabled": "true",
            "spark.dynamicAllocation.shuffleTracking.enabled": "true",
            "spark.dynamicAllocation.maxExecutors": "2",
        },
    ),
    "speculation": (CLUSTER, {"spark.speculation": "true"}),
    "long tasks": (CLUSTER, {"spark.speculation": "true", "spark.speculation.task.duration.threshold": "600s"}),
    "one attempt": (CLUSTER, {"spark.task.maxFailures": "1"}),
    "encryption": (CLUSTER, {**SECRET, "spark.network.crypto.enabled": "true"}),
    "IPv6": ("local[2]", {"spark.driver.host": "[::1]", "spark.driver.bindAddress": "[::1]"}),
}
"""Master, and settings."""

BARRIER = "set spark.dynamicAllocation.enabled=false, since Spark refuses barrier stages"
ENCRYPTED = "set spark.network.crypto.enabled=false"
REFUSED: dict[str, dict[str, str]] = {
    "dynamic allocation": {"allreduce": BARRIER, "launcher torch": BARRIER},
    "long tasks": {"local": "unset spark.speculation.task.duration.threshold"},
    "encryption": {"allreduce": ENCRYPTED, "launcher torch": ENCRYPTED},
}
"""By case and engine or launcher: what the one line says."""


@cache
def found(name: str, folder: str) -> dict[str, Any]:
    master, settings = CASES[name]
    environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(ROOT / "tests/engines/every_cluster.py"), master, folder, json.dumps(settings)]
    done = subprocess.run(script, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-3000:]
    outcomes: dict[str, Any] = json.loads(results[0].removeprefix("RESULT "))
    return outcomes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("networks"))


def refused(outcome: Any, name: str, engine: str) -> bool:
    """Whether the case is one that is refused; its line is checked."""
    expected = REFUSED.get(name, {}).get(engine)
    if expected is None:
        assert isinstance(outcome, dict), outcome
        return False
    assert outcome.partition(":")[0] in ("IncompatibleError", "IllegalChoiceError"), outcome
    assert expected in outcome
    assert "\n" not in outcome
    return True


@pytest.mark.parametrize("name", CASES)
def test_every_engine_runs_or_says_why(spark, folder, name):
    outcomes = found(name, folder)
    for engine in ENGINES:
        fit, search = outcomes["fits"][engine], outcomes["searches"][engine]
        if refused(fit, name, engine):
            assert refused(search, name, engine)
            continue
        assert engine in ("auto", fit["engine"])
        assert fit["engine"] not in REFUSED.get(name, {})
        exact = fit["engine"] != "allreduce"  # which adds in another order
        here = fitted("driver" if fit["engine"] == "resident" else fit["engine"], dense(spark, 2))
        np.testing.assert_allclose(fit["numbers"], here["numbers"], rtol=0 if exact else 1e-6, err_msg=engine)
        np.testing.assert_allclose(fit["ones"], here["ones"], atol=0 if exact else 1)
        np.testing.assert_allclose(search["metrics"], searched(spark)["metrics"], rtol=1e-6, err_msg=engine)


@pytest.mark.parametrize("launcher", ["torch", "local"])
@pytest.mark.parametrize("name", CASES)
def test_networks_train_or_say_why(spark, folder, name, launcher, tmp_path):
    outcome = found(name, folder)["networks"][launcher]
    if refused(outcome, name, f"launcher {launcher}"):
        return
    settings = {} if launcher == "torch" else {"launcher": "local", "numProc": 1}
    here = network(str(tmp_path), **settings).fit(dense(spark, 2))
    np.testing.assert_allclose(outcome["losses"], [one["loss"] for one in here.summary.history], rtol=1e-5)
    assert outcome["left"] == []
