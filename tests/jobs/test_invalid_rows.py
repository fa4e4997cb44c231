"""--handle-invalid: one meaning in train, score and evaluate; the rows it concerns are counted wherever one looks."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sparkopt.ml import LogisticRegression, LogisticRegressionModel
from tests.jobs.test_machine import call
from tests.tiers import needs

ROWS = 300
RNG = np.random.default_rng(3)
X = RNG.normal(size=(ROWS, 2)).round(3)
Y = (X @ [1.0, -2.0] + RNG.logistic(size=ROWS) > 0).astype(float)
BAD = {5: ("a", None), 40: ("b", math.nan), 41: ("b", math.inf), 200: ("y", None)}
UNSCORED = [5, 40, 41]
"""Rows that have no features; the other one has no label."""
MACHINE = pytest.param("machine", id="machine")
SPARK = pytest.param("spark", marks=needs("minutes"), id="spark")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of which some are broken, those that are whole, and a model of the latter."""
    folder = tmp_path_factory.mktemp("rows")
    columns = {"id": list(range(ROWS)), "a": X[:, 0].tolist(), "b": X[:, 1].tolist(), "y": Y.tolist()}
    for row, (name, value) in BAD.items():
        columns[name][row] = value
    whole = pa.table(columns).filter(pa.array(~np.isin(np.arange(ROWS), [*BAD])))
    pq.write_table(pa.table(columns), folder / "broken.parquet")
    pq.write_table(whole, folder / "whole.parquet")
    model = LogisticRegression(featuresCols=["a", "b"], labelCol="y", regParam=0.1).fit(whole)
    model.write().overwrite().save(str(folder / "model"))
    return folder


@pytest.fixture
def runner(request, capsys):
    def run(on: str, *flags: object) -> tuple[int, str, str]:
        if on == "spark":
            request.getfixturevalue("spark")
        return call(capsys, *flags, "--on", on)

    return run


TRAIN = ["--features", "a,b", "--label", "y", "--reg-param", "0.1"]


@pytest.mark.parametrize("on", [MACHINE, SPARK])
@pytest.mark.parametrize("mode", ["skip", "keep"])
def test_training_leaves_them_out_and_counts_them(runner, rows, tmp_path, on, mode):
    """Of training and held-out rows; the model is that of the rows that are whole, and keeps the mode."""
    flags = ["train", "--parquet", rows / "broken.parquet", *TRAIN, "--handle-invalid", mode]
    code, out, err = runner(on, *flags, "--output", tmp_path / "out")
    assert code == 0, err
    receipt = json.loads((tmp_path / "out/receipt.json").read_text())
    held_out = json.loads((tmp_path / "out/metrics.json").read_text())["held_out"]
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert receipt["skipped"] + held_out["invalid"] == len(BAD)
    assert receipt["rows"] + held_out["rows"] == ROWS - len(BAD)
    assert manifest["metrics"] == held_out
    assert manifest["config"]["handle_invalid"] == mode
    assert f"invalid {held_out['invalid']}" in out
    page = (tmp_path / "out/report.html").read_text()
    assert "rows left out" in page
    assert "held-out invalid rows" in page
    assert LogisticRegressionModel.load(str(tmp_path / "out/model")).getHandleInvalid() == mode


@pytest.mark.parametrize("on", [MACHINE, SPARK])
@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize("mode", ["skip", "keep"])
def test_scores_of_them_are_null_or_left_out(runner, rows, tmp_path, on, mode, form):
    flags = ["score", "--model", rows / "model", "--parquet", rows / "broken.parquet", "--handle-invalid", mode]
    code, out, err = runner(on, *flags, "--output-format", form, "--output", tmp_path / "out")
    assert code == 0, err
    assert "3 invalid rows " in out
    files = [str(path) for path in (tmp_path / "out").glob("part-*")]
    found = ds.dataset(files, format=form).to_table().sort_by("id")
    left = [row for row in range(ROWS) if row not in UNSCORED]
    assert found["id"].to_pylist() == (left if mode == "skip" else list(range(ROWS)))
    missing = found.filter(found["prediction"].is_null())["id"].to_pylist()
    assert missing == ([] if mode == "skip" else UNSCORED)
    manifest = json.loads((tmp_path / "out/_manifest.json").read_text())
    assert manifest["metrics"] == {"rows": len(found), "invalid": 3}
    assert "invalid rows" in (tmp_path / "out/_report.html").read_text()


@pytest.mark.parametrize("on", [MACHINE, SPARK])
@pytest.mark.parametrize("mode", ["skip", "keep"])
def test_an_evaluation_is_that_of_the_other_rows(runner, rows, tmp_path, on, mode):
    found = []
    for name, flags in (("broken", ["--handle-invalid", mode]), ("whole", [])):
        base = ["evaluate", "--model", rows / "model", "--parquet", rows / f"{name}.parquet", *flags]
        code, _, err = runner(on, *base, "--output", tmp_path / name)
        assert code == 0, err
        found.append(json.loads((tmp_path / name / "metrics.json").read_text())["metrics"])
    assert found[0].pop("invalid") == len(BAD)
    assert found[0] == pytest.approx(found[1], rel=1e-12)


@pytest.mark.parametrize("on", [MACHINE, SPARK])
@pytest.mark.parametrize("command", ["train", "score", "evaluate"])
def test_without_the_flag_the_first_is_named(runner, rows, tmp_path, on, command):
    """By its own column, partition and row; in one line that says what to do."""
    flags = TRAIN if command == "train" else ["--model", rows / "model"]
    source = ["--parquet", rows / "broken.parquet"]
    code, out, err = runner(on, command, *source, *flags, "--output", tmp_path / "out")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "features column 'a', " in err
    assert "partition 0" in err or "broken.parquet" in err
    assert "is null" in err
    assert "row 5 is null" in err or command == "train"
    assert "--handle-invalid" in err
    assert "handleInvalid" not in err
    assert not (tmp_path / "out").exists()
