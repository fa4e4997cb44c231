"""Multinomial logistic regression, as glmnet and a solver of bounded problems print it."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt import ml
from tests.ml.published import TIGHT
from tests.ml.published.cases import RAW, SAME, STANDARDISED, Case
from tests.tiers import needs

pytestmark = pytest.mark.usefixtures("minutes")

INF = np.inf
ONES, TWOS = [[1.0] * 4] * 3, [[2.0] * 4] * 3
LOWER = {"lowerBoundsOnCoefficients": ONES}
LOWER_TOO = {**LOWER, "lowerBoundsOnIntercepts": [1.0] * 3}
BOTH = {**LOWER_TOO, "upperBoundsOnCoefficients": TWOS, "upperBoundsOnIntercepts": [2.0] * 3}
INFINITE = {
    "lowerBoundsOnCoefficients": [[-INF] * 4] * 3,
    "lowerBoundsOnIntercepts": [-INF] * 3,
    "upperBoundsOnCoefficients": [[INF] * 4] * 3,
    "upperBoundsOnIntercepts": [INF] * 3,
}
L1 = {"regParam": 0.05, "elasticNetParam": 1.0}
L2 = {"regParam": 0.1}
ELASTIC = {"regParam": 0.1, "elasticNetParam": 0.5}
FAINT = {"regParam": 0.5, "elasticNetParam": 0.0001}
STRONG = {"regParam": 6.0, "elasticNetParam": 1.0}

FREE = [
    Case(
        "none",
        SAME,
        "kinds",
        {},
        [-2.22347257, 0.3674309, 1.85604170],
        [
            [0.24574397, -0.04054235, 0.14963756, 0.37504027],
            [-0.3266910, 0.8939282, -0.2363519, -0.4631336],
            [0.08094703, -0.85338588, 0.08671439, 0.08809332],
        ],
    ),
    Case(
        "constant feature",
        STANDARDISED,
        "constant kinds",
        {},
        [0.2658824, 0.53604701, -0.8019294],
        [[0.1881871, 0.0], [-0.02412645, 0.0], [-0.1640607, 0.0]],
    ),
    Case(
        "small variance",
        SAME,
        "narrow kinds",
        {},
        [2.91748298, -17.5107460, 14.59326301],
        [
            [0.21755977, 0.01647541, 0.16507778, -0.14016680],
            [-0.2443600, 0.7564655, -0.2955698, 1.3262009],
            [0.02680026, -0.77294095, 0.13049206, -1.18603411],
        ],
        (1e-2, 0.1, 0.0),
    ),
    Case(
        "small variance, faint L1",
        STANDARDISED,
        "narrow kinds",
        FAINT,
        [1.751626027, -3.9297124987, 2.178086472],
        [
            [0.019970169, 0.079611293, 0.003959452, 0.110024399],
            [-0.0004788494, 0.0010097453, -0.0005832701, 0.0],
            [-0.019369990, -0.080851149, -0.003319687, -0.112435972],
        ],
        (1e-3, 1e-2, 0.0),
    ),
    Case(
        "L1",
        STANDARDISED,
        "kinds",
        L1,
        [-0.69265374, -0.2260274, 0.9186811],
        [
            [0.0, 0.0, 0.0, 0.09064661],
            [-0.1144333, 0.3204703, -0.1621061, -0.2308192],
            [0.0, -0.4832131, 0.0, 0.0],
        ],
        (1e-3, 0.0, 1e-3),
    ),
    Case(
        "L1",
        RAW,
        "kinds",
        L1,
        [-0.44707756, 0.75180900, -0.3047314],
        [[0.0, 0.0, 0.01641412, 0.03570376], [-0.05110822, 0.0, -0.21595670, -0.16162836], [0.0] * 4],
        (1e-3, 0.0, 1e-3),
    ),
    Case(
        "L2",
        STANDARDISED,
        "kinds",
        L2,
        [-1.68571384, 0.2364585, 1.44925536],
        [
            [0.17156077, 0.01658014, 0.10303296, 0.26459585],
            [-0.2182805, 0.5960025, -0.1587441, -0.3121284],
            [0.04671972, -0.61258267, 0.05571116, 0.04753251],
        ],
        (2e-3, 0.0, 1e-3),
    ),
    Case(
        "L2",
        RAW,
        "kinds",
        L2,
        [-1.65140201, 1.1367722, 0.51462979],
        [
            [0.15446206, 0.02134769, 0.12524946, 0.22607972],
            [-0.1931713, 0.2766548, -0.1910455, -0.2629336],
            [0.03870921, -0.29800245, 0.06579606, 0.03685390],
        ],
    ),
    Case(
        "elastic net",
        STANDARDISED,
        "kinds",
        ELASTIC,
        [-0.55325803, -0.27291366, 0.8261717],
        [
            [0.0, 0.0, 0.0, 0.09074857],
            [-0.09093399, 0.28078251, -0.12854559, -0.18382494],
            [0.0, -0.4064444, 0.0, 0.0],
        ],
    ),
    Case(
        "elastic net",
        RAW,
        "kinds",
        ELASTIC,
        [-0.40016908, 0.62474768, -0.2245786],
        [[0.0, 0.0, 0.02312769, 0.04159224], [-0.03776471, 0.0, -0.19588206, -0.11187712], [0.0] * 4],
        (1e-3, 2e-3, 0.0),
    ),
    Case(
        "none",
        SAME,
        "kinds",
        {},
        None,
        [
            [0.06892068, -0.36546704, 0.12274583, 0.32616580],
            [-0.2987384, 0.9483147, -0.2328113, -0.4555157],
            [0.2298177, -0.5828477, 0.1100655, 0.1293499],
        ],
        (0.0, 0.05, 0.0),
    ),
    Case(
        "L1",
        STANDARDISED,
        "kinds",
        L1,
        None,
        [[0.0, 0.0, 0.0, 0.01167], [-0.1413518, 0.5100469, -0.1658025, -0.2755998], [0.001536337, 0.0, 0.0, 0.0]],
        (0.0, 0.0, 0.01),
    ),
    Case(
        "L1",
        RAW,
        "kinds",
        L1,
        None,
        [[0.0] * 4, [0.0, 0.2094410, -0.1944582, -0.1307681], [0.0] * 4],
        (0.0, 2e-3, 0.0),
    ),
    Case(
        "L2",
        STANDARDISED,
        "kinds",
        L2,
        None,
        [
            [0.03804571, -0.23204409, 0.08337512, 0.23029089],
            [-0.2015495, 0.6328705, -0.1562475, -0.3071447],
            [0.16350376, -0.40082637, 0.07287239, 0.07685379],
        ],
        (0.0, 0.0, 5e-3),
    ),
    Case(
        "L2",
        RAW,
        "kinds",
        L2,
        None,
        [
            [-0.006493452, -0.143831823, 0.092538445, 0.187244839],
            [-0.08068443, 0.39038929, -0.16822390, -0.23667470],
            [0.08717788, -0.24655746, 0.07568546, 0.04942986],
        ],
        (0.0, 0.0, 1e-3),
    ),
    Case(
        "elastic net",
        STANDARDISED,
        "kinds",
        ELASTIC,
        None,
        [[0.0, 0.0, 0.0, 0.03418889], [-0.1114779, 0.3992145, -0.1315371, -0.2107956], [0.006442826, 0.0, 0.0, 0.0]],
        (0.0, 0.0, 5e-3),
    ),
    Case(
        "elastic net",
        RAW,
        "kinds",
        ELASTIC,
        None,
        [[0.0] * 4, [0.0, 0.15710979, -0.16871602, -0.07928527], [0.0] * 4],
    ),
]
BOUNDED = [
    Case(
        "lower bounds",
        SAME,
        "kinds",
        LOWER_TOO,
        [1.0000152482, 3.5917732884, 5.0796859537],
        [
            [2.1156620676, 2.7146375863, 1.8108730417, 2.7119754703],
            [1.5431411088, 3.6489639142, 1.4248901324, 1.8737908246],
            [1.9508527268, 1.9017484392, 1.7479497662, 2.4250552987],
        ],
    ),
    Case(
        "both bounds",
        SAME,
        "kinds",
        BOTH,
        [1.0, 2.0, 2.0],
        [
            [1.6419805089, 1.1579023489, 1.4346513520, 1.9541352988],
            [1.3416273422, 2.0, 1.1014102844, 1.2076556941],
            [1.6371808928, 1.0, 1.3936094724, 1.7102254058],
        ],
    ),
    Case(
        "infinite bounds",
        SAME,
        "kinds",
        INFINITE,
        [-2.2231282183, 0.3669496747, 1.8561785436],
        [
            [0.2457320490, -0.0406108205, 0.1496271689, 0.3750254911],
            [-0.3266914049, 0.8940567211, -0.2363389826, -0.4631024665],
            [0.0809593558, -0.8534459006, 0.0867118137, 0.0880769754],
        ],
    ),
    Case(
        "lower bounds",
        SAME,
        "kinds",
        LOWER,
        None,
        [
            [1.5933935326, 1.4427758361, 1.3560795063, 1.7818682795],
            [1.2224266733, 2.7626913627, 1.0005885171, 1.0000022614],
            [1.7524631429, 1.2292565990, 1.3433784432, 1.5846063018],
        ],
    ),
    Case(
        "L2, lower bounds",
        STANDARDISED,
        "kinds",
        {**L2, **LOWER_TOO},
        [2.4259954222, 1.0000087411, 2.4904617165],
        [[1.0, 1.0, 1.0, 1.0259703289], [1.0, 1.4150672324, 1.0, 1.0], [1.0] * 4],
    ),
    Case(
        "L2, lower bounds",
        RAW,
        "kinds",
        {**L2, **LOWER_TOO},
        [1.0521598454, 1.0, 1.2131582414],
        [[1.0, 1.0, 1.0336746542, 1.0], [1.0] * 4, [1.0] * 4],
    ),
    Case(
        "L2, lower bounds",
        STANDARDISED,
        "kinds",
        {**L2, **LOWER},
        None,
        [[1.01324653, 1.0, 1.0, 1.0415767], [1.0] * 4, [1.02244888, 1.0, 1.0, 1.0]],
        (0.0, 0.0, 1e-2),
    ),
    Case(
        "L2, lower bounds",
        RAW,
        "kinds",
        {**L2, **LOWER},
        None,
        [[1.0, 1.0, 1.03932259, 1.0], [1.0] * 4, [1.0, 1.0, 1.03274649, 1.0]],
        (0.0, 0.0, 1e-2),
    ),
]


LONG = {"narrow kinds": needs("minutes")}
"""Fifty thousand rows."""


@pytest.mark.parametrize("case", [pytest.param(case, marks=LONG.get(case.rows, ()), id=str(case)) for case in FREE])
def test_multinomial_regression_is_glmnets(case, frames):
    for model in case.fitted(ml.LogisticRegression, frames(case.rows), weightCol="weight", **TIGHT):
        case.agrees(model.interceptVector, model.coefficientMatrix.toArray())


@pytest.mark.parametrize("case", BOUNDED, ids=str)
def test_bounded_multinomial_regression_is_published(case, frames):
    """Without a penalty, numbers of all classes may be shifted together, within their bounds."""
    names = ["lowerBoundsOnCoefficients", "upperBoundsOnCoefficients"]
    low, high = (case.options.get(name, end) for name, end in zip(names, (-INF, INF), strict=True))
    for model in case.fitted(ml.LogisticRegression, frames(case.rows), weightCol="weight", **TIGHT):
        found = model.coefficientMatrix.toArray()
        assert np.all((found >= low) & (found <= high))
        if "regParam" in case.options:
            case.agrees(model.interceptVector, found)
        else:
            published = np.array(case.coefficients)
            np.testing.assert_allclose(found - found[0], published - published[0], atol=1e-3)
            intercepts = model.interceptVector.toArray()
            published = np.zeros(3) if case.intercept is None else np.array(case.intercept)
            np.testing.assert_allclose(intercepts - intercepts[0], published - published[0], atol=1e-3)


@pytest.mark.parametrize("standardization", [True, False])
def test_a_strong_l1_penalty_leaves_the_classes_shares(standardization, frames):
    """Their logarithms, centred."""
    rows = frames("kinds")
    model = ml.LogisticRegression(weightCol="weight", standardization=standardization, **STRONG, **TIGHT).fit(rows)
    table = rows.select("label", "weight").toPandas()
    shares = np.log(table.groupby("label").weight.sum())
    np.testing.assert_allclose(model.interceptVector, shares - shares.mean(), rtol=1e-6)
    np.testing.assert_array_equal(model.coefficientMatrix.toArray(), 0)
