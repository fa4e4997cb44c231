"""DataFrames of Spark: fitted in two tasks, and scored in tasks."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.keras import networks


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
