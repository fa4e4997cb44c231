"""Cross-validation in shared passes: many models over the same rows, each of which does not see one fold.

The rows of a fold lie in blocks of their own, so no row is ever masked: for every block, the places that see it are
computed, and only they. Of k folds a model so reads k − 1, as it would alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import TypeAlias

from sparkopt.blocks.block import Block
from sparkopt.objective import kernels
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.typing import Floats

__all__ = ["FoldedObjective", "Objective"]


@dataclass(frozen=True)
class FoldedObjective:
    """Sums over the rows that each place sees: those of all folds but the one that the query holds out for it.

    Parameters
    ----------
    objectives : mapping of (int or None) to LinearObjective
        By the fold that is held out, None for none: one loss, in the coordinates that the other folds' rows give.

    Examples
    --------
    Two models of the mean, each without one of two folds: the first sees 1 and 3, the second 10.

    >>> import numpy as np
    >>> from sparkopt.losses import SquaredError
    >>> blocks = [Block(np.zeros((len(y), 1)), np.array(y), fold=fold) for fold, y in enumerate([[10.0], [1.0, 3.0]])]
    >>> mean = LinearObjective(SquaredError(), features=1)
    >>> sums = FoldedObjective({0: mean, 1: mean}).answer(Query(np.zeros((2, 2)), held_out=[0, 1]), blocks)
    >>> sums.mean()[1][:, 1], sums.weight, sums.rows
    (array([ -2., -10.]), array([2., 1.]), 3)
    """

    objectives: Mapping[int | None, LinearObjective]

    @property
    def size(self) -> int:
        """Length of a coefficient vector."""
        return next(iter(self.objectives.values())).size

    def answer(self, query: Query, blocks: Iterable[Block]) -> PartialSum:
        """Return what the query asks for, summed over ``blocks``, which are sorted by fold."""
        held_out = query.held_out or [None] * len(query.coefs)
        total, rows = query.nothing(), 0
        for fold, some in groupby(blocks, key=attrgetter("fold")):
            seeing = [place for place, unseen in enumerate(held_out) if unseen != fold]
            if seeing:
                own = [self.objectives[held_out[place]] for place in seeing]
                found = kernels.answer(own, query.only(seeing), some)
                total.loss[seeing] += found.loss
                total.gradient[seeing] += found.gradient
                total.weight[seeing] += found.weight
                rows += found.rows
        return replace(total, rows=rows)

    def pull_back(self, gradient: Floats, held_out: Sequence[int | None] | None = None) -> Floats:
        """Apply the chain rule of every place's own coordinates to a sum of unscaled gradients, in place."""
        unseen = held_out or [None] * len(gradient)
        for fold in set(unseen):
            places = [place for place, other in enumerate(unseen) if other == fold]
            gradient[places] = self.objectives[fold].pull_back(gradient[places])
        return gradient


Objective: TypeAlias = LinearObjective | FoldedObjective
"""What can be summed over blocks."""
