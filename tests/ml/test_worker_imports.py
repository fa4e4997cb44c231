"""What is sent to score rows: a worker that gets it imports no pyspark.ml, which takes longer than many rows."""

from __future__ import annotations

import json
import subprocess
import sys

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest

from sparkopt.ml import (
    AFTSurvivalRegressionModel,
    FMClassificationModel,
    FMRegressionModel,
    GeneralizedLinearRegressionModel,
    LinearRegressionModel,
    LinearSVCModel,
    LogisticRegressionModel,
    MultiLabelLogisticRegressionModel,
    MultilayerPerceptronClassificationModel,
    MultilayerPerceptronRegressionModel,
    NegativeBinomialRegressionModel,
    OneVsRestModel,
    OrdinalRegressionModel,
    ProbabilityCalibrationModel,
    QuantileRegressionModel,
)

ROWS = np.array([[0.0, 1.0, -2.0], [3.0, 0.5, 0.25], [-1.0, -1.0, 1.5]])
ONE, SEVERAL = np.array([[0.5, -1.0, 2.0]]), np.array([[0.5, -1.0, 2.0], [1.0, 0.0, -0.5], [0.0, 0.25, 1.0]])
BIAS = np.array([0.1]), np.array([0.1, -0.2, 0.0])
MODELS = {
    "two classes": LogisticRegressionModel(ONE, BIAS[0]),
    "classes": LogisticRegressionModel(SEVERAL, BIAS[1]),
    "labels": MultiLabelLogisticRegressionModel(SEVERAL, BIAS[1]),
    "margins": LinearSVCModel(ONE, BIAS[0]),
    "rest": OneVsRestModel([LinearSVCModel(row[None], BIAS[0]) for row in SEVERAL]),
    "numbers": LinearRegressionModel(ONE, BIAS[0]),
    "quantile": QuantileRegressionModel(ONE, BIAS[0]),
    "gaussian": GeneralizedLinearRegressionModel(ONE, BIAS[0]),
    "poisson": GeneralizedLinearRegressionModel(ONE, BIAS[0])._set(family="poisson", link="log"),
    "probit": GeneralizedLinearRegressionModel(ONE, BIAS[0])._set(family="binomial", link="probit"),
    "counts": NegativeBinomialRegressionModel(ONE, BIAS[0], np.array([0.3])),
    "survival": AFTSurvivalRegressionModel(ONE, BIAS[0], np.array([0.2])),
    "ordinal": OrdinalRegressionModel(ONE, BIAS[0], np.array([-0.5, 0.4])),
    "sigmoid": ProbabilityCalibrationModel(np.array([[2.0]]), BIAS[0]),
    "pairs": FMRegressionModel(SEVERAL, BIAS[1], np.array([0.5])),
    "pairs of classes": FMClassificationModel(SEVERAL, BIAS[1], np.array([0.5])),
    "layers": MultilayerPerceptronRegressionModel(SEVERAL, BIAS[1], np.arange(4) / 7)._set(layers=[3, 3, 1]),
    "layers of classes": MultilayerPerceptronClassificationModel(SEVERAL, BIAS[1], np.arange(8) / 7)._set(
        layers=[3, 3, 2]
    ),
    "isotonic": ProbabilityCalibrationModel(np.array([[1.0]]), np.zeros(1), np.array([-1.0, 1.0, 0.2, 0.9])),
}
WORKER = """
import json, pickle, sys
import numpy as np, pyarrow as pa
scorer, rows = pickle.load(sys.stdin.buffer)
column = pa.array(list(np.array(rows)), pa.list_(pa.float64()))
print(json.dumps([scorer(column).to_pylist(), sorted(name for name in sys.modules if name.startswith("pyspark.ml"))]))
"""


@pytest.mark.parametrize("name", MODELS)
def test_a_worker_scores_without_pyspark_ml(name):
    model = MODELS[name]
    rows = ROWS[:, :1] if name in ("sigmoid", "isotonic") else ROWS
    model._set(featuresCol="features")
    columns = {key: column[0] for key, column in model._wanted([]).items()}
    sent = cloudpickle.dumps((model._row_scorer(columns), rows.tolist()))
    done = subprocess.run([sys.executable, "-c", WORKER], input=sent, capture_output=True, check=False)
    assert not done.returncode, done.stderr.decode()[-2000:]
    found, modules = json.loads(done.stdout)
    assert modules == []
    expected = model.transform(pa.table({"features": list(rows)}))
    for key in columns:
        column = expected.column(columns[key])
        np.testing.assert_array_equal([row[key] for row in found], column.to_pylist())
