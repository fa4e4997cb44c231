"""Tables of PyFlink: streams, types, and jobs that fail."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sparkopt import Table
from sparkopt.ml import LogisticRegression, LogisticRegressionModel
from tests.conftest import ROOT
from tests.frameworks.conftest import NAMES, Framework, columns, here
from tests.frameworks.flink import environment, kill_the_next, table_of, workers


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


def test_a_killed_worker_ends_what_collects_its_rows(flink: Framework):
    rows = columns("columns")
    scored = _model(rows).transform(flink.frame(rows))
    expected = list(flink.pandas(scored)["prediction"])
    killing = threading.Thread(target=kill_the_next, args=(workers(),))
    killing.start()
    try:
        with pytest.raises((ValueError, RuntimeError), match="^Flink could not compute the Table: "):
            Table.of(scored)
    finally:
        killing.join()
    assert list(flink.pandas(scored)["prediction"]) == expected


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
