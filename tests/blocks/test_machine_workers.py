"""A block store in this machine's worker processes: the same bits as in one process, and nothing lost or left."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from sparkopt import BlockStore, Columns
from sparkopt.blocks import disk
from sparkopt.blocks import machine as backend
from sparkopt.errors import DataError, IncompatibleError
from sparkopt.machine import ProcessPool, Table
from sparkopt.machine import pool as pools
from sparkopt.ml import LinearRegression, LogisticRegression
from sparkopt.validation import Interval
from tests.tables import joined

ANY = Interval(None, None)
rng = np.random.default_rng(3)
X = rng.normal(size=(4000, 5)).astype(np.float32)
Y = (X @ np.array([1.0, -1, 2, 0, 0.5]) + rng.logistic(size=len(X)) > 0).astype(float)


@pytest.fixture
def files(tmp_path):
    """Eight Parquet files, one a partition."""
    folder = tmp_path / "people"
    folder.mkdir()
    for number in range(8):
        rows = slice(500 * number, 500 * number + 500)
        flat = pa.array(X[rows].reshape(-1))
        columns = {"features": pa.FixedSizeListArray.from_arrays(flat, 5), "label": Y[rows]}
        pq.write_table(pa.table(columns), folder / f"{number}.parquet")
    return folder


def in_parts(path: Path) -> Table:
    """One partition a file, as large files would be."""
    return joined([Table.of(file) for file in sorted(path.iterdir())])


@pytest.fixture
def workers(monkeypatch) -> Iterator[ProcessPool]:
    """Two workers, which are given small tables too."""
    monkeypatch.setattr(backend, "IN_MEMORY", 0)
    with ProcessPool(2) as pool:
        monkeypatch.setattr(pools, "_shared", pools._Shared(threading.Lock(), pool))
        yield pool


ESTIMATORS = {
    "full": LogisticRegression(regParam=0.01),
    "l1": LogisticRegression(regParam=0.01, elasticNetParam=1.0),
    "mini-batch": LogisticRegression(optimizer="adam", miniBatchFraction=0.2, maxIter=30, seed=1),
    "local steps": LogisticRegression(optimizer="sgd", miniBatchFraction=0.1, localSteps=4, maxIter=20, seed=1),
    "compressed": LogisticRegression(optimizer="adam", maxIter=20, tol=0.0, compression="int8"),
    "zstd": LogisticRegression(regParam=0.01, blockCodec="zstd"),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_workers_give_the_bits_of_one_process(files, name, request):
    estimator = ESTIMATORS[name]
    alone = estimator.fit(in_parts(files))
    request.getfixturevalue("workers")
    found = estimator.fit(in_parts(files))
    assert found.coefficients == alone.coefficients
    assert found.intercept == alone.intercept


def test_wide_blocks_have_the_same_bits_in_one_process(request):
    """Large enough for several threads of BLAS, which would add up in another order."""
    wide = rng.normal(size=(20_000, 100)).astype(np.float32)
    table = Table.of((wide, wide[:, 0] + rng.normal(size=len(wide))))
    alone = LinearRegression().fit(table).coefficients
    request.getfixturevalue("workers")
    assert LinearRegression().fit(table).coefficients == alone


def test_workers_take_sparse_rows_in_memory(workers):
    rows = sparse.random_array((3000, 50), density=0.05, rng=rng, format="csr")
    target = rows @ np.arange(50.0) + 1
    model = LinearRegression(tol=1e-10).fit((rows, target))
    np.testing.assert_allclose(model.coefficients, np.arange(50.0), atol=1e-3)
    assert workers.pids


def test_errors_name_partition_and_row(workers, files):
    bad = np.where(np.arange(len(X)) == 1600, np.nan, X[:, 0]).astype(np.float32)
    table = pa.table({"features": pa.FixedSizeListArray.from_arrays(pa.array(bad), 1), "label": Y})
    pq.write_table(table, files / "bad.parquet")
    with pytest.raises(DataError, match=r"partition 0.*row 1600") as raised:
        BlockStore.write(Table.of(files / "bad.parquet"), Columns("features", "label"), ANY)
    assert raised.value.__cause__ is None


def block_files() -> list[Path]:
    return [path for root in disk.local_roots() for path in root.glob(f"sparkopt-machine-*-{os.getpid()}-*/*/*")]


def test_lost_files_are_written_again_and_all_are_deleted(workers, files):
    with BlockStore.write(in_parts(files), Columns("features", "label"), ANY) as store:
        before = [result.value for result in store.collect(_sum)]
        lost = [path for path in block_files() if path.suffix == ".arrow"][3:5]
        for path in lost:
            path.unlink()
        assert [result.value for result in store.collect(_sum)] == before
        written = set(block_files())
        store.collect(_sum)
        assert set(block_files()) == written  # the new files are kept
    assert block_files() == []


def test_files_that_changed_are_refused(workers, files):
    with BlockStore.write(in_parts(files), Columns("features", "label"), ANY) as store:
        for path in block_files():
            path.unlink()
        shutil.copy(files / "0.parquet", files / "1.parquet")
        with pytest.raises(DataError, match="1.parquet was changed"):
            store.collect(_sum)


def test_what_does_not_fit_on_disk_is_refused_before_it_is_read(workers, files, monkeypatch):
    usage = shutil.disk_usage(files)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    told = (
        r"about 0.0 GB, and .* has 0.0 GB free\. Set SPARK_LOCAL_DIRS .*spark-submit jobs/run.py train --parquet .*"
    )
    with pytest.raises(IncompatibleError, match=told + "people --label label --features features"):
        LogisticRegression().fit(in_parts(files))
    assert block_files() == []


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_the_estimate_is_what_is_written(workers, files, codec):
    table = in_parts(files)
    with BlockStore.write(table, Columns("features", "label"), ANY, codec) as store:
        found = disk.estimated_bytes(table, Columns("features", "label"), ANY, codec)
        assert found == pytest.approx(store.bytes, rel=0.3)


def _sum(part: object, blocks: object) -> float:
    return float(sum(block.X.sum(dtype=float) for block in blocks))  # type: ignore[attr-defined]


@pytest.mark.usefixtures("kills")
class TestKilled:
    @pytest.mark.parametrize("name", [*ESTIMATORS, "checkpoints"])
    def test_workers_at_random_moments_change_no_bit(self, workers, files, name, tmp_path):
        estimator = ESTIMATORS["full"].copy() if name == "checkpoints" else ESTIMATORS[name]
        if name == "checkpoints":
            estimator.setCheckpointDir(str(tmp_path / "checkpoints"))
        estimator.fit(in_parts(files))  # starts the workers
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        begin = time.perf_counter()
        expected = estimator.fit(in_parts(files)).coefficients
        seconds = time.perf_counter() - begin
        draw = random.Random(7)  # moments, not secrets
        for _ in range(20 if name == "full" else 3):
            shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
            killer = threading.Timer(draw.uniform(0, seconds), _kill_one, [workers, draw])
            killer.start()
            found = estimator.fit(in_parts(files)).coefficients
            killer.cancel()
            assert found == expected
        assert block_files() == []

    def test_a_parent_leaves_no_process_and_the_next_leaves_no_file(self, files, tmp_path):
        code = f"""
            import sys, time
            from sparkopt.blocks import machine
            from sparkopt import BlockStore, Columns
            from sparkopt.machine import ProcessPool, Table
            from sparkopt.validation import Interval
            machine.IN_MEMORY = 0
            store = BlockStore.write(Table.of({str(files)!r}), Columns("features", "label"), Interval(None, None))
            with ProcessPool.shared() as pool:
                print(*pool.pids, flush=True)
            if len(sys.argv) == 1:
                time.sleep(100)
        """
        environment = {**os.environ, "SPARK_LOCAL_DIRS": str(tmp_path / "local"), "SPARKOPT_PROCESSES": "2"}
        (tmp_path / "local").mkdir()
        command = [sys.executable, "-c", textwrap.dedent(code)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            pids = [int(pid) for pid in process.stdout.readline().split()]
            assert len(pids) == 2
            process.send_signal(signal.SIGKILL)
        end = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
            time.sleep(0.01)
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert any((tmp_path / "local").rglob("*.arrow"))
        subprocess.run([*command, "ends"], check=True, env=environment)
        assert list((tmp_path / "local").iterdir()) == []

    def test_a_parent_at_random_moments_leaves_no_process_and_the_next_leaves_no_file(self, files, tmp_path):
        """From its start to its end: while it imports, starts workers, writes blocks, trains and deletes them."""
        code = f"""
            from sparkopt.blocks import machine
            from sparkopt.ml import LogisticRegression
            machine.IN_MEMORY = 0
            LogisticRegression(optimizer="gd", maxIter=60, tol=0.0).fit({str(files)!r})
        """
        local = tmp_path / "local"
        local.mkdir()
        ours = f"TEST_OF={tmp_path}"
        environment = {
            **os.environ,
            "SPARK_LOCAL_DIRS": str(local),
            "SPARKOPT_PROCESSES": "2",
            "TEST_OF": str(tmp_path),
        }
        command = [sys.executable, "-c", textwrap.dedent(code)]
        begin = time.perf_counter()
        subprocess.run(command, check=True, env=environment)
        seconds = time.perf_counter() - begin
        assert not _processes(ours)
        draw = random.Random(11)  # moments, not secrets
        left = 0
        for _ in range(20):
            with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
                time.sleep(draw.uniform(0, seconds))
                process.send_signal(signal.SIGKILL)
            end = time.monotonic() + 30
            while _processes(ours) and time.monotonic() < end:
                time.sleep(0.01)
            assert not _processes(ours)
            left += any(local.iterdir())
        assert left
        subprocess.run(command, check=True, env=environment)
        assert list(local.iterdir()) == []


def _processes(variable: str) -> list[int]:
    """Return the processes with a variable in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def _kill_one(pool: ProcessPool, draw: random.Random) -> None:
    for pid in draw.sample(pool.pids, len(pool.pids))[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
