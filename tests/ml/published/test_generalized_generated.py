"""Generalised linear models of ten thousand generated rows, as R's glm and glmnet print them."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt import ml
from tests.ml.published import TIGHT

pytestmark = pytest.mark.usefixtures("minutes")

GLM = [
    # family, link, coefficients through the origin; intercept and coefficients
    ("gaussian", "identity", [2.2958751, 0.8088523], [2.5009266, 2.1997901, 0.5999522]),
    ("gaussian", "log", [0.23063118, 0.07995495], [0.25016124, 0.21995737, 0.05999335]),
    ("gaussian", "inverse", [2.3320341, 0.8121904], [2.2837064, 2.2487147, 0.6120262]),
    ("poisson", "log", [0.22999393, 0.08047088], [0.25022353, 0.21998599, 0.05998621]),
    ("poisson", "identity", [2.2929501, 0.8119415], [2.5012730, 2.1999407, 0.5999107]),
    ("poisson", "sqrt", [2.2958947, 0.8090515], [2.5000480, 2.1999972, 0.5999968]),
    ("gamma", "inverse", [2.3392419, 0.8058058], [2.3507700, 2.2533574, 0.6042991]),
    ("gamma", "identity", [2.2908883, 0.8147796], [2.5002406, 2.1998346, 0.6000059]),
    ("gamma", "log", [0.22958970, 0.08091066], [0.25003210, 0.21996957, 0.06000215]),
]


@pytest.mark.parametrize(("family", "link", "through_origin", "known"), GLM, ids=lambda value: str(value)[:9])
def test_generated_rows_give_rs_coefficients(family, link, through_origin, known, frames):
    rows = frames(family, link)
    for expected in (through_origin, known):
        options = {"family": family, "link": link, "fitIntercept": len(expected) == 3}
        model = ml.GeneralizedLinearRegression(**options, **TIGHT).fit(rows)
        found = [*([model.intercept] if model.getFitIntercept() else []), *model.coefficients]
        np.testing.assert_allclose(found, expected, atol=2e-5)


GLMNET = [
    (0.0, 0.0, [2.2958757, 0.8088521]),
    (0.1, 0.0, [2.2128149, 0.8310136]),
    (1.0, 0.0, [1.7174260, 0.9611137]),
    (0.0, 2.5009266, [2.1997901, 0.5999522]),
    (0.1, 3.1113269, [2.0932659, 0.5712717]),
    (1.0, 6.7604302, [1.4578902, 0.3994153]),
]


@pytest.mark.parametrize(("strength", "intercept", "slopes"), GLMNET)
def test_a_penalised_gaussian_model_is_glmnets(strength, intercept, slopes, frames):
    estimator = ml.GeneralizedLinearRegression(regParam=strength, fitIntercept=intercept != 0, **TIGHT)
    model = estimator.fit(frames("gaussian", "identity"))
    np.testing.assert_allclose([model.intercept, *model.coefficients], [intercept, *slopes], atol=2e-5)


LINKS = {
    "logit": (
        [-0.3560284, 1.3010002, -0.3570805, -0.7406762],
        [2.8367406, -0.5896187, 0.8931655, -0.3925169, -0.7996989],
    ),
    "probit": (
        [-0.2134390, 0.7800646, -0.2144267, -0.4438358],
        [1.6995366, -0.3524694, 0.5332651, -0.2352985, -0.4780850],
    ),
    "cloglog": (
        [-0.2832198, 0.8434144, -0.2524727, -0.5293452],
        [1.5063590, -0.4038015, 0.6133664, -0.2687882, -0.5541758],
    ),
}


@pytest.mark.parametrize("link", LINKS)
def test_binomial_models_are_rs(link, frames):
    through_origin, known = LINKS[link]
    options = {"family": "binomial", "link": link, **TIGHT}
    model = ml.GeneralizedLinearRegression(fitIntercept=False, **options).fit(frames("flowers"))
    np.testing.assert_allclose(model.coefficients, through_origin, atol=2e-5)
    model = ml.GeneralizedLinearRegression(**options).fit(frames("flowers"))
    np.testing.assert_allclose([model.intercept, *model.coefficients], known, atol=2e-5)
