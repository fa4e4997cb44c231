"""What shortens tasks in Spark's Python workers."""

from __future__ import annotations

import gc
import sys

__all__ = ["spare_modules"]


class _Spared:
    """How many modules are spared."""

    modules = 0


def spare_modules() -> None:
    """Spare this worker's later garbage collections what is imported by now; tasks call this as they begin.

    Spark's Python workers collect garbage after each task. With NumPy, pandas, Arrow and sparkopt imported, that
    takes some 50 ms, many times what a step on a small partition does. Outside of Spark's workers nothing changes.

    Examples
    --------
    >>> spare_modules()
    """
    if len(sys.modules) > _Spared.modules and _in_a_task():
        _Spared.modules = len(sys.modules)
        gc.freeze()


def _in_a_task() -> bool:
    pyspark = sys.modules.get("pyspark")  # tasks have imported it
    return pyspark is not None and pyspark.TaskContext.get() is not None
