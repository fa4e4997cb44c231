"""The order of an epoch: every row once, equal steps, whatever the groups; a pure function of seed and epoch."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkopt.shards.sampler import EpochSampler

samplers = st.builds(
    EpochSampler,
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any).map(tuple),
    streams=st.integers(1, 9),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
    window_rows=st.integers(1, 100),
)


def rows_of(sampler, stream, first_row=0):
    """(group, row) of each row of a stream, in order, from a row on."""
    rows = []
    for window in sampler.windows(stream, first_row):
        concatenated = [(piece.group, row) for piece in window.pieces for row in range(piece.start, piece.stop)]
        rows += [concatenated[row] for row in window.order][max(first_row - window.first, 0) :]
    return rows


@given(samplers)
@settings(deadline=None)
def test_every_row_counts_once(sampler):
    seen = []
    for stream in range(sampler.streams):
        own = rows_of(sampler, stream)
        counted = sum(sampler.counted(stream, step) for step in range(sampler.steps))
        assert counted == sampler.own_rows(stream)
        assert len(own) == max(1, sampler.own_rows(stream))  # a stream without rows borrows one, which does not count
        seen += own[:counted]
    assert sorted(seen) == [(group, row) for group, size in enumerate(sampler.sizes) for row in range(size)]
    assert sampler.steps * sampler.batch_size * sampler.streams >= sampler.rows
    assert sum(sampler.total_counted(step) for step in range(sampler.steps)) == sampler.rows
    assert all(sampler.total_counted(step) > 0 for step in range(sampler.steps))


@given(samplers, st.integers(0, 400))
@settings(deadline=None)
def test_a_stream_continues_from_any_row(sampler, first_row):
    for stream in range(sampler.streams):
        assert rows_of(sampler, stream, first_row) == rows_of(sampler, stream)[first_row:]


@given(samplers)
@settings(deadline=None)
def test_a_window_is_bounded(sampler):
    for stream in range(sampler.streams):
        for window in sampler.windows(stream):
            assert len(window.order) <= max(sampler.window_rows, *sampler.sizes)


def test_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch, shuffle=True):
        sampler = EpochSampler((30, 5, 60, 17), 2, 8, seed, epoch, shuffle, 64)
        return rows_of(sampler, 0) + rows_of(sampler, 1)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)
    assert order(1, 2, shuffle=False) == order(5, 7, shuffle=False) == sorted(order(1, 2))


def test_rows_mix_across_groups_and_within():
    sampler = EpochSampler((100,) * 40, 1, 10, 0, 0, True, 400)
    groups = np.array([group for group, _ in rows_of(sampler, 0)])
    assert len(set(groups[:100])) > 2  # a window of four groups
    assert abs(np.corrcoef(groups, np.arange(4000))[0, 1]) < 0.3
