"""Networks on Ray's actors, and on rows that Dask or Ray hold: the bits of this machine's processes; kills resume."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed here")

import torch

from sparkopt.deep import KerasEstimator, TorchEstimator, builder
from sparkopt.errors import DataError, LostRankError, ParameterError, RankError
from sparkopt.launch import RayLauncher, run
from sparkopt.launch.on_ray import ray_ranks
from tests.frameworks.conftest import WIDTH, Framework, columns, here
from tests.launch import ranks

SGD = functools.partial(torch.optim.SGD, lr=0.2, momentum=0.9)


class Net(torch.nn.Module):
    """Two layers; the process that first comes to a step without a file of that name kills itself there."""

    def __init__(self, witness: str = "", step: int = 0) -> None:
        super().__init__()
        self.hidden, self.out = torch.nn.Linear(WIDTH, 5), torch.nn.Linear(5, 2)
        self._witness, self._step, self._passes = witness, step, 0

    def forward(self, x: Any) -> Any:
        self._passes += self.training
        if self._witness and self.training and self._passes == self._step and not Path(self._witness).exists():
            Path(self._witness).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.out(torch.tanh(self.hidden(x)))


@pytest.fixture
def on_ray(framework: Framework) -> Framework:
    """Ray alone."""
    if framework.name != "ray":
        pytest.skip("launcher='ray' is Ray's")
    return framework


def _trained(rows: Any, launcher: str, net: Callable[[], Any] = Net, **more: Any) -> Any:
    settings = {"numProc": 2, "epochs": 3, "batchSize": 20, "seed": 5} | more
    return TorchEstimator(module=net, loss="multinomial", optimizer=SGD, launcher=launcher, **settings).fit(rows)


def test_actors_of_ray_are_the_processes_of_one_machine_to_the_bit(on_ray: Framework):
    frame = on_ray.frame(columns("list"))
    expected = _trained(here(frame), "torch", compression="powersgd")
    for rows in (frame, here(frame)):
        found = _trained(rows, "ray", compression="powersgd")
        assert found.weights == expected.weights
        assert found.summary.objectiveHistory == expected.summary.objectiveHistory
        assert (found.summary.receipt.launcher, found.summary.receipt.processes) == ("ray", 2)


def test_one_actor_is_one_process(on_ray: Framework):
    frame = on_ray.frame(columns("list"))
    assert _trained(frame, "ray", numProc=1).weights == _trained(here(frame), "local", numProc=1).weights


@pytest.mark.parametrize("launcher", ["torch", "local"])
def test_rows_of_a_framework_are_written_where_they_are(framework: Framework, launcher: str):
    frame = framework.frame(columns("list"))
    count = {"numProc": 1 if launcher == "local" else 2}
    assert _trained(frame, launcher, **count).weights == _trained(here(frame), launcher, **count).weights


def test_a_killed_actor_is_started_again_from_the_checkpoint(on_ray: Framework, tmp_path: Path):
    frame = on_ray.frame(columns("list"))
    undisturbed = _trained(frame, "ray")
    net = functools.partial(Net, str(tmp_path / "witness"), 17)
    settings = {"checkpointDir": str(tmp_path / "kept"), "checkpointInterval": 4, "net": net}
    found = _trained(frame, "ray", maxRestarts=1, **settings)
    assert found.weights == undisturbed.weights
    assert found.summary.receipt.restarts == 1
    assert found.summary.receipt.resumed is not None


def _share(context: Any) -> tuple[int, int, float]:
    label = np.concatenate([batch["label"] for batch in context.batches()])
    return context.rank, len(label), float(context.communicator.all_reduce(np.array([label.sum()]))[0])


def test_a_function_of_ones_own_has_its_share_of_a_dataset(on_ray: Framework):
    rows = columns("list")
    found = run(_share, on_ray.frame(rows), columns=["features", "label"], numProc=2, launcher="ray", batchSize=30)
    assert [rank for rank, _, _ in found] == [0, 1]
    assert {total for _, _, total in found} == {rows["label"].sum()}
    assert sum(count for _, count, _ in found) == len(rows)


def test_actors_report_and_stop(on_ray: Framework):
    found = RayLauncher(2, watcher=lambda report: report["step"] >= 5).run(ranks.until_stopped, 1500)
    assert len(set(found)) == 1
    assert 5 <= found[0] < 1500


@pytest.mark.parametrize(
    ("function", "args", "error", "message"),
    [
        (ranks.raise_on, (1, "value"), RankError, "(?s)rank 1 failed with ValueError: bad row on rank 1.*raise_on"),
        (ranks.raise_on, (0, "data"), DataError, "^bad row on rank 0$"),
        (ranks.kill_rank, (1,), LostRankError, "ended unexpectedly, rank 1|rank 0 lost another rank"),
    ],
    ids=["an error", "an error of sparkopt's", "a kill"],
)
def test_actors_that_fail(on_ray: Framework, function, args, error, message: str):
    with pytest.raises(error, match=message):
        RayLauncher(2).run(function, *args)


def test_what_ray_has_no_room_for(on_ray: Framework, caplog):
    with pytest.raises(ParameterError, match="numProc=3 needs 3 actors .* Ray has room for 2"):
        RayLauncher(3).run(ranks.collectives, 1.0)
    with pytest.raises(ParameterError, match="room for 0 with 1 GPU each"):
        RayLauncher(2, resources={"gpu": 1}).run(ranks.collectives, 1.0)
    with pytest.raises(ParameterError, match="device='cuda', but Ray has no GPU"):
        _trained(on_ray.frame(columns("list")), "ray", device="cuda")
    assert len(RayLauncher(3, at_least=2).run(ranks.collectives, 1.0)) == 2
    assert "room for 2 processes of 3" in caplog.text
    assert ray_ranks("auto") == 1


@builder
def keras_net() -> Any:
    """Two layers, with batch normalisation and dropout."""
    from keras import Input, Sequential, layers

    inner = [layers.Dense(5, "tanh"), layers.BatchNormalization(), layers.Dropout(0.2, seed=3)]
    return Sequential([Input((WIDTH,)), *inner, layers.Dense(2)])


def test_a_network_of_keras_on_actors_is_that_of_one_machines_processes(on_ray: Framework):
    pytest.importorskip("keras", reason="Keras is not installed here")
    frame = on_ray.frame(columns("list"))

    def trained(rows: Any, launcher: str) -> Any:
        settings = {"numProc": 2, "epochs": 2, "batchSize": 20, "seed": 5, "optimizer": "adam", "stepSize": 0.02}
        run = KerasEstimator(module=keras_net, loss="multinomial", launcher=launcher, **settings)
        run.progress = False
        return run.fit(rows)

    expected, found = trained(here(frame), "torch"), trained(frame, "ray")
    assert found.weights == expected.weights
    assert found.summary.objectiveHistory == expected.summary.objectiveHistory
    assert (found.summary.receipt.launcher, found.summary.receipt.processes) == ("ray", 2)
