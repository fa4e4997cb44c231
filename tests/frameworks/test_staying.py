"""Actors of Ray that stay for the passes of long fits: the bits of tasks, also where one is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparkopt.machine import ray_actors
from sparkopt.ml import LogisticRegression
from tests.frameworks.conftest import NAMES, Framework, columns, here

PASSES = 40


@pytest.fixture
def by_actors(framework: Framework, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each pass was by actors, which start soon here."""
    if framework.name != "ray":
        pytest.skip("actors are Ray's")
    found, run = list[bool](), ray_actors.Actors.run

    def noted(self: Any, function: Any, tasks: Any) -> Any:
        if self._starting:
            import ray

            ray.get(list(self._starting))
        outcomes = run(self, function, tasks)
        found.append(outcomes is not None)
        return outcomes

    monkeypatch.setattr(ray_actors, "STAY_AFTER", 3)
    monkeypatch.setattr(ray_actors.Actors, "run", noted)
    return found


@pytest.mark.parametrize("kills", [False, True], ids=["undisturbed", "killed"])
def test_passes_by_actors_have_the_bits_of_tasks(framework: Framework, by_actors: list[bool], kills: bool):
    frame = framework.frame(columns("columns"))
    killed = list[int]()

    def kill(progress: Any) -> None:
        if kills and not killed and progress.record.step == PASSES // 2:
            killed.append(_actor())
            os.kill(killed[0], signal.SIGKILL)

    settings = {"optimizer": "sgd", "miniBatchFraction": 0.3, "maxIter": PASSES, "tol": 0.0, "seed": 3}
    estimator = LogisticRegression(featuresCols=NAMES, regParam=0.01, callbacks=[kill], **settings)
    found = estimator.fit(frame)
    assert len(killed) == kills
    assert by_actors[-1]
    assert by_actors.count(True) > PASSES // 2
    expected = LogisticRegression(featuresCols=NAMES, regParam=0.01, **settings).fit(here(frame))
    assert np.array_equal(found.coefficients.toArray(), expected.coefficients.toArray())


def _actor() -> int:
    """Return the process of an actor."""
    for found in Path("/proc").glob("[0-9]*"):
        try:
            if (found / "cmdline").read_bytes().startswith(b"ray::_Staying"):
                return int(found.name)
        except OSError:  # it has ended
            continue
    raise AssertionError("there is none")
