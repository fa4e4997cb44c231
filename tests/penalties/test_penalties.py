"""Every penalty under one contract: gradient by differences, prox by the subgradient condition and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.losses import Multinomial, SquaredError
from sparkopt.objective.linear import LinearObjective
from sparkopt.penalties import L1, L2, Box, ElasticNet, GroupLasso, NoPenalty, Penalty
from tests.problems import finite_difference

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
    GroupLasso(0.7, [[0, 2], [1], [3, 4]]),
    GroupLasso(0.7, [[0, 2], [1, 3, 4]]).on(FACTORS),
    GroupLasso(0.0, [[0, 1]]),
    Box(-0.5, 0.8),
    Box(lower=0.0, penalty=L2(0.7)),
    Box(-0.3, 0.4, penalty=ElasticNet(0.7, 0.4)),
    Box(-0.3, 0.4, penalty=L1(0.7)).on(FACTORS),
]
each_penalty = pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
COEFS = np.random.default_rng(0).normal(size=(20, 5))


@each_penalty
def test_gradient_is_the_derivative_of_the_smooth_part(penalty):
    for coef in COEFS:
        np.testing.assert_allclose(penalty.gradient(coef), finite_difference(penalty.smooth_value, coef), atol=1e-8)


@each_penalty
def test_hessian_product_is_the_derivative_of_the_gradient(penalty):
    for coef, vector in zip(COEFS[::2], COEFS[1::2], strict=True):
        change = penalty.gradient(coef + vector) - penalty.gradient(coef - vector)
        np.testing.assert_allclose(penalty.hessian_product(vector), change / 2, atol=1e-12)


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
    for coef in COEFS[:3]:

        def definition(u, coef=coef):
            return 0.5 * np.sum((u - coef) ** 2) + step * (penalty.value(u) - penalty.smooth_value(u))

        found = penalty.prox(coef, step)
        assert np.isfinite(definition(found))
        options = {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000, "maxfev": 4000}
        for start in (found, penalty.prox(coef, 0.0)):
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
        inside = penalty.prox(coef, 0.0)
        assert penalty.times(3.0).value(inside) == pytest.approx(3 * penalty.value(inside))
        np.testing.assert_allclose(penalty.times(3.0).prox(coef, 0.2), penalty.prox(coef, 0.6), atol=1e-14)


@each_penalty
def test_on_penalises_the_product(penalty):
    for coef in COEFS:
        assert penalty.on(FACTORS).value(coef) == pytest.approx(penalty.value(FACTORS * coef))


@each_penalty
def test_a_step_of_length_zero_projects_on_where_the_value_is_finite(penalty):
    for coef in COEFS:
        inside = penalty.prox(coef, 0.0)
        assert np.isfinite(penalty.value(inside))
        assert np.isfinite(penalty.value(coef)) == (inside == coef).all()


@each_penalty
def test_l1_weights_are_the_nonsmooth_part_or_none(penalty):
    weights = penalty.l1_weights(5)
    assert (weights is None) == isinstance(penalty, (Box, GroupLasso)) or penalty.smooth
    for coef in COEFS:
        if weights is not None:
            nonsmooth = penalty.value(coef) - penalty.smooth_value(coef)
            assert weights @ np.abs(coef) == pytest.approx(nonsmooth, abs=1e-14)


@each_penalty
def test_bounds_project_whatever_the_length(penalty):
    lengths = [penalty.prox(coef, step) for coef in COEFS for step in (0.0, 0.3, 4.0)]
    same = all((a == b).all() for a, b in zip(lengths[::3], lengths[2::3], strict=True))
    assert same == (penalty.is_bounds or penalty.smooth)


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


SCALE, CENTER = np.array([2.0, 0.5, 0.1]), np.array([0.3, -1.0, 2.0])
MULTINOMIAL = LinearObjective(Multinomial(2), 3, scale=SCALE)
REGRESSION = LinearObjective(SquaredError(), 3, scale=SCALE, target_scale=0.25)


@pytest.mark.parametrize("objective", [MULTINOMIAL, REGRESSION], ids=["multinomial", "regression"])
def test_bounds_hold_for_the_users_coefficients_and_intercepts(objective):
    outputs = objective.loss.outputs
    lower, upper = np.array([-0.2, 0.1, -np.inf]), np.array([0.3, 0.1, np.inf])
    box = Box(lower, upper, intercept_lower=-0.1, intercept_upper=0.2).at(objective.coordinates())
    for coef in 5 * np.random.default_rng(0).normal(size=(20, objective.size)):
        matrix, intercept = objective.unscale(box.prox(coef, 1.0))
        free, other = objective.unscale(coef)
        np.testing.assert_allclose(matrix, np.clip(free, lower[:, None], upper[:, None]), atol=1e-15)
        np.testing.assert_allclose(intercept, np.clip(other, -0.1, 0.2), atol=1e-15)
        assert matrix.shape == (3, outputs)


def test_bounds_take_a_matrix_and_leave_removed_features_and_free_intercepts_alone():
    objective = LinearObjective(Multinomial(2), 2, scale=np.array([0.0, 2.0]))
    box = Box(lower=np.array([[1.0, 2.0], [3.0, 4.0]]), penalty=L2(0.5)).at(objective.coordinates(False))
    assert box.lower.tolist() == [-np.inf, -np.inf, 1.5, 2.0, -np.inf, -np.inf]
    assert not Box(lower=1.0).bounds_intercept
    assert Box(intercept_upper=np.array([1.0, np.inf])).bounds_intercept
    coef = np.array([1.0, 1, 1, 1, 1, 1])
    assert box.smooth_value(coef) == pytest.approx(0.25 * (2.0**2 + 2.0**2))


@pytest.mark.parametrize("standardised", [True, False])
def test_penalties_measure_the_standardised_or_the_users_coefficients(standardised):
    coordinates = MULTINOMIAL.coordinates(standardised)
    coef = np.random.default_rng(0).normal(size=8)
    matrix = coef[:6].reshape(3, 2) * (1 if standardised else SCALE[:, None])
    groups = GroupLasso(0.3, [[0, 2]]).at(coordinates)
    assert groups.value(coef) == pytest.approx(0.3 * np.sqrt(4) * np.linalg.norm(matrix[[0, 2]]))
    net = ElasticNet(0.3, 0.4).at(coordinates)
    assert net.value(coef) == pytest.approx(ElasticNet(0.3, 0.4).value(matrix.ravel()))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GroupLasso(0.1, [[0, 1], [1]]), ParameterError, "groups must be lists .* no feature in two"),
        (lambda: GroupLasso(0.1, []), ParameterError, "groups must be"),
        (lambda: GroupLasso(0.1, [[0], []]), ParameterError, "groups must be"),
        (lambda: GroupLasso(-0.1, [[0]]), ParameterError, "reg_param must be >= 0"),
        (lambda: GroupLasso(0.1, [[3]]).at(REGRESSION.coordinates()), ParameterError, "from 0 to 2. Got 3"),
        (lambda: Box(1.0, 0.0), ParameterError, "lower must be <= upper everywhere"),
        (lambda: Box(0.0, np.nan), ParameterError, "lower must be <= upper"),
        (lambda: Box(intercept_lower=2.0, intercept_upper=1.0), ParameterError, "intercept_lower must be <="),
        (lambda: Box(np.zeros(2)).at(REGRESSION.coordinates()), ParameterError, r"coefficients must .* \(3, 1\)"),
        (lambda: Box(0.0, penalty=GroupLasso(0.1, [[0]])), IncompatibleError, "with a group lasso: .* Use them with"),
    ],
)
def test_groups_and_bounds_that_make_no_sense_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_bounds_hold_to_the_last_bit_whatever_the_units():
    """1 divided by a standard deviation and multiplied by it again may be less than 1."""
    rng = np.random.default_rng(4)
    factors = rng.lognormal(0, 3, 20_000) * rng.choice([-1, 1], 20_000)
    low, high = np.sort(rng.normal(size=(2, 20_000)), axis=0)
    box = Box(low, high).on(factors)
    for w in (box.prox(np.full(20_000, -1e9), 1.0), box.prox(np.full(20_000, 1e9), 1.0)):
        assert np.all((factors * w >= low) & (factors * w <= high))
    np.testing.assert_allclose(np.sort([box.lower * factors, box.upper * factors], axis=0), [low, high], rtol=1e-14)
    equal = Box(1.0, 1.0).on(factors)
    np.testing.assert_array_equal(equal.lower, equal.upper)
