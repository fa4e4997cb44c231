"""Tables of PyFlink: streams, types, jobs that fail, and jobs whose processes end."""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkopt import Table
from sparkopt.errors import DataError, LostProcessError
from sparkopt.machine import ProcessPool
from sparkopt.machine import pool as pools
from sparkopt.machine.folders import local_roots
from sparkopt.ml import LogisticRegression, LogisticRegressionModel
from tests.conftest import ROOT
from tests.frameworks.conftest import NAMES, ROWS, Framework, columns, here
from tests.frameworks.flink import environment, table_of


@pytest.fixture
def flink(framework: Framework) -> Framework:
    """Flink alone."""
    if framework.name != "flink":
        pytest.skip("this is Flink's")
    return framework


def _model(rows: Any) -> LogisticRegressionModel:
    return LogisticRegression(featuresCols=NAMES, regParam=0.01).fit(rows)


def test_a_stream_is_scored_and_not_trained_on(flink: Framework):
    rows = columns("columns")
    stream = table_of(environment("streaming"), rows)
    with pytest.raises(ValueError, match=r"streaming mode has no end.*in_batch_mode\(\)"):
        _model(stream)
    model = _model(rows)
    found = flink.pandas(model.transform(stream)).sort_values("id")
    np.testing.assert_array_equal(found["prediction"], model.transform(rows)["prediction"])


def test_columns_that_arrow_has_no_type_for_are_refused_where_they_are_used(flink: Framework):
    rows = flink.frame(columns("columns"))
    environment = rows._t_env
    environment.create_temporary_view("rows_of_types", rows)
    odd = environment.sql_query("SELECT *, CURRENT_TIMESTAMP AS m FROM rows_of_types")
    assert np.array_equal(_model(odd).coefficients.toArray(), _model(here(rows)).coefficients.toArray())
    with pytest.raises(ValueError, match="'m'.*Flink"):
        LogisticRegression(featuresCols=[*NAMES, "m"]).fit(odd)


def test_a_job_that_fails_is_one_line(flink: Framework):
    rows = flink.frame(columns("columns"))
    rows._t_env.create_temporary_view("rows_that_fail", rows)
    wrong = rows._t_env.sql_query("SELECT *, 1 / (id - id) AS odd FROM rows_that_fail")
    with pytest.raises(ValueError, match=r"^Flink could not compute the Table: [^\n]*/ by zero[^\n]*$"):
        Table.of(wrong)


def test_a_row_that_cannot_be_scored_is_one_line(flink: Framework):
    rows = columns("columns")
    model = _model(rows)
    rows.loc[7, "x1"] = np.nan
    with pytest.raises(ValueError, match=r"^Flink could not compute the Table: sparkopt\.errors\.DataError: [^\n]+$"):
        Table.of(model.transform(flink.frame(rows)))


@pytest.fixture
def processes(flink: Framework, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An environment whose Python functions have processes of their own, as in clusters; others' run in this one."""
    monkeypatch.setenv("_python_worker_execution_mode", "process")
    return environment()


@dataclass(frozen=True)
class Ends:
    """A Python function that ends its process at the last rows, once if there is a file to remember that by."""

    witness: Path | None = None
    ours: int = field(default_factory=os.getpid)

    def __call__(self, ids: pd.Series) -> pd.Series:
        """Return its argument."""
        if (ids >= 400).any() and not (self.witness and self.witness.exists()):
            if self.witness:
                self.witness.touch()
            assert os.getpid() != self.ours
            os.kill(os.getpid(), signal.SIGKILL)
        return ids


def _through(function: Callable[[pd.Series], pd.Series], frame: Any) -> Any:
    """Return a Table whose column "id" comes through a function of Python."""
    from pyflink.table import DataTypes
    from pyflink.table.expressions import col
    from pyflink.table.udf import udf

    def called(ids: pd.Series) -> pd.Series:  # PyFlink asks functions for a name
        return function(ids)

    read = udf(called, result_type=DataTypes.BIGINT(), func_type="pandas")
    return frame.add_or_replace_columns(read(col("id")).alias("id"))


def _files() -> list[Path]:
    return [found for root in local_roots() for found in root.glob(f"sparkopt-machine-*-{os.getpid()}-*/table-*")]


@pytest.mark.parametrize("least", [1 << 10, 64 << 20], ids=["in a file", "in memory"])
def test_a_job_whose_worker_ends_is_run_again_from_its_beginning(
    processes: Any, tmp_path: Path, least: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("sparkopt.machine.arrow_files.IN_MEMORY", least)
    frame = table_of(processes, columns("columns"))
    ending = _through(Ends(tmp_path / "witness"), frame)
    found = _model(ending)
    assert (tmp_path / "witness").exists()
    (said,) = [record.getMessage() for record in caplog.records if "run again" in record.getMessage()]
    assert re.match(r"a process of Flink ended: .+; the job that computes the Table is run again \(1 of 3\)$", said)
    assert "\n" not in said
    expected = _model(here(frame))
    assert np.array_equal(found.coefficients.toArray(), expected.coefficients.toArray())
    assert found.intercept == expected.intercept
    assert len(_files()) == (least < 64 << 20)  # what the first job gave is no longer there
    del found
    gc.collect()
    assert _files() == []
    assert Table.of(ending).to_arrow()["id"].to_pylist() == list(range(ROWS))


def test_a_worker_that_always_ends_is_an_error_in_the_end(processes: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sparkopt.machine.arrow_files.IN_MEMORY", 1 << 10)
    ending = _through(Ends(), table_of(processes, columns("columns")))
    with pytest.raises(LostProcessError, match=r"^processes of Flink ended in each of 4 jobs [^\n]+ TaskManagers"):
        _model(ending)
    assert _files() == []


@pytest.mark.parametrize("strategy", ["", "fixed-delay"], ids=["the cluster's strategy", "one's own"])
def test_what_fails_by_itself_is_not_run_again(flink: Framework, strategy: str, caplog: pytest.LogCaptureFixture):
    tables = environment()
    if strategy:
        tables.get_config().set("restart-strategy.type", strategy)

    def wrong(ids: pd.Series) -> pd.Series:
        raise OSError("gone wrong")

    failing = _through(wrong, table_of(tables, columns("columns")))
    with pytest.raises(DataError, match=r"^Flink could not compute the Table: OSError: gone wrong$"):
        Table.of(failing)
    assert "run again" not in caplog.text
    assert tables.get_config().get("restart-strategy.type", "") == strategy


def test_workers_that_train_are_this_machines_and_may_be_killed(
    flink: Framework, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("sparkopt.machine.memory.LEAST_ROWS", 100)
    monkeypatch.setattr("sparkopt.machine.memory.LEAST_BYTES", 1)
    monkeypatch.setattr("sparkopt.blocks.machine.IN_MEMORY", 0)
    frame = flink.frame(columns("columns"))
    estimator = LogisticRegression(featuresCols=NAMES, regParam=0.01, maxIter=12, tol=0.0)
    expected = estimator.fit(here(frame))
    with ProcessPool(2) as pool:
        monkeypatch.setattr("sparkopt.machine.pool._shared", pools._Shared(threading.Lock(), pool))

        def kill(progress: Any) -> None:
            if progress.record.step in (2, 5, 8):
                os.kill(pool.pids[progress.record.step % 2], signal.SIGKILL)

        found = estimator.copy().setCallbacks([kill]).fit(frame)
    assert caplog.text.count("a worker process ended") >= 1
    assert np.array_equal(found.coefficients.toArray(), expected.coefficients.toArray())
    assert found.summary.objectiveHistory == expected.summary.objectiveHistory


def test_models_go_both_ways(flink: Framework, tmp_path: Path):
    rows = columns("columns")
    frame = flink.frame(rows)
    _model(frame).save(str(tmp_path / "theirs"))
    _model(rows).save(str(tmp_path / "ours"))
    for name in ("theirs", "ours"):
        model = LogisticRegressionModel.load(str(tmp_path / name))
        found = flink.pandas(model.transform(frame)).sort_values("id")
        assert list(found["prediction"]) == list(model.transform(rows)["prediction"])


def test_a_long_table_is_written_to_a_file_and_cut(flink: Framework, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sparkopt.machine.arrow_files.IN_MEMORY", 1 << 10)
    rows = columns("columns")
    table = Table.of(flink.frame(rows))
    assert table.keeps is not None
    assert table.to_arrow().equals(pa.Table.from_pandas(rows, preserve_index=False).cast(table.schema))


def test_flink_is_not_imported_before_it_is_used():
    script = "import sys; import sparkopt.ml; from sparkopt import Table; sys.exit('pyflink' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=100, check=False).returncode == 0
    if importlib.util.find_spec("pyflink") is None:
        pytest.skip("pyflink is not installed here: make test-flink")


def test_scores_are_written_here(flink: Framework, tmp_path: Path):
    from pyflink.table.expressions import col

    rows = columns("columns")
    model = _model(rows)
    written = Table.of(model.transform(flink.frame(rows)).drop_columns(col("rawPrediction")))
    assert written.write_parquet(str(tmp_path / "scored")) == ROWS
    found = pq.read_table(tmp_path / "scored").to_pandas().sort_values("id")
    np.testing.assert_array_equal(found["prediction"], model.transform(rows)["prediction"])
