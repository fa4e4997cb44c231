"""Workers of a cluster of Flink, Python's or TaskManagers, killed at random moments: same bits, nothing left."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest

from sparkopt import Table
from sparkopt.machine.folders import local_roots
from sparkopt.ml import LogisticRegression
from tests.frameworks.conftest import NAMES, ROWS, columns
from tests.frameworks.flink import table_of, workers_below
from tests.frameworks.flink_cluster import FlinkCluster, cluster

pytestmark = pytest.mark.usefixtures("jvms", "kills", "minutes")

KILLS = int(os.environ.get("SPARKOPT_TEST_KILLS", "1"))
"""Kills of each process in each work; 10 is the full number."""
VICTIMS = {"a Python worker": FlinkCluster.kill_python, "a TaskManager": FlinkCluster.kill_worker}
T = TypeVar("T")


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    """A cluster of two TaskManagers."""
    if importlib.util.find_spec("pyflink") is None:
        pytest.skip("pyflink is not installed here: make test-flink")
    logging.getLogger("py4j").setLevel(logging.ERROR)
    with cluster(tmp_path_factory.mktemp("flink"), workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def rows(flink: FlinkCluster) -> Any:
    """A Table whose rows come through a Python function that takes two seconds for them."""
    from pyflink.table import DataTypes
    from pyflink.table.expressions import col
    from pyflink.table.udf import udf

    tables = flink.environment()
    tables.get_config().set("python.fn-execution.bundle.size", "40")
    slow = udf(_after_a_while, result_type=DataTypes.BIGINT(), func_type="pandas")
    return table_of(tables, columns("columns")).add_or_replace_columns(slow(col("id")).alias("id"))


def _after_a_while(ids: pd.Series) -> pd.Series:
    time.sleep(len(ids) * 2 / ROWS)
    return ids


def _fit(rows: Any, _: Path) -> np.ndarray:
    model = LogisticRegression(featuresCols=NAMES, regParam=0.01, maxIter=15).fit(rows)
    return np.append(model.coefficients.toArray(), model.intercept)


def _collected(rows: Any, _: Path) -> np.ndarray:
    scored = Table.of(_scored(rows)).to_arrow().to_pandas()
    assert list(scored["id"]) == list(range(ROWS))
    return scored["score"].to_numpy()


def _written(rows: Any, folder: Path) -> np.ndarray:
    """Let Flink write the scores itself, which starts its job again by the cluster's own strategy."""
    name = f"written_{random.getrandbits(60)}"
    rows._t_env.execute_sql(
        f"CREATE TABLE {name} (id BIGINT, score DOUBLE) "
        f"WITH ('connector' = 'filesystem', 'format' = 'csv', 'path' = 'file://{folder / name}')"
    )
    _scored(rows).execute_insert(name).wait()
    found = pd.concat(
        [
            pd.read_csv(file, header=None, names=["id", "score"], float_precision="round_trip")
            for file in (folder / name).glob("[!.]*")
        ]
    ).sort_values("id")
    assert list(found["id"]) == list(range(ROWS))
    return found["score"].to_numpy()


def _scored(rows: Any) -> Any:
    from pyflink.table.expressions import col

    scored = _model().transform(rows)
    return scored.select(col("id"), col("probability").at(2).alias("score"))


def _model() -> Any:
    return LogisticRegression(featuresCols=NAMES, regParam=0.01).fit(columns("columns"))


WORKS = {"a fit": _fit, "scores that are collected": _collected, "scores that Flink writes": _written}


def _here(work: str) -> np.ndarray:
    """What one machine makes of the same rows."""
    if work == "a fit":
        return _fit(columns("columns"), Path())
    return np.stack(_model().transform(columns("columns"))["probability"])[:, 1]


@pytest.mark.timeout(600 + 300 * KILLS)
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("work", WORKS)
def test_a_kill_at_a_random_moment_changes_nothing(
    flink: FlinkCluster, rows: Any, work: str, victim: str, tmp_path: Path
):
    begin = time.monotonic()
    undisturbed = WORKS[work](rows, tmp_path)
    seconds = time.monotonic() - begin
    assert np.array_equal(undisturbed, _here(work))
    draw, kills = random.Random(len(work) + len(victim)), 0  # moments, no secrets
    while kills < KILLS:
        after = draw.uniform(0, seconds)
        found, killed = _disturbed(lambda: WORKS[work](rows, tmp_path), lambda: VICTIMS[victim](flink), after)
        kills += killed
        assert np.array_equal(found, undisturbed), after
    gc.collect()
    assert flink.running_jobs() == []
    assert _none_are_left(lambda: workers_below(os.getpid()))
    assert _files() == []


def _disturbed(call: Callable[[], T], kill: Callable[[], bool], after: float) -> tuple[T, bool]:
    """Return what a call returns while a process is killed so many seconds later or once there is one, and if so."""
    killed, ended = [False], threading.Event()

    def strike() -> None:
        ended.wait(after)
        while not ended.wait(0.02) and not killed[0]:
            killed[0] = kill()

    striking = threading.Thread(target=strike)
    striking.start()
    try:
        return call(), killed[0]
    finally:
        ended.set()
        striking.join()


def _none_are_left(found: Callable[[], set[int]]) -> bool:
    """Whether there are none any longer, soon."""
    deadline = time.monotonic() + 30
    while found() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not found()


def _files() -> list[Path]:
    return [found for root in local_roots() for found in root.glob(f"sparkopt-machine-*-{os.getpid()}-*/*-*")]
