"""Encoded sums among several ranks: all end with the same numbers, and what is left out comes later."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sparkopt import losses, optim
from sparkopt.blocks.block import Block, InMemoryBlocks, Part
from sparkopt.blocks.store import OpenPartition
from sparkopt.codecs.gradient import GRADIENT_CODECS, gradient_codec
from sparkopt.communication.encoder import Encoder, PassMessage
from sparkopt.communication.error_feedback import Residuals
from sparkopt.communication.sums import Summation
from sparkopt.engines.ranks import FEW, _GroupSums
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import Query
from sparkopt.objective.work import FullGradient
from tests.problems import gradients_of

RANKS, FEATURES, STEPS = 4, 50, 5


class Threads:
    """Ranks that are threads, and exchange values in one list."""

    def __init__(self, size: int) -> None:
        self.size, self._values, self._barrier = size, [None] * size, threading.Barrier(size)

    def meet(self, rank: int, mine):
        self._values[rank] = mine
        self._barrier.wait()
        found = list(self._values)
        self._barrier.wait()
        return found


class Rank:
    def __init__(self, threads: Threads, rank: int) -> None:
        self.threads, self.rank, self.size = threads, rank, threads.size

    def all_reduce(self, values):
        return sum(self.threads.meet(self.rank, values))

    def broadcast(self, values, root=0):
        return self.threads.meet(self.rank, values)[root]

    def all_gather(self, payload):
        return self.threads.meet(self.rank, payload)

    def exchange(self, payloads):
        return [row[self.rank] for row in self.threads.meet(self.rank, payloads)]


@pytest.mark.parametrize("size", [FEW, RANKS])
@pytest.mark.parametrize("name", [name for name in GRADIENT_CODECS if name != "none"])
def test_ranks_agree_and_nothing_is_lost(tmp_path, name, size):
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(80, FEATURES)), (rng.random(80) > 0.5).astype(float)
    objective = LinearObjective(losses.Logistic(), FEATURES)
    summation = Summation(FullGradient(objective), Encoder(gradient_codec(name), "fit"))
    points = 0.1 * rng.normal(size=(STEPS, 1, objective.size))
    threads = Threads(size)

    def run(rank: int):
        mine = slice(20 * rank, 20 * rank + 20) if rank < size - 1 else slice(0, 0)  # the last one has no rows
        blocks = InMemoryBlocks([Block(X[mine], y[mine])], path=f"{tmp_path}/part-{rank}")
        held = [OpenPartition(Part(rank, 20 * rank), blocks)] if rank < size - 1 else []
        sums = _GroupSums(Rank(threads, rank), summation, held)
        messages = [PassMessage(Query(optim.Gradients(point), step)) for step, point in enumerate(points)]
        return [sums(message) for message in messages], sums.passes

    with ThreadPoolExecutor(size) as pool:
        found = list(pool.map(run, range(size)))
    for sums, passes in found[1:]:
        for one, other in zip(sums, found[0][0], strict=True):
            assert one.gradient.tobytes() == other.gradient.tobytes()
        assert [p.bytes_encoded for p in passes] == [p.bytes_encoded for p in found[0][1]]
    arrived = sum(one.gradient[0] for one in found[0][0])
    rows = 20 * (size - 1)
    blocks = [Block(X[:rows], y[:rows])]
    sent = sum(gradients_of(objective, point, blocks).gradient[0] for point in points)
    left = np.concatenate([_left(tmp_path, "joined", size, rank) for rank in range(size)]) if size > FEW else 0.0
    if size > FEW and gradient_codec(name).whole:
        left = 0.0
    left = left + sum(_left(tmp_path, "rank", size, rank) for rank in range(size - 1))
    np.testing.assert_allclose(arrived + left, sent, rtol=1e-9, atol=1e-9)
    assert found[0][0][0].rows == rows


def _left(folder, name: str, size: int, rank: int) -> np.ndarray:
    """The residual of a rank after the last step, slice by slice."""
    path = f"{folder}/part-{rank}" if rank < size - 1 else None
    residual = Residuals("fit", f"{name}-{rank}-of-{size}", path).before(STEPS)
    return np.concatenate([residual[number]["error"] for number in sorted(residual)]) if residual else np.zeros(0)
