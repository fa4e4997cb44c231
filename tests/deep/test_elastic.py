"""Ranks that go on without one another: the same training where none is lost, nearly the same where one is."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from sparkopt.deep.checkpoint import module_state
from tests.deep.killing import calm, estimator, rows
from tests.deep.test_kill import script

needs_horovod = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="Horovod is not built here: make horovod"
)


@needs_horovod
def test_where_nobody_is_lost(spark, tmp_path):
    """The weights are those of the torch launcher, as those of Horovod's ordinary ranks are (test_kill.py)."""
    expected = estimator(calm(tmp_path / "torch"), "torch").fit(rows(spark))
    found = estimator(calm(tmp_path / "horovod"), "horovod", minProc=1, maxRestarts=1).fit(rows(spark))
    assert (found.summary.receipt.processes, found.summary.receipt.restarts) == (2, 0)
    assert found.summary.objectiveHistory == expected.summary.objectiveHistory
    assert found.weights == expected.weights


@needs_horovod
def test_a_killed_rank_is_missed_for_a_while(spark, tmp_path):
    """The other goes on with all of a step's rows, from memory; a replacement joins; the losses are the same."""
    process = script("elastic", str(tmp_path), "horovod")
    output, errors = process.communicate(timeout=200)
    found = [line.removeprefix("RESULT ") for line in output.splitlines() if line.startswith("RESULT ")]
    assert found, errors[-3000:]
    facts = json.loads(found[0])
    assert (facts["processes"], facts["restarts"]) == (2, 1)
    assert "of 2 ended without a word; training goes on with 1." in errors
    assert "Training goes on from step 10 of epoch 1, which repeats 2 steps." in errors
    assert "Training goes on with 2 processes instead of 1." in errors
    expected = estimator(calm(tmp_path / "calm"), "torch", dropout=0.0, epochs=6).fit(rows(spark))
    np.testing.assert_allclose(facts["losses"], expected.summary.objectiveHistory, rtol=1e-4)
    for name, tensor in module_state((tmp_path / "weights").read_bytes()).items():
        np.testing.assert_allclose(tensor, module_state(expected.weights)[name], rtol=1e-3, atol=1e-5)
