"""Steps of one's own, several labels and outputs, lists that are padded: what they are given, and what is refused."""

from __future__ import annotations

import functools
from collections import namedtuple

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from sparkopt.blocks.tables import spark_schema
from sparkopt.deep import StepBatch, TorchEstimator, TorchModel, builder
from sparkopt.deep.row_step import chosen_output
from sparkopt.errors import DataError, IncompatibleError, ParameterError, SchemaError
from sparkopt.shards.fields import Fields
from sparkopt.shards.groups import RowGroups, step_columns
from sparkopt.shards.sampler import EpochSampler
from sparkopt.shards.store import write_store
from tests.deep.rows import parted

ROWS = 70
RNG = np.random.default_rng(6)
X = RNG.normal(size=(ROWS, 3)).astype(np.float32)
WORDS = [list(map(int, RNG.integers(1, 9, length))) for length in RNG.integers(1, 6, ROWS)]
SERIES = [RNG.normal(size=(length, 2)).tolist() for length in RNG.integers(1, 5, ROWS)]
DATA = pa.table(
    {
        "id": np.arange(ROWS),
        "x": list(X),
        "words": WORDS,
        "series": SERIES,
        "a": X[:, 0],
        "b": X[:, 1].astype(np.float64),
        "kind": (X[:, 0] > 0).astype(np.int64),
        "aside": np.arange(ROWS) % 5 == 0,
    }
)


class Heads(nn.Module):
    """A dict of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.value = nn.Linear(3, 2), nn.Linear(3, 1)

    def forward(self, x):
        return {"kind": self.kind(x), "value": self.value(x)[:, 0]}


@builder
def both(module, batch):
    kind, value = batch.labels
    found = module(*batch.inputs)
    return nn.functional.cross_entropy(found["kind"], kind, reduction="none") + (found["value"] - value) ** 2


class Bag(nn.Module):
    """The mean of the words of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 2)

    def forward(self, words, mask):
        assert mask.dtype is torch.bool
        assert not words[~mask].any()
        return (self.words(words) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def estimator(**options):
    given = dict(module=Heads, epochs=2, batchSize=16, launcher="local", featuresCol="x", seed=1)
    return TorchEstimator(**{**given, **options})


def stepping(**options):
    return estimator(**{**dict(step=both, labelCols=["kind", "a"], outputKey="kind", task="classes"), **options})


def bag(**options):
    given = dict(module=Bag, loss="multinomial", featuresCol="words", paddedCols=["words"], labelCol="kind")
    return estimator(**{**given, **options})


def test_a_step_of_two_labels_and_outputs_ends_in_a_model_of_one(no_session, tmp_path):
    model = stepping(epochs=30, optimizer="adam", stepSize=0.05).fit(DATA)
    found = model.transform(DATA)
    with torch.no_grad():
        raw = model.module(torch.from_numpy(X))["kind"].double()
    np.testing.assert_allclose(np.stack(found["rawPrediction"].to_pylist()), raw, rtol=1e-5, atol=1e-6)
    assert (found["prediction"].to_numpy() == DATA["kind"].to_numpy()).mean() > 0.9
    model.save(str(tmp_path / "model"))
    assert TorchModel.load(str(tmp_path / "model")).transform(DATA).equals(found)


def test_an_estimator_with_a_step_is_saved(no_session, tmp_path):
    stepping().save(str(tmp_path / "estimator"))
    loaded = TorchEstimator.load(str(tmp_path / "estimator"))
    assert loaded.fit(DATA).weights == stepping().fit(DATA).weights
    with pytest.raises(ParameterError, match=r"step cannot be saved: .* is not marked with @sparkopt.deep.builder"):
        stepping(step=unmarked).save(str(tmp_path / "other"))


def unmarked(module, batch):
    return both(module, batch)


def test_rows_held_out_and_weights_are_those_of_the_step(tmp_path):
    """The validation loss is the weighted mean of the step's losses; metrics compare with the one label."""

    def own(module, batch):
        return (module(*batch.inputs)["value"] - batch.label) ** 2

    options = dict(step=own, labelCols=["a"], outputKey="value", task=None, weightCol="id", epochs=1)
    model = stepping(**options, validationIndicatorCol="aside", metrics={"mse": "mse"}).fit(DATA)
    aside, weight = DATA["aside"].to_numpy(zero_copy_only=False), np.arange(ROWS)
    with torch.no_grad():
        losses = (model.module(torch.from_numpy(X))["value"].numpy() - X[:, 0]) ** 2
    record = model.summary.history[-1]
    expected = np.average(losses[aside], weights=weight[aside])
    np.testing.assert_allclose([record["validation"], record["mse"]], expected, rtol=1e-5)


def test_a_checkpoint_belongs_to_its_step(tmp_path):
    options = dict(checkpointDir=str(tmp_path / "checkpoints"))
    stepping(**options).fit(DATA)
    assert stepping(**options).fit(DATA).summary.receipt is not None
    with pytest.raises(IncompatibleError, match="loss .*differ"):
        stepping(**options, step=lambda module, batch: 2 * both(module, batch)).fit(DATA)


def test_every_list_comes_back_with_its_mask(tmp_path):
    """However rows are grouped, shuffled and cut into batches."""
    rows = parted(DATA, [20, 20, 45])
    fields = Fields.of(spark_schema(rows.schema), ["words", "series", "id"], labels=["a"], padded=["words", "series"])
    index = write_store(rows, fields, str(tmp_path / "rows"))
    groups = RowGroups(index)
    sampler = EpochSampler(groups.sizes, 1, 12, seed=4)
    seen = []
    for columns, counted in step_columns(groups, sampler, 0, 0):
        words, words_mask = columns["input0"].padded()
        series, series_mask = columns["input1"].padded()
        assert words.dtype == np.int64
        for place, number in enumerate(columns["input2"][:counted]):
            assert words[place][words_mask[place]].tolist() == WORDS[number]
            np.testing.assert_array_equal(series[place][series_mask[place]], np.float32(SERIES[number]))
            assert columns["label0"][place] == X[number, 0]
        assert words.shape[1] == max(len(WORDS[number]) for number in columns["input2"])
        seen += columns["input2"][:counted].tolist()
    assert sorted(seen) == list(range(ROWS))


def test_lists_are_padded_where_they_are_scored(no_session, tmp_path):
    model = bag().fit(DATA)
    weights = model.module.words.weight.detach().numpy()
    expected = np.stack([weights[words].mean(0) for words in WORDS])
    for size in (1, 7, 100):
        found = model.setBatchSize(size).transform(DATA)
        np.testing.assert_allclose(np.stack(found["rawPrediction"].to_pylist()), expected, rtol=1e-5, atol=1e-6)
    frame = model.transform(DATA.select(["words"]).to_pandas())
    np.testing.assert_allclose(np.stack(frame["rawPrediction"]), expected, rtol=1e-5, atol=1e-6)
    model.save(str(tmp_path / "model"))
    again = TorchModel.load(str(tmp_path / "model")).transform(DATA)
    np.testing.assert_allclose(np.stack(again["rawPrediction"].to_pylist()), expected, rtol=1e-5, atol=1e-6)
    hits = expected.argmax(1) == DATA["kind"].to_numpy()
    assert model.setLabelCol("kind").evaluate(DATA)["accuracy"] == hits.mean()


def broken(value):
    lists = list(WORDS)
    lists[30] = value
    return DATA.set_column(2, "words", pa.array(lists, pa.list_(pa.int64())))


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "row 30 is null"), ([1, None], "row 30 has a null entry"), ([], "row 30 is an empty list")],
)
def test_invalid_lists(value, message):
    data = broken(value)
    with pytest.raises(DataError, match=f"^features column 'words', partition 0, {message}"):
        bag().fit(data)
    model = bag(handleInvalid="keep").fit(data)
    assert model.summary.receipt.skipped == 1
    assert np.flatnonzero(model.transform(data)["prediction"].is_null()).tolist() == [30]


def no_reduction(module, batch):
    return both(module, batch).mean()


REFUSED = {
    "a mean": (dict(step=no_reduction), ParameterError, r"step gives \(\) for 2 rows; it must give one loss a row"),
    "a step that fails": (
        dict(labelCols=["kind"]),
        ParameterError,
        r"step fails on rows of \(3,\) float32: ValueError: not enough values to unpack",
    ),
    "a loss too": (dict(loss="huber"), ParameterError, "loss and step are both set"),
    "no function": (dict(step=3), ParameterError, r"step must be a function of \(module, batch\)"),
    "labels without a step": (dict(step=None), ParameterError, "labelCols are for a step of your own"),
    "a label that is not there": (dict(labelCols=["kind", "c"]), SchemaError, "label column 'c' does not exist"),
    "outputs of which none is chosen": (
        dict(outputKey=None),
        ParameterError,
        r"It returns a dict\. Set outputKey to the part that is the prediction: 'kind', 'value'",
    ),
    "an output that is not there": (
        dict(outputKey="class"),
        ParameterError,
        "outputKey='class' is no part of the module's output, which has 'kind', 'value'",
    ),
    "metrics of two labels": (
        dict(metrics={"accuracy": "accuracy"}, validationFraction=0.3),
        ParameterError,
        "compare the prediction with one label, and there are 2",
    ),
    "padding of numbers": (
        dict(paddedCols=["x"], featuresCol="a"),
        SchemaError,
        "'x', which is no feature of its own",
    ),
    "padding of a number": (dict(paddedCols=["kind"], featuresCol="kind"), SchemaError, "which holds no lists"),
}


@pytest.mark.parametrize(("options", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_before_the_first_step(options, kind, message):
    steps = []
    with pytest.raises(kind, match=message) as error:
        stepping(**options, callbacks=[steps.append]).fit(DATA)
    assert len(str(error.value).splitlines()) == 1
    assert not steps


Named = namedtuple("Named", "scores hidden")
TENSOR = torch.ones(2)
OUTPUTS = {
    "a tensor": (TENSOR, None),
    "a dict": ({"scores": TENSOR, "hidden": None}, "scores"),
    "a tuple": ((None, TENSOR), "1"),
    "a list": ([TENSOR], "0"),
    "a named tuple": (Named(TENSOR, None), "scores"),
    "a named tuple by position": (Named(TENSOR, None), "0"),
}


@pytest.mark.parametrize(("output", "key"), OUTPUTS.values(), ids=OUTPUTS)
def test_a_part_of_an_output_is_chosen(output, key):
    assert chosen_output(output, key) is TENSOR


def test_a_loss_takes_a_part_of_the_output_too():
    """Without a step: the loss is of the part that is the prediction."""
    found = estimator(outputKey="kind", loss="multinomial", labelCol="kind").fit(DATA)
    plain = functools.partial(nn.Linear, 3, 2)
    assert found.transform(DATA)["probability"].to_pylist()
    assert estimator(module=plain, loss="multinomial", labelCol="kind").fit(DATA).task == found.task == "classes"


def test_a_batch_of_a_step():
    batch = StepBatch((torch.zeros(4, 2), torch.ones(4)), (torch.ones(4), torch.zeros(4)))
    assert len(batch) == 4
    assert batch.label is batch.labels[0]
