"""A driver that was killed on Spark, and a new process that makes the same call, which resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest
from pyspark.ml.functions import array_to_vector
from pyspark.sql import functions as F

from sparkopt.ml.pipeline import PipelineModel
from tests.jobs.running import command, kill_when, submit
from tests.training.kill_on_parquet import COLUMNS, FORMS, INTERVAL

pytestmark = pytest.mark.usefixtures("jvms", "kills")

ROOT = Path(__file__).parents[2]


def write_rows(spark, folder: Path) -> None:
    """Write the same rows in each form, two files each."""
    numbers = spark.range(0, 1000, 1, 2).select(*[F.randn(seed).alias(name) for seed, name in enumerate(COLUMNS)])
    rows = numbers.withColumn("label", (F.col("x0") + F.randn(7) > 0).cast("double"))
    array = F.array(*COLUMNS)
    for form, features in {"array": [array], "vector": [array_to_vector(array)], "columns": COLUMNS}.items():
        named = features if form == "columns" else [features[0].alias(form)]
        rows.select(*named, "label").write.parquet(str(folder / form))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.training.kill_on_parquet", *arguments]
    given = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=False)


def check_resumed(folder: Path, **environment: str) -> None:
    """Kill a fit of each form in a process of its own, and make the calls again in another one."""
    for form in FORMS:
        killed = run(str(folder), form, **environment)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    kept = sorted(path.name for path in (folder / "checkpoints").rglob("*.checkpoint"))
    assert kept == sorted([f"step-{step:08d}.checkpoint" for step in (INTERVAL, 2 * INTERVAL)] * len(FORMS))
    done = run(str(folder), **environment)
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-3000:]
    for form, found in json.loads(results[0].removeprefix("RESULT ")).items():
        assert found["again"]["resumed"] == 2 * INTERVAL, form
        assert found["again"]["numbers"] == found["calm"]["numbers"], form
    assert not [*(folder / "checkpoints").iterdir()]


def test_the_same_call_in_a_new_process_resumes(spark, tmp_path):
    write_rows(spark, tmp_path)
    check_resumed(tmp_path)


@pytest.mark.usefixtures("minutes")
def test_the_same_command_resumes(spark, tmp_path):
    write_rows(spark, tmp_path)
    flags = ["--parquet", str(tmp_path / "columns"), "--label", "label", "--optimizer", "adam", "--tol", "0"]
    flags += ["--mini-batch-fraction", "0.5"]  # which never comes to rest, so that it can be killed
    flags += ["--max-iter", "3000", "--output-mode", "overwrite"]

    def receipt(name: str) -> dict:
        return json.loads((tmp_path / name / "receipt.json").read_text())

    kept = ["--checkpoint-dir", str(tmp_path / "checkpoints"), "--output", str(tmp_path / "out")]
    kill_when(command("train", *flags, *kept), lambda: any((tmp_path / "checkpoints").rglob("step-*20.checkpoint")))
    for name, more in {"calm": [], "out": ["--checkpoint-dir", str(tmp_path / "checkpoints")]}.items():
        done = submit("train", *flags, *more, "--output", str(tmp_path / name))
        assert done.returncode == 0, done.stderr[-3000:]
    assert receipt("out")["resumed_at"] >= 20
    models = [PipelineModel.load(str(tmp_path / name / "model")).stages[-1] for name in ("out", "calm")]
    assert models[0].coefficients.tobytes() == models[1].coefficients.tobytes()
    assert receipt("out")["objective"] == receipt("calm")["objective"]
