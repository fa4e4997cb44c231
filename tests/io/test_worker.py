"""Workers of Spark do not look for garbage among modules, after every task anew."""

from __future__ import annotations

import gc
import sys
import types

from pyspark.sql import functions as F

from sparkopt import BlockStore, Columns
from sparkopt.io import worker
from sparkopt.validation import Interval


def test_modules_are_exempt_when_there_are_more_of_them(monkeypatch):
    frozen = []
    monkeypatch.setattr(worker, "_exempt", 0)
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(len(sys.modules)))
    worker.exempt_modules_from_collection()
    worker.exempt_modules_from_collection()
    assert frozen == [len(sys.modules)]
    monkeypatch.setitem(sys.modules, "loaded_by_a_task", types.ModuleType("loaded_by_a_task"))
    worker.exempt_modules_from_collection()
    assert frozen == [len(sys.modules) - 1, len(sys.modules)]


def test_tasks_exempt_them(spark):
    rows = spark.range(10).select(F.array(F.rand(0)).alias("features"), F.lit(1.0).alias("label"))
    with BlockStore.write(rows, Columns("features", "label"), Interval()) as store:
        exempt = [result.value for result in store.collect(lambda part, blocks: gc.get_freeze_count())]
    assert min(exempt) > 10_000
