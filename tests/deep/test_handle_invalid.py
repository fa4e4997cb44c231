"""handleInvalid of networks: the words and the meaning of the linear models', for images that are none too."""

from __future__ import annotations

import functools
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from sparkopt import images
from sparkopt.deep import TorchEstimator
from sparkopt.errors import CorruptImageError, DataError

ROWS = 60
RNG = np.random.default_rng(5)
GRAY = images.Compose([images.Decode("gray"), images.Resize(4, 4), images.Rescale(1 / 255)])


class Flat(torch.nn.Module):
    """Two classes of whatever comes in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, 2)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([each.reshape(len(each), -1).float() for each in inputs], 1))


def pictures() -> list[bytes | None]:
    return [images.encode(RNG.integers(0, 255, (4, 4, 1), dtype=np.uint8), "png") for _ in range(ROWS)]


def numbers() -> list[float | None]:
    return RNG.normal(size=ROWS).tolist()


# columns, the width of their inputs, what is broken: row, column, value; the last rows have no label or weight
KINDS = {
    "numbers": (("a", "b"), 2, [(2, "a", None), (7, "b", math.nan), (30, "a", math.inf)]),
    "lists": (("list",), 3, [(2, "list", None), (7, "list", [1.0, None, 0.0]), (30, "list", [1.0, math.nan, 0.0])]),
    "images": (("image",), 16, [(2, "image", None), (7, "image", b"no image"), (30, "image", b"")]),
    "both": (("image", "list"), 19, [(2, "image", b"\x89PNG"), (7, "list", None)]),
}
UNTRAINABLE = [(40, "label", None), (41, "w", math.nan)]


def rows(kind: str) -> pa.Table:
    columns: dict[str, list] = {"a": numbers(), "b": numbers(), "image": pictures()}
    columns |= {"list": [row.tolist() for row in RNG.normal(size=(ROWS, 3))], "w": [1.0] * ROWS}
    columns["label"] = [float(row % 2) for row in range(ROWS)]
    for row, name, value in [*KINDS[kind][2], *UNTRAINABLE]:
        columns[name][row] = value
    return pa.table(columns)


def estimator(kind: str, mode: str) -> TorchEstimator:
    names, width, _ = KINDS[kind]
    return TorchEstimator(
        module=functools.partial(Flat, width),
        loss="multinomial",
        featuresCols=list(names),
        weightCol="w",
        epochs=1,
        batchSize=16,
        launcher="local",
        device="cpu",
        imagePipeline=GRAY if "image" in names else None,
        handleInvalid=mode,
    )


def bad_rows(kind: str) -> list[int]:
    return [row for row, _, _ in KINDS[kind][2]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["skip", "keep"])
def test_a_fit_leaves_them_out_and_a_model_scores_the_others(kind, mode):
    """To the bit what a fit of the other rows gives."""
    data = rows(kind)
    bad = bad_rows(kind)
    broken = [*bad, *(row for row, _, _ in UNTRAINABLE)]
    model = estimator(kind, mode).fit(data)
    whole = data.filter(pa.array(~np.isin(np.arange(ROWS), broken)))
    assert model.weights == estimator(kind, "error").fit(whole).weights
    receipt = model.summary.receipt
    assert (receipt.skipped, receipt.rows) == (len(broken), ROWS - len(broken))
    assert "rows left out" in [measure.name for measure in receipt.facts().measures]
    data = data.append_column("id", pa.array(range(ROWS)))
    found = model.transform(data)
    scored = [row for row in range(ROWS) if row not in bad]
    assert found["id"].to_pylist() == (scored if mode == "skip" else list(range(ROWS)))
    missing = found.filter(found["prediction"].is_null())
    assert missing["id"].to_pylist() == ([] if mode == "skip" else bad)
    assert missing["probability"].null_count == len(missing)
    expected = model.transform(data.filter(pa.array(np.isin(np.arange(ROWS), scored))))
    assert found.filter(found["prediction"].is_valid())["prediction"].equals(expected["prediction"])
    only = model.transform(data.take([bad[0], bad[0]]))
    assert (len(only), only["prediction"].null_count) == ((0, 0) if mode == "skip" else (2, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_the_default(kind):
    """Of one line, that names column, row and the way out."""
    data = rows(kind)
    name, value = KINDS[kind][2][0][1:]
    is_found_late = value is not None  # an image's bytes are not looked at before the first epoch
    with pytest.raises((DataError, CorruptImageError), match="row|image") as error:
        estimator(kind, "error").fit(data)
    assert is_found_late or f"{name}" in str(error.value)
    assert "handleInvalid" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    model = estimator(kind, "skip").fit(data).copy()
    model.set(model.handleInvalid, "error")
    with pytest.raises((DataError, CorruptImageError), match="handleInvalid") as error:
        model.transform(data)
    assert len(str(error.value).splitlines()) == 1


PLACES = {
    "lists": r"^features column 'list', row 30 is nan at position 1\. Set handleInvalid='keep'",
    "numbers": r"^features column 'a, b', row 30 is inf at column 'a'\. Set handleInvalid='keep'",
    "images": r"^features column 'image', row 30: empty: the value holds no bytes. Set handleInvalid=",
}


@pytest.mark.parametrize(("kind", "message"), PLACES.items(), ids=PLACES)
def test_what_cannot_be_scored_is_named_by_its_place(kind, message):
    """A row's number counts from the first of its partition, whatever the batches of the network are."""
    data = rows(kind)
    model = estimator(kind, "skip").fit(data).copy()
    valid = pa.array([row not in bad_rows(kind)[:2] for row in range(ROWS)])
    begin = data.slice(8, 2)  # in place of the two rows that are left out
    model.setHandleInvalid("error").setBatchSize(4)
    with pytest.raises((DataError, CorruptImageError), match=message):
        model.transform(pa.concat_tables([begin, data.filter(valid)]).combine_chunks())


def test_rows_of_unlike_shapes_are_no_missing_values():
    data = rows("lists")
    ragged = data["list"].to_pylist()
    ragged[50] = [1.0]
    data = data.set_column(data.column_names.index("list"), "list", pa.array(ragged, pa.list_(pa.float64())))
    with pytest.raises(DataError, match=r"list.*entries where the rows before it"):
        estimator("lists", "skip").fit(data)


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("mode", ["skip", "keep"])
def test_on_spark(spark, mode):
    for kind in KINDS:
        data = rows(kind).append_column("id", pa.array(range(ROWS)))
        frame = spark.createDataFrame(data).repartition(2)
        model = estimator(kind, mode).fit(frame)
        assert model.summary.receipt.skipped == len(KINDS[kind][2]) + len(UNTRAINABLE)
        found = {row.id: row.prediction for row in model.transform(frame).select("id", "prediction").collect()}
        assert len(found) == ROWS - len(bad_rows(kind)) * (mode == "skip")
        assert [row for row in sorted(found) if found[row] is None] == ([] if mode == "skip" else bad_rows(kind))


@pytest.mark.usefixtures("minutes")
def test_on_spark_the_partition_is_named(spark):
    data = rows("lists").select(["list"]).slice(8)
    model = estimator("lists", "skip").fit(rows("lists")).copy()
    model.set(model.handleInvalid, "error")
    frame = spark.createDataFrame(data).coalesce(1)
    with pytest.raises(Exception, match=r"features column 'list', partition 0, row 22 is nan at position 1"):
        model.transform(frame).collect()
