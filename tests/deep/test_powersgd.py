"""PowerSGD against what its paper promises: error feedback, exactness at low rank, the same gradient on all ranks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from sparkopt.deep.powersgd import PowerSgd

SHAPES = {"vector": (7,), "matrix": (20, 30), "convolution": (16, 8, 3, 3), "scalar": ()}


class Ranks:
    """Ranks on threads, and the mean over them."""

    def __init__(self, size: int) -> None:
        self.size, self._values = size, [torch.zeros(0)] * size
        self._barrier = threading.Barrier(size)
        self.parameters = [{n: torch.nn.Parameter(torch.zeros(s)) for n, s in SHAPES.items()} for _ in range(size)]
        self.averages = [PowerSgd(own, self._mean(rank)) for rank, own in enumerate(self.parameters)]

    def _mean(self, rank):
        def mean(values):
            self._values[rank] = values
            self._barrier.wait()
            found = torch.stack(self._values).mean(0)
            self._barrier.wait()
            return found

        return mean

    def each(self, function):
        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(function, range(self.size)))

    def average(self, gradients):
        """Give every rank its gradients; return the averages, equal on all ranks."""
        for own, parameters in zip(gradients, self.parameters, strict=True):
            for name, parameter in parameters.items():
                parameter.grad = own[name].clone()
        self.each(lambda rank: self.averages[rank].average())
        found = [{name: p.grad for name, p in parameters.items()} for parameters in self.parameters]
        assert all(torch.equal(found[0][name], own[name]) for own in found for name in SHAPES)
        return found[0]


def draw(size, seed):
    generator = torch.Generator().manual_seed(seed)
    return [{n: torch.randn(s, generator=generator) for n, s in SHAPES.items()} for _ in range(size)]


def mean_of(gradients, name):
    return torch.stack([own[name] for own in gradients]).mean(0)


def test_what_is_left_out_is_sent_later():
    """Sent so far + left out = the mean gradients so far; what is not compressed is exact at once."""
    ranks = Ranks(3)
    sent = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    wanted = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    for step in range(6):
        gradients = draw(3, step)
        found = ranks.average(gradients)
        for name in SHAPES:
            sent[name], wanted[name] = sent[name] + found[name], wanted[name] + mean_of(gradients, name)
        for name in ("vector", "scalar"):
            torch.testing.assert_close(found[name], mean_of(gradients, name))
    left_out = ranks.each(lambda rank: ranks.averages[rank].state())[0]["left_out"]
    assert left_out.keys() == {"matrix", "convolution"}
    for name, tensor in left_out.items():
        assert torch.linalg.matrix_rank(found[name].reshape(len(found[name]), -1)) == 2
        torch.testing.assert_close(sent[name] + tensor.reshape(SHAPES[name]), wanted[name], atol=1e-4, rtol=1e-4)


def test_rank_two_is_exact():
    """Though no rank's own gradient has rank 2: their mean has."""
    ranks = Ranks(2)
    generator = torch.Generator().manual_seed(5)
    low = torch.randn(20, 2, generator=generator) @ torch.randn(2, 30, generator=generator)
    noise = torch.randn(20, 30, generator=generator)
    gradients = [{**own, "matrix": low + sign * noise} for own, sign in zip(draw(2, 1), (1, -1), strict=True)]
    torch.testing.assert_close(ranks.average(gradients)["matrix"], low, atol=1e-4, rtol=1e-4)


def test_a_constant_gradient_is_approached():
    """The mean of what was sent tends to it: the rest is left out once, and not every time."""
    ranks = Ranks(1)
    gradients = draw(1, 3)
    sent = [ranks.average(gradients)["matrix"] for _ in range(60)]
    goal = gradients[0]["matrix"]
    errors = [float((torch.stack(sent[:n]).mean(0) - goal).norm() / goal.norm()) for n in (1, 60)]
    assert errors[1] < 0.2 * errors[0]


def test_a_run_continues_with_another_number_of_ranks():
    """Each of three ranks gets what one rank alone would have gathered."""
    gradients = [draw(1, step)[0] for step in range(6)]
    alone, before, after = Ranks(1), Ranks(2), Ranks(3)
    expected = [alone.average([own]) for own in gradients]
    for own in gradients[:3]:  # two ranks whose mean is the same
        before.average([{n: t + s for n, t in own.items()} for s in (0.5, -0.5)])
    (state, _) = before.each(lambda rank: before.averages[rank].state())
    for average in after.averages:
        average.restore(state)
    for own, other in zip(gradients[3:], expected[3:], strict=True):
        found = after.average([own] * 3)
        for name in SHAPES:
            np.testing.assert_allclose(found[name], other[name], atol=2e-3)
