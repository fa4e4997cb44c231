"""Work: what one partition does in one step. Deterministic in (seed, step, partition), so a retry changes nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sparkopt.blocks.block import Block, Blocks, every, take
from sparkopt.objective import LinearObjective, PartialSum, Query
from sparkopt.typing import Seed
from sparkopt.validation import Interval, check

__all__ = ["FullGradient", "MiniBatch", "Part", "Validated", "Work"]


@dataclass(frozen=True)
class Part:
    """Which partition this is.

    Attributes
    ----------
    index : int
        Number of the partition.
    first_row : int
        Rows in all partitions before it.
    """

    index: int
    first_row: int


class Work(ABC):
    """One partition's contribution to one step.

    Attributes
    ----------
    is_exact : bool
        Every row takes part in every step, so objectives of different steps compare.
    share : float
        Share of the rows that a step reads.
    """

    objective: LinearObjective
    is_exact: bool
    share: float = 1.0

    @abstractmethod
    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Return the partition's sums at every place of the query."""


@dataclass(frozen=True)
class FullGradient(Work):
    """Every row."""

    objective: LinearObjective
    is_exact = True

    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Sum over all rows."""
        return self.objective.answer(query, every(blocks))


@dataclass(frozen=True)
class MiniBatch(Work):
    """A fresh random share of the rows at each step; its cost grows with the share, not with the data.

    Partitions agree without talking: batch boundaries are ⌊fraction · rows before + u⌋ with one u in [0, 1) per step
    (systematic sampling), so a step draws ⌊fraction · rows⌋ or one more rows in all, every row with equal
    probability. Within its partition a step draws without replacement.

    Parameters
    ----------
    objective : LinearObjective
        What to sum.
    fraction : float
        Share of the rows, in (0, 1].
    seed : int, default 0
        With step and partition it determines the rows.
    """

    objective: LinearObjective
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
        rows = every(blocks) if query.every_row else self._draw(query.step, part, blocks)
        return self.objective.answer(query, rows)

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


@dataclass(frozen=True)
class Validated(Work):
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

    @property
    def objective(self) -> LinearObjective:  # type: ignore[override]  # derived here, stored elsewhere
        """That of the other work."""
        return self.work.objective

    @property
    def is_exact(self) -> bool:  # type: ignore[override]  # derived here, stored elsewhere
        """As the other work."""
        return self.work.is_exact

    def __call__(self, query: Query, part: Part, blocks: Blocks) -> PartialSum:
        """Sum over training and validation rows."""
        sums = self.work(query, part, blocks)
        if query.vectors is not None or query.step % self.interval:
            return sums
        loss, weight, rows = self.objective.losses(query.coefs, blocks.validation())
        return replace(sums, validation_loss=loss, validation_weight=weight, rows=sums.rows + rows)
