"""Rows on shared storage, as shards that ranks read in a shuffled order.

Tasks write a DataFrame's or a table's columns as dense arrays, once (``store``); ``fields`` says which columns these
are, ``held_out`` which rows are put aside, and ``index`` what has been written. A rank then reads its share of an
epoch (``sampler``, ``groups``). Nothing here knows a framework of networks.

Imports the packages up to ``blocks``. Start reading at ``store``, then ``sampler``.
"""

from __future__ import annotations

from sparkopt.shards.sampler import EpochSampler, GroupSlice, ShuffleWindow

__all__ = ["EpochSampler", "GroupSlice", "ShuffleWindow"]
