"""Everything that takes a path, against a real S3 server on this machine: without Spark, so without Hadoop."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from sparkopt.errors import ParameterError
from sparkopt.io import waiting
from sparkopt.io.filesystem import resolve
from sparkopt.jobs.cli import main
from sparkopt.jobs.frame import HIDDEN
from sparkopt.ml import LinearRegression
from sparkopt.ml.regression import LinearRegressionModel

NAMES = ["plain", "rows of May", "50%", "no#1", "größe 行", "a+b&c=d", "[x]", "it's"]
FIT = {"optimizer": "gd", "maxIter": 60, "tol": 0.0}


class Stop(Exception):
    """What ends a fit in the middle."""


def stop_at(step):
    def callback(progress):
        if progress.record.step == step:
            raise Stop

    return callback


@pytest.fixture
def expected(rows):
    return LinearRegression(**FIT).fit(rows)


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_resumes_from_checkpoints(name, store, rows, expected):
    kept = {"checkpointDir": store.uri(f"check points/{name.replace('%', '%25')}"), "checkpointInterval": 10}
    with pytest.raises(Stop):
        LinearRegression(**FIT, **kept, callbacks=[stop_at(25)]).fit(rows)
    assert [key.rpartition("/")[2] for key in store.files(f"check points/{name}") if key.endswith(".checkpoint")] == [
        "step-00000010.checkpoint",
        "step-00000020.checkpoint",
    ]
    model = LinearRegression(**FIT, **kept).fit(rows)
    assert model.summary.receipt.resumed_at == 20
    assert model.coefficients == expected.coefficients
    assert store.files() == []


KILLED = """
import os, signal, sys
import numpy as np
from sparkopt.ml import LinearRegression
X = np.random.default_rng(0).normal(size=(500, 4))
def kill(progress):
    if progress.record.step == 25: os.kill(os.getpid(), signal.SIGKILL)
LinearRegression(optimizer="gd", maxIter=60, tol=0.0, checkpointDir=sys.argv[1], callbacks=[kill]).fit(
    (X, X @ [1.0, -2.0, 0.5, 0.0] + 1.0))
"""


def test_a_process_that_was_killed_is_resumed_by_another(store, rows, expected):
    done = subprocess.run([sys.executable, "-c", KILLED, store.uri("runs")], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    model = LinearRegression(**FIT, checkpointDir=store.uri("runs")).fit(rows)
    assert model.summary.receipt.resumed_at == 20
    assert model.coefficients == expected.coefficients


@pytest.mark.parametrize("name", NAMES)
def test_models_are_saved_and_loaded(name, store, rows):
    model, uri = LinearRegression(maxIter=5).fit(rows), store.uri(f"models/{name.replace('%', '%25')}")
    model.write().save(uri)
    assert all(key.startswith(f"models/{name}/") for key in store.files("models"))
    with pytest.raises(ParameterError, match="exists already"):
        model.write().save(uri)
    model.write().overwrite().save(uri)
    assert LinearRegressionModel.load(uri).coefficients == model.coefficients


def test_receipts_and_reports_are_written(store, expected):
    receipt = expected.summary.receipt
    receipt.save(store.uri("notes/größe 1.json"))
    receipt.report(store.uri("notes/a b.html"))
    assert store.files("notes") == ["notes/a b.html", "notes/größe 1.json"]
    assert type(receipt).load(store.uri("notes/größe 1.json")) == receipt


@pytest.mark.filterwarnings("ignore:::mlflow.*")
def test_a_model_is_loaded_by_pyfunc(store, rows, tmp_path):
    pyfunc = pytest.importorskip("sparkopt.integrations.pyfunc")
    uri = store.uri("models/pyfunc")
    LinearRegression(maxIter=5).fit(rows).write().save(uri)
    model = LinearRegressionModel.load(uri)
    frame = pd.DataFrame({"features": list(rows[0])})
    found = pyfunc.scorer_of(model).predict(frame)["prediction"]
    np.testing.assert_allclose(found, rows[0] @ model.coefficients.toArray() + model.intercept)


def job(*args, uri):
    """Run a command; its exit code."""
    return main([*args, "--output", uri])


@pytest.fixture
def written(store, rows):
    """Rows as a Parquet file in the bucket; its URI."""
    columns = {name: rows[0][:, place] for place, name in enumerate("abcd")}
    with store.direct.open_output_stream("bucket/in/größe 1.parquet") as stream:
        parquet.write_table(pa.table({**columns, "label": rows[1]}), stream)
    return store.uri("in/größe 1.parquet")


TRAIN = ["train", "--on", "machine", "--label", "label", "--features", "a,b,c,d", "--loss", "squared_error"]


@pytest.mark.parametrize("name", ["run 1", "no#1", "ü"])
def test_outputs_of_jobs_appear_whole(name, store, written, capsys):
    train, scored = store.uri(f"out/{name}"), store.uri(f"scored/{name}")
    assert job(*TRAIN, "--parquet", written, uri=train) == 0
    assert not [key for key in store.files() if "unfinished" in key]
    assert {f"out/{name}/manifest.json", f"out/{name}/report.html"} <= {*store.files(f"out/{name}")}
    assert job("score", "--on", "machine", "--model", train, "--parquet", written, uri=scored) == 0
    assert f"scored/{name}/{HIDDEN}" in store.files()
    assert job(*TRAIN, "--parquet", written, uri=train) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert job(*TRAIN, "--parquet", written, "--max-iter", "3", "--output-mode", "overwrite", uri=train) == 0


def test_the_manifest_comes_last(store, faulty, written):
    """An object store renames nothing: who waits for the manifest sees all of the rest."""
    uri = faulty.uri("bucket/out")
    assert job(*TRAIN, "--parquet", written, uri=uri) == 0
    puts = [line for line in faulty.seen if re.match(r"PUT /bucket/out/(?!\.out)[^?]*[^/?](\?|$)", line)]
    assert puts[-1].startswith("PUT /bucket/out/manifest.json")


def test_a_job_that_is_killed_leaves_no_manifest_and_the_next_one_sweeps(store, faulty, written):
    uri = faulty.uri("bucket/out")
    command = [sys.executable, "-m", "sparkopt.jobs.cli", *TRAIN, "--parquet", written, "--output", uri]
    faulty.delay = 0.02
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any(line.startswith("PUT /bucket/out/.out") for line in faulty.seen):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert "out/manifest.json" not in store.files()
    faulty.delay = 0.0
    assert job(*TRAIN, "--parquet", written, uri=uri) == 0
    assert "out/manifest.json" in store.files()
    assert not [key for key in store.files() if "unfinished" in key]


def test_what_a_killed_job_left_is_not_taken_for_a_table(store, written):
    model, scores = store.uri("model"), store.uri("scores")
    assert job(*TRAIN, "--parquet", written, uri=model) == 0
    left = f".scores.{socket.gethostname()}-{2**22 + 1}.unfinished"  # no process has this number
    resolve(store.uri(f"scores/{left}/part-0.parquet"), "path").write(b"half a file")
    assert job("score", "--on", "machine", "--model", model, "--parquet", written, uri=scores) == 0
    assert f"scores/{HIDDEN}" in store.files()
    assert not [key for key in store.files() if "unfinished" in key]


RIGHTS = {
    "checkpoints": lambda uri, rows: LinearRegression(**FIT, checkpointDir=uri).fit(rows),
    "model": lambda uri, rows: LinearRegression(maxIter=2).fit(rows).write().save(uri),
    "model over another": lambda uri, rows: [
        LinearRegression(maxIter=2).fit(rows).write().overwrite().save(uri) for _ in range(2)
    ],
}


@pytest.mark.parametrize("use", RIGHTS)
def test_rights_for_a_prefix_are_enough(use, faulty, store, rows):
    """Neither the bucket nor what is above the prefix is asked for, or written."""
    faulty.prefix = "bucket/team/own/"
    RIGHTS[use](faulty.uri("bucket/team/own"), rows)
    refused = [line for line in faulty.refused if not line.startswith("HEAD")]
    assert all(re.match(r"PUT /bucket/team/(\?|$)", line) for line in refused), refused


def test_jobs_need_rights_for_their_output_only(faulty, store, written):
    faulty.prefix = "bucket/team/own/"
    assert job(*TRAIN, "--parquet", written, uri=faulty.uri("bucket/team/own")) == 0
    assert "team/own/manifest.json" in store.files()


def test_rights_that_lack_are_one_line(faulty, store, rows):
    faulty.prefix = "bucket/theirs/"
    with pytest.raises(ParameterError, match=r"^checkpointDir='s3://.*ACCESS_DENIED[^\n]*$"):
        LinearRegression(**FIT, checkpointDir=faulty.uri("bucket/own")).fit(rows)


def test_a_slow_server_is_waited_for(faulty, store, rows, expected):
    faulty.delay = 4.0  # pyarrow's own limit is 3 seconds
    model = LinearRegression(**FIT, checkpointDir=faulty.uri("bucket/slow"), checkpointInterval=50).fit(rows)
    assert model.coefficients == expected.coefficients


def test_a_busy_server_is_asked_again(faulty, store, rows, expected):
    faulty.busy = 3
    uri = faulty.uri("bucket/busy")
    expected.write().save(uri)
    faulty.busy = 3
    assert LinearRegressionModel.load(uri).coefficients == expected.coefficients


def test_a_server_that_stays_busy_is_one_line(faulty, store, rows):
    faulty.busy = 10**6
    with pytest.raises(ParameterError, match=r"^path='s3://[^\n]*cannot be used[^\n]*$"):
        LinearRegression(maxIter=2).fit(rows).write().save(faulty.uri("bucket/busy"))


def test_a_silent_server_is_named_while_it_is_waited_for(faulty, store, rows, monkeypatch, caplog):
    monkeypatch.setattr(waiting, "NOTICES", (0.3,))
    monkeypatch.setattr(waiting, "LIMIT", 1.0)
    faulty.silent = True
    with pytest.raises(ParameterError, match=r"no answer within 1 s\. Check the address"):
        LinearRegression(**FIT, checkpointDir=faulty.uri("bucket/silent")).fit(rows)
    assert "no answer for 0 s; it is waited for until 1 s" in caplog.text


def test_a_server_that_dies_in_a_fit_costs_a_warning(faulty, store, rows, expected, caplog):
    def die(progress):
        if progress.record.step == 15:
            faulty.dies_after = 0

    kept = {"checkpointDir": faulty.uri("bucket/dead"), "callbacks": [die]}
    model = LinearRegression(**FIT, **kept).fit(rows)
    assert model.coefficients == expected.coefficients
    lines = [record.getMessage() for record in caplog.records if "was not written" in record.getMessage()]
    assert lines
    assert all("\n" not in line for line in lines)


def test_a_server_that_dies_while_a_model_is_saved_is_one_line(faulty, store, rows):
    model = LinearRegression(maxIter=2).fit(rows)
    faulty.dies_after = 3
    with pytest.raises(ParameterError, match=r"^path='s3://[^\n]*cannot be used[^\n]*$"):
        model.write().save(faulty.uri("bucket/model"))


def test_no_message_shows_a_key(faulty, store, rows, caplog):
    faulty.dies_after = 0
    uri = faulty.uri("bucket/model").replace("s3://", "s3://me:hidden@")
    with pytest.raises(ParameterError) as refused:
        LinearRegression(maxIter=2).fit(rows).write().save(uri)
    assert "hidden" not in str(refused.value) + caplog.text
