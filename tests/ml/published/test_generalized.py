"""Generalised linear models, as R's glm and statmod print them."""

from __future__ import annotations

import numpy as np
import pytest

from sparkopt import ml
from tests.ml.published import TIGHT
from tests.ml.published.small import AMOUNTS, COUNTS, NOTHING, SHARES

FAMILIES = ["binomial", "gamma", "gaussian", "poisson", "tweedie"]


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


@pytest.mark.parametrize("name", CASES)
def test_generalised_linear_models_are_rs(name, literal):
    rows, options, intercept, slopes = CASES[name]
    estimator = ml.GeneralizedLinearRegression(fitIntercept=intercept is not None, **TIGHT, **options)
    model = estimator.fit(literal(rows))
    np.testing.assert_allclose(model.coefficients, slopes, atol=2e-5)
    assert model.intercept == pytest.approx(intercept or 0.0, abs=2e-5)
    assert model.summary.solver == "irls"


def test_neither_features_nor_an_intercept_is_refused(literal):
    with pytest.raises(ValueError, match="Set fitIntercept=True"):
        ml.GeneralizedLinearRegression(fitIntercept=False).fit(literal(NOTHING))


@pytest.mark.parametrize(("through_origin", "deviance"), [(True, 3.809296), (False, 3.70055)])
def test_the_deviance_of_counts_is_rs(through_origin, deviance, literal):
    """A target of zero has a deviance too."""
    estimator = ml.GeneralizedLinearRegression(family="poisson", fitIntercept=not through_origin, **TIGHT)
    assert estimator.fit(literal(COUNTS)).summary.deviance == pytest.approx(deviance, abs=1e-5)
