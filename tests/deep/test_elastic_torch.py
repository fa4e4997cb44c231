"""Ranks of PyTorch that go on from memory when one is killed, and take another in: the losses stay the same."""

from __future__ import annotations

import dataclasses
import functools
import time

import numpy as np
import pytest
import torch
from torch import distributed

from sparkopt.blocks.tables import spark_schema
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.events import GroupChanged, Resumed, StepsDone, from_report
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.worker import train
from sparkopt.errors import LostRankError
from sparkopt.launch import LocalLauncher, ProcessLauncher
from sparkopt.launch.checkpoints import module_state
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from tests.deep.killing import STEP, Mortal
from tests.deep.rows import parted

pytestmark = pytest.mark.usefixtures("kills")

SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


class Patient(Mortal):
    """Takes its time while one of three ranks is missing: another is to join."""

    def forward(self, x):
        if distributed.is_initialized() and distributed.get_world_size() == 2:
            time.sleep(0.5)
        return super().forward(x)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """14 steps an epoch."""
    X = np.random.default_rng(0).normal(size=(640, 3))
    rows = parted({"features": list(X), "label": (X[:, 0] > 0).astype(int)}, [300])
    fields = Fields.of(spark_schema(rows.schema), "features", "label")
    uri = write_store(rows, fields, str(tmp_path_factory.mktemp("elastic") / "rows")).uri
    return TrainConfig(uri, epochs=3, batch_size=16, streams=3, seed=3, report_steps=5)


def recipe(folder, kind=Mortal):
    return Recipe(functools.partial(kind, str(folder / "witness"), 0.0, 0.0), "multinomial", SGD)


def calm(settings, folder):
    """The same training, in which nobody is killed."""
    folder.mkdir()
    (folder / "witness").touch()
    return LocalLauncher().run(train, settings, recipe(folder))[0]


def compare(found, expected):
    """Losses are the same, but of steps that the lost rank had not reported: these are of the others' rows."""
    is_estimated = ~np.isclose(found.losses, expected.losses, rtol=1e-3)
    assert np.flatnonzero(is_estimated).tolist() == [n for n in np.flatnonzero(is_estimated) if STEP - 6 <= n < STEP]
    np.testing.assert_allclose(found.losses, expected.losses, atol=0.3)
    for name, tensor in module_state(found.weights).items():
        torch.testing.assert_close(tensor, module_state(expected.weights)[name], rtol=1e-3, atol=1e-5)


def test_the_others_go_on_from_memory(settings, tmp_path):
    """There is no checkpoint, and no step that was done is done again."""
    events = []
    launcher = ProcessLauncher(3, lambda report: events.append(from_report(report)), at_least=2, most_losses=1)
    found = launcher.run(train, settings, recipe(tmp_path))
    (changed,) = [event for event in events if isinstance(event, GroupChanged) and event.lost]
    assert (changed.size, changed.before, len(changed.lost)) == (2, 3, 1)
    resumed = next(event for event in events if isinstance(event, Resumed))
    assert (resumed.epoch * 14 + resumed.step, resumed.repeated) == (STEP - 1, 0)
    losses = [loss for event in events if isinstance(event, StepsDone) for loss in event.losses]
    assert losses == list(found[0].losses)  # each step is reported once
    assert {one.losses for one in found} == {found[0].losses}
    compare(found[0], calm(settings, tmp_path / "calm"))


def test_another_joins(settings, tmp_path):
    events, longer = [], dataclasses.replace(settings, epochs=12, report_steps=1)
    launcher = ProcessLauncher(3, lambda report: events.append(from_report(report)), at_least=2, most_losses=1)
    found = launcher.run(train, longer, recipe(tmp_path, Patient))
    sizes = [(event.before, event.size) for event in events if isinstance(event, GroupChanged)]
    assert sizes == [(3, 2), (2, 3)]
    assert len(found) == 3
    assert {one.weights for one in found[1:]} == {b""}
    compare(found[0], calm(longer, tmp_path / "calm"))


def test_more_losses_than_allowed(settings, tmp_path):
    """Fewer ranks than may go on are an error, after which all start again."""
    launcher = ProcessLauncher(2, at_least=1, most_losses=0)
    with pytest.raises(LostRankError, match="a process of 2 ended unexpectedly"):
        launcher.run(train, settings, recipe(tmp_path))
