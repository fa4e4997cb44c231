"""Rows as arrays: what a block is, how columns become blocks, and where blocks are kept.

``BlockStore.write`` in ``store`` writes a DataFrame's rows as memory-mapped files (``files``), one a partition. They
come from Parquet files that the tasks read themselves (``parquet``), where ``scan`` finds that a DataFrame is no more
than these (``filters`` has its conditions), else from Spark (its Vectors as ``vectors`` has them). A ``Reader`` in
``columns`` checks each value; ``layout`` makes blocks of the rows, and ``moments`` are gathered on the way
(``summaries`` adds them up). ``digest`` tells whether rows that are read again are the same. ``tasks`` is what runs
on the executors, whose own disks ``local`` keeps tidy; ``backend`` is who runs it: ``classic``, ``connect`` or
``machine``, which needs no session: it takes a `sparkopt.Table`, whose columns ``tables`` names as Spark would.
``encoded`` are DataFrames whose features the tasks compute of raw columns, and ``chunks`` results of tasks as rows.
``block``, ``files``, ``layout`` and ``moments`` need no Spark.
It imports the ground, ``io`` and ``machine`` only. Start with ``block``, then ``store``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparkopt.blocks.block import NO_FOLD, Block, Blocks, InMemoryBlocks, Part
from sparkopt.blocks.moments import Moments

__all__ = [
    "NO_FOLD",
    "Backend",
    "Block",
    "BlockStore",
    "Blocks",
    "Columns",
    "FeatureEncoder",
    "Handle",
    "InMemoryBlocks",
    "KnownRows",
    "LabelCombiner",
    "Located",
    "Moments",
    "OpenInTask",
    "OpenPartition",
    "Part",
    "PartFunction",
    "PartitionSummary",
    "Result",
    "Shared",
    "TaskFunction",
]

if TYPE_CHECKING:
    from sparkopt.blocks.backend import Backend, Shared
    from sparkopt.blocks.columns import Columns, FeatureEncoder, LabelCombiner
    from sparkopt.blocks.handles import Handle, KnownRows
    from sparkopt.blocks.store import BlockStore
    from sparkopt.blocks.summaries import PartitionSummary
    from sparkopt.blocks.tasks import Located, OpenInTask, OpenPartition, PartFunction, Result, TaskFunction

_ON_SPARK = {
    "Backend": "backend",
    "BlockStore": "store",
    "Columns": "columns",
    "FeatureEncoder": "columns",
    "LabelCombiner": "columns",
    "Handle": "handles",
    "KnownRows": "handles",
    "Located": "tasks",
    "OpenInTask": "tasks",
    "OpenPartition": "tasks",
    "PartFunction": "tasks",
    "PartitionSummary": "summaries",
    "Result": "tasks",
    "Shared": "backend",
    "TaskFunction": "tasks",
}


def __getattr__(name: str) -> Any:
    """Load Spark only for the names that need it: optimisers and objectives know blocks, but not Spark."""
    if name in _ON_SPARK:
        return getattr(import_module(f"sparkopt.blocks.{_ON_SPARK[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
