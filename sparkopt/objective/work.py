"""Work: what one partition does in one step. Deterministic in (seed, step, partition), so a retry changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sparkopt.blocks.block import Block, Blocks, Part, every, take
from sparkopt.objective.cross_validation import Objective, evaluate
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.row_sample import RowSpacing
from sparkopt.optim.request import EveryRow, Gradients, HessianProducts, Hessians, Losses, SampledRows
from sparkopt.penalties import NoPenalty, Penalty
from sparkopt.typing import Seed
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.optim import Optimizer

__all__ = ["FullGradient", "LocalSteps", "LocalUpdate", "MiniBatch", "Validated", "Work"]


class Work(Protocol):
    """One partition's contribution to one step. A class that has these members is one; it need not inherit."""

    @property
    def objective(self) -> Objective:
        """What is summed over rows."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether every row takes part in every step, so that objectives of different steps can be compared."""
        ...

    @property
    def share(self) -> float:
        """Share of the rows that a step reads; above 1 where it reads them several times."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether a step returns local updates (pseudo-gradients) instead of gradients."""
        ...

    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Return the partition's sums at every point of the query."""
        ...


@dataclass(frozen=True)
class FullGradient:
    """Every row takes part in every step.

    Parameters
    ----------
    objective : LinearObjective or FoldedObjective
        What to sum.
    """

    objective: Objective
    is_exact = True
    share = 1.0
    is_local = False

    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Sum over all rows, or estimate the sums from a sample where the query asks for one."""
        total, selected = int(blocks.starts[-1]), query.request.rows
        if isinstance(query.request, Hessians) and query.request.sample is not None:
            sample = query.request.sample
            spacing = sample.spacing(total if part.rows is None else part.rows)
            return evaluate(
                self.objective, query, every(blocks), RowSpacing(spacing, part.first_row, sample.by_length)
            )
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
class MiniBatch:
    """A random share of the rows, drawn at each step; its cost grows with the share, not with the data.

    Partitions agree without communication: batch boundaries are ⌊fraction · rows before + u⌋ with one u in [0, 1) per
    step (systematic sampling), so a step draws ⌊fraction · rows⌋ or one more rows in all, every row with equal
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
    is_local = False

    def __post_init__(self) -> None:
        check("miniBatchFraction", self.fraction, Interval(0, 1, closed="right"))

    @property
    def share(self) -> float:
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


def _averaging() -> Optimizer:
    from sparkopt.optim import averaging  # here, since tasks without local steps need no optimiser

    return averaging()


@dataclass(frozen=True)
class LocalSteps:
    """How many local steps partitions take between two averages, and the outer optimizer that applies the average.

    A step of the loop is then a round: it communicates what a plain step does, and makes more progress. With
    ``warm_up`` this is post-local SGD (Lin, Stich, Patel & Jaggi, 2020, *Don't use large mini-batches, use local
    SGD*, §4).

    Parameters
    ----------
    steps : int
        Local steps of a round, ≥ 1.
    warm_up : int, default 0
        First rounds, of a single step each.
    outer : Optimizer, default ``optim.averaging()``
        Treats the mean local update as a gradient. The default sets the coefficients to the mean of the partitions';
        ``optim.diloco()`` keeps momentum from round to round.

    Examples
    --------
    >>> post_local = LocalSteps(steps=16, warm_up=3)
    >>> [(post_local.length(r), post_local.first(r)) for r in range(6)]
    [(1, 0), (1, 1), (1, 2), (16, 3), (16, 19), (16, 35)]
    """

    steps: int
    warm_up: int = 0
    outer: Optimizer = field(default_factory=_averaging)

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
class LocalUpdate:
    """Several steps on a partition's own rows, whose sum takes the place of a gradient (Stich, 2019, algorithm 1).

    A partition steps from w to w′ and returns weight · (w − w′), where the weight is that of the rows it saw, so that
    w minus the mean is the mean of the partitions' w′. Local steps are numbered through all rounds, and each draws
    its own batch: rounds of a single step are mini-batch steps. The loop adds the penalty's gradient at w to the mean
    of all gradients; here it is subtracted, since local steps include it.

    The optimiser's state (momentum, say) is initialised in each round, so that a partition's answer depends on the
    query alone; its schedules count rounds. A round's objective is that of its first batch, at its first point.

    Parameters
    ----------
    work : Work
        The rows of a local step: ``FullGradient``, or a ``MiniBatch``, whose cost is then that of a local step.
    optimizer : Optimizer
        Takes the local steps: one with fixed steps.
    local_steps : LocalSteps
        How many they are.
    penalty : Penalty, default none
        Its smooth part is in every local step. A nonsmooth part cannot be: a mean of sparse coefficients is not
        sparse (Yuan, Zaheer & Reddi, 2021, *Federated composite optimization*, §1).
    """

    work: Work
    optimizer: Optimizer
    local_steps: LocalSteps
    penalty: Penalty = NoPenalty()
    is_local = True

    @property
    def objective(self) -> Objective:
        """That of the local steps."""
        return self.work.objective

    @property
    def is_exact(self) -> bool:
        """Whether every row takes part in every local step."""
        return self.work.is_exact

    @property
    def share(self) -> float:
        """That of all local steps of a round together."""
        return self.work.share * self.local_steps.steps

    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Take local steps from every point of a step's query; other queries are evaluated as without local steps."""
        if not query.request.is_step_gradient:
            return self.work(query, part, blocks)
        sums = [self._round(query.only([point]), part, blocks) for point in range(len(query.request.points))]
        return PartialSum.stacked(sums, sum(one.rows for one in sums))

    def _round(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Take the local steps of one round from the query's only point."""
        start, number = query.request.points[0], query.step
        transform = self.optimizer.transform.frozen_at(number)
        coef, state, seen = start, transform.init(start), list[PartialSum]()
        step = self.local_steps.first(number)
        with np.errstate(over="ignore", invalid="ignore"):  # the loop reports divergence
            for batch in range(step, step + self.local_steps.length(number)):
                sums = self.work(Query(Gradients(coef[None]), batch, query.held_out), part, blocks)
                if sums.weight[0] > 0:  # a small batch may leave this partition out
                    gradient = sums.gradient[0] / sums.weight[0] + self.penalty.gradient(coef)
                    change, state = transform.update(gradient, state, coef)
                    coef = coef + change
                    seen.append(replace(sums, gradient=EMPTY))
            update = start - transform.finish(state, coef) - self.penalty.gradient(start)
        weight, rows = sum((sums.weight for sums in seen), np.zeros(1)), sum(sums.rows for sums in seen)
        loss = seen[0].loss * (weight / seen[0].weight) if seen else np.zeros(1)
        return PartialSum(loss, weight * update[None], weight, rows)


EMPTY = np.zeros((1, 0))


@dataclass(frozen=True)
class Validated:
    """Another work, and in the same pass the loss of the validation rows, without penalty.

    Parameters
    ----------
    work : Work
        What is done with the training rows.
    interval : int, default 1
        Steps from one validation evaluation to the next: a mini-batch costs little, all validation rows may not.
    """

    work: Work
    interval: int = 1

    def __post_init__(self) -> None:
        check("interval", self.interval, Interval(1, None, whole=True))

    @property
    def objective(self) -> Objective:
        """That of the other work."""
        return self.work.objective

    @property
    def is_exact(self) -> bool:
        """As the other work."""
        return self.work.is_exact

    @property
    def share(self) -> float:
        """That of the other work."""
        return self.work.share

    @property
    def is_local(self) -> bool:
        """As the other work."""
        return self.work.is_local

    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Sum over training and validation rows."""
        sums = self.work(query, part, blocks)
        if isinstance(query.request, HessianProducts) or query.step % self.interval:
            return sums
        found = evaluate(self.objective, replace(query, request=Losses(query.request.points)), blocks.validation())
        rows = sums.rows + found.rows
        return replace(sums, validation_loss=found.loss, validation_weight=found.weight, rows=rows)
