"""PyFlink on this machine: an environment, tables of pandas DataFrames, and the processes of Python functions."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import pyarrow as pa


def environment(mode: str = "batch", place: Mapping[str, str] = MappingProxyType({})) -> Any:
    """An environment whose jobs run one task at a time, in this process's JVM or elsewhere: rows keep their order."""
    with warnings.catch_warnings():  # of what PyFlink imports
        warnings.simplefilter("ignore")
        from pyflink.common import Configuration
        from pyflink.table import EnvironmentSettings, TableEnvironment

        settings = EnvironmentSettings.new_instance().with_configuration(Configuration.from_dict(dict(place)))
        settings = settings.in_batch_mode() if mode == "batch" else settings.in_streaming_mode()
        tables = TableEnvironment.create(settings.build())
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


def workers_below(ancestor: int) -> set[int]:
    """The processes of Python functions that a process has started, itself or by others."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes().split(b"\0")
            if b"pyflink.fn_execution.beam.beam_boot" in title and ancestor in _ancestors(process):
                found.add(int(process.name))
        except OSError:  # it has ended
            continue
    return found


def _ancestors(process: Path) -> list[int]:
    found = []
    while process.name not in ("0", "1"):
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        found.append(int(parent))
        process = process.parent / parent
    return found
