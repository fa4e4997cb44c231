"""Sums of sparse rows: sent without their zeros, and the same to the last bit where they are received."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse as scipy_sparse

from sparkopt import losses
from sparkopt.blocks.block import Block, InMemoryBlocks, Part
from sparkopt.blocks.store import OpenPartition, Result
from sparkopt.communication.encoder import PassMessage
from sparkopt.communication.encoding import SMALL_BYTES, SPARSE_SHARE, CommunicatedSum, EncodedGradient, sparsified
from sparkopt.communication.sums import Summation, TaskSum, fold, pulling_back
from sparkopt.engines.ranks import FEW, _GroupSums
from sparkopt.engines.reduction import _Cut, _fold_group, merge
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import FullGradient, MiniBatch
from sparkopt.optim import Gradients, HessianProducts
from tests.engines.test_group_sums import Rank, Threads

FEATURES, PARTS, ROWS, NON_ZEROS = 20_000, 6, 40, 12
POSITIONS_AND_VALUES = 12
"""Bytes of a number and its position."""


def parts() -> list[InMemoryBlocks]:
    """Rows with a few non-zeros, in partitions."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(PARTS):
        columns = rng.choice(FEATURES, (ROWS, NON_ZEROS))
        rows = np.repeat(np.arange(ROWS), NON_ZEROS)
        X = scipy_sparse.csr_array((rng.normal(size=rows.size), (rows, columns.ravel())), (ROWS, FEATURES))
        found.append(InMemoryBlocks([Block(X, rng.integers(0, 2, ROWS).astype(float))]))
    return found


def objective_of(loss) -> LinearObjective:
    rng = np.random.default_rng(1)
    return LinearObjective(loss, FEATURES, scale=rng.uniform(0.5, 2, FEATURES), center=rng.normal(size=FEATURES))


def task_sums(work, query: Query) -> list[Result[TaskSum]]:
    summation, message = Summation(work), PassMessage(query)
    return [Result(i, summation(message, Part(i, i * ROWS), blocks)) for i, blocks in enumerate(parts())]


def total(work, query: Query) -> PartialSum:
    return fold(task_sums(work, query)).sums.decoded()


LOSSES = [losses.Logistic(), losses.Multinomial(3)]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)


def query_of(objective: LinearObjective, vectors: np.ndarray | None = None) -> Query:
    points = 0.1 * np.random.default_rng(2).normal(size=(1, objective.size))
    request = Gradients(points) if vectors is None else HessianProducts(points, vectors)
    return Query(request, feature_coordinates=True)


@each_loss
def test_what_is_pulled_back_is_the_gradient(loss):
    """Against gradients that were scaled partition by partition."""
    objective = objective_of(loss)
    work = FullGradient(objective)
    vectors = np.random.default_rng(3).normal(size=(1, objective.size))
    for query in (query_of(objective), query_of(objective, vectors=vectors)):
        scaled = Query(query.request)
        found = pulling_back(Summation(work), lambda message: total(work, message.query))(PassMessage(scaled))
        expected, unscaled = total(work, scaled), total(work, query)
        np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-9, atol=1e-9)
        filled = [np.count_nonzero(sums.gradient) / sums.gradient.size for sums in (unscaled, expected)]
        assert filled[0] < 0.2 < 0.9 < filled[1]  # centring fills every entry


@each_loss
@pytest.mark.parametrize("work", [FullGradient, partial(MiniBatch, fraction=0.3)], ids=["full", "batch"])
def test_every_reduction_gives_the_same_bits_in_fewer_bytes(loss, work):
    objective = objective_of(loss)
    sums = task_sums(work(objective), query_of(objective))
    dense = fold(sums)
    touched = [np.count_nonzero(result.value.sums.gradient) for result in sums]

    collected = [Result(r.partition, r.value.leaving()) for r in sums]
    groups = [_fold_group((g, [r for r in collected if r.partition % 2 == g])) for g in range(2)]
    dense_groups = [fold([r for r in sums if r.partition % 2 == g]) for g in range(2)]
    pieces = [_Cut(3)(Result(r.partition, r.value.leaving(3))) for r in sums]
    slices = [
        _fold_group((index, [piece for _, piece in column])) for index, column in enumerate(zip(*pieces, strict=True))
    ]

    reduced = {"collect": fold(collected), "tree": fold(groups), "slices": merge([one.value for one in slices])}
    for name, found in reduced.items():
        wanted = dense_groups[0] + dense_groups[1] if name == "tree" else dense
        assert found.sums.decoded().gradient.tobytes() == wanted.sums.gradient.tobytes(), name
        assert found.sums.decoded().loss.tobytes() == wanted.sums.decoded().loss.tobytes()
    assert reduced["collect"].raw == 8 * PARTS * objective.size
    assert reduced["collect"].encoded <= POSITIONS_AND_VALUES * sum(touched) + 20 * PARTS
    assert reduced["tree"].encoded > reduced["collect"].encoded  # sums of sums are sent too, and have fewer zeros


@pytest.mark.parametrize("size", [FEW, 4])
def test_ranks_leave_zeros_out_together(size):
    objective = objective_of(losses.Logistic())
    work, threads, query = FullGradient(objective), Threads(size), query_of(objective)
    blocks = parts()

    def run(rank: int):
        held = [OpenPartition(Part(i, i * ROWS), one) for i, one in enumerate(blocks) if i % size == rank]
        sums = _GroupSums(Rank(threads, rank), Summation(work), held)
        return [sums(PassMessage(query)) for _ in range(2)], sums.passes

    with ThreadPoolExecutor(size) as pool:
        found = list(pool.map(run, range(size)))
    everything = task_sums(work, query)
    by_rank = [fold([one for one in everything if one.partition % size == rank]) for rank in range(size)]
    expected = sum(by_rank[1:], by_rank[0]).sums.decoded()
    for answers, passes in found:
        for one in answers:
            assert one.gradient.tobytes() == expected.gradient.tobytes()
            assert one.rows == expected.rows
        assert all(0 < 10 * p.bytes_encoded < p.bytes_raw for p in passes)


def test_dense_sums_stay_as_they_are():
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(1, 5000))
    assert sparsified(dense) is dense
    few = np.zeros((1, SMALL_BYTES // 8 - 1))
    assert sparsified(few) is few  # too small to be worth it
    half = np.where(rng.random((2, 5000)) < 1.1 * SPARSE_SHARE, dense, 0.0)
    assert sparsified(half) is half


@settings(max_examples=60, deadline=None)
@given(
    shares=st.lists(st.sampled_from([0.0, 0.001, 0.02, 0.3, 1.0]), min_size=1, max_size=5),
    slices=st.integers(1, 4),
    models=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_sparsified_and_dense_sums_add_up_alike(shares, slices, models, seed):
    rng = np.random.default_rng(seed)
    whole = [np.where(rng.random((models, 900)) < share, rng.normal(size=(models, 900)), 0.0) for share in shares]
    sent = [sparsified(one, slices) for one in whole]
    sums = [CommunicatedSum.of(PartialSum.zero(models, 900), one) for one in sent]
    assert sum(sums[1:], sums[0]).decoded().gradient.tobytes() == sum(whole[1:], whole[0]).tobytes()
    for one, share in zip(sent, shares, strict=True):
        assert isinstance(one, EncodedGradient) is (share < 0.5)
