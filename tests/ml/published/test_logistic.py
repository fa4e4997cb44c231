"""Binomial logistic regression, as glmnet and a solver of bounded problems print it."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml.linalg import Vectors

from sparkopt import ml
from tests.ml.published import TIGHT
from tests.ml.published.cases import RAW, SAME, STANDARDISED, Case

pytestmark = pytest.mark.usefixtures("minutes")

INF = np.inf
UPPER = {"upperBoundsOnCoefficients": [[1.0, 0.0, 1.0, 0.0]]}
UPPER_TOO = {**UPPER, "upperBoundsOnIntercepts": [1.0]}
BOTH = {
    **UPPER_TOO,
    "lowerBoundsOnCoefficients": [[0.0, -1.0, 0.0, -1.0]],
    "lowerBoundsOnIntercepts": [0.0],
}
INFINITE = {
    "upperBoundsOnCoefficients": [[INF] * 4],
    "upperBoundsOnIntercepts": [INF],
    "lowerBoundsOnCoefficients": [[-INF] * 4],
    "lowerBoundsOnIntercepts": [-INF],
}
L1 = {"regParam": 0.12, "elasticNetParam": 1.0}
L2 = {"regParam": 1.37}
ELASTIC = {"regParam": 0.21, "elasticNetParam": 0.38}
STRONG = {"regParam": 6.0, "elasticNetParam": 1.0}
FAINT = {"regParam": 0.5, "elasticNetParam": 0.0001}

CASES = [
    Case("none", SAME, "flowers", {}, 2.7114519, [-0.5667801, 0.8818754, -0.3882505, -0.7891183]),
    Case("upper bounds", SAME, "flowers", UPPER_TOO, 1.0, [0.0599738739, 0.0, -0.2653661689, -0.5793842425]),
    Case("both bounds", SAME, "flowers", BOTH, 0.5673234605, [0.0, 0.0, 0.0, -0.7003382020]),
    Case(
        "infinite bounds", SAME, "flowers", INFINITE, 2.711413425, [-0.56679901, 0.88193008, -0.38825594, -0.78912339]
    ),
    Case("small variance", SAME, "narrow", {}, -348.2955812, [-0.8145023, 0.8979252, -0.6082397, 33.8070109]),
    Case("L1", STANDARDISED, "flowers", L1, -0.07157076, [0.0, 0.0, -0.04058143, -0.02322760], (2e-3, 2e-3, 0.0)),
    Case("L1", RAW, "flowers", L1, 0.3602029, [0.0, 0.0, -0.1635707, 0.0]),
    Case("L2", STANDARDISED, "flowers", L2, 0.12943705, [-0.06979418, 0.10691465, -0.04835674, -0.09939108]),
    Case("L2", RAW, "flowers", L2, 0.47553535, [-0.05058465, 0.02296823, -0.11368284, -0.06309008]),
    Case("elastic net", STANDARDISED, "flowers", ELASTIC, 0.51344133, [-0.04395595, 0.0, -0.08699271, -0.15249200]),
    Case("elastic net", RAW, "flowers", ELASTIC, 0.50936159, [0.0, 0.0, -0.18569346, -0.05625862]),
    Case("strong L1", SAME, "flowers", STRONG, -0.2521953, [0.0, 0.0, 0.0, 0.0]),
    Case(
        "L2, upper bounds",
        STANDARDISED,
        "flowers",
        {**L2, **UPPER_TOO},
        0.4564981351,
        [-0.0697441028, 0.0, -0.0483348609, -0.0994177062],
    ),
    Case(
        "L2, upper bounds",
        RAW,
        "flowers",
        {**L2, **UPPER_TOO},
        0.545787334,
        [-0.0505790695, 0.0, -0.1136744725, -0.0630943554],
    ),
    Case(
        "small variance, faint L1",
        STANDARDISED,
        "narrow",
        FAINT,
        -7.403746510,
        [-0.001443382, 0.001454470, -0.001097110, 0.048747722],
    ),
    Case("none", SAME, "flowers", {}, None, [-0.3451301, 1.2721785, -0.3537743, -0.7315618], (0.0, 1e-2, 0.0)),
    Case("upper bounds", SAME, "flowers", UPPER, None, [0.2072107448, 0.0, -0.2438973919, -0.5446655961]),
    Case("L1", STANDARDISED, "flowers", L1, None, [0.0, 0.0, -0.05164150, -0.04079129], (0.0, 5e-3, 0.0)),
    Case("L1", RAW, "flowers", L1, None, [0.0, 0.0, -0.08408014, 0.0]),
    Case(
        "L2", STANDARDISED, "flowers", L2, None, [-0.05998915, 0.12541885, -0.04697872, -0.09713973], (0.0, 2e-3, 0.0)
    ),
    Case("L2", RAW, "flowers", L2, None, [-0.005927466, 0.048313659, -0.092956052, -0.053974895]),
    Case(
        "elastic net",
        STANDARDISED,
        "flowers",
        ELASTIC,
        None,
        [0.0, 0.06859390, -0.07900058, -0.14684320],
        (0.0, 0.0, 1e-2),
    ),
    Case("elastic net", RAW, "flowers", ELASTIC, None, [0.0, 0.03060637, -0.11126742, 0.0], (0.0, 0.0, 1e-3)),
    Case(
        "L2, upper bounds",
        STANDARDISED,
        "flowers",
        {**L2, **UPPER},
        None,
        [-0.0084536551, 0.0, -0.0395484865, -0.0851639471],
    ),
    Case(
        "L2, upper bounds", RAW, "flowers", {**L2, **UPPER}, None, [0.0106757698, 0.0, -0.0852582081, -0.0506155351]
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_binomial_regression_is_glmnets(case, frames):
    for model in case.fitted(ml.LogisticRegression, frames(case.rows), weightCol="weight", **TIGHT):
        case.agrees(model.intercept, model.coefficients)


def test_scores_beyond_the_range_of_exp(spark):
    """Softmax of 1000, 2000, 3000 and of -1, -2, -3."""
    model = ml.LogisticRegressionModel(np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]), np.zeros(3))
    rows = spark.createDataFrame([(Vectors.dense(0.0, 1000.0),), (Vectors.dense(0.0, -1.0),)], ["features"])
    (large, small) = model.transform(rows).collect()
    assert list(large.rawPrediction) == [1000.0, 2000.0, 3000.0]
    assert list(large.probability) == [0.0, 0.0, 1.0]
    np.testing.assert_allclose(small.probability, [0.66524096, 0.24472847, 0.09003057], rtol=1e-7)
