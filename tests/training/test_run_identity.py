"""What belongs to a run's identity: the metadata of a trainer's fields decide it."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest

from sparkopt import Columns, Stop, Trainer, losses, optim, penalties
from sparkopt.checkpoint.checkpointer import Checkpointer
from sparkopt.engines.selection import by_name
from sparkopt.io.fingerprint import differences
from sparkopt.objective.work import LocalSteps
from sparkopt.training.run_identity import fingerprint, first_difference

BASE = Trainer(losses.Logistic(), optim.sgd())
OTHER = {
    "loss": losses.Hinge(),
    "optimizer": optim.adam(),
    "penalty": penalties.L2(0.5),
    "stop": Stop(3),
    "fit_intercept": False,
    "standardization": False,
    "scale_target": True,
    "mini_batch_fraction": 0.5,
    "local_steps": LocalSteps(4),
    "compression": "int8",
    "seed": 7,
    "engine": by_name("local"),
    "callbacks": (print,),
    "checkpointer": Checkpointer("/tmp/checkpoints"),
    "progress": False,
    "held_out": 1,
}
"""Every field of a trainer, with a value that is not BASE's."""
WHERE_AND_WHEN = {"stop", "engine", "callbacks", "checkpointer", "progress"}
OWN = {"optimizer", "penalty", "stop", "callbacks", "held_out"}


@pytest.fixture(scope="module")
def store():
    """As much of a store as a run's identity reads."""
    moments = SimpleNamespace(mean=np.array([1.0, 2.0]), std=np.array([1.0, 3.0]), rows=4)
    held_in = SimpleNamespace(mean=np.array([0.0, 2.0]))
    return SimpleNamespace(
        columns=Columns("f", "l"), moments=moments, validation=None, moments_without=lambda fold: held_in
    )


def identity(trainers, store):
    return fingerprint(trainers, [trainer.held_out for trainer in trainers], [None] * len(trainers), store)


def test_the_table_has_every_field():
    assert list(OTHER) == [field.name for field in fields(Trainer)]


@pytest.mark.parametrize("name", OTHER)
def test_a_run_is_what_it_computes_and_not_where_or_how_long(name, store):
    other = replace(BASE, **{name: OTHER[name]})
    changed = differences(identity([BASE], store), identity([other], store))
    if name in WHERE_AND_WHEN:
        assert changed == []
    elif name == "held_out":
        assert changed == ["folds", "held out"]
    else:
        assert changed == [name]


@pytest.mark.parametrize("name", OTHER)
def test_models_that_share_passes_agree_on_all_but_their_own(name):
    other = replace(BASE, **{name: OTHER[name]})
    assert first_difference([BASE, BASE, other]) == (None if name in OWN else name)
