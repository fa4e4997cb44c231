"""The training loop, what it minimises, and what it reports after each step.

``minimise`` in ``loop`` is the one loop: it knows only ``reduce(query) → PartialSum``. ``problem`` has what one model
asks of it and where it ended, ``progress`` the records, snapshots and stop rules, ``callbacks`` what can watch and
stop a fit, ``compatibility`` which choices work together. It imports the ground, ``io``, ``losses``, ``penalties``,
``codecs``, ``blocks``, ``optim`` and ``objective``. Start with ``loop``.
"""

from sparkopt.solver.callbacks import History, MLflowLogger, ProgressBar, TimeBudget
from sparkopt.solver.compatibility import Method, check_compatible
from sparkopt.solver.loop import Reduce, minimise, minimise_many
from sparkopt.solver.problem import Problem, Solution
from sparkopt.solver.progress import Callback, Progress, Record, Snapshot, Stop

__all__ = [
    "Callback",
    "History",
    "MLflowLogger",
    "Method",
    "Problem",
    "Progress",
    "ProgressBar",
    "Record",
    "Reduce",
    "Snapshot",
    "Solution",
    "Stop",
    "TimeBudget",
    "check_compatible",
    "minimise",
    "minimise_many",
]
