"""PyFlink on this machine: an environment, tables of pandas DataFrames, and the processes of Python functions."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa


def environment(mode: str = "batch") -> Any:
    """An environment whose jobs run in this process's JVM, one task at a time: rows keep their order."""
    with warnings.catch_warnings():  # of what PyFlink imports
        warnings.simplefilter("ignore")
        from pyflink.table import EnvironmentSettings, TableEnvironment

        settings = EnvironmentSettings.in_batch_mode() if mode == "batch" else EnvironmentSettings.in_streaming_mode()
        tables = TableEnvironment.create(settings)
    tables.get_config().set("parallelism.default", "1")
    tables.get_config().set("python.executable", sys.executable)
    return tables


def table_of(tables: Any, frame: pd.DataFrame) -> Any:
    """A Table of a DataFrame's rows in their order, which are its attribute ``made_of``."""
    from pyflink.table.types import DataTypes, from_arrow_type

    rows = _plain(pa.Table.from_pandas(frame, preserve_index=False))
    kind = DataTypes.ROW([DataTypes.FIELD(field.name, from_arrow_type(field.type)) for field in rows.schema])
    columns = [[_value(value) for value in column.to_pylist()] for column in rows.columns]
    found = tables.from_elements(list(zip(*columns, strict=True)), kind)
    found.made_of = rows
    return found


def _plain(rows: pa.Table) -> pa.Table:
    """Rows without pandas' names of types, which pandas cannot read back of lists, and of types that Flink knows."""
    fields = [
        pa.field(field.name, pa.string() if pa.types.is_large_string(field.type) else field.type)
        for field in rows.schema
    ]
    return rows.cast(pa.schema(fields)).replace_schema_metadata()


def _value(value: Any) -> Any:
    """A value as PyFlink takes it: a struct is a Row."""
    from pyflink.common import Row

    return Row(*value.values()) if isinstance(value, dict) else value


def rows_of(table: Any) -> pd.DataFrame:
    """The rows of a Table."""
    return table.to_pandas()


def workers() -> set[int]:
    """The processes of Python functions that this process's JVM has started."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"pyflink.fn_execution.beam.beam_boot" in (process / "cmdline").read_bytes():
                found |= {int(process.name)} if os.getpid() in _ancestors(process) else set()
        except OSError:  # it has ended
            continue
    return found


def kill_the_next(before: set[int]) -> None:
    """Kill a process of a Python function that was not there before, once there is one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if new := workers() - before:
            os.kill(new.pop(), signal.SIGKILL)
            return
        time.sleep(0.05)


def _ancestors(process: Path) -> list[int]:
    found = []
    while process.name not in ("0", "1"):
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        found.append(int(parent))
        process = process.parent / parent
    return found
