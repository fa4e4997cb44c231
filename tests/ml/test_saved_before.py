"""Models and stages that were saved before the modules moved: their classes' paths in the metadata still load.

``saved/`` was written by the version before (``sparkopt.ml.local.write``), with coefficients of three decimals.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sparkopt import ml
from sparkopt.ml import local

SAVED = Path(__file__).parent / "saved"
ROW = pd.DataFrame({"a": [1.0], "b": [2.0], "c": [-1.0], "features": [[1.0, 2.0, -1.0]]})
EXPECTED = {
    "logistic": (ml.LogisticRegressionModel, "prediction", 0.0),
    "multinomial": (ml.LogisticRegressionModel, "prediction", 2.0),
    "linear": (ml.LinearRegressionModel, "prediction", -0.673),
    "quantile": (ml.QuantileRegressionModel, "prediction", -0.673),
    "poisson": (ml.GeneralizedLinearRegressionModel, "prediction", np.exp(-0.673)),
    "svm": (ml.LinearSVCModel, "rawPrediction", [0.673, -0.673]),
}
"""What the version before predicted for the row."""


@pytest.mark.parametrize("name", EXPECTED)
def test_models_load_without_spark(name):
    kind, column, expected = EXPECTED[name]
    model = local.read(SAVED / name)
    assert type(model) is kind
    assert model.uid == name
    np.testing.assert_allclose(local.score(model, ROW)[column][0], expected, rtol=1e-12)


def test_models_and_stages_load_with_spark(spark):
    model = ml.LogisticRegressionModel.load(str(SAVED / "logistic"))
    assert (model.getLabelCol(), model.getThreshold(), model.getFeaturesCols()) == ("churn", 0.4, ["a", "b", "c"])
    estimator = ml.LogisticRegression.load(str(SAVED / "estimator"))
    assert (estimator.getMaxIter(), estimator.getLocalSteps(), estimator.getCompression()) == (7, 2, "int8")
    stage = ml.ImageTransformer.load(str(SAVED / "images"))
    assert len(stage.getPipeline().transforms) == 2
