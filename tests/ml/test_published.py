"""Coefficients and summaries that R's glm, statmod and glmnet print, on the data sets of Spark's own test suites.

Data and figures are facts of R, as Spark's Scala suites quote them; tolerances are their published digits.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pyspark.ml.linalg import Vectors

from sparkopt import ml

FAMILIES = ["binomial", "gamma", "gaussian", "poisson", "tweedie"]
TIGHT = {"tol": 1e-12, "maxIter": 500, "engine": "local"}

COUNTS = [
    (0.0, 1, 0, [18, 1]),
    (1.0, 1, 0, [12, 0]),
    (0.0, 1, 0, [15, 0]),
    (0.0, 1, 0, [13, 2]),
    (0.0, 1, 0, [15, 1]),
    (1.0, 1, 0, [16, 1]),
]
AMOUNTS = [(1.0, 1, 0, [0, 5]), (0.5, 1, 0, [1, 2]), (1.0, 1, 0, [2, 1]), (2.0, 1, 0, [3, 3])]
NOTHING = [(1.0, 1, 0, []), (0.5, 2, 0, []), (0.7, 3, 0, []), (0.3, 4, 0, [])]
SHARES = [(0.2, 1.0, 2.0, [0, 5]), (0.5, 2.1, 0.5, [1, 2]), (0.9, 0.4, 1.0, [2, 1]), (0.7, 0.7, 0.0, [3, 3])]
PRIMES = [(17.0, 1, 2, [0, 5]), (19.0, 2, 3, [1, 7]), (23.0, 3, 1, [2, 11]), (29.0, 4, 4, [3, 13])]
PRIME_COUNTS = [(2.0, 1, 2, [0, 5]), (8.0, 2, 3, [1, 7]), (3.0, 3, 1, [2, 11]), (9.0, 4, 4, [3, 13])]
POSITIVE = [(1.0, 1, 0, [0, 5]), (2.0, 2, 0.5, [1, 2]), (1.0, 3, 1, [2, 1]), (2.0, 4, 0, [3, 3])]
ZEROS = [(1.0, 1, 1, [0, 5]), (0.5, 2, 3, [1, 2]), (1.0, 3, 2, [2, 1]), (0.0, 4, 0, [3, 3])]


def tweedie(variance, link=None):
    own = {"family": "tweedie", "variancePower": variance}
    return own if link is None else {**own, "linkPower": link}


def coefficients():
    """Yield name, rows, options, and what R prints: intercept (None without one) and coefficients."""
    yield "counts through the origin", COUNTS, {"family": "poisson"}, None, [-0.0457441, -0.6833928]
    yield "counts", COUNTS, {"family": "poisson"}, 1.8121235, [-0.1747493, -0.5815417]
    for power, link, through_origin, intercept, slopes in (
        (1.6, 0.0, [0.149648, -0.0122283], -1.3163732, [0.4378139, 0.2464114]),
        (2.5, 0.0, [0.1373567, -0.0120673], -1.439602, [0.4817364, 0.2680088]),
        (1.6, 1.0, [0.3919109, 0.1846094], -0.709023, [0.6256309, 0.3294324]),
        (2.5, 1.0, [0.3684426, 0.1810662], -0.9524928, [0.7304267, 0.3792687]),
        (1.6, -1.0, [0.1759887, 0.2195818], 2.1188978, [-0.3360519, -0.2067023]),
        (2.5, -1.0, [0.1108561, 0.205943], 2.1659028, [-0.349917, -0.2128286]),
        (0.0, None, [0.4310345, 0.1896552], -0.515873, [0.5555556, 0.2936508]),
        (1.0, None, [0.15776482, -0.01189032], -1.2689559, [0.4230934, 0.2388465]),
        (2.0, None, [0.1468853, 0.2116519], 2.137852, [-0.341431, -0.20909]),
        (1.5, None, [0.2282601, 0.2132775], 1.5953393, [-0.1884985, -0.1106335]),
    ):
        name = f"tweedie {power}, link {link}"
        yield f"{name}, through the origin", AMOUNTS, tweedie(power, link), None, through_origin
        yield name, AMOUNTS, tweedie(power, link), intercept, slopes
    alone = [0.5108256, 1.6, 0.625, -0.4700036, 1.325782], [0.1201443, 1.886792, 0.53, -0.6348783, 1.463641]
    for weighted, intercepts in zip((False, True), alone, strict=True):
        for family, intercept in zip(FAMILIES, intercepts, strict=True):
            own = tweedie(1.6) if family == "tweedie" else {"family": family}
            own = {**own, "weightCol": "weight"} if weighted else own
            yield f"{family}, no features, weighted={weighted}", NOTHING, own, intercept, []
    for family, through_origin, intercept, slopes in zip(
        FAMILIES,
        [
            [0.9419107, -0.6864404],
            [-0.2869094, 0.785771],
            [0.5169222, -0.3344444],
            [0.1812436, -0.6568422],
            [0.1055254, 0.2979113],
        ],
        [-0.2147117, 0.3390397, -0.05990345, -1.561613, 0.3665034],
        [
            [0.991175, -0.6356096],
            [-0.3406099, 0.6870259],
            [0.53188982, -0.32118415],
            [0.664647, -0.3192581],
            [0.1039416, 0.1484616],
        ],
        strict=True,
    ):
        own = tweedie(1.5) if family == "tweedie" else {"family": family}
        own = {**own, "weightCol": "weight", "offsetCol": "offset"}
        yield f"{family} with offset, through the origin", SHARES, own, None, through_origin
        yield f"{family} with offset", SHARES, own, intercept, slopes


CASES = {case[0]: case[1:] for case in coefficients()}


@pytest.fixture(scope="module")
def frames(spark):
    """Rows as a DataFrame, made once for each data set."""
    known = {}

    def frame(rows):
        if id(rows) not in known:
            table = [(y, float(w), float(o), Vectors.dense(x)) for y, w, o, x in rows]
            made = spark.createDataFrame(table, ["label", "weight", "offset", "features"])
            known[id(rows)] = made.coalesce(1).cache()
        return known[id(rows)]

    return frame


@pytest.mark.parametrize("name", CASES)
def test_generalised_linear_models_are_rs(name, frames):
    rows, options, intercept, slopes = CASES[name]
    estimator = ml.GeneralizedLinearRegression(fitIntercept=intercept is not None, **TIGHT, **options)
    model = estimator.fit(frames(rows))
    np.testing.assert_allclose(model.coefficients, slopes, atol=2e-5)
    assert model.intercept == pytest.approx(intercept or 0.0, abs=2e-5)
    assert model.summary.solver == "irls"


def test_neither_features_nor_an_intercept_is_refused(frames):
    with pytest.raises(ValueError, match="Set fitIntercept=True"):
        ml.GeneralizedLinearRegression(fitIntercept=False).fit(frames(NOTHING))


SUMMARIES = {
    "gaussian": (
        PRIMES,
        {"family": "gaussian"},
        {
            "coefficientStandardErrors": [2.7782, 0.9798, 4.804],
            "tValues": [-0.34555, 1.73506, 1.15321],
            "pValues": [0.78819, 0.33286, 0.45478],
            "dispersion": 1.92,
            "nullDeviance": 152.1,
            "deviance": 1.92,
            "aic": 13.23758,
        },
        {
            "deviance": [0.96, -0.67882, -0.55426, 0.48],
            "pearson": [0.96, -0.67882, -0.55426, 0.48],
            "working": [0.96, -0.48, -0.32, 0.24],
            "response": [0.96, -0.48, -0.32, 0.24],
        },
    ),
    "binomial": (
        SHARES,
        {"family": "binomial"},
        {
            "coefficientStandardErrors": [1.23439, 0.9669, 3.56866],
            "tValues": [0.80297, -0.65737, -0.06017],
            "pValues": [0.42199, 0.51094, 0.95202],
            "dispersion": 1.0,
            "nullDeviance": 2.17561,
            "deviance": 0.00018,
            "aic": 10.24453,
        },
        {
            "deviance": [0.00258, -0.0038, 0.01248, -0.0018],
            "pearson": [0.00259, -0.0038, 0.01237, -0.0018],
            "working": [0.00648, -0.00524, 0.06354, -0.00469],
            "response": [0.00103, -0.00131, 0.00602, -0.00098],
        },
    ),
    "poisson": (
        PRIME_COUNTS,
        {"family": "poisson"},
        {
            "coefficientStandardErrors": [1.16826, 0.41703, 1.96249],
            "tValues": [-2.46387, 2.12428, -2.32757],
            "pValues": [0.01374, 0.03365, 0.01993],
            "dispersion": 1.0,
            "nullDeviance": 22.55853,
            "deviance": 9.5622,
            "aic": 51.24218,
        },
        {
            "deviance": [-2.04796, 1.23149, 1.82933, -0.71066],
            "pearson": [-1.74804, 1.30376, 2.07501, -0.6973],
            "working": [-0.68915, 0.38336, 0.97107, -0.10966],
            "response": [-4.43395, 2.21697, 1.47798, -1.10849],
        },
    ),
    "gamma": (
        POSITIVE,
        {"family": "gamma"},
        {
            "coefficientStandardErrors": [0.06931, 0.0732, 0.23866],
            "tValues": [1.11031, 3.83453, -2.3663],
            "pValues": [0.46675, 0.16241, 0.25454],
            "dispersion": 0.12122,
            "nullDeviance": 2.02568,
            "deviance": 0.12546,
            "aic": 0.93388,
        },
        {
            "deviance": [-0.17095, 0.19867, -0.23604, 0.03241],
            "pearson": [-0.16135, 0.20808, -0.22545, 0.03259],
            "working": [0.13532, -0.08439, 0.11322, -0.00828],
            "response": [-0.19239, 0.25652, -0.14964, 0.03207],
        },
    ),
    "tweedie": (
        ZEROS,
        tweedie(1.6, 0.0),
        {
            "coefficientStandardErrors": [1.41674, 0.97065, 3.65],
            "tValues": [-0.80873, -0.37691, -0.00835],
            "pValues": [0.56707, 0.77053, 0.99468],
            "dispersion": 6.33496,
            "nullDeviance": 12.78358,
            "deviance": 10.09488,
        },
        {
            "deviance": [0.89171, -2.13961, 1.2252, -1.79463],
            "pearson": [1.14726, -1.46426, 1.49352, -0.80258],
            "working": [1.36249, -0.83224, 0.98946, -1.0],
            "response": [0.57672, -2.4804, 0.49735, -0.01041],
        },
    ),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_summaries_are_rs(name, frames):
    rows, options, facts, residuals = SUMMARIES[name]
    columns = {"weightCol": "weight", "offsetCol": "offset"}
    summary = ml.GeneralizedLinearRegression(**columns, **TIGHT, **options).fit(frames(rows)).summary
    for fact, expected in facts.items():
        np.testing.assert_allclose(getattr(summary, fact), expected, rtol=1e-4, atol=1e-4, err_msg=fact)
    for kind, expected in residuals.items():
        found = summary.residuals(kind).toPandas().iloc[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=kind)
    assert (summary.residualDegreeOfFreedomNull, summary.residualDegreeOfFreedom) == (3, 1)


class JavaRandom:
    """java.util.Random: the generator of Spark's Scala suites."""

    def __init__(self, seed):
        self.state, self.spare = (seed ^ 0x5DEECE66D) & ((1 << 48) - 1), None

    def bits(self, count):
        self.state = (self.state * 0x5DEECE66D + 0xB) & ((1 << 48) - 1)
        return self.state >> (48 - count)

    def double(self):
        return ((self.bits(26) << 27) + self.bits(27)) / (1 << 53)

    def gaussian(self):
        """Marsaglia's polar method, two at a time."""
        if self.spare is not None:
            found, self.spare = self.spare, None
            return found
        square = 0.0
        while not 0 < square < 1:
            first, second = 2 * self.double() - 1, 2 * self.double() - 1
            square = first * first + second * second
        factor = np.sqrt(-2 * np.log(square) / square)
        self.spare = second * factor
        return first * factor


def frame_of(spark, X, y):
    return spark.createDataFrame(pd.DataFrame({"label": y, "features": list(X)})).coalesce(1).cache()


@pytest.fixture(scope="module")
def flowers(spark):
    """Spark's 10,000 generated rows with the means, variances and odds of iris; labels 0 and 1."""
    random, n = JavaRandom(42), 10_000
    mean, variance = np.array([5.843, 3.057, 3.758, 1.199]), np.array([0.6856, 0.1899, 3.116, 0.581])
    X = np.array([[random.gaussian() for _ in range(4)] for _ in range(n)]) * np.sqrt(variance) + mean
    margin = X @ [-0.57997, 0.912083, -0.371077, -0.819866] + 2.688191
    drawn = np.array([random.double() for _ in range(n)])
    return frame_of(spark, X, (drawn >= 1 / (1 + np.exp(margin))).astype(float))


@pytest.fixture(scope="module")
def lines(spark):
    """Spark's 10,000 generated rows of a line in two features with noise."""
    random, rows = JavaRandom(42), []
    mean, variance = np.array([0.9, -1.3]), np.array([0.7, 1.2])
    for _ in range(10_000):
        x = (np.array([random.double(), random.double()]) - 0.5) * np.sqrt(12 * variance) + mean
        rows.append([*x, x @ [4.7, 7.2] + 6.3 + 0.1 * random.gaussian()])
    table = np.array(rows)
    return frame_of(spark, table[:, :2], table[:, 2])


LINKS = {
    "logit": (
        [-0.3560284, 1.3010002, -0.3570805, -0.7406762],
        2.8367406,
        [-0.5896187, 0.8931655, -0.3925169, -0.7996989],
    ),
    "probit": (
        [-0.2134390, 0.7800646, -0.2144267, -0.4438358],
        1.6995366,
        [-0.3524694, 0.5332651, -0.2352985, -0.4780850],
    ),
    "cloglog": (
        [-0.2832198, 0.8434144, -0.2524727, -0.5293452],
        1.5063590,
        [-0.4038015, 0.6133664, -0.2687882, -0.5541758],
    ),
}


@pytest.mark.parametrize("link", LINKS)
def test_binomial_models_of_spark_s_generated_rows_are_rs(link, flowers):
    through_origin, intercept, slopes = LINKS[link]
    options = {"family": "binomial", "link": link, **TIGHT}
    model = ml.GeneralizedLinearRegression(fitIntercept=False, **options).fit(flowers)
    np.testing.assert_allclose(model.coefficients, through_origin, atol=2e-5)
    model = ml.GeneralizedLinearRegression(**options).fit(flowers)
    np.testing.assert_allclose([model.intercept, *model.coefficients], [intercept, *slopes], atol=2e-5)


WEIGHTED = [
    ("primes", PRIMES, 18.08, [6.08, -0.6]),
    ("primes through the origin", PRIMES, None, [-3.7271, 3.01]),
    ("constant", [(17.0, w, o, x) for _, w, o, x in PRIMES], 17.0, [0.0, 0.0]),
    ("constant through the origin", [(17.0, w, o, x) for _, w, o, x in PRIMES], None, [-9.221298, 3.394343]),
    ("zero", [(0.0, w, o, x) for _, w, o, x in PRIMES], 0.0, [0.0, 0.0]),
    ("zero through the origin", [(0.0, w, o, x) for _, w, o, x in PRIMES], None, [0.0, 0.0]),
]


@pytest.mark.parametrize("solver", ["auto", "normal", "l-bfgs"])
@pytest.mark.parametrize("case", WEIGHTED, ids=lambda case: case[0])
def test_weighted_least_squares_are_rs(solver, case, frames):
    _, rows, intercept, slopes = case
    estimator = ml.LinearRegression(weightCol="weight", solver=solver, fitIntercept=intercept is not None, **TIGHT)
    model = estimator.fit(frames(rows))
    np.testing.assert_allclose(model.coefficients, slopes, atol=1e-4)
    assert model.intercept == pytest.approx(intercept or 0.0, abs=1e-4)


def test_a_weighted_regressions_summary_is_rs(frames):
    summary = ml.LinearRegression(weightCol="weight", **TIGHT).fit(frames(PRIMES)).summary
    np.testing.assert_allclose(summary.coefficientStandardErrors, [5.556, 1.960, 9.608], atol=1e-3)
    np.testing.assert_allclose(summary.tValues, [1.094, -0.306, 1.882], atol=1e-3)
    np.testing.assert_allclose(summary.pValues, [0.471, 0.811, 0.311], atol=1e-3)
    np.testing.assert_allclose(summary.devianceResiduals, [-1.358, 1.920], atol=1e-3)


def test_least_squares_of_spark_s_generated_rows_are_rs(lines):
    """To all digits, so the rows are Spark's."""
    model = ml.LinearRegression(**TIGHT).fit(lines)
    np.testing.assert_allclose([model.intercept, *model.coefficients], [6.3022157, 4.6982442, 7.1994344], atol=1e-7)
    summary = model.summary
    assert summary.meanSquaredError == pytest.approx(0.00985449, abs=1e-8)
    assert summary.meanAbsoluteError == pytest.approx(0.07961668, abs=1e-8)
    assert summary.r2 == pytest.approx(0.9998737, abs=1e-7)
    np.testing.assert_allclose(summary.coefficientStandardErrors, [0.0011805, 0.0009044, 0.0018600], atol=1e-7)
    np.testing.assert_allclose(summary.devianceResiduals, [-0.47082, 0.34635], atol=1e-5)


GLMNET = [
    (0.0, 0.57, 1.0, True, 6.242284, [4.019605, 6.679538]),
    (0.0, 0.57, 1.0, False, 6.416948, [3.893869, 6.724286]),
    (None, 0.57, 1.0, True, 0.0, [6.272927, 4.782604]),
    (None, 0.57, 1.0, False, 0.0, [6.207817, 4.775780]),
    (0.0, 2.3, 0.0, True, 5.260103, [3.725522, 5.711203]),
    (0.0, 2.3, 0.0, False, 5.790885, [3.432373, 5.919196]),
    (None, 2.3, 0.0, True, 0.0, [5.493430, 4.223082]),
    (None, 2.3, 0.0, False, 0.0, [5.244324, 4.203106]),
    (0.0, 1.6, 0.3, True, 5.689855, [3.661181, 6.000274]),
    (0.0, 1.6, 0.3, False, 6.113890, [3.407021, 6.152512]),
    (None, 1.6, 0.3, True, 0.0, [5.643748, 4.331519]),
    (None, 1.6, 0.3, False, 0.0, [5.455902, 4.312266]),
]


@pytest.mark.parametrize("solver", ["auto", "normal", "l-bfgs"])
def test_penalised_least_squares_of_spark_s_generated_rows_are_glmnets(solver, lines):
    """To a hundredth, as Spark asks: glmnet was run on an earlier draw of these rows."""
    for through, strength, share, standardization, intercept, slopes in GLMNET:
        model = ml.LinearRegression(
            fitIntercept=through is not None,
            regParam=strength,
            elasticNetParam=share,
            standardization=standardization,
            solver=solver,
            **TIGHT,
        ).fit(lines)
        np.testing.assert_allclose([model.intercept, *model.coefficients], [intercept, *slopes], rtol=1e-2)
