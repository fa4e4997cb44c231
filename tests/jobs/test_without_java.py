"""All that users do with the commands where no Java can be found; and a training that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkopt.jobs import cli
from sparkopt.ml import LogisticRegressionModel
from tests.jobs.running import ROOT

JOURNEY = """
import sys
from functools import partial
import pyarrow.parquet as pq
import torch
from sparkopt.deep import TorchEstimator, TorchModel
from sparkopt.jobs import cli
from sparkopt.ml import LogisticRegressionModel

rows, images, out = sys.argv[1:]


def run(*words):
    code = cli.main([str(word) for word in words])
    assert code == 0, (code, words)


named = ["--parquet", rows, "--features", "a,b", "--label", "c"]
run("train", *named, "--output", f"{out}/linear")
run("score", "--model", f"{out}/linear", *named, "--output", f"{out}/scores")
run("evaluate", "--model", f"{out}/linear", *named, "--output", f"{out}/metrics")
run("preprocess-images", "--input", images, "--size", "8", "--output", f"{out}/small")
run("train", "--images", images, "--image-size", "8", "--on", "machine", "--output", f"{out}/pixels")
model = LogisticRegressionModel.load(f"{out}/linear/model")
assert model.transform(rows).rows == pq.read_table(rows).num_rows

network = TorchEstimator(
    module=partial(torch.nn.Linear, 2, 2), loss="multinomial", featuresCols=["a", "b"], labelCol="c", epochs=2
)
trained = network.fit(rows)
trained.save(f"{out}/network/model")
assert TorchModel.load(f"{out}/network/model").transform(rows).rows == pq.read_table(rows).num_rows
run("score", "--model", f"{out}/network", *named, "--on", "machine", "--output", f"{out}/network-scores")
run("evaluate", "--model", f"{out}/network", *named, "--on", "machine", "--output", f"{out}/network-metrics")
print("done")
"""


@pytest.fixture
def images(digits, tmp_path):
    for name in ("3", "7"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for path in sorted((digits / name).iterdir())[:40]:
            (tmp_path / "images" / name / path.name).write_bytes(path.read_bytes())
    return tmp_path / "images"


def test_every_journey_needs_no_java(table, images, tmp_path):
    out = tmp_path / "out"
    environment = {"PATH": "/nowhere", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", JOURNEY, str(table), str(images), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "done"
    rows = pq.read_table(table).num_rows
    assert pq.read_table(out / "scores").num_rows == pq.read_table(out / "network-scores").num_rows == rows
    assert json.loads((out / "linear" / "manifest.json").read_text())["spark"]["application"] is None


@pytest.mark.usefixtures("kills")
def test_a_killed_training_goes_on_from_its_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 2))
    label = (X[:, 0] + rng.logistic(size=len(X)) > 0).astype(float)
    pq.write_table(pa.table({"a": X[:, 0], "b": X[:, 1], "c": label}), tmp_path / "rows.parquet")
    flags = ["--parquet", str(tmp_path / "rows.parquet"), "--features", "a,b", "--label", "c", "--on", "machine"]
    flags += ["--optimizer", "gd", "--step-size", "0.001", "--max-iter", "3000", "--tol", "0"]
    checkpoints = tmp_path / "checkpoints"
    line = ["train", *flags, "--checkpoint-dir", str(checkpoints), "--output", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "sparkopt.jobs.cli", *line],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(checkpoints.rglob("*.checkpoint")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "model").exists()
    assert cli.main(line) == 0
    receipt = json.loads((tmp_path / "out" / "receipt.json").read_text())
    assert receipt["resumed_at"] > 0
    assert cli.main(["train", *flags, "--output", str(tmp_path / "undisturbed")]) == 0
    found, expected = (
        LogisticRegressionModel.load(str(tmp_path / name / "model")) for name in ("out", "undisturbed")
    )
    assert found.coefficients == expected.coefficients
    assert list(checkpoints.rglob("*.checkpoint")) == []
