"""Train models on data that lives in Spark, with less compute, memory and network.

Estimators with pyspark.ml's interface are in :mod:`sparkopt.ml`, networks in :mod:`sparkopt.deep`, and image
preprocessing in :mod:`sparkopt.images`. To choose every part of a fit yourself, combine :mod:`~sparkopt.losses`,
:mod:`~sparkopt.optim`, :mod:`~sparkopt.penalties` and an engine in a :class:`Trainer`, and fit it to a
:class:`BlockStore`.

``import sparkopt`` loads neither Spark nor NumPy, and starts no session: each name is loaded when it is first used.

Examples
--------
>>> from sparkopt import BlockStore, Columns, Stop, Trainer, losses, optim, penalties
>>> loss = losses.Logistic()
>>> with BlockStore.write(df, Columns("features", "label"), loss.targets) as store:
...     fit = Trainer(loss, optim.lbfgs(), penalties.L2(0.01), Stop(max_iter=50)).fit(store)
>>> fit.coefficients.shape
(3, 1)
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparkopt import (
        blocks,
        checkpoint,
        codecs,
        communication,
        deep,
        engines,
        errors,
        features,
        images,
        integrations,
        io,
        jobs,
        launch,
        losses,
        machine,
        ml,
        objective,
        optim,
        penalties,
        report,
        shards,
        solver,
        training,
        typing,
        validation,
    )
    from sparkopt.blocks.columns import Columns
    from sparkopt.blocks.store import BlockStore
    from sparkopt.checkpoint.checkpointer import Checkpointer
    from sparkopt.engines.allreduce import AllReduceEngine
    from sparkopt.engines.base import Engine
    from sparkopt.engines.driver import DriverEngine
    from sparkopt.engines.local import LocalEngine
    from sparkopt.engines.resident import ResidentEngine
    from sparkopt.engines.selection import AutoEngine
    from sparkopt.launch.session import session
    from sparkopt.machine.table import Table
    from sparkopt.objective.linear import LinearObjective
    from sparkopt.objective.query import PartialSum
    from sparkopt.objective.work import LocalSteps
    from sparkopt.report.deep import DeepReceipt
    from sparkopt.report.load import load_receipt
    from sparkopt.report.receipt import Receipt
    from sparkopt.solver.callbacks import TimeBudget
    from sparkopt.solver.loop import minimise
    from sparkopt.solver.problem import Problem, Solution
    from sparkopt.solver.progress import Callback, Progress, Record, Stop
    from sparkopt.training.trainer import Fit, Trainer, fit_many

if find_spec("pyspark") is None:  # pip knows no alternatives, so no requirement can name those that there are
    from sparkopt.errors import MissingDependencyError

    raise MissingDependencyError(
        "sparkopt needs Spark's Python package. Install one of: pyspark (sparkopt's extra 'spark'), pyspark-client, "
        "databricks-connect; or put Spark's own on the path: $SPARK_HOME/python."
    )

__version__ = "0.1.0"
"""Version of the package."""

__path__ += [f"{folder}/integrations/former" for folder in __path__]  # earlier MLflow models name sparkopt.pyfunc

__all__ = [
    "AllReduceEngine",
    "AutoEngine",
    "BlockStore",
    "Callback",
    "Checkpointer",
    "Columns",
    "DeepReceipt",
    "DriverEngine",
    "Engine",
    "Fit",
    "LinearObjective",
    "LocalEngine",
    "LocalSteps",
    "PartialSum",
    "Problem",
    "Progress",
    "Receipt",
    "Record",
    "ResidentEngine",
    "Solution",
    "Stop",
    "Table",
    "TimeBudget",
    "Trainer",
    "__version__",
    "blocks",
    "checkpoint",
    "codecs",
    "communication",
    "deep",
    "engines",
    "errors",
    "features",
    "fit_many",
    "images",
    "integrations",
    "io",
    "jobs",
    "launch",
    "load_receipt",
    "losses",
    "machine",
    "minimise",
    "ml",
    "objective",
    "optim",
    "penalties",
    "report",
    "session",
    "shards",
    "solver",
    "training",
    "typing",
    "validation",
]

_HOMES = {
    "AllReduceEngine": "engines.allreduce",
    "AutoEngine": "engines.selection",
    "BlockStore": "blocks.store",
    "Callback": "solver.progress",
    "Checkpointer": "checkpoint.checkpointer",
    "Columns": "blocks.columns",
    "DeepReceipt": "report.deep",
    "DriverEngine": "engines.driver",
    "Engine": "engines.base",
    "Fit": "training.trainer",
    "LinearObjective": "objective.linear",
    "LocalEngine": "engines.local",
    "LocalSteps": "objective.work",
    "PartialSum": "objective.query",
    "Problem": "solver.problem",
    "Progress": "solver.progress",
    "Receipt": "report.receipt",
    "Record": "solver.progress",
    "ResidentEngine": "engines.resident",
    "Solution": "solver.problem",
    "Stop": "solver.progress",
    "Table": "machine.table",
    "TimeBudget": "solver.callbacks",
    "Trainer": "training.trainer",
    "fit_many": "training.trainer",
    "load_receipt": "report.load",
    "minimise": "solver.loop",
    "session": "launch.session",
}
"""The module of each name; the names of ``__all__`` that are not here are modules themselves."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name in _HOMES:
        return getattr(import_module(f"sparkopt.{_HOMES[name]}"), name)
    if name in __all__:
        return import_module(f"sparkopt.{name}")
    raise AttributeError(f"module 'sparkopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
