"""Tables of CSV and Arrow files, of datasets and of streams, which are read once."""

from __future__ import annotations

import gc
import gzip
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyarrow import feather, fs

from sparkopt import BlockStore, Columns
from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.io import Location
from sparkopt.machine import Table, arrow_files, delimited, listing
from sparkopt.validation import Interval
from tests.machine.test_table import rows_of

ROWS = pa.table({"a": np.arange(1000.0), "n": np.arange(1000), "b": [str(i % 7) for i in range(1000)]})


def text(rows: pa.Table, header: bool = True) -> str:
    lines = [",".join(rows.schema.names)] if header else []
    lines += [f"{row['a']},{row['n']},s{row['b']}" for row in rows.to_pylist()]
    return "\n".join(lines) + "\n"


def csv_rows(count: int = 1000) -> list[dict[str, object]]:
    return [{**row, "b": f"s{row['b']}"} for row in ROWS.slice(0, count).to_pylist()]


@pytest.mark.parametrize("part_bytes", [10, 1000, 1 << 20])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_files_are_cut_at_lines(tmp_path, monkeypatch, part_bytes, newline):
    (tmp_path / "rows.csv").write_bytes(text(ROWS.slice(0, 100)).replace("\n", newline).encode())
    monkeypatch.setattr(delimited, "PART_BYTES", part_bytes)
    table = Table.of(tmp_path / "rows.csv")
    assert table.schema == pa.schema({"a": pa.float64(), "n": pa.int64(), "b": pa.string()})
    assert rows_of(table) == csv_rows(100)
    assert rows_of(table, ["n"]) == [{"n": n} for n in range(100)]
    assert len(table.partitions) == -(-(tmp_path / "rows.csv").stat().st_size // part_bytes)


def test_csv_without_a_header_a_last_newline_or_rows(tmp_path):
    (tmp_path / "rows.CSV").write_text(text(ROWS.slice(0, 3), header=False).rstrip())
    assert [row["_c1"] for row in rows_of(Table.of(tmp_path / "rows.CSV", header=False))] == [0, 1, 2]
    (tmp_path / "none.csv").write_text("a,n,b\n")
    assert rows_of(Table.of(tmp_path / "none.csv")) == []


def test_compressed_and_tab_separated_text(tmp_path):
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(text(ROWS).encode()))
    assert rows_of(Table.of(tmp_path / "rows.csv.gz")) == csv_rows()
    (tmp_path / "rows.tsv").write_text(text(ROWS).replace(",", "\t"))
    assert rows_of(Table.of(tmp_path / "rows.tsv")) == csv_rows()


def test_types_of_csv_columns(tmp_path):
    (tmp_path / "1.csv").write_text("zip,x,y\n01234,1,\n,2,\n")
    (tmp_path / "2.csv").write_text("x,zip,y\n1.5,00001,7\n")
    table = Table.of(tmp_path, types={"zip": "string"})
    assert table.schema == pa.schema({"zip": pa.string(), "x": pa.float64(), "y": pa.int64()})
    assert rows_of(table) == [
        {"zip": "01234", "x": 1.0, "y": None},
        {"zip": None, "x": 2.0, "y": None},
        {"zip": "00001", "x": 1.5, "y": 7},
    ]
    with pytest.raises(SchemaError, match="types has 'z', which is no column"):
        Table.of(tmp_path, types={"z": "string"})
    with pytest.raises(ParameterError, match="the type of 'x' must be one of Arrow's"):
        Table.of(tmp_path, types={"x": "number"})
    (tmp_path / "2.csv").write_text("x,code\n1.5,7\n")
    with pytest.raises(SchemaError, match=r"2\.csv has the columns x, code; 1\.csv has zip, x, y"):
        Table.of(tmp_path)


def test_a_csv_value_of_another_type_than_the_first_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "INFERRED_BYTES", 100)
    (tmp_path / "rows.csv").write_text("n\n" + "1\n" * 200 + "1.5\n")
    table = Table.of(tmp_path / "rows.csv")
    with pytest.raises(DataError, match=r"rows\.csv cannot be read: .*'1\.5'.* set one by Table\.of\(path, types="):
        rows_of(table)
    assert rows_of(Table.of(tmp_path / "rows.csv", types={"n": "double"}))[-1] == {"n": 1.5}


def test_files_of_one_table_have_one_format(tmp_path):
    (tmp_path / "1.csv").write_text("a\n1\n")
    pq.write_table(ROWS, tmp_path / "2.parquet")
    with pytest.raises(SchemaError, match=r"1\.csv is CSV and 2\.parquet is Parquet"):
        Table.of(tmp_path)
    with pytest.raises(ParameterError, match=r"2\.parquet is Parquet: header, types and csv are for CSV"):
        Table.of(tmp_path / "2.parquet", header=False)
    (tmp_path / "2.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"2\.parquet cannot be read as Parquet"):
        Table.of(tmp_path / "2.parquet")


@pytest.mark.parametrize("name", ["rows.arrow", "rows.feather", "rows of 50%.Feather"])
def test_arrow_files(tmp_path, monkeypatch, name):
    if "feather" in name.lower():
        feather.write_feather(ROWS, str(tmp_path / name), chunksize=300)
    else:
        with pa.ipc.new_file(str(tmp_path / name), ROWS.schema) as writer:
            writer.write_table(ROWS, 300)
    monkeypatch.setattr(arrow_files, "LEAST", 1 << 10)
    table = Table.of(tmp_path / name)
    assert len(table.partitions) > 1
    assert table.partitions[0].name == f"{name}, batches 0 to 0"
    assert rows_of(table) == ROWS.to_pylist()
    assert rows_of(table, ["b", "a"])[-1] == {"b": "5", "a": 999.0}


def test_files_of_other_file_systems(tmp_path, monkeypatch):
    """A URI's query is no pattern, and files are opened by their own file system."""
    with pa.ipc.new_file(str(tmp_path / "rows.arrow"), ROWS.schema) as writer:
        writer.write_table(ROWS, 300)
    pq.write_table(ROWS, tmp_path / "rows.parquet", row_group_size=300)
    (tmp_path / "rows.csv").write_text(text(ROWS))
    bucket = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())

    def resolve(uri: str, parameter: str) -> Location:
        return Location(bucket, uri.removeprefix("s3://bucket/").partition("?")[0], f"{parameter}={uri!r}")

    monkeypatch.setattr(listing, "resolve", resolve)
    for name in ("rows.arrow", "rows.parquet", "ro*.parquet"):
        table = Table.of(f"s3://bucket/{name}?region=eu-west-1")
        assert not any(part.location.is_local for part in table.partitions if hasattr(part, "location"))
        assert rows_of(table) == ROWS.to_pylist()
        with BlockStore.write(table, Columns(["a"], "n"), Interval()) as store:
            assert store.moments.rows == 1000
    assert rows_of(Table.of("s3://bucket/rows.csv?region=eu-west-1")) == csv_rows()
    with pytest.raises(DataError, match=r"'s3://bucket/none\.parquet\?region=eu-west-1' does not exist"):
        Table.of("s3://bucket/none.parquet?region=eu-west-1")


class Stream:
    """What Polars and DuckDB give: Arrow by the C stream, with types of their own."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.rows.__arrow_c_stream__(requested_schema)


def test_arrow_by_the_c_stream():
    lists = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.large_list(pa.float64()))
    rows = pa.table(
        {"x": lists, "s": pa.array(["a", "b"], pa.string_view()), "d": pa.array([1, 1]).dictionary_encode()}
    )
    assert Table.accepts(Stream(rows))
    assert rows_of(Table.of(Stream(rows))) == rows.to_pylist()


def test_a_stream_is_read_once_and_kept_as_long_as_its_table(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    short = Table.of(pa.RecordBatchReader.from_batches(ROWS.schema, ROWS.to_batches(300)))
    assert rows_of(short) == ROWS.to_pylist()
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(arrow_files, "IN_MEMORY", 5000)
    table = Table.of(pa.RecordBatchReader.from_batches(ROWS.schema, ROWS.to_batches(300)))
    (folder,) = tmp_path.glob("*/table-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (table.rows, table.partitions[0].name) == (1000, "rows 0 to 999")
    assert rows_of(table) == rows_of(pickle.loads(pickle.dumps(table))) == ROWS.to_pylist()
    gc.collect()
    assert folder.exists()
    del table
    gc.collect()
    assert not folder.exists()


def hive(root: Path) -> Path:
    for key in ("x", "y"):
        (root / f"key={key}").mkdir()
        pq.write_table(ROWS, root / f"key={key}" / "rows.parquet", row_group_size=400)
    return root


def test_datasets(tmp_path):
    dataset = ds.dataset(hive(tmp_path), partitioning="hive")
    table = Table.of(dataset)
    assert table.schema == dataset.schema
    assert table.partitions[0].name == "rows.parquet, row groups 0 to 2 and 1 more"
    assert rows_of(table) == dataset.to_table().to_pylist()
    kept = dataset.filter(ds.field("a") > 990)
    assert rows_of(Table.of(kept)) == kept.to_table().to_pylist()
    assert rows_of(Table.of(ds.dataset(ROWS))) == ROWS.to_pylist()
    wider = ds.dataset(tmp_path, schema=pa.schema({"a": pa.float64(), "new": pa.int32()}))
    assert rows_of(Table.of(wider))[0] == {"a": 0.0, "new": None}


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"dictionary_pagesize_limit": 64}], ids=str)
def test_text_may_be_read_as_the_dictionaries_of_files(tmp_path, options):
    words = [None if row % 7 == 0 else f"word {row % 40}" for row in range(1_000)]
    rows = pa.table({"word": pa.array(words), "number": range(1_000), "other": pa.array(words, pa.large_string())})
    pq.write_table(rows, tmp_path / "rows.parquet", row_group_size=300, **options)
    table = Table.of(str(tmp_path / "rows.parquet"))
    names = ["number", "word", "other"]
    batches = [batch for part in table.partitions for batch in part.coded(names)]
    assert {str(batch.schema.field("word").type) for batch in batches} == {
        "dictionary<values=string, indices=int32, ordered=0>"
    }
    found = pa.Table.from_batches(batches).unify_dictionaries()
    assert [found.column(name).to_pylist() for name in names] == [rows.column(name).to_pylist() for name in names]
    plain = pa.Table.from_batches([batch for part in table.partitions for batch in part.batches(names)])
    assert plain.schema.field("word").type == pa.string()
    assert plain.to_pydict() == rows.select(names).to_pydict()
