"""Layout of blocks: the rows decide it, whatever batches they come in, and each block has its own."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sparkopt.blocks import layout, parquet
from sparkopt.blocks.block import Block
from sparkopt.blocks.columns import FEATURES
from sparkopt.blocks.files import BlockFile, write_blocks
from sparkopt.blocks.layout import regroup
from sparkopt.blocks.parquet import ColumnSource, FilePart, ParquetReader

WIDTH, UNIT = 20, 5
DENSE, SPARSE = 1, 0


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Units of five rows."""
    monkeypatch.setattr(layout, "BLOCK_BYTES", UNIT * WIDTH * 8)


def rows_of(kinds: list[int]) -> np.ndarray:
    """Rows that are full, or have two entries."""
    rng = np.random.default_rng(len(kinds))
    X = rng.normal(size=(len(kinds), WIDTH))
    for row in np.flatnonzero(np.array(kinds) == SPARSE):
        X[row, rng.permutation(WIDTH)[2:]] = 0.0
    return X


def batch(X: np.ndarray, kinds: list[int], first: int) -> Block:
    """Rows as a reader has them: dense where all Vectors are, else with each entry of dense ones stored."""
    if all(kinds):
        made = X
    else:
        stored = (X != 0) | (np.array(kinds) == DENSE)[:, None]
        counts = stored.sum(axis=1)
        made = sparse.csr_array(
            (X[stored], np.nonzero(stored)[1].astype(np.int32), np.append(0, np.cumsum(counts)).astype(np.int32)),
            shape=X.shape,
        )
    y = np.arange(first, first + len(X), dtype=float)
    return Block(made, y, weight=y + 1)


def grouped(X: np.ndarray, kinds: list[int], cuts: list[int]) -> list[Block]:
    bounds = [0, *cuts, len(kinds)]
    return list(regroup(batch(X[a:b], kinds[a:b], a) for a, b in itertools.pairwise(bounds) if a < b))


def bits(block: Block) -> list[object]:
    X = [block.X] if isinstance(block.X, np.ndarray) else [block.X.data, block.X.indices, block.X.indptr]
    return [block.X.shape, *(part.tobytes() for part in (*X, block.y, block.weight))]


kinds = st.lists(st.tuples(st.sampled_from([DENSE, SPARSE]), st.integers(1, 30)), min_size=1, max_size=6).map(
    lambda runs: [kind for kind, length in runs for _ in range(length)]
)


@settings(max_examples=200, deadline=None)
@given(kinds, st.lists(st.integers(0, 180), max_size=8))
def test_batches_change_nothing(kinds, cuts):
    X = rows_of(kinds)
    whole = grouped(X, kinds, [])
    found = grouped(X, kinds, sorted({min(cut, len(kinds)) for cut in cuts}))
    assert [bits(block) for block in found] == [bits(block) for block in whole]
    dense = [b.X if isinstance(b.X, np.ndarray) else b.X.toarray() for b in whole]
    np.testing.assert_array_equal(np.concatenate(dense), X)
    np.testing.assert_array_equal(np.concatenate([b.y for b in whole]), np.arange(len(X)))


@settings(max_examples=100, deadline=None)
@given(kinds)
def test_each_unit_is_stored_as_its_own_rows_say(kinds):
    X = rows_of(kinds)
    is_dense = {}
    for block in grouped(X, kinds, []):
        is_dense |= dict.fromkeys(block.y.astype(int).tolist(), isinstance(block.X, np.ndarray))
    for first in range(0, len(kinds), UNIT):
        unit = range(first, min(first + UNIT, len(kinds)))
        stored = sum(WIDTH if kinds[row] == DENSE else 2 for row in unit)
        assert {is_dense[row] for row in unit} == {stored >= 0.25 * WIDTH * len(unit)}


def test_sparse_rows_after_dense_ones_stay_sparse_and_are_put_together(tmp_path):
    kinds = [DENSE] * 7 + [SPARSE] * 400
    blocks = grouped(rows_of(kinds), kinds, [7])
    assert [isinstance(block.X, np.ndarray) for block in blocks[:3]] == [True, True, False]
    assert not any(isinstance(block.X, np.ndarray) for block in blocks[2:])
    # two entries of 12 bytes a row: a block of as many bytes as a dense one has 34
    assert [block.rows for block in blocks[2:-1]] == [34] * (len(blocks) - 3)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_file_holds_blocks_of_both_layouts(tmp_path, codec):
    kinds = ([DENSE] * 7 + [SPARSE] * 40) * 2
    written = list(write_blocks(tmp_path / "rows.arrow", grouped(rows_of(kinds), kinds, []), codec))
    starts = np.cumsum([0, *(block.rows for block in written)])
    read = BlockFile(str(tmp_path / "rows.arrow"), starts)
    assert {type(block.X) for block in written} == {np.ndarray, sparse.csr_array}
    for index, block in enumerate(written):
        assert bits(read[index]) == bits(block)
        assert read[index].X.dtype == block.X.dtype
        assert read[index].offset is None


def test_rows_of_no_features_are_blocks():
    (block,) = regroup([Block(np.zeros((3, 0)), np.arange(3.0))])
    assert block.X.shape == (3, 0)


@pytest.mark.parametrize(
    ("kind", "narrow"), [("vector", False), ("array", True), ("array", False), ("assembled", True)]
)
def test_batches_of_parquet_files_are_whole_units(kind, narrow, tmp_path, monkeypatch):
    """So that no block is put together of two batches."""
    monkeypatch.setattr(parquet, "batch_rows", lambda _: 27)
    rows, width, number = 103, WIDTH, pa.float32() if narrow else pa.float64()
    values = pa.array(np.ones(rows * width, np.float32)).cast(number)
    lists = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * width), values)
    own = "float" if narrow else "double"
    source = ColumnSource(kind, ["x"], [own], [()])
    columns = {"x": lists}
    if kind == "vector":
        nothing = [pa.nulls(rows, pa.int32()), pa.nulls(rows, pa.list_(pa.int32()))]
        parts = [pa.array(np.ones(rows, np.int8)), *nothing, lists]
        columns = {"x": pa.StructArray.from_arrays(parts, ["type", "size", "indices", "values"])}
    elif kind == "assembled":
        names = [f"x{index}" for index in range(width)]
        columns = {name: values.slice(0, rows) for name in names}
        source = ColumnSource(kind, names, [own] * width, [()] * width)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    status = path.stat()
    part = FilePart(path.as_uri(), 0, status.st_size, status.st_size, status.st_mtime_ns // 1_000_000, {})
    found = [batch.num_rows for batch in ParquetReader({FEATURES: source})([part])]
    whole = 20 if narrow else 25
    assert found == [whole] * (rows // whole) + [rows % whole]
