"""Batches of a stream are learnt once each: those that come again are left out, others than the next are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.errors import StreamingQueryException

from sparkopt.errors import CorruptDataError, DataError, IncompatibleError, ParameterError
from sparkopt.ml import LatestModel, LinearRegression, LogisticRegression, StreamTrainer
from tests.ml.learn_stream import NAMES, estimator, table

SCHEMA = "a double, b double, c double, label double"


def trained(batches, steps=2):
    """The model of partialFit on batches in turn."""
    model = None
    for batch in batches:
        model = estimator().partialFit(batch, model, steps=steps)
    return model


def bits(model):
    return [array.tobytes() for array in (*model.arrays, model.onlineState.coef)]


def lines(folder):
    return [json.loads(path.read_text()) for path in sorted((folder / "batches").glob("*.json"))]


BATCHES = [table(number) for number in range(6)]


def test_batches_that_come_again_are_left_out(tmp_path):
    """As a process does that is killed anywhere, each batch with a trainer of its own."""
    for number, batch in enumerate(BATCHES):
        for _ in range(1 + number % 3):
            StreamTrainer(estimator(), str(tmp_path), steps=2)(batch, number)
    found = LatestModel(str(tmp_path)).get()
    assert bits(found) == bits(trained(BATCHES))
    assert (found.onlineState.steps, found.onlineState.batches) == (12, 6)
    StreamTrainer(estimator(), str(tmp_path), steps=2)(BATCHES[0], 2)  # far behind
    assert bits(LatestModel(str(tmp_path)).get()) == bits(found)


@pytest.mark.parametrize("written", ["no file", "the line", "a part of the model"])
def test_what_a_killed_process_leaves_is_overwritten(tmp_path, monkeypatch, written):
    trainer = StreamTrainer(estimator(), str(tmp_path), steps=2)
    trainer(BATCHES[0], 0)
    kept = (tmp_path / "model").read_bytes()
    if written != "no file":
        trainer(BATCHES[1], 1)
        line = (tmp_path / "batches" / "0000000001.json").read_bytes()
        (tmp_path / "model").write_bytes(kept)  # it was killed before it learnt
    if written == "a part of the model":
        (tmp_path / "model.123.unfinished").write_bytes(kept[:100])
    again = StreamTrainer(estimator(), str(tmp_path), steps=2)
    again._prepare()
    assert not list(tmp_path.rglob("*.unfinished"))
    again(BATCHES[1], 1)
    assert bits(LatestModel(str(tmp_path)).get()) == bits(trained(BATCHES[:2]))
    if written != "no file":
        assert (tmp_path / "batches" / "0000000001.json").read_bytes() == line


def test_losses_are_those_of_rows_before_they_are_learnt(tmp_path):
    """The mean log-loss of the model so far, by NumPy; and how unusual it is."""
    shifted = [*BATCHES, table(6, shift=3.0)]
    trainer, models = StreamTrainer(estimator(), str(tmp_path), steps=2), []
    for number, batch in enumerate(shifted):
        trainer(batch, number)
        models.append(LatestModel(str(tmp_path)).get())
    found = lines(tmp_path)
    losses = []
    for model, batch in zip(models[:-1], shifted[1:], strict=True):
        X, y = np.stack([batch[name] for name in NAMES], axis=-1), np.array(batch["label"])
        raw = X @ model.coefficients.toArray() + model.intercept
        losses.append(np.mean(np.logaddexp(0, raw) - y * raw))
    share = np.mean(shifted[0]["label"])
    losses.insert(0, -share * np.log(share) - (1 - share) * np.log(1 - share))
    np.testing.assert_allclose([line["loss"] for line in found], losses, rtol=1e-6)
    np.testing.assert_allclose(found[4]["usualLoss"], np.mean(losses[:4]), rtol=1e-6)
    assert (found[0]["usualLoss"], found[2]["drift"]) == (None, None)
    np.testing.assert_allclose(found[6]["drift"], (losses[6] - np.mean(losses[:6])) / np.std(losses[:6]), rtol=1e-5)
    assert [(line["batch"], line["rows"], line["steps"]) for line in found[:2]] == [(0, 40, 2), (1, 41, 4)]
    assert models[3].onlineState.loss == found[3]["loss"]


def test_empty_batches_are_no_steps(tmp_path):
    trainer, none = StreamTrainer(estimator(), str(tmp_path), steps=2), BATCHES[0].slice(0, 0)
    for number, batch in enumerate([none, none, BATCHES[0], none, BATCHES[1]]):
        trainer(batch, number)
        trainer(batch, number)
    assert bits(LatestModel(str(tmp_path)).get()) == bits(trained(BATCHES[:2]))
    assert [line["rows"] for line in lines(tmp_path)] == [0, 0, 40, 0, 41]


def test_the_newest_model_is_read(tmp_path):
    latest, trainer = LatestModel(str(tmp_path)), StreamTrainer(estimator(), str(tmp_path))
    with pytest.raises(DataError, match="no batch was learnt there so far"):
        latest.get()
    trainer(BATCHES[0], 0)
    first = latest.get()
    assert latest.get() is first
    trainer(BATCHES[1], 1)
    assert latest.get() is not first
    assert latest.transform(BATCHES[2])["prediction"].to_pylist() == (
        latest.get().transform(BATCHES[2])["prediction"].to_pylist()
    )
    altered = bytearray((tmp_path / "model").read_bytes())
    altered[len(altered) // 2] ^= 1
    (tmp_path / "model").write_bytes(altered)
    with pytest.raises(CorruptDataError, match="truncated or altered"):
        latest.get()


def test_what_cannot_be_learnt_once_is_refused(tmp_path):
    trainer = StreamTrainer(estimator(), str(tmp_path))
    with pytest.raises(IncompatibleError, match="batches up to -1, and batch 3 comes"):
        trainer(BATCHES[0], 3)
    trainer(BATCHES[0], 0)
    with pytest.raises(IncompatibleError, match="batches up to 0, and batch 2 comes: what is between is lost"):
        trainer(BATCHES[1], 2)
    (tmp_path / "spark" / "offsets").mkdir(parents=True)
    (tmp_path / "spark" / "metadata").write_text('{"id": "another"}')
    with pytest.raises(IncompatibleError, match="learnt from another stream"):
        trainer(BATCHES[1], 1)
    lion = LogisticRegression(featuresCols=NAMES, optimizer="lion")
    StreamTrainer(lion, str(tmp_path / "other"))(BATCHES[0], 0)
    with pytest.raises(IncompatibleError, match="the model's state is of another optimizer"):
        StreamTrainer(estimator(), str(tmp_path / "other"))(BATCHES[1], 1)
    with pytest.raises(ParameterError, match="steps must be a whole number >= 1"):
        StreamTrainer(estimator(), str(tmp_path), steps=0)
    with pytest.raises(ParameterError, match="stream must be a DataFrame of spark.readStream"):
        trainer.start(BATCHES[0])


def test_a_batch_with_other_rows_is_refused(tmp_path):
    """Spark notes where a batch begins and ends: the same number does not make it the same batch."""
    folder = tmp_path / "spark" / "offsets"
    folder.mkdir(parents=True)
    (tmp_path / "spark" / "metadata").write_text('{"id": "one"}')
    (folder / "0").write_text('v1\n{"batchTimestampMs":1}\n{"logOffset":0}')
    trainer = StreamTrainer(estimator(), str(tmp_path))
    trainer(BATCHES[0], 0)
    (folder / "0").write_text('v1\n{"batchTimestampMs":2}\n{"logOffset":0}')
    trainer(BATCHES[0], 0)
    (folder / "0").write_text('v1\n{"batchTimestampMs":2}\n{"logOffset":1}')
    with pytest.raises(IncompatibleError, match="learnt batch 0 with other rows"):
        trainer(BATCHES[0], 0)


@pytest.fixture
def arriving(tmp_path):
    """Four files, a batch each."""
    folder = tmp_path / "arriving"
    folder.mkdir()
    for number, batch in enumerate(BATCHES[:4]):
        arrives(batch, folder, number)
    return folder


def arrives(batch, folder, number):
    """Write a file that is newer than those before it: Spark takes the oldest first."""
    path = folder / f"{number}.parquet"
    pq.write_table(batch, path)
    os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))


def read(spark, folder):
    return spark.readStream.schema(SCHEMA).option("maxFilesPerTrigger", 1).parquet(str(folder))


def learn(spark, arriving, path, own=None):
    query = (own or estimator()).fitStream(read(spark, arriving), str(path), steps=2, trigger={"availableNow": True})
    query.awaitTermination()


def test_a_stream_of_files_is_learnt_once(spark, arriving, tmp_path):
    """A query that starts again learns nothing twice, also where Spark does not know that the last batch is done."""
    path = tmp_path / "learnt"
    learn(spark, arriving, path)
    found = LatestModel(str(path)).get()
    np.testing.assert_allclose(found.arrays[0], trained(BATCHES[:4]).arrays[0], rtol=1e-12)
    last = path / "spark" / "commits" / "3"
    for file in (last, last.with_name(".3.crc")):
        file.unlink(missing_ok=True)
    learn(spark, arriving, path)
    assert last.exists()
    assert bits(LatestModel(str(path)).get()) == bits(found)
    assert [line["batch"] for line in lines(path)] == [0, 1, 2, 3]
    arrives(BATCHES[4], arriving, 4)
    learn(spark, arriving, path)
    assert LatestModel(str(path)).get().onlineState.batches == 5


def test_a_stream_is_scored_with_the_newest_model(spark, arriving, tmp_path):
    path, latest, found = tmp_path / "learnt", LatestModel(str(tmp_path / "learnt")), []
    learn(spark, arriving, path)

    def score(batch, number):
        found.append(latest.transform(batch).select("prediction").count())
        versions.append(latest.get().onlineState.batches)
        if number == 1:  # another process learns meanwhile
            StreamTrainer(estimator(), str(path))(BATCHES[4], 4)

    versions: list[int] = []
    query = read(spark, arriving).writeStream.foreachBatch(score).trigger(availableNow=True).start()
    query.awaitTermination()
    assert (found, versions) == ([40, 41, 42, 43], [4, 4, 5, 5])
    with pytest.raises(ParameterError, match="a stream keeps the model that it began with"):
        latest.transform(read(spark, arriving))


def test_a_stream_is_refused_before_its_first_batch(spark, arriving, tmp_path):
    for own, message in (
        (LogisticRegression(featuresCols=NAMES, optimizer="lbfgs"), "compares objectives from step to step"),
        (LinearRegression(featuresCols=NAMES, localSteps=3), "localSteps=3 is of fits over many rows"),
        (LinearRegression(featuresCols=["a", "nowhere"]), "nowhere"),
    ):
        with pytest.raises(Exception, match=message):
            learn(spark, arriving, tmp_path / "learnt", own)
    assert not (tmp_path / "learnt").exists()


def test_a_bad_row_ends_the_stream_and_changes_nothing(spark, arriving, tmp_path):
    path = tmp_path / "learnt"
    learn(spark, arriving, path)
    before = Path(path / "model").read_bytes()
    bad = BATCHES[4].set_column(0, "a", pa.array([float("nan")] * BATCHES[4].num_rows))
    arrives(bad, arriving, 4)
    with pytest.raises(StreamingQueryException, match="column 'a'"):
        learn(spark, arriving, path)
    assert Path(path / "model").read_bytes() == before
