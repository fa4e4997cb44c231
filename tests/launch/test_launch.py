"""Launchers: the same function on one rank or two, wherever they run, and what happens when a rank fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import types

import psutil
import pytest

from sparkopt.errors import DataError, LostRankError, ParameterError, RankError
from sparkopt.launch import HorovodLauncher, LocalLauncher, TorchLauncher
from tests.launch import ranks
from tests.tiers import needs


def launcher(name, spark, **options):
    context = spark.sparkContext
    if name == "local":
        return LocalLauncher(**options)
    return {"torch": TorchLauncher, "horovod": HorovodLauncher}[name](context, 2, **options)


LAUNCHERS = ["local", "torch", pytest.param("horovod", marks=needs("horovod"))]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_collectives(spark, name):
    reports = []
    found = launcher(name, spark, watcher=reports.append).run(ranks.collectives, 10.0, scale=2.0)
    size = 1 if name == "local" else 2
    total = [10.0, 0.0] if size == 1 else [21.0, 2.0]
    assert [result["rank"] for result in found] == list(range(size))
    for result in found:
        assert (result["name"], result["size"]) == (name, size)
        assert result["total"] == total
        assert result["counts"] == [sum(range(1, size + 1))]
        assert result["narrow"] == ("float32", [[0.5 * size] * 2] * 2)
        assert result["untouched"] == [10.0 + result["rank"], 2.0 * result["rank"]]
        assert result["sent"] == [size - 1.0] * 3
        assert result["payloads"] == [bytes(range(3 * rank)) for rank in range(size)]
        assert result["exchanged"] == [bytes([rank, result["rank"]]) * (1 + rank) for rank in range(size)]
        assert (result["pid"] == os.getpid()) == (name == "local")
        assert bool(result["batch"]) == (name == "horovod")  # its own threads push no other off a core
        assert result["pid"] not in result["batch"]
    assert sorted(report["rank"] for report in reports) == list(range(size))
    assert all(report["total"] == total for report in reports)


def test_workers_are_reused(spark):
    """The processes of a second run are older than it; a session may have more of them than two."""
    TorchLauncher(spark.sparkContext, 2).run(ranks.collectives, 0.0)
    began = time.time()
    found = TorchLauncher(spark.sparkContext, 2).run(ranks.collectives, 0.0)
    assert all(psutil.Process(result["pid"]).create_time() < began for result in found)


@pytest.mark.parametrize("name", ["local", "torch"])
def test_the_driver_stops_the_ranks(spark, name):
    found = launcher(name, spark, watcher=lambda report: report["step"] >= 5).run(ranks.until_stopped, 1500)
    assert len(set(found)) == 1
    assert 5 <= found[0] < 1500


FAILURES = {
    "value": (RankError, "(?s)rank {0} failed with ValueError: bad row on rank {0}.*raise_on"),
    "data": (DataError, "^bad row on rank {0}$"),
}


@pytest.mark.parametrize(
    ("rank", "kind"),
    [
        (0, "value"),
        (1, "data"),
        pytest.param(1, "value", marks=needs("minutes")),
        pytest.param(0, "data", marks=needs("minutes")),
    ],
)
def test_one_rank_fails_and_all_end(spark, rank, kind):
    error, message = FAILURES[kind]
    begin = time.monotonic()
    with pytest.raises(error, match=message.format(rank)):
        TorchLauncher(spark.sparkContext, 2).run(ranks.raise_on, rank, kind)
    assert time.monotonic() - begin < 60


def test_a_rank_that_is_busy_ends_too(spark):
    begin = time.monotonic()
    with pytest.raises(RankError, match="rank 0 failed with ValueError: gone wrong"):
        TorchLauncher(spark.sparkContext, 2).run(ranks.raise_while_others_sleep)
    assert time.monotonic() - begin < 60


@pytest.mark.usefixtures("kills")
def test_a_killed_rank_is_reported(spark):
    with pytest.raises(LostRankError, match="rank 0 lost another rank|ended unexpectedly"):
        TorchLauncher(spark.sparkContext, 2).run(ranks.kill_rank, 1)


def test_a_function_that_cannot_be_imported_there(spark):
    function = types.FunctionType(ranks.accelerators.__code__, {}, "gone")
    function.__module__, function.__qualname__ = "nosuch", "gone"
    module = types.ModuleType("nosuch")
    module.gone = function
    sys.modules["nosuch"] = module  # importable here, and nowhere else
    try:
        with pytest.raises(RankError, match="before its rank began: ModuleNotFoundError: No module named 'nosuch'"):
            TorchLauncher(spark.sparkContext, 2).run(function)
    finally:
        del sys.modules["nosuch"]


def test_fewer_ranks_where_that_will_do(spark, caplog):
    found = TorchLauncher(spark.sparkContext, 3, at_least=2).run(ranks.collectives, 0.0)
    assert [result["size"] for result in found] == [2, 2]
    assert "Spark has room for 2 processes of 3: starting with these." in caplog.text
    with pytest.raises(ParameterError, match=r"minProc must be a whole number in \[1, 3\]. Got 4"):
        TorchLauncher(spark.sparkContext, 3, at_least=4)


def test_more_ranks_than_slots(spark):
    with pytest.raises(ParameterError, match="numProc=3 needs 3 tasks .* Spark has room for 2"):
        TorchLauncher(spark.sparkContext, 3).run(ranks.collectives, 0.0)


def test_the_import_loads_neither_spark_nor_torch():
    code = (
        "import sys, sparkopt.launch; print(*sys.modules.keys() & {'pyspark', 'torch', 'horovod', 'cv2', 'pandas'})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not found.strip()
