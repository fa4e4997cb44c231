"""Cross-validation in shared passes: many models over the same rows, each of which does not see one fold.

The rows of a fold are in blocks of their own, so no row is ever masked: a block is evaluated only at the points that
see it. Of k folds a model so reads k − 1, as it would alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import TypeAlias

from sparkopt.blocks.block import Block
from sparkopt.objective import kernels
from sparkopt.objective.hessians import HessianSum, packed_total
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.row_sample import EACH_ROW, RowSpacing
from sparkopt.optim.request import Hessians
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["FoldedObjective", "Objective", "evaluate"]


@dataclass(frozen=True)
class FoldedObjective:
    """The objective of models that each see all folds of the rows but the one that the query holds out for them.

    Parameters
    ----------
    objectives : mapping of (int or None) to LinearObjective
        By the fold that is held out, None for none: one loss, in the coordinates that the other folds' rows give.

    Examples
    --------
    Two models of the mean, each without one of two folds: the first sees 1 and 3, the second 10.

    >>> import numpy as np
    >>> from sparkopt.losses import SquaredError
    >>> from sparkopt.optim import Gradients
    >>> blocks = [Block(np.zeros((len(y), 1)), np.array(y), fold=fold) for fold, y in enumerate([[10.0], [1.0, 3.0]])]
    >>> mean = LinearObjective(SquaredError(), features=1)
    >>> query = Query(Gradients(np.zeros((2, 2))), held_out=[0, 1])
    >>> sums = evaluate(FoldedObjective({0: mean, 1: mean}), query, blocks)
    >>> sums.mean()[1][:, 1], sums.weight, sums.rows
    (array([ -2., -10.]), array([2., 1.]), 3)
    """

    objectives: Mapping[int | None, LinearObjective]

    @property
    def size(self) -> int:
        """Length of a coefficient vector."""
        return next(iter(self.objectives.values())).size

    def pull_back(self, gradient: Floats, held_out: Sequence[int | None] | None = None) -> Floats:
        """Apply the chain rule of every point's own coordinates to a sum of gradients, in place."""
        unseen = held_out or [None] * len(gradient)
        for fold in set(unseen):
            points = [point for point, other in enumerate(unseen) if other == fold]
            gradient[points] = self.objectives[fold].pull_back(gradient[points])
        return gradient


Objective: TypeAlias = LinearObjective | FoldedObjective
"""The objectives that can be summed over blocks."""


def evaluate(
    objective: Objective, query: Query, blocks: Iterable[Block], spacing: RowSpacing = EACH_ROW
) -> PartialSum:
    """Return what the query asks for, summed over ``blocks``, which are sorted by fold where there are any.

    Hessians are of one row of so many as ``spacing`` says.
    """
    if isinstance(objective, LinearObjective):
        return kernels.evaluate([objective] * len(query.request.points), query, blocks, spacing)
    folds, rows, request = query.folds, 0, query.request
    hessians = [HessianSum(objective.objectives[fold]) for fold in folds] if isinstance(request, Hessians) else []
    total = PartialSum.zero(len(folds), objective.size) if hessians else query.zero()
    for fold, some in groupby(blocks, key=attrgetter("fold")):
        seeing = [point for point, unseen in enumerate(folds) if unseen != fold]
        if seeing:
            own = [objective.objectives[folds[point]] for point in seeing]
            if hessians:
                their = [hessians[point] for point in seeing]
                found = kernels.with_hessians(own, request.points[seeing], some, their, spacing)
            else:
                found = kernels.evaluate(own, query.only(seeing), some, spacing)
            total.loss[seeing] += found.loss
            total.gradient[seeing] += found.gradient
            total.weight[seeing] += found.weight
            rows += found.rows
    gradient = packed_total(total.gradient, hessians) if hessians else total.gradient
    return replace(total, gradient=gradient, rows=rows)
