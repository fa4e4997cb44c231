"""Work: what one partition does in one step. Deterministic in (seed, step, partition), so a retry changes nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from sparkopt.blocks.block import Block, Blocks, Part, every, take
from sparkopt.objective.cross_validation import Objective, evaluate
from sparkopt.objective.query import PartialSum, Query
from sparkopt.optim import Optimizer, averaging
from sparkopt.optim.request import EveryRow, Gradients, HessianProducts, Losses, SampledRows
from sparkopt.penalties import NoPenalty, Penalty
from sparkopt.typing import Seed
from sparkopt.validation import Interval, check

__all__ = ["Around", "FullGradient", "LocalSteps", "LocalUpdate", "MiniBatch", "Validated", "Work"]


class Work(ABC):
    """One partition's contribution to one step.

    Attributes
    ----------
    is_exact : bool
        Every row takes part in every step, so objectives of different steps compare.
    share : float
        Share of the rows that a step reads; above 1 where it reads them several times.
    is_local : bool
        What stands for a gradient is the way that a partition went by itself.
    """

    objective: Objective
    is_exact: bool
    share: float = 1.0
    is_local: bool = False

    @abstractmethod
    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Return the partition's sums at every point of the query."""


@dataclass(frozen=True)
class FullGradient(Work):
    """Every row."""

    objective: Objective
    is_exact = True

    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Sum over all rows, or estimate the sums from a sample where the query asks for one."""
        total, selected = int(blocks.starts[-1]), query.request.rows
        if not isinstance(selected, SampledRows) or total <= selected.count:
            return evaluate(self.objective, query, every(blocks))
        rows = np.linspace(0, total - 1, selected.count).astype(np.intp)
        sums = [evaluate(self.objective, few, take(blocks, rows)) for few in _by_few_points(query)]
        return PartialSum.stacked(sums, sums[0].rows).scaled(total / selected.count)


def _by_few_points(query: Query) -> Iterator[Query]:
    """Split a query, since raw predictions at hundreds of points for thousands of rows would fill the memory."""
    for first in range(0, len(query.request.points), FEW_POINTS):
        yield query.only(slice(first, first + FEW_POINTS))


FEW_POINTS = 256


@dataclass(frozen=True)
class MiniBatch(Work):
    """A fresh random share of the rows at each step; its cost grows with the share, not with the data.

    Partitions agree without talking: batch boundaries are ⌊fraction · rows before + u⌋ with one u in [0, 1) per step
    (systematic sampling), so a step draws ⌊fraction · rows⌋ or one more rows in all, every row with equal
    probability. Within its partition a step draws without replacement.

    Parameters
    ----------
    objective : LinearObjective or FoldedObjective
        What to sum.
    fraction : float
        Share of the rows, in (0, 1].
    seed : int, default 0
        With step and partition it determines the rows.
    """

    objective: Objective
    fraction: float
    seed: Seed = 0
    is_exact = False

    def __post_init__(self) -> None:
        check("miniBatchFraction", self.fraction, Interval(0, 1, closed="right"))

    @property
    def share(self) -> float:  # type: ignore[override]  # derived here, stored elsewhere
        """The fraction."""
        return self.fraction

    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Sum over the drawn rows."""
        is_whole = query.request.rows == EveryRow()
        return evaluate(self.objective, query, every(blocks) if is_whole else self._draw(query.step, part, blocks))

    def _draw(self, step: int, part: Part, blocks: Blocks) -> Iterator[Block]:
        total = int(blocks.starts[-1])
        offset = np.random.default_rng([self.seed, step]).random()
        count = self._before(part.first_row + total, offset) - self._before(part.first_row, offset)
        if count == 0:
            return iter(())
        # + 1, since NumPy pads seeds with zeros: [seed, step, 0] would repeat the stream that the offset came from
        rng = np.random.default_rng([self.seed, step, part.index + 1])
        rows = np.sort(rng.choice(total, size=min(count, total), replace=False, shuffle=False))
        return take(blocks, rows)

    def _before(self, rows: int, offset: float) -> int:
        return int(np.floor(self.fraction * rows + offset))


class Around(Work):
    """A work that does something with another one, and is what the other is where it does not say otherwise."""

    work: Work

    @property
    def objective(self) -> Objective:  # type: ignore[override]  # derived here, stored elsewhere
        """That of the other work."""
        return self.work.objective

    @property
    def is_exact(self) -> bool:  # type: ignore[override]  # derived here, stored elsewhere
        """As the other work."""
        return self.work.is_exact

    @property
    def is_local(self) -> bool:  # type: ignore[override]  # derived here, stored elsewhere
        """As the other work."""
        return self.work.is_local

    @property
    def share(self) -> float:  # type: ignore[override]  # derived here, stored elsewhere
        """That of the other work."""
        return self.work.share


@dataclass(frozen=True)
class LocalSteps:
    """When partitions meet that take steps by themselves, and how the ways that they went are joined.

    A step of the loop is then a round: it sends what a plain step sends, and goes further. With ``warm_up`` this is
    post-local SGD (Lin, Stich, Patel & Jaggi, 2020, *Don't use large mini-batches, use local SGD*, §4): partitions
    begin to go their own ways once they have found a common direction.

    Parameters
    ----------
    steps : int
        Local steps of a round, ≥ 1.
    warm_up : int, default 0
        Rounds of a single step before.
    outer : Optimizer, default ``optim.averaging()``
        Takes the mean way for a gradient: by default it goes to the mean of the partitions' coefficients;
        ``optim.diloco()`` carries momentum from round to round.

    Examples
    --------
    >>> post_local = LocalSteps(steps=16, warm_up=3)
    >>> [(post_local.length(r), post_local.first(r)) for r in range(6)]
    [(1, 0), (1, 1), (1, 2), (16, 3), (16, 19), (16, 35)]
    """

    steps: int
    warm_up: int = 0
    outer: Optimizer = field(default_factory=averaging)

    def __post_init__(self) -> None:
        check("localSteps", self.steps, Interval(1, None, whole=True))
        check("localStepsWarmUp", self.warm_up, Interval(0, None, whole=True))

    def length(self, number: int) -> int:
        """Return the local steps of a round."""
        return 1 if number < self.warm_up else self.steps

    def first(self, number: int) -> int:
        """Return how many local steps were taken before a round."""
        return min(number, self.warm_up) + max(0, number - self.warm_up) * self.steps


@dataclass(frozen=True)
class LocalUpdate(Around):
    """Several steps on a partition's own rows; the way there stands for a gradient (Stich, 2019, algorithm 1).

    A partition goes from w to w′ and returns weight · (w − w′), where the weight is that of the rows it saw, so that
    w minus the mean is the mean of the partitions' w′. Local steps are counted on through all rounds, and each draws
    its own batch: rounds of a single step are mini-batch steps. What the loop adds to the mean of all gradients, the
    penalty's gradient at w, is subtracted here, since local steps have it in them.

    The optimiser's memory (momentum, say) begins anew in each round, so that a partition's answer depends on nothing
    but the question; its schedules count rounds. A round's objective is that of its first batch, where it began.

    Parameters
    ----------
    work : Work
        The rows of a local step: ``FullGradient``, or a ``MiniBatch``, whose cost is then that of a local step.
    optimizer : Optimizer
        What takes the local steps: one with fixed steps.
    local_steps : LocalSteps
        How many they are.
    penalty : Penalty, default none
        Its smooth part is in every local step. Kinks cannot be: a mean of sparse coefficients is not sparse (Yuan,
        Zaheer & Reddi, 2021, *Federated composite optimization*, §1).
    """

    work: Work
    optimizer: Optimizer
    local_steps: LocalSteps
    penalty: Penalty = NoPenalty()
    is_local = True

    @property
    def share(self) -> float:  # type: ignore[override]  # derived here, stored elsewhere
        """That of all local steps of a round together."""
        return self.work.share * self.local_steps.steps

    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Take local steps from every point of a step's query; other queries are evaluated as without local steps."""
        if not query.request.is_step_gradient:
            return self.work(query, part, blocks)
        sums = [self._go(query.only([point]), part, blocks) for point in range(len(query.request.points))]
        return PartialSum.stacked(sums, sum(one.rows for one in sums))

    def _go(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Go one round from the query's only point."""
        start, number = query.request.points[0], query.step
        transform = self.optimizer.transform.held_at(number)
        coef, state, seen = start, transform.init(start), list[PartialSum]()
        step = self.local_steps.first(number)
        with np.errstate(over="ignore", invalid="ignore"):  # the loop says so, and what to do, where a way diverges
            for batch in range(step, step + self.local_steps.length(number)):
                sums = self.work(Query(Gradients(coef[None]), batch, query.held_out), part, blocks)
                if sums.weight[0] > 0:  # a small batch may leave this partition out
                    gradient = sums.gradient[0] / sums.weight[0] + self.penalty.gradient(coef)
                    move, state = transform.update(gradient, state, coef)
                    coef = coef + move
                    seen.append(replace(sums, gradient=EMPTY))
            way = start - transform.finish(state, coef) - self.penalty.gradient(start)
        weight, rows = sum((sums.weight for sums in seen), np.zeros(1)), sum(sums.rows for sums in seen)
        loss = seen[0].loss * (weight / seen[0].weight) if seen else np.zeros(1)
        return PartialSum(loss, weight * way[None], weight, rows)


EMPTY = np.zeros((1, 0))


@dataclass(frozen=True)
class Validated(Around):
    """Another work, and in the same pass the loss of the validation rows, without penalty.

    Parameters
    ----------
    work : Work
        What the training rows are for.
    interval : int, default 1
        Look at the validation rows every so many steps: a mini-batch costs little, all validation rows may not.
    """

    work: Work
    interval: int = 1

    def __post_init__(self) -> None:
        check("interval", self.interval, Interval(1, None, whole=True))

    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Sum over training and validation rows."""
        sums = self.work(query, part, blocks)
        if isinstance(query.request, HessianProducts) or query.step % self.interval:
            return sums
        found = evaluate(self.objective, replace(query, request=Losses(query.request.points)), blocks.validation())
        rows = sums.rows + found.rows
        return replace(sums, validation_loss=found.loss, validation_weight=found.weight, rows=rows)
