"""One machine, without Spark: tables of rows that Arrow can read, and worker processes that compute on them.

``Table.of`` in ``table`` takes what users have: ``memory`` makes tables of arrays, ``listing`` finds files,
``parquet`` cuts them into partitions. A ``TablePart`` in ``part`` yields its rows as Arrow batches, in whichever
process it is used.

``ProcessPool`` in ``pool`` gives the items of a ``runs.Run`` to ``workers``, each a thread that owns one ``process``
and speaks with it over pipes (``messages``); ``worker`` is what runs there. ``shared`` values are sent once.
Where a framework's workers hold the rows, a table has a ``Cluster``: ``on_dask``, ``on_ray``; ``on_flink`` brings
rows here.

``limits`` is what this process may use of the machine, ``folders`` where it keeps files that must not outlive it.

The package imports ``io`` and what that imports; nothing here knows Spark. Start with ``table``, then ``pool``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "Cluster",
    "CsvFormat",
    "ProcessPool",
    "SharedValue",
    "Table",
    "TablePart",
    "available_cores",
    "available_memory",
]

if TYPE_CHECKING:
    from sparkopt.machine.cluster import Cluster
    from sparkopt.machine.csv_format import CsvFormat
    from sparkopt.machine.limits import available_cores, available_memory
    from sparkopt.machine.part import TablePart
    from sparkopt.machine.pool import ProcessPool
    from sparkopt.machine.shared import SharedValue
    from sparkopt.machine.table import Table

_HOMES = {
    "Cluster": "cluster",
    "CsvFormat": "csv_format",
    "ProcessPool": "pool",
    "SharedValue": "shared",
    "Table": "table",
    "TablePart": "part",
    "available_cores": "limits",
    "available_memory": "limits",
}


def __getattr__(name: str) -> Any:
    """Load a name when it is first used: a worker starts sooner without the others."""
    if name in _HOMES:
        return getattr(import_module(f"sparkopt.machine.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
