"""A store of a table's rows: the same columns, refusals and values as on Spark, of every type that Arrow has."""

from __future__ import annotations

import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from sparkopt.blocks import BlockStore, Columns, machine
from sparkopt.blocks.block import every
from sparkopt.blocks.tables import spark_schema
from sparkopt.errors import DataError, SchemaError
from sparkopt.losses import Logistic, SquaredError
from sparkopt.machine import Table
from sparkopt.validation import Interval

X = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [3.5, -1.0, 0.0], [0.0, 4.0, 0.25]])
y = np.array([0.0, 1.0, 1.0, 0.0])
ANY = Interval()


def vectors(rows: np.ndarray, are_sparse: list[bool]) -> pa.Array:
    """Vector structs as Spark writes them, of which some are sparse."""
    made = [
        {"type": 0, "size": 3, "indices": np.flatnonzero(row).tolist(), "values": row[row != 0].tolist()}
        if is_sparse
        else {"type": 1, "size": None, "indices": None, "values": row.tolist()}
        for row, is_sparse in zip(rows, are_sparse, strict=True)
    ]
    kinds = {"type": pa.int8(), "size": pa.int32(), "indices": pa.list_(pa.int32()), "values": pa.list_(pa.float64())}
    return pa.array(made, pa.struct(kinds))


FEATURES = {
    "list": pa.array(X.tolist(), pa.list_(pa.float64())),
    "list of floats": pa.array(X.tolist(), pa.list_(pa.float32())),
    "large list": pa.array(X.tolist(), pa.large_list(pa.float64())),
    "fixed-size list": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 3),
    "sliced fixed-size list": pa.FixedSizeListArray.from_arrays(pa.array(np.append(np.zeros(6), X)), 3)[2:],
    "list of decimals": pa.array(
        [[decimal.Decimal(str(v)) for v in row] for row in X], pa.list_(pa.decimal128(20, 3))
    ),
    "dense vectors": vectors(X, [False] * 4),
    "sparse vectors": vectors(X, [True] * 4),
    "mixed vectors": vectors(X, [True, False, True, False]),
}


def held(table: object, columns: Columns, targets: Interval = ANY, codec: str = "none") -> list[np.ndarray]:
    """Features, labels, weights and offsets of all rows in the store."""
    with BlockStore.write(Table.of(table), columns, targets, codec) as store:
        blocks = [block for result in store.collect(_blocks) for block in result.value or ()]
    X = np.concatenate([b.X if isinstance(b.X, np.ndarray) else b.X.toarray() for b in blocks])
    parts = [
        np.concatenate([getattr(b, name) for b in blocks]) for name in ("y", "weight", "offset") if _has(blocks, name)
    ]
    return [X, *parts]


def _has(blocks: list[object], name: str) -> bool:
    return getattr(blocks[0], name) is not None


def _blocks(_: object, blocks: object) -> list[object]:
    return list(every(blocks))


@pytest.mark.parametrize("kind", FEATURES)
def test_features_of_every_kind(kind, tmp_path):
    table = pa.table({"features": FEATURES[kind], "label": y})
    X_, y_ = held(table, Columns("features", "label"))
    np.testing.assert_array_equal(X_, X)
    np.testing.assert_array_equal(y_, y)
    assert X_.dtype == (np.float32 if kind == "list of floats" else np.float64)
    if "fixed" not in kind:  # Parquet reads these as lists, too
        pq.write_table(table, tmp_path / "rows.parquet")
        np.testing.assert_array_equal(held(tmp_path / "rows.parquet", Columns("features", "label"))[0], X)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int32, np.bool_])
def test_arrays_and_sparse_arrays(kind):
    narrow = X.astype(kind)
    np.testing.assert_array_equal(held((narrow, y), Columns("features", "label"))[0], narrow)
    if kind != np.float16:  # SciPy has no such arrays
        found = held((sparse.csr_array(narrow), y), Columns("features", "label"))[0]
        np.testing.assert_array_equal(found, narrow)


def test_columns_of_numbers_of_every_type():
    table = pa.table(
        {
            "u8": pa.array([1, 2], pa.uint8()),
            "u64": pa.array([1, 2], pa.uint64()),
            "half": pa.array(np.array([0.5, 1.5], np.float16)),
            "flag": [True, False],
            "few": pa.array([decimal.Decimal("1.10"), decimal.Decimal("-0.30")], pa.decimal128(5, 2)),
            "many": pa.array([decimal.Decimal("0.1"), decimal.Decimal("123456789012345678.9")], pa.decimal128(30, 1)),
            "code": pa.array([7, 9]).dictionary_encode(),
            "label": pa.array([3, 4], pa.int16()),
        }
    )
    names = [name for name in table.column_names if name != "label"]
    found, labels = held(table, Columns(names, "label"))
    expected = [[1, 1, 0.5, 1, 1.1, 0.1, 7], [2, 2, 1.5, 0, -0.3, 123456789012345678.9, 9]]
    assert found.tolist() == expected
    assert labels.tolist() == [3, 4]


def test_weights_offsets_and_class_weights():
    table = pa.table({"a": y, "label": y, "w": [1, 2, 3, 4], "o": pa.array([0.5, 1, 2, 3], pa.float32())})
    columns = Columns(["a"], "label", weight="w", offset="o", class_weights=(1.0, 10.0))
    _, _, weights, offsets = held(table, columns, Logistic().targets)
    assert weights.tolist() == [1, 20, 30, 4]
    assert offsets.tolist() == [0.5, 1, 2, 3]


def test_names_of_roles_may_be_names_of_columns():
    """A label column that is called fold, and features that are called label."""
    table = pa.table({"label": [[1.5], [2.5]], "fold": [0.25, 0.75], "features": [1.0, 2.0]})
    found, labels, weights = held(table, Columns("label", "fold", weight="features"))
    assert (found.tolist(), labels.tolist(), weights.tolist()) == ([[1.5], [2.5]], [0.25, 0.75], [1, 2])


def test_validation_rows_and_folds():
    table = pa.table({"a": [1.0, 2.0, 3.0, 4.0], "label": y, "aside": [False, True, False, True], "f": [0, 1, 1, 0]})
    with BlockStore.write(Table.of(table), Columns(["a"], "label", validation="aside", fold="f"), ANY) as store:
        assert (store.moments.rows, store.validation.rows) == (2, 2)
        assert store.moments.mean[0] == 2
        assert [store.moments_without(fold).mean[0] for fold in (0, 1)] == [3, 1]
        (result,) = store.collect(lambda _, blocks: [block.fold for block in every(blocks)])
        assert result.value == [0, 1]


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_blocks_are_the_same_in_memory_and_in_files(tmp_path, monkeypatch, codec, in_memory):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if not in_memory:
        monkeypatch.setattr(machine, "IN_MEMORY", 0)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 7)).astype(np.float32)
    table = Table.of((rows, rows[:, 0]))
    with BlockStore.write(table, Columns("features", "label"), ANY, codec) as store:
        (result,) = store.collect(_blocks)
        np.testing.assert_array_equal(np.concatenate([block.X for block in result.value]), rows)
        assert bool(list(tmp_path.rglob("*.arrow"))) == (codec == "zstd" or not in_memory)
    assert not list(tmp_path.rglob("*.arrow"))


def test_a_lost_file_is_read_from_the_table_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(machine, "IN_MEMORY", 0)
    with BlockStore.write(Table.of((X, y)), Columns("features", "label"), ANY) as store:
        (lost,) = tmp_path.rglob("*.arrow")
        lost.unlink()
        (result,) = store.collect(_blocks)
        np.testing.assert_array_equal(result.value[0].X, X)
    assert "blocks of partitions [0] are missing" in caplog.text


NAN = float("nan")
BAD = [
    (
        {"features": [[1.0], None], "label": [0.0, 1]},
        "features column 'features', partition 0 ({rows}), row 1 is null",
    ),
    (
        {"features": [[1.0], [NAN]], "label": [0.0, 1]},
        "features column 'features', partition 0 ({rows}), row 1 is nan at feature 0",
    ),
    (
        {"features": [[1.0], [1.0, 2]], "label": [0.0, 1]},
        "partition 0 ({rows}), row 1 has 2 entries where the rows before it have 1",
    ),
    ({"features": [[1.0], [None]], "label": [0.0, 1]}, "partition 0 ({rows}), row 1 is null at feature 0"),
    ({"features": [[1.0]], "label": [2.0]}, "label column 'label', partition 0 ({rows}), row 0 is 2; it must be"),
    ({"features": [[1.0]], "label": [None]}, "label column 'label', partition 0 ({rows}), row 0 is null"),
    ({"features": [[1.0], [2.0]], "label": [0.0, None]}, "label column 'label', partition 0 ({rows}), row 1 is null"),
    (
        {"features": [["a"]], "label": [1.0]},
        "features column 'features' has type array<string>; it must be a Vector or",
    ),
    ({"label": [1.0]}, "features column 'features' does not exist. Columns: label."),
    (
        {"features": pa.array([], pa.list_(pa.float64())), "label": pa.array([], pa.float64())},
        "there are no rows to train on",
    ),
]


@pytest.mark.parametrize(("rows", "message"), BAD)
def test_what_cannot_be_trained_on_is_named(rows, message):
    with pytest.raises((DataError, SchemaError)) as error:
        BlockStore.write(Table.of(pa.table(rows)), Columns("features", "label"), Logistic().targets)
    assert message.replace("{rows}", Table.of(pa.table(rows)).partitions[0].name) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_column_of_objects_is_refused_by_name():
    frame = pd.DataFrame({"a": [1.0, 2.0], "odd": [1, "z"], "label": y[:2]})
    assert held(frame, Columns(["a"], "label"))[0].tolist() == [[1], [2]]
    with pytest.raises(SchemaError, match="features column 'odd' has type object: .*; it must be numeric"):
        held(frame, Columns(["a", "odd"], "label"))


def test_widths_that_differ_between_partitions(tmp_path):
    for width in (2, 3):
        table = pa.table({"features": [[1.0] * width] * 10, "label": [1.0] * 10, "pad": [b"x" * 1_000_000] * 10})
        pq.write_table(table, tmp_path / f"{width}.parquet", use_dictionary=False)
    assert len(Table.of(tmp_path).partitions) == 2
    with pytest.raises(DataError, match="has 2 entries in partition 0 and 3 in partition 1"):
        held(tmp_path, Columns("features", "label"))


def test_types_as_spark_has_them():
    schema = pa.schema(
        {
            "v": FEATURES["mixed vectors"].type,
            "t": pa.time32("s"),
            "m": pa.map_(pa.string(), pa.int8()),
            "d": pa.date32(),
        }
    )
    found = spark_schema(schema)
    assert found["v"].dataType.simpleString() == "vector"
    assert [found[name].dataType.simpleString() for name in "tmd"] == ["time32[s]", "map<string,tinyint>", "date"]


def test_what_needs_spark_says_so():
    with BlockStore.write(Table.of((X, y)), Columns("features", "label"), SquaredError().targets) as store:
        for use in (lambda: store.context, lambda: store.map(_blocks)):
            with pytest.raises(ValueError, match="a table has no Spark"):
                use()
