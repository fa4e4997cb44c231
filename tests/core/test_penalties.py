"""Every penalty under one contract: gradient by differences, prox by the subgradient condition and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from sparkopt.errors import ParameterError
from sparkopt.penalties import L1, L2, ElasticNet, NoPenalty, Penalty
from tests.core.problems import finite_difference

FACTORS = np.array([1.0, 0.5, 3.0, 0.0, 2.0])
PENALTIES: list[Penalty] = [
    NoPenalty(),
    L2(0.7),
    L1(0.7),
    ElasticNet(0.7, 0.4),
    ElasticNet(0.0, 0.4),
    ElasticNet(0.7, 0.4).on(FACTORS),
    L1(0.7).on(FACTORS),
    L2(0.7).on(FACTORS),
]
each_penalty = pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
COEFS = np.random.default_rng(0).normal(size=(20, 5))


@each_penalty
def test_gradient_is_the_derivative_of_the_smooth_part(penalty):
    for coef in COEFS:
        np.testing.assert_allclose(penalty.gradient(coef), finite_difference(penalty.smooth_value, coef), atol=1e-8)


@each_penalty
def test_value_is_convex_zero_at_zero_and_never_below_its_smooth_part(penalty):
    assert penalty.value(np.zeros(5)) == 0
    for a, b in zip(COEFS[::2], COEFS[1::2], strict=True):
        assert penalty.value((a + b) / 2) <= (penalty.value(a) + penalty.value(b)) / 2 + 1e-12
        assert penalty.value(a) >= penalty.smooth_value(a) >= 0


@each_penalty
@pytest.mark.parametrize("step", [0.1, 1.0, 3.0])
def test_prox_minimises_its_definition(penalty, step):
    """SciPy, started at the result and elsewhere, finds nothing lower."""
    for coef in COEFS[:6]:

        def definition(u, coef=coef):
            return 0.5 * np.sum((u - coef) ** 2) + step * (penalty.value(u) - penalty.smooth_value(u))

        found = penalty.prox(coef, step)
        options = {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000, "maxfev": 4000}
        for start in (found, coef):
            other = optimize.minimize(definition, start, method="Nelder-Mead", options=options)
            assert definition(found) <= other.fun + 1e-12


@each_penalty
@given(step=st.floats(0.01, 10))
def test_prox_is_firmly_nonexpansive(penalty, step):
    """Parikh & Boyd (2014), §2.3."""
    for a, b in zip(COEFS[::2], COEFS[1::2], strict=True):
        move = penalty.prox(a, step) - penalty.prox(b, step)
        assert move @ move <= move @ (a - b) + 1e-12


@each_penalty
def test_smooth_penalties_have_no_prox(penalty):
    moved = any((penalty.prox(coef, 1.0) != coef).any() for coef in COEFS)
    assert moved != penalty.smooth


@each_penalty
def test_times_multiplies(penalty):
    for coef in COEFS:
        assert penalty.times(3.0).value(coef) == pytest.approx(3 * penalty.value(coef))
        np.testing.assert_allclose(penalty.times(3.0).prox(coef, 0.2), penalty.prox(coef, 0.6), atol=1e-14)


@each_penalty
def test_on_penalises_the_product(penalty):
    for coef in COEFS:
        assert penalty.on(FACTORS).value(coef) == pytest.approx(penalty.value(FACTORS * coef))


@each_penalty
def test_a_factor_of_zero_leaves_a_coordinate_alone(penalty):
    free = penalty.on(np.array([1.0, 1, 1, 1, 0]))
    for coef in COEFS:
        assert free.gradient(coef)[4] == 0
        assert free.prox(coef, 1.0)[4] == coef[4]
        assert free.value(coef) == free.value(np.append(coef[:4], 9.0))


@each_penalty
def test_arguments_are_left_alone(penalty):
    coef = COEFS[0].copy()
    penalty.value(coef), penalty.gradient(coef), penalty.prox(coef, 1.0)
    np.testing.assert_array_equal(coef, COEFS[0])


def test_elastic_net_is_written_as_in_pyspark():
    coef = np.array([1.0, -2.0])
    assert ElasticNet(0.5, 0.3).value(coef) == pytest.approx(0.5 * (0.7 / 2 * 5 + 0.3 * 3))


@pytest.mark.parametrize(("arguments", "name"), [((-1.0, 0.0), "reg_param"), ((1.0, 1.5), "elastic_net_param")])
def test_values_outside_the_domain_are_refused(arguments, name):
    with pytest.raises(ParameterError, match=f"^{name} must be"):
        ElasticNet(*arguments)
