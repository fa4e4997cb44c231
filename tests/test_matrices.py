"""Rows whose numbers are a matrix and whose categories are sparse mean what the same rows as one matrix mean."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose, assert_array_equal

from sparkopt.blocks.block import Block
from sparkopt.blocks.digest import rows_digest
from sparkopt.blocks.files import BlockFile, write_blocks
from sparkopt.blocks.invalid import finite_features
from sparkopt.blocks.layout import regroup
from sparkopt.blocks.moments import MomentsSum
from sparkopt.losses import FactorizationMachine, Hinge, Logistic, Multinomial, ProjectionLoss, SquaredError
from sparkopt.matrices import PartlyDense, as_csr, nbytes_of, squared, stored_by_row
from sparkopt.objective.kernels import evaluate
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import Query
from sparkopt.optim.request import Gradients, HessianProducts, Hessians, Losses

FEATURES = 200
COLUMNS = np.array([0, 7, 120, 199], np.int32)
KINDS = {"ones": (True, np.float64), "values": (False, np.float64), "narrow ones": (True, np.float32)}


def rows_of(kind: str, count: int = 60, seed: int = 0) -> PartlyDense:
    """Rows of four numbers, of which some are zeros, and none to three other entries."""
    has_ones, dtype = KINDS[kind]
    rng = np.random.default_rng(seed)
    shape = count, len(COLUMNS)
    dense = np.where(rng.random(shape) < 0.8, rng.normal(size=shape), 0.0).astype(dtype)
    others = np.setdiff1d(np.arange(FEATURES), COLUMNS)
    chosen = [np.sort(rng.choice(others, rng.integers(4), replace=False)) for _ in range(count)]
    starts = np.concatenate([[0], np.cumsum([len(one) for one in chosen])]).astype(np.int32)
    indices = np.concatenate(chosen).astype(np.int32)
    if has_ones:
        return PartlyDense.of_ones(COLUMNS, dense, indices, starts, FEATURES)
    values = rng.normal(size=len(indices)).astype(dtype)
    return PartlyDense(COLUMNS, dense, scipy.sparse.csr_array((values, indices, starts), shape=(count, FEATURES)))


@pytest.fixture(params=KINDS)
def rows(request) -> PartlyDense:
    return rows_of(request.param)


@pytest.fixture
def full(rows):
    """The same rows, made of their parts one by one."""
    found = np.zeros(rows.shape, rows.dtype)
    for row, (begin, end) in enumerate(itertools.pairwise(rows.rest.indptr)):
        found[row, rows.rest.indices[begin:end]] = rows.rest.data[begin:end]
        found[row, rows.columns] = rows.dense[row]
    return found


def test_it_is_the_same_matrix(rows, full):
    assert_array_equal(rows.toarray(), full)
    csr = rows.tocsr()
    assert_array_equal(csr.toarray(), full)
    assert csr.has_canonical_format
    assert csr.nnz == np.count_nonzero(full)
    assert_array_equal(as_csr(rows).toarray(), full)
    assert_array_equal(squared(rows).toarray(), full * full)
    assert rows.nnz == rows.dense.size + rows.rest.nnz == stored_by_row(rows).sum()
    assert nbytes_of(rows) < nbytes_of(rows.tocsr()) or not rows.has_ones


def test_products_are_those_of_the_matrix(rows, full):
    rng, near = np.random.default_rng(1), {"rtol": 1e-5} if rows.dtype == np.float32 else {"rtol": 1e-12}
    for shape in ((FEATURES,), (FEATURES, 3)):
        matrix = rng.normal(size=shape).astype(rows.dtype)
        assert_allclose(rows @ matrix, full @ matrix, atol=1e-6, **near)


@pytest.mark.parametrize(
    "taken", [slice(5, 20), slice(0, 0), slice(None), np.array([3, 3, 0, 59]), np.array([], int)]
)
def test_rows_are_taken(rows, full, taken):
    assert_array_equal(rows[taken].toarray(), full[taken])
    assert rows[taken].has_ones == rows.has_ones


def test_pieces_are_joined(rows, full):
    pieces = [rows[0:7], rows[7:7], rows[7:33], rows[33:]]
    assert_array_equal(PartlyDense.joined(pieces).toarray(), full)


@pytest.mark.parametrize("weighted", [False, True])
def test_moments_are_those_of_the_matrix(rows, full, weighted):
    y = np.arange(len(full), dtype=np.float64)
    weight = np.random.default_rng(2).integers(0, 3, len(full)).astype(np.float64) if weighted else None
    sums = MomentsSum()
    for part in (slice(0, 25), slice(25, None)):
        sums.add(Block(rows[part], y[part], None if weight is None else weight[part]))
    found, w = sums.total(), np.ones(len(full)) if weight is None else weight
    mean = np.average(full, axis=0, weights=w)
    assert_allclose(found.mean[:-1], mean, rtol=1e-5 if rows.dtype == np.float32 else 1e-12, atol=1e-7)
    assert_allclose(found.squares[:-1], w @ (full - mean) ** 2, rtol=1e-4 if rows.dtype == np.float32 else 1e-10)


def test_moments_of_partly_dense_and_of_sparse_rows_add_up(rows, full):
    y, sums = np.zeros(len(full)), MomentsSum()
    sums.add(Block(rows[:20], y[:20]))
    sums.add(Block(scipy.sparse.csr_array(full[20:]), y[20:]))
    assert_allclose(sums.total().mean[:-1], full.mean(axis=0), rtol=1e-5, atol=1e-7)


def test_the_digest_is_that_of_sparse_rows(rows, full):
    y = np.arange(len(full), dtype=np.float64)
    assert rows_digest(Block(rows, y)) == rows_digest(Block(scipy.sparse.csr_array(full), y))
    assert rows_digest(Block(rows[np.arange(len(full))[::-1]], y[::-1])) == rows_digest(Block(rows, y))


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_files_hold_them(rows, full, tmp_path, codec):
    y = np.arange(len(full), dtype=np.float64)
    blocks = [Block(rows[:40], y[:40]), Block(rows[40:], y[40:])]
    path = tmp_path / "part.arrow"
    assert list(write_blocks(path, blocks, codec)) == blocks
    read = BlockFile(str(path), [0, 40, 60])
    for index, part in enumerate((slice(0, 40), slice(40, None))):
        X = read[index].X
        assert isinstance(X, PartlyDense)
        assert (X.has_ones, X.dtype, X.shape) == (rows.has_ones, rows.dtype, full[part].shape)
        assert_array_equal(X.toarray(), full[part])


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_do_not_depend_on_the_batches(kind):
    rows = rows_of(kind, 30_000)
    y = np.arange(30_000, dtype=np.float64)

    def blocks(bounds: list[int]) -> list[Block]:
        return list(regroup(Block(rows[a:b], y[a:b]) for a, b in itertools.pairwise(bounds)))

    one, other = blocks([0, 30_000]), blocks([0, 1, 4_000, 4_001, 17_000, 30_000])
    assert [block.rows for block in one] == [block.rows for block in other]
    for left, right in zip(one, other, strict=True):
        assert isinstance(left.X, PartlyDense)
        for name in ("dense", "columns"):
            assert_array_equal(getattr(left.X, name), getattr(right.X, name))
        for name in ("data", "indices", "indptr"):
            assert_array_equal(getattr(left.X.rest, name), getattr(right.X.rest, name))
    assert_array_equal(np.concatenate([block.y for block in one]), y)


def test_rows_of_many_entries_become_dense():
    dense = np.arange(200.0).reshape(50, 4) + 1
    starts = np.arange(51, dtype=np.int32)
    rows = PartlyDense.of_ones(np.arange(4, dtype=np.int32), dense, np.full(50, 4, np.int32), starts, 6)
    (block,) = regroup([Block(rows, np.zeros(50))])
    assert_array_equal(block.X, np.column_stack([dense, np.ones(50), np.zeros(50)]))


LOSSES = (Logistic(), SquaredError(), Hinge(), Multinomial(2), FactorizationMachine(Logistic(), 3))
ASKED = [
    (loss, kind)
    for loss, kind in itertools.product(LOSSES, (Gradients, Losses, HessianProducts, Hessians))
    if not (isinstance(loss, ProjectionLoss) and kind is Hessians)  # refused
]


@pytest.mark.parametrize(("loss", "request_of"), ASKED, ids=lambda found: getattr(found, "__name__", str(found)[:12]))
def test_passes_sum_what_they_sum_over_the_matrix(rows, full, loss, request_of):
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, len(full)).astype(np.float64)
    objective = LinearObjective(loss, FEATURES, True, rng.random(FEATURES) + 0.5, rng.normal(size=FEATURES))
    points = 0.1 * rng.normal(size=(2, objective.size))
    vectors = (rng.normal(size=points.shape),) if request_of is HessianProducts else ()
    query = Query(request_of(points, *vectors))
    found, known = (evaluate([objective] * 2, query, [Block(X, y)]) for X in (rows, full))
    near = {"rtol": 1e-3, "atol": 1e-3} if rows.dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-9}
    assert_allclose(found.loss, known.loss, **near)
    assert_allclose(found.gradient, known.gradient, **near)


def test_rows_that_are_not_finite_are_found(rows):
    assert finite_features(rows) is None
    wrong = rows.dense.copy()
    wrong[4, 1], wrong[9, 0] = np.inf, np.nan
    expected = np.ones(len(wrong), bool)
    expected[[4, 9]] = False
    found = PartlyDense(rows.columns, wrong, rows.rest, rows.has_ones)
    assert_array_equal(finite_features(found), expected)
    if not rows.has_ones:
        rows.rest.data[0] = np.nan
        first = int(np.flatnonzero(np.diff(rows.rest.indptr))[0])
        expected[first] = False
        assert_array_equal(finite_features(found), expected)
