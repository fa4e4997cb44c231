"""Where a job runs: the formula, what decides without it, and one line where a choice cannot be."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkopt.jobs import choosing
from sparkopt.jobs.choice import (
    DECODE,
    DISK,
    ON_CLUSTER,
    ON_MACHINE,
    ON_SPARK,
    PASS,
    Resources,
    Workload,
    crossover,
    decide,
    seconds,
    spark_is_running,
)
from sparkopt.jobs.choosing import choose, java_is_there, workload_of
from sparkopt.jobs.sources import DataSource
from sparkopt.jobs.train import JOB

HERE, CLUSTER = Resources(4, 16 << 30), Resources(64, 256 << 30)


def test_seconds_are_a_start_reading_and_passes_shared_by_cores():
    work = Workload("parquet", 10**8, 10**9, 8, steps=20)
    expected = ON_MACHINE.start + (10**9 * ON_MACHINE.read["parquet"] + 20 * 10**9 * PASS) / 4
    assert seconds(ON_MACHINE, work, HERE) == pytest.approx(expected)
    small = Resources(4, 10**9)  # 3 GB of the rows are read from the disk in each pass
    assert seconds(ON_MACHINE, work, small) == pytest.approx(expected + 20 * 3 * 10**9 / DISK)
    for form, units, more in (("csv", 10**8, 0), ("libsvm", 10**8, 0), ("images", 8, 10**8 * DECODE)):
        read = seconds(ON_MACHINE, Workload(form, 10**8, 0, 8), HERE) - ON_MACHINE.start
        assert read == pytest.approx((units * ON_MACHINE.read[form] + more) / 4)


def test_small_inputs_stay_here_and_large_ones_go_to_a_cluster():
    small, large = (Workload("parquet", 4 * values, values, 8, steps=30) for values in (10**8, 10**12))
    assert decide(small, HERE, CLUSTER).on == "machine"
    assert decide(large, HERE, CLUSTER).on == "spark"
    assert "64 cores" in decide(large, HERE, CLUSTER).reason


@pytest.mark.parametrize("form", ["parquet", "csv", "libsvm", "images"])
def test_spark_on_the_same_cores_is_no_faster(form):
    for size in (0, 10**6, 10**9, 10**12):
        assert decide(Workload(form, size, size, size // 1000, steps=30), HERE).on == "machine"


@pytest.mark.parametrize("form", ["parquet", "csv", "libsvm"])
def test_the_crossover_is_where_both_take_the_same_time(form):
    here, cluster = (Resources(cores, 1 << 60) for cores in (4, 64))
    units = crossover(form, 30, here, cluster)
    size = round(units)
    work = Workload(form, size, size if form == "parquet" else 0, 8, steps=30)
    assert seconds(ON_MACHINE, work, here) == pytest.approx(seconds(ON_CLUSTER, work, cluster), rel=1e-3)
    assert crossover(form, 30, here, Resources(2, 1 << 60)) == math.inf


def test_starting_spark_takes_longer():
    assert ON_MACHINE.start < ON_SPARK.start < ON_CLUSTER.start


@pytest.fixture
def flags(monkeypatch):
    """Flags of a training, in a process that is not Spark's."""
    for name in ("PYSPARK_GATEWAY_PORT", "SPARK_REMOTE", "DATABRICKS_RUNTIME_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(choosing, "spark_is_running", lambda: spark_is_running({}))
    monkeypatch.setattr(choosing, "java_is_there", lambda: True)

    def parsed(*more: str):
        return JOB.parser().read(["--features", "a", *more])

    return parsed


@pytest.fixture
def rows(tmp_path):
    for part in range(3):
        pq.write_table(pa.table({"a": np.arange(50.0), "label": np.arange(50.0)}), tmp_path / f"part-{part}.parquet")
    (tmp_path / "_manifest.json").write_text("{}")
    return tmp_path


ENVIRONMENTS = {
    "PYSPARK_GATEWAY_PORT": "spark-submit",
    "DATABRICKS_RUNTIME_VERSION": "Databricks",
    "SPARK_REMOTE": "Spark Connect",
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_process_of_spark_is_known(name):
    assert ENVIRONMENTS[name] in spark_is_running({name: "1"})


def test_spark_runs_what_runs_under_spark(flags, rows, monkeypatch):
    monkeypatch.setattr(choosing, "spark_is_running", lambda: "this process was started by spark-submit")
    chosen = choose(flags("--parquet", str(rows)), "")
    assert (chosen.on, chosen.reason) == ("spark", "this process was started by spark-submit")
    assert choose(flags("--parquet", str(rows), "--on", "machine"), "").on == "machine"


def test_a_need_of_spark_decides(flags, rows):
    args = flags("--table", "sales")
    assert choose(args, JOB.needs(args)).on == "spark"
    chosen = choose(flags("--parquet", str(rows)), "")
    assert chosen.on == "machine"
    assert "3 files of" in chosen.reason
    assert "with 300 values, about" in chosen.reason
    assert set(chosen.estimates) == {"machine", "spark"}


def test_without_java_it_is_this_machine(flags, rows, monkeypatch):
    """Whatever would be faster."""
    monkeypatch.setattr(choosing, "java_is_there", lambda: False)
    monkeypatch.setattr(choosing, "decide", lambda *args: choosing.Choice("spark", "it is large"))
    chosen = choose(flags("--parquet", str(rows)), "")
    assert (chosen.on, chosen.reason) == ("machine", "it is large; but there is no Java to start Spark")


def test_a_cluster_has_paths_without_a_scheme(flags, rows):
    chosen = choose(flags("--parquet", str(rows), "--profile", "yarn"), "")
    assert (chosen.on, chosen.reason) == ("spark", "a path without a scheme is on the file system of --profile yarn")
    chosen = choose(flags("--parquet", f"file://{rows}", "--profile", "yarn"), "")
    assert chosen.on == "machine"
    assert "on Spark with 16 cores" in chosen.reason


def test_what_cannot_be_measured(flags):
    """Here it is this machine's job to say so; elsewhere Spark may know the file system."""
    assert choose(flags("--parquet", "/nowhere"), "").on == "machine"
    assert choose(flags("--parquet", "nowhere://x/y"), "").on == "spark"


def test_an_input_is_measured_by_its_footers(rows):
    work = workload_of(DataSource("parquet", str(rows)), 5)
    assert (work.values, work.files, work.steps) == (300, 3, 5)
    assert work.bytes == sum(path.stat().st_size for path in rows.glob("*.parquet"))


def test_java_is_found_as_spark_finds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert not java_is_there()
    (tmp_path / "java").write_text("#!/bin/sh\n")
    (tmp_path / "java").chmod(0o755)
    assert java_is_there()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert not java_is_there()  # JAVA_HOME wins, and has no bin/java
