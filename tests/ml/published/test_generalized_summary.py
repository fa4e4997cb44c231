"""Summaries of generalised linear models, as R's glm prints them."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt import ml
from tests.ml.published import TIGHT
from tests.ml.published.small import FIVE, POSITIVE, PRIME_COUNTS, PRIMES, SHARES, SWITCHES, ZEROS

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
        {"family": "tweedie", "variancePower": 1.6, "linkPower": 0.0},
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
def test_summaries_are_rs(name, literal):
    rows, options, facts, residuals = SUMMARIES[name]
    columns = {"weightCol": "weight", "offsetCol": "offset"}
    summary = ml.GeneralizedLinearRegression(**columns, **TIGHT, **options).fit(literal(rows)).summary
    for fact, expected in facts.items():
        np.testing.assert_allclose(getattr(summary, fact), expected, rtol=1e-4, atol=1e-4, err_msg=fact)
    for kind, expected in residuals.items():
        found = summary.residuals(kind).column(0)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=kind)
    assert (summary.residualDegreeOfFreedomNull, summary.residualDegreeOfFreedom) == (3, 1)


@pytest.mark.parametrize(
    ("known", "errors"),
    [([0.2884, 0.538], [1.724, 0.3787]), ([0.7903, 0.2258, 0.4677], [4.0129, 2.1153, 0.5815])],
    ids=["through the origin", "intercept"],
)
def test_standard_errors_of_an_unweighted_model_are_rs(known, errors, literal):
    model = ml.GeneralizedLinearRegression(fitIntercept=len(known) == 3, **TIGHT).fit(literal(FIVE))
    found = [*([model.intercept] if model.getFitIntercept() else []), *model.coefficients]
    np.testing.assert_allclose(found, known, atol=5e-5)
    found = model.summary.coefficientStandardErrors
    np.testing.assert_allclose([*found[2:], *found[:2]], errors, atol=1e-4)


@pytest.mark.parametrize(("strength", "aic"), [(0.0, 12.88188), (0.1, 12.92681), (1.0, 13.32836)])
def test_the_aic_of_a_penalised_model_is_sparkrs(strength, aic, literal):
    model = ml.GeneralizedLinearRegression(regParam=strength, **TIGHT).fit(literal(SWITCHES))
    assert model.summary.aic == pytest.approx(aic, abs=1e-5)
