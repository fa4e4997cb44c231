"""What shortens tasks in Spark's Python workers."""

from __future__ import annotations

import gc
import sys

__all__ = ["exempt_modules_from_collection"]

_exempt = 0


def exempt_modules_from_collection() -> None:
    """Exempt from garbage collection what this process has loaded. Tasks call this as they begin.

    A worker collects garbage after each task, before it takes another: with 100,000 objects of modules that takes
    some 50 ms, as long as a small task. They are not garbage, and Python need not look at them again.

    Examples
    --------
    >>> exempt_modules_from_collection()
    """
    global _exempt
    if len(sys.modules) > _exempt:  # Spark has just collected, so nothing but modules and this task's values is alive
        _exempt = len(sys.modules)
        gc.freeze()
