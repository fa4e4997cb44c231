"""Tables that need no Spark: rows that Arrow can read on this machine, in named partitions.

``Table.of`` in ``table`` takes what users have: ``memory`` makes tables of arrays, ``listing`` finds files,
``parquet`` cuts them into partitions. A ``TablePart`` in ``part`` yields its rows as Arrow batches, in whichever
process it is used. The package imports ``io`` and what that imports; nothing here knows Spark. Start with ``table``.
"""

from sparkopt.machine.part import TablePart
from sparkopt.machine.table import Table

__all__ = ["Table", "TablePart"]
