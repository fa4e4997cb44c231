"""Where the training loop runs: on the driver, with resident tasks, on the ranks of an all-reduce, or in one task.

``base`` says what an engine is, and ``selection`` has the table of engines and chooses the cheapest: start there.
``driver``, ``resident``, ``allreduce`` and ``local`` have one engine each, and ``explain`` predicts a fit by a
``profile`` of the data. The other modules are their parts: ``reduction`` adds sums on executors, ``ranks`` runs the
loop on ranks, ``worker_pool`` keeps tasks alive, ``job`` runs a Spark job in a thread, and ``relay`` runs callbacks
in the driver.

Imports the packages up to ``checkpoint`` and ``launch``. Names are loaded when they are first used, so that a task
imports only what it runs.

To add an engine, write a subclass of :class:`Engine` in a module of its own and list it in ``selection.ENGINES``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparkopt.engines.allreduce import AllReduceEngine
    from sparkopt.engines.base import Engine, EngineRun, FitSize, SessionTraits
    from sparkopt.engines.driver import DriverEngine
    from sparkopt.engines.explain import FitPlan
    from sparkopt.engines.local import LocalEngine
    from sparkopt.engines.profile import DataProfile
    from sparkopt.engines.resident import ResidentEngine
    from sparkopt.engines.selection import ENGINES, AutoEngine, EngineChoice, by_name, choose

__all__ = [
    "ENGINES",
    "AllReduceEngine",
    "AutoEngine",
    "DataProfile",
    "DriverEngine",
    "Engine",
    "EngineChoice",
    "EngineRun",
    "FitPlan",
    "FitSize",
    "LocalEngine",
    "ResidentEngine",
    "SessionTraits",
    "by_name",
    "choose",
]

_MODULES = {
    "AllReduceEngine": "allreduce",
    "DataProfile": "profile",
    "DriverEngine": "driver",
    "Engine": "base",
    "EngineRun": "base",
    "FitPlan": "explain",
    "FitSize": "base",
    "LocalEngine": "local",
    "ResidentEngine": "resident",
    "SessionTraits": "base",
}
"""Where a name stands; those that are not listed are in ``selection``."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name in __all__:
        return getattr(import_module(f"sparkopt.engines.{_MODULES.get(name, 'selection')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
