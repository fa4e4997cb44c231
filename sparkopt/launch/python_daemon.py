"""Spark's Python daemon, with the modules that sparkopt's tasks need already imported.

Spark forks its Python workers from a daemon. A worker of the plain one imports NumPy, Arrow and sparkopt in
its first task, which takes most of a second of a core, and each time that a task fails or a worker was idle for a
minute the next one does so again. Forks of this daemon have them: they start in milliseconds, and share the memory.

``session`` chooses this daemon in local mode; ``spark.python.daemon.module`` does elsewhere, where sparkopt is
installed on the executors.
"""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["MODULE", "can_be_started", "main"]

MODULE = "sparkopt.launch.python_daemon"
"""The value of ``spark.python.daemon.module``."""

PRELOADED = (
    "pyspark.worker",
    "pyarrow.compute",
    "threadpoolctl",
    "sparkopt.engines.driver",
    "sparkopt.engines.local",
    "sparkopt.engines.resident",
    "sparkopt.optim.aliases",  # all optimisers, for loops that run in a task
)
"""Modules that the tasks of a fit import, and no others: neither pandas nor SciPy, PyTorch, Horovod or OpenCV."""

_FIND = "import importlib.util as u; found = u.find_spec('sparkopt'); print(found.origin if found else '')"


def can_be_started(python: str) -> bool:
    """Whether this interpreter, started from here, finds the sparkopt that this process has imported.

    It does not where a script or ``--py-files`` put sparkopt on the path of this process alone.
    """
    if python != sys.executable:
        return False
    run = subprocess.run([python, "-c", _FIND], capture_output=True, text=True, check=False)  # noqa: S603
    return run.returncode == 0 and Path(run.stdout.strip()).parent == Path(__file__).parents[1]


def main() -> None:
    """Import, then serve Spark's JVM until it ends."""
    for name in PRELOADED:
        importlib.import_module(name)
    import numpy as np
    from pyspark.daemon import manager

    os.register_at_fork(after_in_child=np.random.seed)  # else all workers would draw the same numbers
    gc.collect()
    gc.freeze()  # what was imported stays: each task ends with a collection, which need not look at it
    manager()


if __name__ == "__main__":
    main()
