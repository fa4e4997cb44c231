"""Every job through spark-submit against a standalone master and workers, real processes on the loopback."""

from __future__ import annotations

import json

import pytest

from jobs.bench.network import Cluster
from tests.jobs.running import submit

pytestmark = pytest.mark.slow  # in the normal run, jobs are submitted in local mode


@pytest.fixture(scope="module")
def cluster():
    with Cluster.up(workers=2, loopback=True) as running:
        yield running


@pytest.fixture
def on_cluster(cluster):
    """Submit a job to it; the profile is the one for such clusters, with less memory."""
    small = {**cluster.settings, "spark.driver.memory": "1g"}

    def call(job: str, *flags: object):
        return submit(job, *map(str, flags), settings=small, profile="standalone")

    return call


def test_from_rows_to_a_gate_and_predictions(on_cluster, table, tmp_path, spark):
    data = ["--parquet", table]
    shape = ["--features", "a,b", "--label", "c", "--loss", "logistic", "--reg-param", "0.01", "--engine", "driver"]
    run = on_cluster("train", *data, *shape, "--output", tmp_path / "model")
    assert run.returncode == 0, run.stderr[-2000:]
    assert json.loads((tmp_path / "model" / "receipt.json").read_text())["engine"] == "driver"
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["spark"]["master"].startswith("spark://127.0.0.1:")
    accuracy = json.loads((tmp_path / "model" / "metrics.json").read_text())["held_out"]["accuracy"]
    assert accuracy > 0.9
    gate = ["--model", tmp_path / "model", *data, "--min-value", "1.5", "--output", tmp_path / "gate"]
    run = on_cluster("evaluate", *gate)
    assert run.returncode == 3
    assert "gate not met: accuracy" in run.stdout + run.stderr
    run = on_cluster("score", "--model", tmp_path / "model", *data, "--output", tmp_path / "scored")
    assert run.returncode == 0, run.stderr[-2000:]
    assert spark.read.parquet(str(tmp_path / "scored")).count() == 400


def test_from_images_to_a_network(on_cluster, digits, tmp_path, spark):
    some = tmp_path / "some"
    for name in ("0", "1"):
        (some / name).mkdir(parents=True)
        for path in sorted((digits / name).iterdir())[:60]:
            (some / name / path.name).write_bytes(path.read_bytes())
    small = ["--size", "16", "--parts", "1", "--encoding", "png"]
    run = on_cluster("preprocess_images", "--input", some, "--output", tmp_path / "table", *small)
    assert run.returncode == 0, run.stderr[-2000:]
    assert json.loads((tmp_path / "table-report.json").read_text())["good"] == 120
    assert spark.read.parquet(str(tmp_path / "table")).count() == 120
    shape = ["--image-size", "8", "--epochs", "2", "--widths", "8", "--launcher", "torch", "--processes", "2"]
    where = ["--store-path", tmp_path / "store", "--output", tmp_path / "model"]
    run = on_cluster("train_deep", "--images", some, *shape, *where)
    assert run.returncode == 0, run.stderr[-2000:]
    for found in ("table/_manifest.json", "model/manifest.json"):
        assert json.loads((tmp_path / found).read_text())["spark"]["master"].startswith("spark://127.0.0.1:")
    receipt = json.loads((tmp_path / "model" / "receipt.json").read_text())
    assert (receipt["launcher"], receipt["processes"]) == ("torch", 2)
