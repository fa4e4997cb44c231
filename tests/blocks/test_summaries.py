"""Moments of wide rows are added up in pieces: the same bits as at once, and no process receives all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from sparkopt import BlockStore, Columns
from sparkopt.blocks import backend, machine, summaries
from sparkopt.blocks.moments import Moments
from sparkopt.blocks.tables import ROW_METADATA, spark_schema
from sparkopt.machine import Table
from sparkopt.validation import Interval
from tests.tables import joined

ROWS, WIDTH, FILES, STORED = 120, 30_000, 4, 20
RNG = np.random.default_rng(5)
X = sparse.csr_array(
    (
        RNG.normal(1.0, 1.0, ROWS * STORED),
        np.concatenate([np.sort(RNG.permutation(WIDTH)[:STORED]) for _ in range(ROWS)]).astype(np.int32),
        np.arange(0, ROWS * STORED + 1, STORED, dtype=np.int32),
    ),
    shape=(ROWS, WIDTH),
)
OTHERS = {
    "label": RNG.integers(0, 2, ROWS).astype(float),
    "weight": RNG.uniform(0.5, 2.0, ROWS),
    "fold": np.arange(ROWS) % 3,
    "held_out": np.arange(ROWS) % 7 == 0,
}
SETTINGS = {
    "spark.driver.maxResultSize": "4m",
    "spark.sql.files.openCostInBytes": "128m",
    "spark.driver.memory": "1g",
}
COLUMNS = Columns("features", "label", weight="weight", validation="held_out", fold="fold")


def write_files(folder: Path) -> list[str]:
    """Vectors as Spark writes them, a partition a file."""
    kinds = {"type": pa.int8(), "size": pa.int32(), "indices": pa.list_(pa.int32()), "values": pa.list_(pa.float64())}
    vectors = [
        {"type": 0, "size": WIDTH, "indices": X.indices[a:b].tolist(), "values": X.data[a:b].tolist()}
        for a, b in zip(X.indptr[:-1], X.indptr[1:], strict=True)
    ]
    table = pa.table({"features": pa.array(vectors, pa.struct(kinds)), **OTHERS})
    metadata = {ROW_METADATA: spark_schema(table.schema).json()}
    table = table.replace_schema_metadata(metadata)
    folder.mkdir()
    for number in range(FILES):
        pq.write_table(table.slice(number * ROWS // FILES, ROWS // FILES), folder / f"{number}.parquet")
    return [str(folder / f"{number}.parquet") for number in range(FILES)]


def table_of(files: list[str]) -> Table:
    return joined([Table.of(file) for file in files])


def bits(moments: Moments) -> list[object]:
    return [moments.rows, moments.weight, moments.mean.tobytes(), moments.squares.tobytes()]


def all_bits(store: BlockStore) -> list[object]:
    found = [store.moments, store.validation, *(store.moments_without(fold) for fold in range(3))]
    return [bits(moments) for moments in found]


def test_pieces_add_up_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARKOPT_PROCESSES", "0")
    monkeypatch.setattr(machine, "IN_MEMORY", 0)
    files = write_files(tmp_path / "rows")
    with monkeypatch.context() as patched:
        patched.setattr(summaries, "INLINE_BYTES", 1 << 30)
        with BlockStore.write(table_of(files), COLUMNS, Interval()) as store:
            at_once = all_bits(store)

    received = []

    def counted(self, function):
        found = original(self, function)
        pieces = [moments for pair in found for by_fold in pair for moments in by_fold.values()]
        received.append(sum(moments.mean.nbytes + moments.squares.nbytes for moments in pieces))
        return found

    original = backend.Backend._pieces
    monkeypatch.setattr(backend.Backend, "_pieces", counted)
    monkeypatch.setattr(summaries, "COLLECTED_BYTES", 1 << 20)
    with BlockStore.write(table_of(files), COLUMNS, Interval()) as store:
        assert all_bits(store) == at_once
        moments = store.moments
    assert len(received) > 8
    assert max(received) <= 1 << 20
    kept = ~OTHERS["held_out"]
    rows, weight = X.toarray()[kept], OTHERS["weight"][kept]
    mean = weight @ rows / weight.sum()
    np.testing.assert_allclose(moments.mean[:-1], mean, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(moments.squares[:-1], weight @ (rows - mean) ** 2, rtol=1e-10, atol=1e-12)
    assert moments.mean[-1] == pytest.approx(weight @ OTHERS["label"][kept] / weight.sum(), rel=1e-14)


def test_a_file_that_is_lost_in_between_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARKOPT_PROCESSES", "0")
    monkeypatch.setattr(machine, "IN_MEMORY", 0)
    files = write_files(tmp_path / "rows")
    with BlockStore.write(table_of(files), COLUMNS, Interval()) as store:
        before = all_bits(store)
    lost = []

    def losing(self, function):
        if not lost:
            lost.append(self._handles[1].path)
            for path in Path(lost[0]).parent.glob(f"{Path(lost[0]).stem}.*"):
                path.unlink()
        return original(self, function)

    original = backend.Backend._pieces
    monkeypatch.setattr(backend.Backend, "_pieces", losing)
    with BlockStore.write(table_of(files), COLUMNS, Interval()) as store:
        assert all_bits(store) == before
    assert lost


@pytest.mark.usefixtures("jvms")
@pytest.mark.parametrize("session", ["classic", "connect"])
def test_moments_of_all_partitions_may_be_more_than_spark_lets_the_driver_receive(tmp_path, session):
    """Four partitions of 480 kB by three folds and two kinds of rows; the driver's limit is 4 MB."""
    files = write_files(tmp_path / "rows")
    root = Path(__file__).parents[2]
    conf = " ".join(f"--conf {key}={value}" for key, value in SETTINGS.items())
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("wide_moments.py")), session, *files],
        env={**os.environ, "PYTHONPATH": str(root), "PYSPARK_SUBMIT_ARGS": f"{conf} pyspark-shell"},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-3000:]
    found = json.loads(results[0].removeprefix("RESULT "))
    assert found["refused"]  # what is sent at once is too much
    files.sort(key=os.path.getsize, reverse=True)  # as Spark packs them
    with BlockStore.write(table_of(files), COLUMNS, Interval()) as store:
        assert found["mean"] == store.moments.mean.tolist()
        assert found["squares"] == store.moments.squares.tolist()
