"""The objective of a linear model over rows: queries, the arithmetic of a pass, what a partition does in a step.

``linear`` is the model: loss, features, intercept and scaling. ``query`` is what one pass evaluates (a request of
`sparkopt.optim`, a step, held-out folds) and the ``PartialSum`` that it returns. ``evaluate`` in ``cross_validation``
sums an objective over blocks, by the arithmetic in ``kernels``; a ``Work`` decides on which rows, and whether a
partition takes local steps. It imports the ground, ``io``, ``losses``, ``penalties``, ``codecs``, ``blocks`` and
``optim``. Start with ``query``, then ``work``.
"""

from sparkopt.objective.cross_validation import FoldedObjective, Objective, evaluate
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.row_sample import RowSpacing
from sparkopt.objective.work import FullGradient, LocalSteps, LocalUpdate, MiniBatch, Validated, Work

__all__ = [
    "FoldedObjective",
    "FullGradient",
    "LinearObjective",
    "LocalSteps",
    "LocalUpdate",
    "MiniBatch",
    "Objective",
    "PartialSum",
    "Query",
    "RowSpacing",
    "Validated",
    "Work",
    "evaluate",
]
