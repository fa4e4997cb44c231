"""Streams on Spark Connect: batches are learnt by the server's Python, and the client reads the newest model."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt.ml import LogisticRegression
from tests.connect.streams_client import BATCHES, ESTIMATOR, ROWS, batches

pytestmark = [pytest.mark.usefixtures("jvms", "minutes"), pytest.mark.timeout(600)]


def test_a_stream_is_learnt_and_scored(client, tmp_path):
    found = client("tests.connect.streams_client", tmp_path)
    assert found["counts"] == [BATCHES - 1, BATCHES]
    assert found["rows"] == [ROWS] * BATCHES
    assert found["warm"] == BATCHES
    assert found["scored"] == ROWS * BATCHES
    assert "stream must be a DataFrame of spark.readStream" in found["refused"]
    model = None
    for batch in batches():
        model = LogisticRegression(**ESTIMATOR).partialFit(batch, model, steps=2)
    np.testing.assert_allclose(found["coefficients"], model.coefficients.toArray(), rtol=1e-9)
