"""Rows that change under a fit: a partition that is read again has the rows that it had, or one error names it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from sparkopt.blocks import BlockStore, Columns, machine
from sparkopt.blocks.block import Block
from sparkopt.blocks.digest import rows_digest
from sparkopt.errors import DataError
from sparkopt.machine import Table
from sparkopt.machine.part import TablePart
from sparkopt.validation import Interval

rng = np.random.default_rng(3)
X = rng.normal(size=(200, 5)).astype(np.float32)
X[rng.random(X.shape) < 0.4] = 0
BLOCK = Block(X, rng.normal(size=200), rng.random(200), offset=rng.normal(size=200))


def test_the_digest_knows_no_order_and_no_cuts():
    rows, cut = rng.permutation(200), 77
    whole = rows_digest(BLOCK)
    assert rows_digest(BLOCK.take(rows)) == whole
    assert (rows_digest(BLOCK.take(rows[:cut])) + rows_digest(BLOCK.take(rows[cut:]))) % 2**64 == whole
    assert rows_digest(replace(BLOCK, X=sparse.csr_array(X))) == whole


def swapped(name: str) -> Block:
    values = getattr(BLOCK, name).copy()
    values[[3, 4]] = values[[4, 3]]
    return replace(BLOCK, **{name: values})


def one_bit() -> Block:
    values = X.copy()
    values.view(np.uint32)[150, 2] ^= 1
    return replace(BLOCK, X=values)


CHANGES = {
    "one bit": one_bit(),
    "labels of two rows": swapped("y"),
    "weights of two rows": swapped("weight"),
    "offsets of two rows": swapped("offset"),
    "features of two rows": swapped("X"),
    "two columns": replace(BLOCK, X=X[:, [1, 0, 2, 3, 4]]),
    "another fold": replace(BLOCK, fold=2),
    "rows set aside": replace(BLOCK, is_validation=True),
    "a row less": BLOCK.take(np.arange(199)),
    "a row twice": BLOCK.take(np.append(np.arange(200), 7)),
    "one row in place of another": BLOCK.take(np.append(np.arange(199), 7)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_sees(change):
    assert rows_digest(CHANGES[change]) != rows_digest(BLOCK)


@dataclass(frozen=True)
class Rewritten(TablePart):
    """A part that notes each time it is read, and has other rows from the second time on."""

    log: Path
    first: pa.Table
    later: pa.Table
    name = "people.db, rows of May"
    rows = bytes = None

    @property
    def reads(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def batches(self, columns=None):
        with self.log.open("ab") as log:
            log.write(b".")
        return iter((self.first if self.reads == 1 else self.later).select(list(columns)).to_batches())


ROWS = pa.table({"a": [1.0, 2.0, 3.0], "label": [0.5, 1.5, 2.5]})
TWICE = pa.concat_tables([ROWS, ROWS])
OTHER = ROWS.set_column(0, "a", [[1.0, 2.0, 4.0]])
BAD = ROWS.set_column(0, "a", [[1.0, float("nan"), 3.0]])


def count(_, blocks) -> int:
    return int(blocks.starts[-1])


def written(tmp_path, monkeypatch, later: pa.Table) -> tuple[BlockStore, Rewritten]:
    """A store whose files have gone, of a part that changed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(machine, "IN_MEMORY", -1)
    monkeypatch.setattr(machine, "refuse_what_does_not_fit", lambda *_: None)
    part = Rewritten(tmp_path / "reads", ROWS, later)
    store = BlockStore.write(Table(ROWS.schema, [part]), Columns(["a"], "label"), Interval())
    for lost in tmp_path.rglob("*.arrow"):
        lost.unlink()
    return store, part


@pytest.mark.parametrize(
    ("now", "what"),
    [
        (TWICE, "3 rows became 6"),
        (ROWS.slice(0, 1), "3 rows became 1"),
        (OTHER, "values in its 3 rows changed"),
        (BAD, "row 1 is nan"),
    ],
)
def test_a_partition_with_other_rows_is_one_error_and_no_model(tmp_path, monkeypatch, now, what):
    store, _ = written(tmp_path, monkeypatch, now)
    with store, pytest.raises(DataError) as raised:
        store.collect(count)
    message = str(raised.value)
    assert what in message
    assert "partition 0" in message
    assert "people.db, rows of May" in message
    assert "not what they were when the fit began" in message
    assert len(message.splitlines()) == 1


def test_the_same_rows_in_another_order_are_taken_and_read_once(tmp_path, monkeypatch):
    store, part = written(tmp_path, monkeypatch, ROWS.take([2, 0, 1]))
    with store:
        assert [result.value for result in store.collect(count)] == [3]
        reads = part.reads
        assert [result.value for result in store.collect(count)] == [3]
        assert part.reads == reads


def test_files_that_were_rewritten_with_the_same_size_and_time(tmp_path, monkeypatch):
    """What a copy that keeps times does."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(machine, "IN_MEMORY", 0)
    path = tmp_path / "rows.parquet"
    pq.write_table(ROWS, path, compression="none", use_dictionary=False, write_statistics=False)
    known = path.stat()
    with BlockStore.write(Table.of(path), Columns(["a"], "label"), Interval()) as store:
        for lost in tmp_path.rglob("*.arrow"):
            lost.unlink()
        pq.write_table(OTHER, path, compression="none", use_dictionary=False, write_statistics=False)
        os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
        assert path.stat().st_size == known.st_size
        with pytest.raises(DataError, match=r"partition 0, rows\.parquet, row group 0, are not what they were"):
            store.collect(count)
