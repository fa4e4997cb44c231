"""run: a user's function on ranks, with their share of the rows; against plain loops on the joined rows."""

from __future__ import annotations

import functools
import os
import signal

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from sparkopt.blocks.tables import spark_schema
from sparkopt.errors import DataError, IncompatibleError, ParameterError, RankError, SchemaError
from sparkopt.launch import LocalCommunicator, RankInfo, RunContext, RunSettings, run
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from tests.deep.rows import parted
from tests.tiers import needs

ROWS = 1100


def table(rows=ROWS):
    rng = np.random.default_rng(5)
    X = rng.normal(size=(rows, 3))
    y = X @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=rows)
    return pa.table({"id": np.arange(rows), "X": list(X), "y": y, "content": [b"%d" % row for row in range(rows)]})


# --- batches --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rows = parted(table(), [600, 900, 1000])
    uri = str(tmp_path_factory.mktemp("run") / "rows")
    write_store(rows, Fields.of(spark_schema(rows.schema), [[name] for name in rows.names]), uri)
    return uri


def context(store, rank=0, size=1, streams=4, batch=64, checkpoints=None, seed=0):
    """A rank, without the processes of the others."""
    communicator = LocalCommunicator()
    communicator.info = RankInfo(rank, size)
    return RunContext(communicator, RunSettings(store, streams, batch, seed, 8192, "cpu", checkpoints))


def ids(batches):
    return [batch["id"].tolist() for batch in batches]


@pytest.mark.parametrize(("size", "batch"), [(1, 64), (2, 64), (4, 64), (4, 7), (4, 500)])
def test_every_row_is_in_one_batch_of_an_epoch_and_ranks_take_equal_steps(store, size, batch):
    every = [list(context(store, rank, size, batch=batch).batches(2)) for rank in range(size)]
    assert {len(batches) for batches in every} == {context(store, batch=batch).steps()}
    assert sorted(row for batches in every for part in ids(batches) for row in part) == list(range(ROWS))
    for parts in zip(*every, strict=True):
        assert {part.total for part in parts} == {sum(part.rows for part in parts)}
        assert [part.rows for part in parts] == [len(part["id"]) for part in parts]


def test_the_last_steps_may_be_left_out(store):
    every = [list(context(store, rank, 4, batch=7).batches(drop_last=True)) for rank in range(4)]
    assert {len(batches) for batches in every} == {context(store, batch=7).steps(drop_last=True)} == {39}
    assert {batch.rows for batches in every for batch in batches} == {7}


def test_steps_have_the_same_rows_on_fewer_ranks(store):
    """As after a loss: streams, and not ranks, divide the rows."""
    two, four = ([ids(context(store, rank, size).batches(1)) for rank in range(size)] for size in (2, 4))
    for step, (a, b, c, d) in enumerate(zip(*four, strict=True)):
        assert (two[0][step], two[1][step]) == (a + b, c + d)


def test_the_order_is_a_function_of_seed_and_epoch(store):
    first = ids(context(store).batches(0))
    assert first == ids(context(store).batches(0))
    assert first != ids(context(store).batches(1))
    assert first != ids(context(store, seed=1).batches(0))
    assert ids(context(store).batches(0, first_step=2)) == first[2:]
    assert [batch.step for batch in context(store).batches(0, first_step=2)] == list(range(2, len(first)))


def test_arrays_have_the_types_of_their_columns(store):
    batch = next(context(store).batches())
    assert {name: values.dtype for name, values in batch.items()} == {
        "id": np.int64,
        "X": np.float32,
        "y": np.float32,
        "content": object,
    }
    assert batch["X"].shape == (256, 3)
    assert batch["content"].tolist() == [b"%d" % row for row in batch["id"]]
    expected = table()["X"].combine_chunks().take(pa.array(batch["id"])).flatten().to_numpy().reshape(-1, 3)
    np.testing.assert_allclose(batch["X"], expected, rtol=1e-6)
    tensors = next(context(store).batches(arrays="torch"))
    assert isinstance(tensors["X"], torch.Tensor)
    assert torch.equal(tensors["X"], torch.from_numpy(batch["X"]))
    with pytest.raises(ParameterError, match="arrays"):
        next(context(store).batches(arrays="lists"))


# --- what is saved --------------------------------------------------------------------------------------------------


def test_a_state_comes_back_as_it_was(store, tmp_path):
    state = {
        "weights": nn.Linear(3, 1).state_dict(),
        "moments": [np.arange(3.0), (np.ones((2, 2), np.int64), None)],
        "epoch": np.int64(3),
        "rate": 0.5,
        "note": "é",
        "done": np.array([], np.float32),
    }
    saving = context(store, checkpoints=str(tmp_path))
    assert saving.restore() is None
    saving.save({"epoch": 0})
    saving.save(state)
    found = context(store, checkpoints=str(tmp_path)).restore()
    assert torch.equal(found["weights"]["weight"], state["weights"]["weight"])
    np.testing.assert_array_equal(found["moments"][0], state["moments"][0])
    assert isinstance(found["moments"][1], tuple)
    assert found["moments"][1][0].dtype == np.int64
    assert [found[name] for name in ("epoch", "rate", "note")] == [3, 0.5, "é"]
    assert found["done"].shape == (0,)
    assert not list(tmp_path.rglob("*.pkl"))


def test_a_run_that_restores_nothing_still_saves_the_last_state(store, tmp_path):
    for run_number in range(2):
        saving = context(store, checkpoints=str(tmp_path))
        for epoch in range(3):
            saving.save({"epoch": epoch, "run": run_number})
    assert context(store, checkpoints=str(tmp_path)).restore() == {"epoch": 2, "run": 1}


def test_what_was_saved_belongs_to_its_rows(store, tmp_path):
    context(store, checkpoints=str(tmp_path)).save({"epoch": 1})
    with pytest.raises(IncompatibleError, match=r"belongs to another run: seed \(then 0, now 1\)\. Set resume=False"):
        context(store, checkpoints=str(tmp_path), seed=1).restore()


UNSAVEABLE = {
    "an object": ({"module": nn.Linear(1, 1)}, "is a Linear"),
    "objects": ({"a": np.array([{}])}, "an array"),
}


@pytest.mark.parametrize(("state", "message"), UNSAVEABLE.values(), ids=UNSAVEABLE)
def test_what_would_need_pickle_is_refused(store, tmp_path, state, message):
    with pytest.raises(ParameterError, match=message):
        context(store, checkpoints=str(tmp_path)).save(state)
    with pytest.raises(ParameterError, match="checkpointDir"):
        context(store).save({})


# --- functions on ranks ---------------------------------------------------------------------------------------------


def normal_equations(context):
    """A plain loop of NumPy: sums of rows, added up over the ranks."""
    sums = np.zeros((4, 4))
    for batch in context.batches(0):
        rows = np.column_stack([batch["X"], batch["y"]]).astype(float)
        sums += rows.T @ rows
    sums = context.communicator.all_reduce(sums)
    return np.linalg.solve(sums[:3, :3], sums[:3, 3]).tolist(), context.rank, context.size


@pytest.mark.parametrize("options", [dict(launcher="local"), dict(numProc=2)], ids=["one process", "two"])
def test_a_loop_of_numpy(options):
    rows = table()
    X, y = np.array(rows["X"].to_pylist()), rows["y"].to_numpy()
    found = run(normal_equations, rows, columns=["X", "y"], **options)
    assert [(rank, size) for _, rank, size in found] == [(rank, len(found)) for rank in range(len(found))]
    for solution, _, _ in found:
        np.testing.assert_allclose(solution, np.linalg.lstsq(X, y, rcond=None)[0], rtol=1e-5)


def pytorch_loop(context, epochs=2):
    """A plain loop of PyTorch's, with its own DistributedDataParallel; also which rows each step had."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    replica = nn.parallel.DistributedDataParallel(model) if context.size > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = []
    for epoch in range(epochs):
        for batch in context.batches(epoch, arrays="torch"):
            optimizer.zero_grad()
            error = replica(batch["X"])[:, 0] - batch["y"]
            (context.size * (error**2).sum() / batch.total).backward()
            optimizer.step()
            steps.append(batch["id"].tolist())
    return [parameter.tolist() for parameter in model.parameters()], steps


def test_a_loop_of_pytorch_is_that_of_one_process_on_the_joined_batches():
    rows = table(130)
    (weights, first), (same, second) = run(pytorch_loop, rows, numProc=2, batchSize=16, columns=["id", "X", "y"])
    assert weights == same
    X = torch.tensor(rows["X"].to_pylist())
    y = torch.tensor(rows["y"].to_pylist())
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for one, two in zip(first, second, strict=True):
        chosen = torch.tensor(one + two)
        optimizer.zero_grad()
        ((model(X[chosen])[:, 0] - y[chosen]) ** 2).mean().backward()
        optimizer.step()
    for found, parameter in zip(weights, model.parameters(), strict=True):
        torch.testing.assert_close(torch.tensor(found), parameter.detach(), rtol=1e-4, atol=1e-6)


def until_stopped(context, most=100_000):
    for step in range(most):
        context.report({"loss": np.float32(1.0 / (step + 1)), "step": step})
        if context.stopping():
            return step
    return most


@pytest.mark.parametrize("options", [dict(launcher="local"), dict(numProc=2)], ids=["one process", "two"])
def test_the_driver_hears_of_metrics_and_stops_all_ranks_at_the_same_step(options):
    reports = []

    def hear(report):
        reports.append(report)
        return report["metrics"]["step"] >= 3

    found = run(until_stopped, onReport=hear, **options)
    assert len(set(found)) == 1
    assert 3 <= found[0] < 100_000
    assert {report["rank"] for report in reports} == set(range(len(found)))
    assert reports[0]["metrics"] == {"loss": 1.0, "step": 0}


def test_what_a_listener_raises_ends_the_run():
    def hear(report):
        raise KeyError("no such metric")

    with pytest.raises(KeyError, match="no such metric"):
        run(until_stopped, onReport=hear, launcher="local")


def killed_once(context):
    """Save, lose a rank, and go on from what was saved."""
    found = context.restore()
    if found is None:
        context.save({"epoch": 1, "weights": np.full(2, 7.0)})
        if context.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        context.communicator.barrier()
    return found["epoch"], found["weights"].tolist(), context.size


def test_a_lost_rank_is_started_again_from_what_was_saved(tmp_path):
    found = run(killed_once, numProc=2, checkpointDir=str(tmp_path), maxRestarts=1)
    assert found == [(1, [7.0, 7.0], 2)] * 2
    again = run(functools.partial(killed_once), numProc=1, checkpointDir=str(tmp_path))
    assert again == [(1, [7.0, 7.0], 1)]


def failing(context):
    raise ValueError(f"on rank {context.rank}")


def test_an_error_names_the_rank():
    with pytest.raises(RankError, match="rank . failed with ValueError: on rank ."):
        run(failing, numProc=2)


REFUSED = {
    "a launcher": (dict(launcher="mpi"), ParameterError, "launcher"),
    "no rows in a batch": (dict(batchSize=0), ParameterError, "batchSize"),
    "several in one process": (dict(launcher="local", numProc=2), ParameterError, "'local' is one process"),
    "horovod without Spark": (dict(df=table(9), launcher="horovod"), IncompatibleError, "there is no session"),
    "resources without Spark": (dict(df=table(9), resource="tpu"), IncompatibleError, "executors of a cluster"),
    "resources of this process": (dict(launcher="local", resource="tpu"), IncompatibleError, "is this process"),
    "more than there are": (dict(df=table(9), numProc=2, minProc=3), ParameterError, "minProc"),
    "fewest without restarts": (dict(df=table(9), numProc=2, minProc=1), ParameterError, "maxRestarts=0 rules out"),
    "a column that is not there": (dict(df=table(9), columns=["Z"]), SchemaError, "'Z'"),
    "text": (dict(df=pa.table({"name": ["a"]})), SchemaError, "'name' holds text"),
    "a null": (dict(df=pa.table({"x": [1.0, None]})), DataError, "column 'x', partition 0, row 1 is null"),
}


@pytest.mark.parametrize(("options", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_before_a_process_starts(options, kind, message):
    with pytest.raises(kind, match=message):
        run(failing, **options)


def test_rows_and_folders_that_are_not_there_are_named():
    with pytest.raises(ParameterError, match="this run has no rows"):
        run(normal_equations, launcher="local")


def test_invalid_rows_are_left_out_and_no_store_is_left(tmp_path):
    rows = pa.table({"x": [1.0, None, 3.0, float("nan")]})
    found = run(lambda c: sorted(x for b in c.batches() for x in b["x"].tolist()), rows, launcher="local",
                handleInvalid="skip", storePath=str(tmp_path))  # fmt: skip
    assert found == [[1.0, 3.0]]
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("launcher", ["torch", pytest.param("horovod", marks=needs("horovod"))])
def test_tasks_of_spark_are_the_ranks(spark, launcher):
    df = spark.createDataFrame(table(200)).repartition(3, "id")
    X, y = np.array(table(200)["X"].to_pylist()), table(200)["y"].to_numpy()
    found = run(normal_equations, df, columns=["X", "y"], numProc=2, launcher=launcher)
    assert [(rank, size) for _, rank, size in found] == [(0, 2), (1, 2)]
    np.testing.assert_allclose(found[0][0], np.linalg.lstsq(X, y, rcond=None)[0], rtol=1e-5)
    assert len(run(until_stopped, numProc=2, session=spark, onReport=lambda report: True)) == 2
