"""Parquet files of rows: row groups and dictionaries, as their own footers say."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from sparkopt.machine import writing
from sparkopt.machine.writing import ParquetOutput

NUMBERS = pa.array([0.5, 0.25, 0.5])
COLUMNS = {
    "number": (NUMBERS, True),
    "text": (pa.array(["a", "b", "a"]), True),
    "scores": (pa.array([[0.5, 1.0], None, []], pa.list_(pa.float64())), False),
    "narrow": (pa.array([[0.5], [], None], pa.large_list(pa.float32())), False),
    "fixed": (pa.array([[0.5, 1.0]] * 3, pa.list_(pa.float64(), 2)), False),
    "words": (pa.array([["a"], ["a", "b"], []]), True),
    "named": (pa.array([{"a": 1, "b": "x"}] * 3), True),
    "inside": (pa.array([[{"a": 1.5}]] * 3), False),
    "map": (pa.array([[("a", 1.5)]] * 3, pa.map_(pa.string(), pa.float64())), True),
}


def written(table: pa.Table, rows: int) -> parquet.ParquetFile:
    stream = io.BytesIO()
    with ParquetOutput(stream, table.schema) as output:
        for batch in table.to_batches(max_chunksize=rows):
            output.write_batch(batch)
    stream.seek(0)
    return parquet.ParquetFile(stream)


@pytest.mark.parametrize("name", COLUMNS)
def test_floats_in_lists_have_no_dictionary_and_all_else_has(name):
    column, has_dictionary = COLUMNS[name]
    table = pa.table({name: column, "scores too": COLUMNS["scores"][0]})
    file = written(table, 3)
    assert file.read().to_pylist() == table.to_pylist()
    group = file.metadata.row_group(0)
    found = {group.column(i).path_in_schema: group.column(i).has_dictionary_page for i in range(group.num_columns)}
    assert found.pop("scores too.list.element") is False
    assert found
    assert set(found.values()) == {has_dictionary}


def test_row_groups_are_of_many_rows_whatever_the_batches(monkeypatch):
    monkeypatch.setattr(writing, "GROUP", 100)
    table = pa.table({"number": np.arange(250)})
    file = written(table, 7)
    assert file.read().equals(table)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [105, 105, 40]
    monkeypatch.setattr(writing, "GROUP_BYTES", 8 * 20)
    assert written(table, 7).num_row_groups == 12
