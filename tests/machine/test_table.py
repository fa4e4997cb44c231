"""Tables: what users have, as named partitions of Arrow rows."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from sparkopt import BlockStore, Columns
from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.machine import Table, parquet
from sparkopt.validation import Interval

X = np.arange(12, dtype=np.float32).reshape(4, 3)
y = np.array([0, 1, 1, 0])


def rows_of(table: Table, columns: list[str] | None = None) -> list[dict[str, object]]:
    """All rows, in order, each part sent through pickle as it would be to another process."""
    parts = pickle.loads(pickle.dumps(table.partitions))
    return [row for part in parts for batch in part.batches(columns) for row in batch.to_pylist()]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "bool"])
def test_arrays_keep_their_type_and_values(order, dtype):
    table = Table.of((np.asarray(X, dtype, order=order), y))
    assert table.schema.field("features").type.value_type == pa.from_numpy_dtype(np.dtype(dtype))
    assert [row["features"] for row in rows_of(table)] == X.astype(dtype).tolist()
    assert [row["label"] for row in rows_of(table)] == y.tolist()


def test_arrays_of_other_byte_orders_and_widths():
    table = Table.of((X.astype(">f4"), y.astype(np.longdouble)))
    assert [*table.schema.types] == [pa.list_(pa.float32(), 3), pa.float64()]
    assert [row["features"] for row in rows_of(table)] == X.tolist()


def test_arrays_in_c_order_are_not_copied():
    (part,) = Table.of((X, y)).partitions
    (batch,) = part.batches(["features"])
    assert batch.column("features").values.buffers()[1].address == X.ctypes.data


def test_sparse_rows_are_vectors():
    matrix = sparse.coo_matrix(([1.0, 2.0, 3.0], ([0, 0, 2], [2, 0, 1])), shape=(4, 3))
    first, second, *_ = rows_of(Table.of((matrix, y)), ["features"])
    assert first["features"] == {"type": 0, "size": 3, "indices": [0, 2], "values": [2.0, 1.0]}
    assert second["features"] == {"type": 0, "size": 3, "indices": [], "values": []}


def test_partitions_depend_on_the_rows_alone():
    """Sums are added by partition, so what these are decides the last bits of coefficients."""
    matrix = np.zeros((100_000, 100), np.float32)
    table = Table.of((matrix, np.zeros(len(matrix))))
    assert len(table.partitions) == 24
    assert table.rows == sum(part.rows for part in table.partitions) == 100_000
    assert table.partitions[1].name == "rows 4,166 to 8,332"
    chunked = pa.table({"a": pa.chunked_array([[1.0] * 30_000, [2.0] * 170_000])})
    assert [part.rows for part in Table.of(chunked).partitions] == [200_000]


def test_pandas_keeps_nan_and_leaves_out_the_index():
    frame = pd.DataFrame({"a": [1.0, np.nan], "b": ["x", None]}, index=[7, 8])
    first, second = rows_of(Table.of(frame))
    assert first == {"a": 1.0, "b": "x"}
    assert np.isnan(second["a"])
    assert second["b"] is None


def test_a_column_of_objects_is_refused_where_it_is_used():
    table = Table.of(pd.DataFrame({"a": [1.0, 2.0], "odd": [1, "z"]}))
    assert rows_of(table, ["a"]) == [{"a": 1.0}, {"a": 2.0}]
    with pytest.raises(SchemaError, match="column 'odd' cannot be read: object: "):
        rows_of(table)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of people by year, and names that Spark leaves out."""
    for year, scale in (("2024", 1.0), ("2025", 2.0)):
        (tmp_path / f"year={year}").mkdir()
        table = pa.table({"a": scale * np.arange(10.0), "b": list("abcdefghij")})
        pq.write_table(table, tmp_path / f"year={year}" / "part 50%.PARQUET", row_group_size=4)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part.crc").write_bytes(b"x")
    return tmp_path


def test_folders_of_parquet_files(folder):
    table = Table.of(folder)
    assert table.schema == pa.schema({"a": pa.float64(), "b": pa.string(), "year": pa.int32()})
    (part,) = table.partitions
    assert part.name == "year=2024/part 50%.PARQUET, row groups 0 to 2 and 1 more"
    assert (table.rows, part.rows) == (20, 20)
    rows = rows_of(table, ["year", "a"])
    assert rows[:2] == [{"year": 2024, "a": 0.0}, {"year": 2024, "a": 1.0}]
    assert rows[-1] == {"year": 2025, "a": 18.0}
    assert len(rows_of(Table.of([folder / "year=2024"]))) == 10
    assert len(rows_of(Table.of(f"{folder}/year=*/*.PARQUET"))) == 20
    assert len(rows_of(Table.of(f"{folder.as_uri()}/year=2024/part%2050%25.PARQUET"))) == 10
    assert len(rows_of(Table.of(f"{folder.as_uri()}/year=*/part*"))) == 20


def test_files_must_have_the_same_columns(tmp_path):
    pq.write_table(pa.table({"a": [1.0]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "2.parquet")
    with pytest.raises(SchemaError, match=r"column 'a' is int64 in 2\.parquet and double in 1\.parquet"):
        Table.of(tmp_path)
    pq.write_table(pa.table({"b": [1.0], "a": [1.0]}), tmp_path / "2.parquet")
    with pytest.raises(SchemaError, match=r"2\.parquet has a column 'b', which 1\.parquet has not"):
        Table.of(tmp_path)


def test_what_cannot_be_a_table_is_refused(tmp_path):
    refused = [
        (3, ParameterError, "Got a int instead"),
        ([], DataError, "the list of paths is empty"),
        (tmp_path / "no.parquet", DataError, "does not exist"),
        (tmp_path, DataError, "has no files of rows"),
        (str(tmp_path / "*.parquet"), DataError, "matches no file or folder"),
        ((X, y[:2]), DataError, "X has 4 rows and y has 2 labels"),
        ((X[0], y), DataError, r"X has shape \(3,\)"),
        (([[1, 2], [3]], [0, 1]), DataError, "X is no matrix"),
        ((X.astype(object), y), DataError, "X has type object"),
        ((np.ma.masked_less(X, 3), y), DataError, "X is a masked array with hidden entries"),
        (pd.DataFrame({1: [2]}), SchemaError, "a column 1; columns need names"),
    ]
    for data, kind, message in refused:
        with pytest.raises(kind, match=message):
            Table.of(data)
    (tmp_path / "rows.txt").write_text("x")
    with pytest.raises(SchemaError, match="an ending that is not known"):
        Table.of(tmp_path)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "v1.metadata.json").touch()
    with pytest.raises(DataError, match="is a table of Iceberg"):
        Table.of(tmp_path)
    (tmp_path / "metadata" / "v1.metadata.json").unlink()
    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(DataError, match="is a table of Delta"):
        Table.of(tmp_path)


def test_changed_files_are_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": [1.0]}), path)
    table = Table.of(path)
    pq.write_table(pa.table({"a": [1.0, 2.0]}), path)
    with pytest.raises(DataError, match=r"rows\.parquet was changed after the table was made"):
        rows_of(table)
    path.unlink()
    with pytest.raises(DataError, match=r"rows\.parquet is gone"):
        rows_of(table)


def test_a_large_row_group_is_shared_out(tmp_path, monkeypatch):
    rows = pa.table({"a": np.arange(1000.0), "b": np.arange(1000.0)})
    pq.write_table(rows, tmp_path / "rows.parquet", use_dictionary=False)
    monkeypatch.setattr(parquet, "LEAST", 1 << 11)
    monkeypatch.setattr(parquet, "MOST", 1 << 12)
    table = Table.of(tmp_path / "rows.parquet")
    assert [part.rows for part in table.partitions] == [250] * 4
    assert table.partitions[1].name == "rows.parquet, row group 0, rows 250 to 499"
    monkeypatch.setattr("sparkopt.machine.part.BATCH", 60)
    assert rows_of(table) == rows.to_pylist()
    with BlockStore.write(table, Columns(["a"], "b"), Interval()) as store:
        assert store.rows == [250] * 4
        sums = store.collect(lambda _, blocks: float(blocks[0].X.sum()))
    assert [result.value for result in sums] == [rows["a"].to_numpy()[i : i + 250].sum() for i in range(0, 1000, 250)]


def test_what_is_no_table_of_flink_is_named_with_the_way_out():
    found = type("GroupedTable", (), {"__module__": "pyflink.table.table"})()
    with pytest.raises(ParameterError, match=r"a GroupedTable of Flink is no Table.*select"):
        Table.of(found)
