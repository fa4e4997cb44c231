"""sparkopt: train models on data that lives in Spark, with less compute, memory and network.

Nothing heavy is imported, and no SparkSession started, until a name below is used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

__path__ += [f"{folder}/integrations/former" for folder in __path__]  # MLflow models of before name sparkopt.pyfunc

_LAZY = {
    "BlockStore": "sparkopt.blocks.store",
    "Columns": "sparkopt.blocks.columns",
    "Receipt": "sparkopt.report",
    "Stop": "sparkopt.solver.loop",
    "Trainer": "sparkopt.training.trainer",
    "minimise": "sparkopt.solver.loop",
    "session": "sparkopt.launch.session",
}
_MODULES = ("codecs", "deep", "errors", "images", "losses", "ml", "optim", "penalties")

__all__ = ["__version__", *_LAZY, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"sparkopt.{name}")
    raise AttributeError(f"module 'sparkopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
