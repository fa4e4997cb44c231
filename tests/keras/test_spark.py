"""DataFrames of Spark: fitted in two tasks, and scored in tasks."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.keras import networks

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("minutes")
def test_a_dataframe_is_fitted_and_scored_in_tasks(keras, backend, spark, tmp_path):
    from sparkopt.deep import KerasEstimator

    rng = np.random.default_rng(1)
    X = rng.normal(size=(120, 5)).astype(np.float32)
    y = (X @ rng.normal(size=(5, 3))).argmax(1)
    rows = [(row.tolist(), int(label)) for row, label in zip(X, y, strict=True)]
    df = spark.createDataFrame(rows, "features array<float>, label int").repartition(2)
    estimator = KerasEstimator(
        module=functools.partial(networks.mlp, norm=True),
        loss="multinomial",
        optimizer="adam",
        stepSize=0.02,
        epochs=3,
        numProc=2,
        backend=backend,
        storePath=str(tmp_path / "rows"),
    )
    estimator.progress = False
    model = estimator.fit(df)
    assert model.summary.receipt.processes == 2
    scored = model.transform(df).select("features", "probability").collect()
    inputs = np.array([row.features for row in scored], np.float32)
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(model.module(inputs, training=False)))
    np.testing.assert_allclose([row.probability.toArray() for row in scored], expected, atol=1e-5)


@pytest.mark.usefixtures("jvms", "kills", "minutes")
def test_a_mesh_of_all_ranks_in_tasks(keras, backend, tmp_path):
    """It goes where the ranks' own meshes go; after a loss Spark's next tasks go on from the checkpoint."""
    if backend != "jax":
        pytest.skip("a mesh of all ranks is JAX's")
    command = [sys.executable, "-m", "tests.keras.tasks", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    found = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert found, done.stderr[-3000:]
    facts = json.loads(found[0])
    apart, joined, calm, killed = (facts[name] for name in ("process", "ranks", "calm", "killed"))
    assert apart["devices"] == ["2 x cpu"] * 2
    assert apart["sent"] > 0 == joined["sent"]  # gradients are summed within the step
    assert joined["devices"] == calm["devices"] == killed["devices"] == ["4 x cpu"] * 2
    np.testing.assert_allclose(joined["losses"], apart["losses"], atol=1e-5)
    assert (calm["restarts"], calm["resumed"], killed["restarts"]) == (0, None, 1)
    assert killed["resumed"] is not None
    assert killed["losses"] == calm["losses"]
    assert killed["weights"] == calm["weights"]
