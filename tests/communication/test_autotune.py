"""compression="auto": what is picked on links of known speed, and that no step is lost to finding out."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from sparkopt import losses, optim
from sparkopt.blocks.block import Block, InMemoryBlocks, Part
from sparkopt.communication.autotune import CANDIDATES, PLAIN, codecs_used, reduce_by
from sparkopt.communication.encoder import Encoder, PassMessage
from sparkopt.communication.error_feedback import Residuals
from sparkopt.communication.sums import Pass, Summation
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import Query
from sparkopt.objective.work import FullGradient
from sparkopt.solver.loop import minimise
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Stop

FEATURES, PARTS = 10_000, 2
STEPS = PLAIN + 2 * len(CANDIDATES) + 3
SUM = 8 * FEATURES


class Link:
    """Sums over partitions whose clock is arithmetic: what is encoded takes time, and so does every byte."""

    def __init__(self, folder, second: float, compute: float, encode: float, size: int = FEATURES) -> None:
        rng = np.random.default_rng(1)
        X = rng.normal(size=(60, size))
        y = (X[:, 0] > 0).astype(float)
        cuts = np.array_split(np.arange(60), PARTS)
        self.parts = [
            InMemoryBlocks([Block(X[rows], y[rows])], path=f"{folder}/part-{index}")
            for index, rows in enumerate(cuts)
        ]
        self.plain = FullGradient(LinearObjective(losses.Logistic(), size, fit_intercept=False))
        self.summation = Summation(self.plain, Encoder(None, "fit"))
        self.second, self.compute, self.encode = second, compute, encode
        self.passes: list[Pass] = []
        self.codecs: list[str | None] = []
        self.arrived = self.sent = np.zeros((1, size))
        self.reduce = reduce_by(self._send, self.summation, self.passes)

    def _send(self, message: PassMessage):
        query = message.query
        sums = [self.summation(message, Part(index, 30 * index), one).sums for index, one in enumerate(self.parts)]
        sent_bytes = sum(one.sent_bytes for one in sums)
        encodes = message.codec not in (None, "none")
        seconds = self.compute + self.encode * encodes + sent_bytes / self.second
        self.codecs.append(message.codec)
        codec = self.summation.codec_name(message)
        self.passes.append(
            Pass(query.step, seconds, self.compute, 0.0, sent_bytes, 0, sent_bytes, 0, 60, 0, codec),
        )
        total = (sums[0] + sums[1]).decoded()
        exact = [self.plain(query, Part(index, 30 * index), one) for index, one in enumerate(self.parts)]
        self.arrived = self.arrived + total.gradient
        self.sent = self.sent + sum(one.gradient for one in exact)
        return total

    def left(self) -> np.ndarray:
        found = [Residuals("fit", f"part-{i}", one.path).before(STEPS + 1) for i, one in enumerate(self.parts)]
        return sum(residual["0"]["error"] for residual in found if residual)


@pytest.mark.parametrize(
    ("second", "compute", "encode", "picked", "says"),
    [
        pytest.param(1e9, 0.01, 0.0, None, "picks none: 0.08 MB sums", id="fast link: nothing is tried"),
        pytest.param(1e6, 0.005, 0.001, "top-k", "picks top-k: 0.08 MB sums", id="slow link"),
        pytest.param(1e6, 0.01, 1.0, None, "picks none: 0.08 MB sums", id="slow codec"),
        pytest.param(1e6, 0.2, 0.0, "fp16", "picks fp16: 0.08 MB", id="what is left to wait for is little"),
    ],
)
def test_the_cheapest_is_picked(tmp_path, caplog, second, compute, encode, picked, says):
    link = Link(tmp_path, second, compute, encode)
    with caplog.at_level(logging.INFO, logger="sparkopt"):
        minimise(link.reduce, Problem(optim.sgd(0.01), np.zeros(FEATURES), stop=Stop(STEPS, 0.0)))
    assert link.codecs[-1] == picked
    assert says in caplog.text
    assert len(link.codecs) == STEPS + 1
    if picked is None and encode == 0.0:
        assert set(link.codecs) == {None}
    else:
        assert [name for name in CANDIDATES if name in link.codecs] == list(CANDIDATES)
    left = link.left() if picked else 0.0
    np.testing.assert_allclose(link.arrived + left, link.sent, rtol=1e-9, atol=1e-9)


def test_small_sums_are_not_worth_a_trial(tmp_path):
    link = Link(tmp_path, 1.0, 0.0, 0.0, size=20)
    minimise(link.reduce, Problem(optim.sgd(0.01), np.zeros(20), stop=Stop(STEPS, 0.0)))
    assert set(link.codecs) == {None}


def test_every_process_goes_by_what_one_found(tmp_path):
    """Clocks of ranks differ: this one would pick none, the one that is asked found int8."""
    link = Link(tmp_path, 1e9, 0.01, 0.0)
    answers = iter([True, False, True, False, list(CANDIDATES).index("int8")])  # try; a second look at int8 alone
    reduce = reduce_by(link._send, link.summation, link.passes, agree=lambda found: next(answers))
    minimise(reduce, Problem(optim.sgd(0.01), np.zeros(FEATURES), stop=Stop(STEPS, 0.0)))
    assert link.codecs[-1] == "int8"
    assert link.codecs[PLAIN : PLAIN + 5] == ["fp16", "int8", "int8", "top-k", "int8"]


def test_passes_that_are_not_of_a_step_stay_as_they_are(tmp_path):
    link = Link(tmp_path, 1.0, 0.0, 0.0)
    link.reduce(Query(optim.Gradients(np.zeros((1, FEATURES)), rows=optim.EveryRow()), 1))
    assert link.codecs == [None]
    plain = reduce_by(link._send, Summation(link.plain), [])
    for _ in range(STEPS):
        plain(Query(optim.Gradients(np.zeros((1, FEATURES)))))
    assert set(link.codecs) == {None}


def test_the_driver_can_tell_what_ranks_found_out(tmp_path):
    link = Link(tmp_path, 1e6, 0.01, 0.001)
    minimise(link.reduce, Problem(optim.sgd(0.01), np.zeros(FEATURES), stop=Stop(STEPS, 0.0)))
    assert codecs_used(link.passes).startswith("passes by codec: none 2 (fastest 170 ms), fp16 1 (fastest")
    assert codecs_used(link.passes[:2]) == ""
