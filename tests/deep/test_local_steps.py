"""Local steps of networks: the trajectory is that of a plain loop of DiLoCo, and few bytes go over the wire."""

from __future__ import annotations

import dataclasses
import functools
import os
import socket

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from sparkopt.blocks.tables import spark_schema
from sparkopt.deep import TorchEstimator
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.deep.events import StepsDone, from_report
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.update_sum import UpdateSum
from sparkopt.deep.worker import train
from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.launch import (
    HorovodLauncher,
    LocalCommunicator,
    LocalLauncher,
    ProcessLauncher,
    RankInfo,
    TorchLauncher,
)
from sparkopt.launch.checkpoints import CheckpointFolder, module_state
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from tests.deep import networks
from tests.deep.rows import parted
from tests.tiers import needs

CROSS_ENTROPY = nn.CrossEntropyLoss()
SGD = functools.partial(torch.optim.SGD, lr=0.2)
ADAM = functools.partial(torch.optim.AdamW, lr=0.02)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """333 rows with weights; batches of 32 on two ranks leave one of the last step's nearly empty."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(333, 4))
    columns = {"features": list(X), "label": (2 * X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 1)}
    rows = parted({**columns, "weight": rng.integers(1, 4, 333) / 2}, [250])
    fields = Fields.of(spark_schema(rows.schema), "features", "label", "weight")
    return write_store(rows, fields, str(tmp_path_factory.mktemp("local") / "rows")).uri


def config(uri, **changes):
    return TrainConfig(**{**dict(store=uri, epochs=3, batch_size=32, streams=2, seed=1), **changes})


def diloco(settings, recipe, outer, ranks):
    """The paper's algorithm 1 by PyTorch alone: a module and an optimiser for each rank, and one outside of them."""
    shared = recipe.build_module(settings.seed)
    workers = [recipe.build_module(settings.seed) for _ in range(ranks)]
    inner = [recipe.optimizer(list(worker.parameters())) for worker in workers]
    outside, losses, number = outer(shared.parameters()), [], 0
    for epoch in range(settings.epochs):
        shares = [batches_of(settings, rank, ranks, epoch) for rank in range(ranks)]
        steps, seen, taken = len(shares[0]), torch.zeros(ranks), 0
        for step in range(steps):
            sums = []
            for rank in range(ranks):
                batch = shares[rank][step]
                rows = nn.functional.cross_entropy(workers[rank](*batch.inputs), batch.target, reduction="none")
                total, weight = (rows * batch.weight).sum(), batch.weight.sum()
                inner[rank].zero_grad()
                (total / weight).backward()
                inner[rank].step()
                seen[rank] += weight
                sums.append((total.item(), weight.item()))
            losses.append(sum(total for total, _ in sums) / sum(weight for _, weight in sums))
            taken += 1
            if taken == (1 if number < settings.local_steps_warm_up else settings.local_steps) or step == steps - 1:
                share = seen / seen.sum()
                for name, parameter in shared.named_parameters():
                    moved = [parameter.detach() - worker.get_parameter(name).detach() for worker in workers]
                    parameter.grad = sum(part * one for part, one in zip(share, moved, strict=True))
                outside.step()
                for worker in workers:
                    worker.load_state_dict(shared.state_dict())
                seen, taken, number = torch.zeros(ranks), 0, number + 1
    return losses, shared.state_dict()


def batches_of(settings, rank, ranks, epoch):
    communicator = LocalCommunicator()
    communicator.info = RankInfo(rank, ranks)
    with RankDataLoader(settings, communicator, torch.device("cpu")).training(epoch, 0) as batches:
        return [batch.to(torch.device("cpu")) for batch in batches]


NESTEROV = functools.partial(torch.optim.SGD, lr=0.7, momentum=0.9, nesterov=True)
AVERAGE = functools.partial(torch.optim.SGD, lr=1.0)
KINDS = {
    "diloco": (dict(local_steps=4, outer_optimizer="diloco"), ADAM, NESTEROV),
    "diloco of another rate": (
        dict(local_steps=3, outer_optimizer="diloco", outer_step_size=0.4),
        SGD,
        functools.partial(NESTEROV, lr=0.4),
    ),
    "local SGD": (dict(local_steps=2, outer_optimizer="average"), SGD, AVERAGE),
    "post-local SGD": (dict(local_steps=5, local_steps_warm_up=4, outer_optimizer="average"), ADAM, AVERAGE),
    "adam outside": (
        dict(local_steps=4, outer_optimizer="adam", outer_step_size=0.05),
        SGD,
        functools.partial(torch.optim.Adam, lr=0.05),
    ),
    "longer than an epoch": (dict(local_steps=100, outer_optimizer="diloco"), SGD, NESTEROV),
}


def trained(communicator, uri):
    """Train all kinds, one after the other."""
    return {
        kind: train(communicator, config(uri, **changes), Recipe(networks.mlp, CROSS_ENTROPY, inner))
        for kind, (changes, inner, _) in KINDS.items()
    }


@pytest.fixture(scope="module")
def outcomes(uri):
    return {1: LocalLauncher().run(trained, uri)[0], 2: ProcessLauncher(2).run(trained, uri)[0]}


def check(uri, kind, ranks, found):
    changes, inner, outer = KINDS[kind]
    losses, state = diloco(config(uri, **changes), Recipe(networks.mlp, CROSS_ENTROPY, inner), outer, ranks)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4, atol=1e-6)
    for name, tensor in module_state(found.weights).items():
        torch.testing.assert_close(tensor, state[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_trajectory_is_that_of_a_plain_loop(outcomes, uri, kind, ranks):
    check(uri, kind, ranks, outcomes[ranks][kind])


@pytest.mark.parametrize("launcher", [TorchLauncher, pytest.param(HorovodLauncher, marks=needs("horovod"))])
def test_so_it_is_on_spark(spark, uri, launcher):
    found = launcher(spark.sparkContext, 2).run(trained, uri)
    for kind in KINDS:
        check(uri, kind, 2, found[0][kind])
        assert found[0][kind].losses == found[1][kind].losses


def test_one_local_step_of_sgd_that_is_averaged_is_a_plain_step(uri):
    recipe, settings = Recipe(networks.mlp, CROSS_ENTROPY, SGD), config(uri, accumulation=2)
    plain = ProcessLauncher(2).run(train, settings, recipe)[0]
    local = ProcessLauncher(2).run(train, dataclasses.replace(settings, outer_optimizer="average"), recipe)[0]
    np.testing.assert_allclose(local.losses, plain.losses, rtol=1e-5)
    for name, tensor in module_state(local.weights).items():
        torch.testing.assert_close(tensor, module_state(plain.weights)[name], rtol=1e-5, atol=1e-6)


VECTORS = np.random.default_rng(2).normal(size=(3, 40, 101)).astype(np.float32)  # sums of one vector for each rank


def summed(communicator, compression):
    """Add up vectors of all ranks, 40 times; return the sums and the bytes."""
    adding = UpdateSum(compression, communicator)
    sums = [adding(vector, number) for number, vector in enumerate(VECTORS[communicator.rank])]
    return sums, adding.sent


BITS = {"none": 24, "fp16": 11, "bf16": 8, "int8": 7}


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("compression", BITS)
def test_sums_are_close_and_nothing_is_lost_for_good(compression, ranks):
    (sums, sent), *others = ProcessLauncher(ranks).run(summed, compression)
    assert all(np.array_equal(sums, one) for one, _ in others)  # the same bits everywhere
    expected = VECTORS[:ranks].sum(axis=0)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(sums, expected, atol=4 * ranks * largest * 2.0 ** -BITS[compression])
    # what is left out of one sum is in the next: the error of the total is that of one sum
    np.testing.assert_allclose(
        np.sum(sums, axis=0), expected.sum(axis=0), atol=4 * ranks * largest * 2.0 ** -BITS[compression]
    )
    width = {"none": 4, "fp16": 2, "bf16": 2, "int8": 1}[compression]
    assert sent <= 40 * 2 * (ranks - 1) / ranks * (101 * width + 10 * ranks)


def stop_after(steps):
    """A watcher that asks to stop once so many steps have been reported."""
    return lambda report: isinstance(event := from_report(report), StepsDone) and event.total >= steps


@pytest.mark.parametrize("compression", ["none", "int8"])
def test_a_stopped_run_goes_on_to_the_same_weights(uri, tmp_path, compression):
    """Each rank's own state of Adam, the outer momentum, and what is left to send."""
    changes = dict(local_steps=2, outer_optimizer="diloco", compression=compression, report_steps=1)
    recipe = Recipe(networks.dropping, CROSS_ENTROPY, ADAM)
    whole = ProcessLauncher(2).run(train, config(uri, **changes), recipe)[0]
    settings = config(uri, checkpoints=str(tmp_path), **changes)
    first = ProcessLauncher(2, stop_after(8)).run(train, settings, recipe)[0]
    assert first.stopped == "callback"
    rest = ProcessLauncher(2).run(train, settings, recipe)[0]
    assert rest.resumed not in (None, "epoch-000003-step-000000000")
    assert rest.weights == whole.weights
    assert rest.losses == whole.losses


def test_checkpoints_are_of_ends_of_rounds_and_change_nothing(uri, tmp_path):
    changes = dict(local_steps=4, outer_optimizer="diloco", streams=1)
    recipe = Recipe(networks.mlp, CROSS_ENTROPY, ADAM)
    plain = LocalLauncher().run(train, config(uri, **changes), recipe)[0]
    settings = config(uri, checkpoints=str(tmp_path), checkpoint_steps=6, **changes)
    assert LocalLauncher().run(train, settings, recipe)[0].weights == plain.weights
    assert CheckpointFolder(str(tmp_path)).names() == ["epoch-000002-step-000000008", "epoch-000003-step-000000000"]


def test_another_number_of_ranks_may_go_on(uri, tmp_path):
    changes = dict(local_steps=3, outer_optimizer="diloco", compression="fp16", checkpoints=str(tmp_path))
    recipe = Recipe(networks.mlp, CROSS_ENTROPY, ADAM)
    ProcessLauncher(2).run(train, config(uri, epochs=1, **changes), recipe)
    found = ProcessLauncher(3).run(train, config(uri, **changes), recipe)[0]
    assert found.resumed == "epoch-000001-step-000000000"
    assert found.losses[-1] < found.losses[0]


OTHERS = {
    "rounds": (dict(local_steps=5), r"local_steps \(then 4, now 5\) differ"),
    "outer optimiser": (dict(outer_optimizer="average"), r"outer_optimizer \(then diloco, now average\) differ"),
    "outer rate": (dict(outer_step_size=0.5), r"outer_step_size \(then none, now 0.5\) differ"),
    "none": (dict(local_steps=1, outer_optimizer=None), r"local_steps \(then 4, now none\).* differ"),
}


@pytest.mark.parametrize(("change", "message"), OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_of_other_rounds_is_refused(uri, tmp_path, change, message):
    settings = config(uri, epochs=1, local_steps=4, outer_optimizer="diloco", checkpoints=str(tmp_path))
    recipe = Recipe(networks.mlp, CROSS_ENTROPY, SGD)
    LocalLauncher().run(train, settings, recipe)
    with pytest.raises(IncompatibleError, match=message):
        LocalLauncher().run(train, dataclasses.replace(settings, **change), recipe)


def hidden():
    return networks.Mlp(features=64, classes=10, hidden=400)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    pixels, labels = load_digits(return_X_y=True)
    rows = pa.table({"pixels": list((pixels / 16).astype(np.float32)), "label": labels})
    fields = Fields.of(spark_schema(rows.schema), "pixels", "label")
    return write_store(parted({name: rows[name].to_pylist() for name in rows.schema.names}, [1000]), fields,
                       str(tmp_path_factory.mktemp("digits") / "rows")).uri  # fmt: skip


def sent_bytes():
    """Bytes that the open TCP connections of this process have sent: see tcp(7), and linux/tcp.h."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # not a socket
            continue
        with found:
            if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
                info = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                sent, again = (int.from_bytes(info[start : start + 8], "little") for start in (200, 208))
                total += sent - again  # tcpi_bytes_sent, tcpi_bytes_retrans: a busy machine sends some twice
    return total


def counted(communicator, settings, recipe):
    """Train, and count the bytes on the wire."""
    before = sent_bytes()
    outcome = train(communicator, settings, recipe)
    return outcome, sent_bytes() - before


def test_bytes_on_the_wire(digits):
    """At least 20 times fewer than those of gradients in each step, at a loss that is no higher."""
    settings = TrainConfig(digits, epochs=4, batch_size=8, streams=2, seed=1, report_steps=1000)
    recipe = Recipe(hidden, CROSS_ENTROPY, functools.partial(torch.optim.AdamW, lr=0.002))
    few = dataclasses.replace(settings, local_steps=32, outer_optimizer="diloco", compression="int8")
    plain, wire_of_plain = ProcessLauncher(2).run(counted, settings, recipe)[0]
    local, wire_of_local = ProcessLauncher(2).run(counted, few, recipe)[0]
    assert plain.sent == pytest.approx(wire_of_plain, rel=0.05)
    assert local.sent < wire_of_local < 1.5 * local.sent  # with small ones: votes, the ranks' weights in each round
    assert wire_of_plain > 20 * wire_of_local
    assert plain.sent > 100 * local.sent
    assert local.history[-1]["loss"] < 1.1 * plain.history[-1]["loss"]


TABLE = pa.table({"features": list(np.random.default_rng(1).normal(size=(90, 4)).astype(np.float32)),
                  "label": np.arange(90) % 3})  # fmt: skip


def test_an_estimator_takes_local_steps(tmp_path):
    estimator = TorchEstimator(
        module=networks.Mlp, loss="multinomial", numProc=2, epochs=2, batchSize=5, localSteps=3, compression="fp16"
    )
    receipt = estimator.fit(TABLE).summary.receipt
    weights = sum(parameter.numel() for parameter in networks.mlp().parameters())
    assert receipt.sent == 2 * 3 * (2 * weights + 4)  # three rounds of an epoch's nine steps
    assert "sent" in str(receipt)
    estimator.save(str(tmp_path / "estimator"))
    again = TorchEstimator.load(str(tmp_path / "estimator"))
    assert (again.getLocalSteps(), again.getOuterOptimizer()) == (3, "diloco")
    alone = TorchEstimator(module=networks.mlp, loss="multinomial", epochs=1, localSteps=3, launcher="local")
    assert alone.fit(TABLE).summary.receipt.sent == 0


SETTINGS = {
    "diloco": dict(localSteps=3),
    "diloco, int8, after a warm-up": dict(localSteps=3, localStepsWarmUp=2, compression="int8"),
    "average, fp16, rows held out": dict(
        localSteps=2, outerOptimizer="average", compression="fp16", validationFraction=0.2
    ),
    "adam": dict(localSteps=4, outerOptimizer="adam", outerStepSize=0.05),
}


def local_fit(df, kind, launcher):
    estimator = TorchEstimator(
        module=networks.mlp, loss="multinomial", optimizer=ADAM, launcher=launcher, **SETTINGS[kind],
        numProc=2, epochs=2, batchSize=5, seed=4
    )  # fmt: skip
    estimator.progress = False
    return estimator.fit(df)


@pytest.mark.usefixtures("horovod")
@pytest.mark.parametrize("kind", SETTINGS)
def test_an_estimator_goes_by_horovod_where_it_goes_by_torch(spark, kind):
    """The launcher torch goes where a plain loop goes, as the tests above have it."""
    rows = list(zip(TABLE["features"].to_pylist(), TABLE["label"].to_pylist(), strict=True))
    df = spark.createDataFrame(rows, "features array<float>, label int")
    expected, found = (local_fit(df, kind, launcher) for launcher in ("torch", "horovod"))
    assert (found.summary.receipt.launcher, found.summary.receipt.processes) == ("horovod", 2)
    assert found.summary.receipt.sent == expected.summary.receipt.sent > 0
    np.testing.assert_allclose(found.summary.objectiveHistory, expected.summary.objectiveHistory, rtol=1e-6)
    for name, tensor in module_state(expected.weights).items():
        torch.testing.assert_close(module_state(found.weights)[name], tensor, rtol=1e-5, atol=1e-7)


WRONG = {
    "rounds": (dict(localSteps=0), ParameterError, "localSteps must be a whole number >= 1"),
    "outer": (dict(localSteps=2, outerOptimizer="lamp"), ParameterError, "outerOptimizer must be one of"),
    "search": (dict(localSteps=2, outerOptimizer="lbfgs"), IncompatibleError, "Take 'diloco', 'average', or"),
    "rate of none": (dict(outerStepSize=0.5), ParameterError, "outerStepSize is for local steps: set localSteps > 1"),
    "warm up of none": (dict(localStepsWarmUp=3), ParameterError, "localStepsWarmUp is for local steps"),
    "int8 of gradients": (dict(compression="int8"), IncompatibleError, r"Local updates can be \(localSteps\)"),
    "low rank": (dict(localSteps=2, compression="powersgd"), IncompatibleError, "take none, fp16, bf16, int8, or"),
    "alone": (dict(localSteps=2, launcher="local", numProc=1, compression="int8"), IncompatibleError, "it has none"),
}


@pytest.mark.parametrize(("changes", "kind", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_work_is_refused(changes, kind, message):
    estimator = TorchEstimator(module=networks.mlp, loss="multinomial", **{"numProc": 2, **changes})
    with pytest.raises(kind, match=message):
        estimator.fit(TABLE)
