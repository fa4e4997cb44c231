"""What columns become: whole numbers stay whole, fractional ones are joined, and a model knows what it was given."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from sparkopt import images
from sparkopt.blocks.tables import spark_schema
from sparkopt.deep import TorchEstimator, TorchModel, local
from sparkopt.errors import DataError, IncompatibleError, SchemaError
from sparkopt.shards.fields import Fields
from tests.deep import networks

ROWS = 200
RNG = np.random.default_rng(2)
TABLE = pa.table(
    {
        "user": RNG.integers(0, 20, ROWS),
        "item": pa.array(RNG.integers(0, 30, ROWS), pa.int16()),
        "price": RNG.random(ROWS),
        "age": RNG.random(ROWS).astype(np.float32),
        "new": RNG.random(ROWS) < 0.5,
        "rated": pa.array([round(value, 2) for value in RNG.random(ROWS)]).cast(pa.decimal128(9, 2), safe=False),
        "words": list(RNG.integers(0, 9, (ROWS, 3))),
        "label": RNG.normal(size=ROWS),
    }
)
GROUPS = {
    "fractions": (["price", "age", "new", "rated"], [(("price", "age", "new", "rated"), False)]),
    "ids": (["user", "item"], [(("user",), True), (("item",), True)]),
    "both": (["price", "user", "age", "item"], [(("price", "age"), False), (("user",), True), (("item",), True)]),
    "lists": (["price", "words"], [(("price",), False), (("words",), True)]),
    "joined": ([["user", "item"], "price"], [(("user", "item"), True), (("price",), False)]),
    "mixed": ([["user", "price"], "age", "new"], [(("user", "price"), False), (("age", "new"), False)]),
    "one": ("item", [(("item",), True)]),
}


@pytest.mark.parametrize(("features", "expected"), GROUPS.values(), ids=GROUPS)
def test_which_columns_are_an_input(features, expected):
    found = Fields.of(spark_schema(TABLE.schema), features).inputs
    assert [(entry.columns, entry.whole) for entry in found] == expected
    for entry in found:
        values = entry.taken(TABLE.combine_chunks().to_batches()[0])
        innermost = values.type.value_type if pa.types.is_list(values.type) else values.type
        assert innermost == (pa.int64() if entry.whole else pa.float32())


WRONG = {
    "twice": (["price", ["user", "price"]], "featuresCols names 'price' more than once"),
    "a list among numbers": ([["price", "words"]], "'words' cannot be joined with price, words: it is no number"),
    "an empty list": (["price", []], "featuresCols is empty"),
}


@pytest.mark.parametrize(("features", "message"), WRONG.values(), ids=WRONG)
def test_columns_that_cannot_be_inputs(features, message):
    with pytest.raises(SchemaError, match=message):
        Fields.of(spark_schema(TABLE.schema), features)


@pytest.fixture(scope="module")
def model():
    """Two towers; the properties are named between the ids, and are an input behind them."""
    return TorchEstimator(
        module=networks.Towers, featuresCols=["user", "item", "price", "age"], epochs=1, batchSize=32
    ).fit(TABLE)


def expected(model, table=TABLE):
    ids = [torch.tensor(table[name].to_numpy().astype(np.int64)) for name in ("user", "item")]
    properties = np.stack([table[name].to_numpy().astype(np.float32) for name in ("price", "age")], 1)
    with torch.inference_mode():
        return model.module(*ids, torch.from_numpy(properties)).double().numpy()


def test_embeddings_are_trained_on_ids(model):
    np.testing.assert_allclose(model.transform(TABLE)["prediction"], expected(model), rtol=1e-6)


def test_a_saved_model_knows_its_inputs(model, tmp_path):
    local.write(model, tmp_path / "model")
    loaded = local.read(tmp_path / "model")
    assert loaded.transform(TABLE)["prediction"] == model.transform(TABLE)["prediction"]
    found = local.score(loaded, TABLE.to_pandas())["prediction"]
    np.testing.assert_allclose(found, expected(model), rtol=1e-6)


def test_columns_of_another_table_become_what_was_trained_on(model):
    """Prices that happen to be whole, ids of another width, other names, another order."""
    whole = TABLE.set_column(2, "price", pa.array(RNG.integers(0, 5, ROWS))).set_column(
        0, "user", TABLE["user"].cast(pa.int32())
    )
    np.testing.assert_allclose(model.transform(whole)["prediction"], expected(model, whole), rtol=1e-6)
    np.testing.assert_allclose(local.score(model, whole.to_pandas())["prediction"], expected(model, whole), rtol=1e-6)
    names = dict(zip(TABLE.column_names, ["u", "i", "p", "a", *TABLE.column_names[4:]], strict=True))
    renamed = model.copy()
    renamed.set(renamed.featuresCols, ["u", "i", "p", "a"])
    found = renamed.transform(TABLE.rename_columns(list(names.values())))
    np.testing.assert_allclose(found["prediction"], expected(model), rtol=1e-6)


OTHERS = {
    "fractional ids": ("user", RNG.random(ROWS), "'user' has fractional numbers; the network was trained on whole"),
    "text": (
        "user",
        ["a"] * ROWS,
        "'user' holds text, which .*; the network was trained on numbers",
    ),
    "bytes": ("price", [b"a"] * ROWS, "cannot be joined|holds bytes; the network was trained on numbers"),
}


@pytest.mark.parametrize(("name", "values", "message"), OTHERS.values(), ids=OTHERS)
def test_what_was_not_trained_on_is_refused(model, name, values, message):
    table = TABLE.set_column(TABLE.column_names.index(name), name, pa.array(values))
    with pytest.raises(SchemaError, match=message):
        model.transform(table)
    with pytest.raises(SchemaError, match=message):
        local.score(model, table.to_pandas())
    short = model.copy()
    short.set(short.featuresCols, ["user", "item", "price"])
    with pytest.raises(SchemaError, match="trained on user, item, price, age; the model's feature columns are user"):
        short.transform(TABLE)


def test_a_served_model_reads_no_files(tmp_path):
    """Its caller's text would name files of the machine that serves it."""
    picture = images.encode(np.zeros((4, 4, 1), np.uint8), "png")
    (tmp_path / "secret.png").write_bytes(picture)
    rows = pa.table({"image": [picture] * 8, "label": [0, 1] * 4})
    pipeline = images.Compose([images.Decode("gray"), images.Rescale(1 / 255)])
    trained = TorchEstimator(
        module=lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), loss="multinomial", featuresCol="image",
        epochs=1, imagePipeline=pipeline,
    ).fit(rows)  # fmt: skip
    frame = rows.to_pandas().assign(image=str(tmp_path / "secret.png"))
    with pytest.raises(SchemaError, match="'image' holds text. A served model takes the bytes of images"):
        local.score(trained, frame)
    assert (
        list(local.score(trained, rows.to_pandas())["prediction"])
        == trained.transform(rows)["prediction"].to_pylist()
    )
    assert len(trained.transform(frame)) == 8  # who calls transform may read the files


def test_a_model_of_before_is_read_without_its_inputs(model):
    old = TorchModel(model._build, model.weights, model.task, model._outputs.shape)
    old.set(old.featuresCols, ["user", "item", "price", "age"])
    assert old.transform(TABLE)["prediction"] == model.transform(TABLE)["prediction"]


NESTED = pa.table(
    {
        "Row": pa.StructArray.from_arrays([pa.array(np.arange(40) / 40)], ["x"]),
        "Aside": np.arange(40) % 4 == 0,
        "Target": np.arange(40) / 20,
        "a`b": np.arange(40),
    }
)
PLAIN = pa.table({"x": np.arange(40) / 40, "aside": NESTED["Aside"], "target": NESTED["Target"]})


def trained(table, features, label, aside):
    return TorchEstimator(
        module=Line, featuresCol=features, labelCol=label, validationIndicatorCol=aside, epochs=1, launcher="local"
    ).fit(table)


class Line(nn.Module):
    """A line through numbers (rows,)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        return self.layer(x[:, None])


def test_names_are_found_as_spark_finds_them():
    """Fields of structs, and names in another case."""
    plain, model = trained(PLAIN, "x", "target", "aside"), trained(NESTED, "row.X", "TARGET", "aside")
    assert model.weights == plain.weights
    assert model.evaluate(NESTED) == plain.evaluate(PLAIN)
    scored = model.transform(NESTED)
    assert scored.column_names == [*NESTED.column_names, "prediction"]
    assert scored["prediction"] == plain.transform(PLAIN)["prediction"]
    assert model.transform(NESTED.to_reader()).read_all() == scored


@pytest.mark.usefixtures("minutes")
def test_so_they_are_on_spark(spark):
    model = trained(NESTED, "row.X", "TARGET", "aside")
    rows = spark.createDataFrame(NESTED)
    fitted = trained(rows, "row.X", "TARGET", "aside")
    assert fitted.summary.receipt.rows == model.summary.receipt.rows
    scored = model.transform(rows)
    assert scored.columns == [*NESTED.column_names, "prediction"]
    found = {row["a`b"]: row.prediction for row in scored.collect()}
    np.testing.assert_allclose([found[n] for n in range(40)], model.transform(NESTED)["prediction"], rtol=1e-6)
    assert model.evaluate(rows) == pytest.approx(model.evaluate(NESTED))


def test_numbers_that_float32_does_not_have_are_rounded():
    """As Spark's cast rounds them, where whole numbers are joined with fractions, or are weights."""
    large = np.arange(40) + 2**24 + 1
    rows = PLAIN.append_column("large", [large]).append_column("both", [np.stack([large, large], 1).tolist()])
    schema = spark_schema(rows.schema)
    fields = Fields.of(schema, [["large", "x"]], weight="large")
    for entry in fields.all:
        (batch,) = rows.to_batches()
        found = entry.taken(batch)
        values = found.to_numpy() if entry.kind == "number" else np.array(found.to_pylist())[:, 0]
        np.testing.assert_array_equal(values, large.astype(np.float32))
    model = trained(PLAIN, "x", "target", "aside").setFeaturesCol("large")
    np.testing.assert_array_equal(
        model.transform(rows)["prediction"], model.transform(rows.to_pandas())["prediction"]
    )


def test_lists_without_entries_are_named():
    table = PLAIN.append_column("none", pa.array([[]] * 40, pa.list_(pa.float32())))
    with pytest.raises(DataError, match="features column 'none', partition 0, row 0 has no entries"):
        trained(table, "none", "target", "aside")


@pytest.mark.usefixtures("minutes")
def test_a_stream_is_not_trained_on(spark):
    with pytest.raises(IncompatibleError, match="a streaming DataFrame cannot be trained on"):
        trained(spark.readStream.format("rate").load(), "value", "value", "value")
