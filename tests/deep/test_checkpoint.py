"""Checkpoints: a resumed run equals one that was never interrupted; damaged and unfinished ones do not count."""

from __future__ import annotations

import errno
import functools
import json
import os
import re

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from sparkopt.deep.batch import Batch
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.learner import Learner
from sparkopt.deep.matrix_optimizers import soap
from sparkopt.deep.recipe import OPTIMIZERS, Recipe
from sparkopt.errors import CorruptDataError, DataError, ParameterError
from sparkopt.io.filesystem import Location
from sparkopt.launch import LocalCommunicator
from sparkopt.launch.checkpoints import (
    MANIFEST,
    MODEL,
    STATE,
    Checkpoint,
    CheckpointFolder,
    module_bytes,
    module_state,
)
from tests.deep import networks

CONFIG = TrainConfig("", 1, 8, 1)
SCHEDULERS = {
    "cosine": "cosine",
    "steps": functools.partial(lr_scheduler.StepLR, step_size=2),
    "one cycle": functools.partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=50),
    "lambda": functools.partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 0.9**step),
    "plateau": lr_scheduler.ReduceLROnPlateau,
    "restarts": functools.partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=3),
}


def learner(optimizer, scheduler="constant"):
    recipe = Recipe(networks.dropping, nn.CrossEntropyLoss(), optimizer, scheduler)
    return Learner(recipe, CONFIG, LocalCommunicator(), torch.device("cpu"), 50)


def advance(learner, first, last):
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)
        learner.step([Batch((x,), y, torch.ones(8), 8)], 8.0, seed=step)
        learner.end_epoch(1.0 / (1 + step // 3))


def whole_and_resumed(folder, optimizer, scheduler):
    """Six steps in one go, and three and three with a checkpoint between."""
    torch.manual_seed(0)
    whole = learner(optimizer, scheduler)
    advance(whole, 0, 6)
    half = learner(optimizer, scheduler)
    advance(half, 0, 3)
    folder.save(Checkpoint(0, 3, half.module.state_dict(), half.state(), {}))
    found = folder.load(folder.latest())
    rest = learner(optimizer, scheduler)
    rest.restore(found.model, found.state)
    advance(rest, 3, 6)
    return whole, rest


OTHERS = {
    "amsgrad": functools.partial(torch.optim.Adam, amsgrad=True),
    "asgd": torch.optim.ASGD,
    "soap": functools.partial(soap, every=2),
}


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, *OTHERS])
def test_every_optimiser_continues(tmp_path, optimizer):
    whole, rest = whole_and_resumed(CheckpointFolder(str(tmp_path)), OTHERS.get(optimizer, optimizer), "constant")
    for one, two in zip(whole.module.parameters(), rest.module.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_every_schedule_continues(tmp_path, scheduler):
    whole, rest = whole_and_resumed(CheckpointFolder(str(tmp_path)), "momentum", scheduler)
    assert whole.rate == rest.rate
    assert torch.equal(whole.module.out.weight, rest.module.out.weight)


def checkpoint(epoch, step=0, state=None):
    model = nn.Linear(2, 2)
    return Checkpoint(epoch, step, model.state_dict(), state or {}, {"note": "é"})


def test_plain_values_come_back_as_they_were(tmp_path):
    state = {
        "numbers": (1, 2.5, None, True, "text"),
        7: [torch.arange(3), {"a": torch.tensor(2.0, dtype=torch.bfloat16)}],
        "empty": {},
    }
    folder = CheckpointFolder(str(tmp_path))
    folder.save(checkpoint(1, 2, state))
    found = folder.load(folder.latest())
    assert found.state["numbers"] == state["numbers"]
    assert torch.equal(found.state[7][0], torch.arange(3))
    assert found.state[7][1]["a"].dtype is torch.bfloat16
    assert (found.state["empty"], found.facts, found.epoch, found.step) == ({}, {"note": "é"}, 1, 2)


def test_the_latest_are_kept(tmp_path):
    folder = CheckpointFolder(str(tmp_path / "run"), keep=2)
    assert folder.latest() is None
    for epoch, step in ((0, 5), (0, 10), (1, 0), (1, 5)):
        folder.save(checkpoint(epoch, step))
    assert folder.names() == ["epoch-000001-step-000000000", "epoch-000001-step-000000005"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == folder.names()
    folder.clear()
    assert folder.names() == []


@pytest.mark.parametrize("name", [MODEL, STATE])
@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, name, damage, caplog):
    folder = CheckpointFolder(str(tmp_path))
    folder.save(checkpoint(0))
    folder.save(checkpoint(1))
    path = tmp_path / "epoch-000001-step-000000000" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] if damage == "truncated" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CorruptDataError, match=f"is damaged: {name} is not what the manifest says"):
        folder.load("epoch-000001-step-000000000")
    assert folder.latest() == "epoch-000000-step-000000000"
    assert "trying the one before" in caplog.text


def test_one_that_was_cut_short_does_not_count(tmp_path):
    folder = CheckpointFolder(str(tmp_path))
    folder.save(checkpoint(0))
    folder.save(checkpoint(1))
    (tmp_path / "epoch-000001-step-000000000" / MANIFEST).unlink()
    assert folder.latest() == "epoch-000000-step-000000000"
    with pytest.raises(DataError, match="cannot be seen from this machine. Set checkpointDir"):
        folder.load("epoch-000001-step-000000000")


def test_files_are_json_and_safetensors(tmp_path):
    folder = CheckpointFolder(str(tmp_path))
    folder.save(checkpoint(0))
    files = {path.name: path.read_bytes() for path in (tmp_path / "epoch-000000-step-000000000").iterdir()}
    assert files.keys() == {MANIFEST, MODEL, STATE}
    assert json.loads(files[MANIFEST])["facts"] == {"note": "é"}
    assert json.loads(files[MODEL][8 : 8 + int.from_bytes(files[MODEL][:8], "little")])["weight"]["shape"] == [2, 2]


def test_what_is_no_data_is_refused(tmp_path):
    folder = CheckpointFolder(str(tmp_path))
    with pytest.raises(ParameterError, match="state/optimizer/f is a function; a checkpoint holds tensors, arrays"):
        folder.save(checkpoint(0, state={"optimizer": {"f": lambda: None}}))
    assert folder.latest() is None


def test_tied_weights_are_saved(tmp_path):
    layer = nn.Linear(3, 3)
    tied = nn.Sequential(layer, layer)
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    other.load_state_dict(module_state(module_bytes(tied.state_dict())))
    assert torch.equal(other[0].weight, layer.weight)
    assert torch.equal(other[1].weight, layer.weight)


def test_no_alteration_of_a_manifest_is_believed(tmp_path):
    """Every single bit, and every number, counts: a changed step or rate would go on from elsewhere."""
    folder = CheckpointFolder(str(tmp_path))
    folder.save(checkpoint(0))
    folder.save(checkpoint(1, 5, {"rate": 0.1, "names": ["a", None]}))
    path = tmp_path / "epoch-000001-step-000000005" / MANIFEST
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(CorruptDataError, match=r"damaged manifest|without a digest"):
            folder.load("epoch-000001-step-000000005")
    assert folder.latest() == "epoch-000000-step-000000000"


@pytest.mark.parametrize("name", [MODEL, STATE])
def test_a_missing_part_is_passed_over(tmp_path, name):
    folder = CheckpointFolder(str(tmp_path))
    folder.save(checkpoint(0))
    folder.save(checkpoint(1))
    (tmp_path / "epoch-000001-step-000000000" / name).unlink()
    assert folder.latest() == "epoch-000000-step-000000000"


def test_a_full_disk_costs_a_warning_and_leaves_nothing(tmp_path, monkeypatch):
    """The state of the first checkpoint fits, and that of the others does not."""
    folder = CheckpointFolder(str(tmp_path))
    assert folder.save_if_possible(checkpoint(0)) == ""
    write, names = Location.write, list[str]()

    def full(self, content):
        names.append(self.path)
        if self.path.endswith(STATE):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        write(self, content)

    monkeypatch.setattr(Location, "write", full)
    why = folder.save_if_possible(checkpoint(1))
    assert re.fullmatch(r"checkpoint \S+/epoch-000001-step-0+ was not written: [^\n]+No space left[^\n]+", why)
    assert len(names) == 2
    with pytest.raises(ParameterError, match=r"^checkpointDir='[^\n]+' cannot be used: [^\n]+No space left[^\n]+$"):
        folder.save(checkpoint(1))
    assert {path.name for path in tmp_path.iterdir()} == {"epoch-000000-step-000000000"}
    assert folder.latest() == "epoch-000000-step-000000000"
