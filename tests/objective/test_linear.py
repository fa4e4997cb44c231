"""The objective of linear models against finite differences, and the algebra that its sums promise."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sparkopt.blocks.block import Block
from sparkopt.errors import DataError
from sparkopt.losses import Huber, Logistic, Loss, Multinomial, SquaredError
from sparkopt.objective.accumulators import Accumulators
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import PartialSum
from tests.problems import finite_difference, gradients_of, products_of

ROWS, FEATURES = 24, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, FEATURES)) * (RNG.random((ROWS, FEATURES)) < 0.6)
TARGETS = {"squared_error": RNG.normal(size=ROWS), "logistic": RNG.integers(0, 2, ROWS).astype(float)}
TARGETS["multinomial"] = RNG.integers(0, 3, ROWS).astype(float)
TARGETS["huber"] = TARGETS["squared_error"]
WEIGHT = RNG.uniform(0.1, 3, size=ROWS)
SCALE, CENTER = np.array([2.0, 0.5, 1.0, 0.1]), np.array([0.3, -1.0, 0.0, 2.0])

each_loss = pytest.mark.parametrize("loss", [SquaredError(), Logistic(), Multinomial(3), Huber()], ids=repr)
each_form = pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
each_weighting = pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
each_frame = pytest.mark.parametrize(
    "frame",
    [
        {"fit_intercept": False},
        {"fit_intercept": True},
        {"fit_intercept": False, "scale": SCALE},
        {"fit_intercept": True, "scale": SCALE, "center": CENTER},
        {"fit_intercept": True, "center": CENTER},
    ],
    ids=lambda frame: "+".join(key for key, value in frame.items() if value is not False) or "plain",
)


def block(loss: Loss, form=np.asarray, weight=None, rows=slice(None)) -> Block:
    return Block(form(X[rows]), TARGETS[loss.name][rows], None if weight is None else weight[rows])


def value_by_hand(objective: LinearObjective, coef: np.ndarray, weight: np.ndarray | None) -> float:
    """Return Σ weight · loss with the scaled features written out."""
    scale = 1.0 if objective.scale is None else objective.scale
    center = 0.0 if objective.center is None else objective.center
    outputs = objective.loss.outputs
    matrix = coef[: FEATURES * outputs].reshape(FEATURES, outputs)
    rest = coef[FEATURES * outputs :]
    raw = ((X - center) * scale) @ matrix + (rest[:outputs] if objective.fit_intercept else 0.0)
    if objective.loss.auxiliary:
        raw = np.column_stack([raw, np.full((ROWS, 1), rest[-1])])
    y = TARGETS[objective.loss.name] * objective.target_scale
    losses, _ = objective.loss.value_gradient(y, raw[:, 0] if raw.shape[1] == 1 else raw)
    return float(losses @ (np.ones(ROWS) if weight is None else weight))


@each_loss
@each_form
@each_weighting
@each_frame
def test_value_and_gradient(loss, form, weight, frame):
    objective = LinearObjective(loss, FEATURES, **frame)
    coef = np.random.default_rng(1).normal(size=objective.size)
    found = gradients_of(objective, coef[None], [block(loss, form, weight)])

    def by_hand(at):
        return value_by_hand(objective, at, weight)

    assert found.loss[0] == pytest.approx(by_hand(coef), rel=1e-12)
    np.testing.assert_allclose(found.gradient[0], finite_difference(by_hand, coef), rtol=1e-5, atol=1e-6)
    assert found.weight == pytest.approx(ROWS if weight is None else weight.sum())
    assert found.rows == ROWS


@each_loss
@each_form
@each_weighting
@each_frame
def test_hessian_products(loss, form, weight, frame):
    """The derivative of the gradient along a vector, at several points at once."""
    objective = LinearObjective(loss, FEATURES, **frame)
    rng = np.random.default_rng(1)
    coefs, vectors = rng.normal(size=(2, 3, objective.size))
    rows = [block(loss, form, weight)]
    found = products_of(objective, coefs, vectors, rows)
    step = 1e-6
    up, down = (gradients_of(objective, coefs + sign * step * vectors, rows).gradient for sign in (1, -1))
    np.testing.assert_allclose(found.gradient, (up - down) / (2 * step), rtol=1e-5, atol=1e-5)
    assert found.weight == pytest.approx(ROWS if weight is None else weight.sum())
    assert (found.rows, found.loss.tolist()) == (ROWS, [0.0] * 3)


@each_form
def test_the_target_may_be_scaled(form):
    objective = LinearObjective(SquaredError(), FEATURES, scale=SCALE, center=CENTER, target_scale=0.25)
    coef = np.random.default_rng(1).normal(size=objective.size)
    found = gradients_of(objective, coef[None], [block(SquaredError(), form)])
    assert found.loss[0] == pytest.approx(value_by_hand(objective, coef, None), rel=1e-12)
    by_differences = finite_difference(lambda at: value_by_hand(objective, at, None), coef)
    np.testing.assert_allclose(found.gradient[0], by_differences, rtol=1e-5, atol=1e-6)


@each_loss
@each_form
@each_frame
def test_several_points_at_once_equal_one_by_one(loss, form, frame):
    objective = LinearObjective(loss, FEATURES, **frame)
    coefs = np.random.default_rng(2).normal(size=(3, objective.size))
    together = gradients_of(objective, coefs, [block(loss, form, WEIGHT)])
    for point, coef in enumerate(coefs):
        alone = gradients_of(objective, coef[None], [block(loss, form, WEIGHT)])
        assert together.loss[point] == pytest.approx(alone.loss[0], rel=1e-13)
        np.testing.assert_allclose(together.gradient[point], alone.gradient[0], rtol=1e-12, atol=1e-12)
        assert (together.weight[point], together.rows) == (alone.weight[0], alone.rows)


@each_loss
@each_form
@given(cut=st.integers(0, ROWS))
def test_rows_may_be_cut_anywhere(loss, form, cut):
    """In blocks within one sum, and in sums that are added; empty pieces included."""
    objective = LinearObjective(loss, FEATURES)
    coefs = np.random.default_rng(3).normal(size=(2, objective.size))
    whole = gradients_of(objective, coefs, [block(loss, form, WEIGHT)])
    pieces = [block(loss, form, WEIGHT, rows) for rows in (slice(0, cut), slice(cut, ROWS))]
    for other in (
        gradients_of(objective, coefs, pieces),
        gradients_of(objective, coefs, pieces[:1]) + gradients_of(objective, coefs, pieces[1:]),
    ):
        np.testing.assert_allclose(other.loss, whole.loss, rtol=1e-12)
        np.testing.assert_allclose(other.gradient, whole.gradient, rtol=1e-10, atol=1e-12)
        assert other.weight == pytest.approx(whole.weight)
        assert other.rows == ROWS


def sums(seed: int) -> PartialSum:
    """Return sums of small whole numbers, whose addition is exact."""
    rng = np.random.default_rng(seed)
    return PartialSum(
        rng.integers(-9, 9, 2).astype(float), rng.integers(-9, 9, (2, 3)).astype(float), float(seed % 7), seed % 5
    )


def assert_equal(a: PartialSum, b: PartialSum) -> None:
    np.testing.assert_array_equal(a.loss, b.loss)
    np.testing.assert_array_equal(a.gradient, b.gradient)
    np.testing.assert_array_equal(a.weight, b.weight)
    assert a.rows == b.rows


@given(st.tuples(*[st.integers(0, 1000)] * 3))
def test_partial_sums_are_a_commutative_monoid(seeds):
    a, b, c = map(sums, seeds)
    assert_equal((a + b) + c, a + (b + c))
    assert_equal(a + b, b + a)
    assert_equal(a + PartialSum.zero(2, 3), a)


def test_the_sum_over_no_blocks_is_the_zero():
    objective = LinearObjective(Logistic(), FEATURES)
    assert_equal(gradients_of(objective, np.zeros((2, 5)), []), PartialSum.zero(2, 5))


def test_mean_divides_once_by_the_weight_and_refuses_to_divide_by_nothing():
    loss, gradient = PartialSum(np.array([6.0]), np.array([[3.0, 9.0]]), 3.0, 2).mean()
    assert loss.tolist() == [2.0]
    assert gradient.tolist() == [[1.0, 3.0]]
    with pytest.raises(DataError, match="the 4 rows of this step weigh 0 in all"):
        PartialSum(np.zeros(1), np.zeros((1, 2)), 0.0, 4).mean()


@each_loss
@each_frame
@pytest.mark.parametrize("target_scale", [1.0, 0.25])
def test_unscale_and_rescale_are_inverses(loss, frame, target_scale):
    objective = LinearObjective(loss, FEATURES, **frame, target_scale=target_scale)
    coef = np.random.default_rng(4).normal(size=objective.size)
    again = objective.rescale(*objective.unscale(coef), objective.auxiliary(coef))
    np.testing.assert_allclose(again, coef, rtol=1e-12, atol=1e-14)


@each_loss
@each_frame
def test_unscaled_coefficients_predict_the_same_on_the_users_rows(loss, frame):
    objective = LinearObjective(loss, FEATURES, **frame)
    plain = LinearObjective(loss, FEATURES)
    coef = np.random.default_rng(5).normal(size=objective.size)
    matrix, intercept = objective.unscale(coef)
    users = np.concatenate([matrix.ravel(), intercept, objective.auxiliary(coef)])
    solvers = gradients_of(objective, coef[None], [block(loss)]).loss[0]
    assert gradients_of(plain, users[None], [block(loss)]).loss[0] == pytest.approx(solvers, rel=1e-12)


@each_loss
@each_frame
def test_the_start_fits_the_mean_of_the_targets_with_the_intercept_alone(loss, frame):
    objective = LinearObjective(loss, FEATURES, **frame)
    y = TARGETS[loss.name]
    mean = np.array([np.mean(y == c) for c in range(3)]) if loss.outputs == 3 else np.array([y.mean()])
    start = objective.start(mean)
    matrix, intercept = objective.unscale(start)
    assert start.shape == (objective.size,)
    assert not matrix.any()
    if objective.fit_intercept:
        assert intercept.tolist() == pytest.approx(loss.start(mean).tolist())
        slopes = gradients_of(objective, start[None], [block(loss)]).gradient[0][FEATURES * loss.outputs :][
            : loss.outputs
        ]
        assert isinstance(loss, Huber) or slopes == pytest.approx(0, abs=1e-12)


def test_a_scale_of_zero_removes_a_feature():
    objective = LinearObjective(SquaredError(), FEATURES, scale=np.array([1.0, 0.0, 1.0, 1.0]))
    matrix, _ = objective.unscale(np.ones(5))
    assert matrix[:, 0].tolist() == [1, 0, 1, 1]
    gradient = gradients_of(objective, np.ones((1, 5)), [block(SquaredError())]).gradient[0]
    assert gradient[1] == 0
    assert objective.rescale(matrix, np.zeros(1))[1] == 0


def test_float32_rows_are_summed_in_float64():
    n = 2**22
    rows = Block(np.full((n, 1), 0.1, np.float32), np.zeros(n))
    found = gradients_of(LinearObjective(SquaredError(), 1), np.array([[0.0, 0.3]]), [rows])
    assert found.gradient.dtype == np.float64
    assert found.loss[0] == pytest.approx(n * 0.5 * float(np.float32(0.3)) ** 2, rel=1e-6)


def test_intercepts_and_auxiliary_parameters_are_not_penalised():
    assert LinearObjective(Huber(), 2).penalised().tolist() == [1.0, 1.0, 0.0, 0.0]
    mask = LinearObjective(Multinomial(3), 2).penalised()
    assert mask.tolist() == [1.0] * 6 + [0.0] * 3
    assert LinearObjective(Logistic(), 2, fit_intercept=False).penalised().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("loss", [Logistic(), Multinomial(3)], ids=repr)
def test_a_few_sparse_rows_of_many_features(loss, points):
    """A block that stores less than one entry a feature adds to the features that it stores."""
    width = 5000
    rows = sparse.random_array((12, width), density=0.002, rng=np.random.default_rng(2), format="csr")
    y = TARGETS[loss.name][:12]
    objective = LinearObjective(loss, width)
    coefs = np.random.default_rng(3).normal(size=(points, objective.size))
    assert rows.nnz < width
    few, dense = (gradients_of(objective, coefs, [Block(X, y)]) for X in (rows, rows.toarray()))
    np.testing.assert_allclose(few.gradient, dense.gradient, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(few.loss, dense.loss, rtol=1e-12)


def test_a_sparse_block_takes_no_array_of_all_features():
    """What a second block of a pass needs is as much as it stores, not as there are features."""
    width = 2_000_000
    rows = sparse.csr_array(
        (np.ones(6), np.arange(6, dtype=np.int32), np.arange(0, 7, 2, dtype=np.int32)), (3, width)
    )
    sums = Accumulators.zero(LinearObjective(Logistic(), width), 1)
    block, slopes = Block(rows, np.zeros(3)), [np.ones(3)]
    sums.add(block, slopes)
    tracemalloc.start()
    sums.add(block, slopes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < width / 10
    assert sums.matrix.sum() == 12.0
