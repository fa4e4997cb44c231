"""Workers of Dask and Ray that are killed in the middle of a fit: the same bits, and nothing left behind."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest

from sparkopt import Table
from sparkopt.machine.cluster import Cluster
from sparkopt.machine.folders import local_roots, sweep
from sparkopt.ml import LogisticRegression
from tests.frameworks.conftest import NAMES, Framework, columns, here


@pytest.fixture
def killing(mortal: Framework, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], None]:
    """Return a function that has a worker killed so many seconds after a call of the cluster has begun."""
    if mortal.name == "flink":
        pytest.skip("passes do not run in Flink: test_flink_killed kills what runs there")

    def plan(number: int, seconds: float) -> None:
        calls, run = [0], Cluster.run

        def counted(self, function, items, *, on=None):
            calls[0] += 1
            if calls[0] == number:
                threading.Timer(seconds, mortal.kill).start() if seconds else mortal.kill()
            return run(self, function, items, on=on)

        monkeypatch.setattr(Cluster, "run", counted)

    return plan


@pytest.mark.parametrize("seconds", [0.0, 0.01], ids=["before", "during"])
@pytest.mark.parametrize("number", [1, 2, 3, 5, 7])
def test_a_killed_worker_changes_no_bit(mortal: Framework, killing, number: int, seconds: float):
    frame = mortal.frame(columns("columns"))
    estimator = LogisticRegression(featuresCols=NAMES, optimizer="lbfgs", maxIter=15, regParam=0.01)
    expected = estimator.fit(here(frame))
    killing(number, seconds)
    found = estimator.fit(frame)
    assert np.array_equal(found.coefficients.toArray(), expected.coefficients.toArray())
    assert found.intercept == expected.intercept


def test_files_are_deleted_after_a_fit(framework: Framework):
    LogisticRegression(featuresCols=NAMES).fit(framework.frame(columns("columns")))
    gc.collect()
    assert _blocks() == []


def test_files_of_a_fit_that_fails_are_deleted(framework: Framework):
    rows = columns("columns")
    rows.loc[300, "x1"] = np.inf
    where = r"partition 0 \(.+\), row 300" if framework.name == "flink" else r"partition 2 \(.+\), row 60"
    with pytest.raises(ValueError, match=where):
        LogisticRegression(featuresCols=NAMES).fit(framework.frame(rows))
    gc.collect()
    assert _blocks() == []


def test_rows_come_here_where_they_are_asked_for(framework: Framework):
    rows = columns("columns")
    found = Table.of(framework.frame(rows)).to_arrow().to_pandas()
    assert list(found["id"]) == list(rows["id"])
    np.testing.assert_array_equal(found[NAMES], rows[NAMES])


def _blocks() -> list[str]:
    """Return the files of stores, without those of killed workers, which the next one deletes."""
    for root in local_roots():
        sweep(root)
    return [str(file) for root in local_roots() for file in root.glob("sparkopt-machine-*/sparkopt-*/*")]
