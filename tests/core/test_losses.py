"""Every loss under one contract: the gradient is the value's derivative, rows are independent, nothing overflows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from sparkopt.errors import ParameterError
from sparkopt.losses import Logistic, Loss, Multinomial, SquaredError

LOSSES: list[Loss] = [SquaredError(), Logistic(), Multinomial(2), Multinomial(4)]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)
each_width = pytest.mark.parametrize("width", [np.float32, np.float64])


def rows(loss: Loss, n: int = 40, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Return targets of the loss's domain and raw predictions of its shape."""
    rng = np.random.default_rng(0)
    low, high = loss.targets.low, loss.targets.high
    y = rng.normal(size=n) if low is None else rng.integers(low, high + 1, size=n).astype(float)
    return y, spread * rng.normal(size=(n, loss.outputs) if loss.outputs > 1 else n)


def by_differences(loss: Loss, y: np.ndarray, raw: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Return the derivative of each row's loss with respect to each of its raw predictions."""
    table = raw.reshape(len(y), -1)
    gradient = np.empty(table.shape)
    for output in range(table.shape[1]):
        move = np.zeros(table.shape)
        move[:, output] = step
        up, down = ((table + sign * move).reshape(raw.shape) for sign in (1, -1))
        gradient[:, output] = (loss.value_gradient(y, up)[0] - loss.value_gradient(y, down)[0]) / (2 * step)
    return gradient.reshape(raw.shape)


@each_loss
def test_gradient_is_the_derivative_of_the_value(loss):
    y, raw = rows(loss)
    np.testing.assert_allclose(loss.value_gradient(y, raw)[1], by_differences(loss, y, raw), rtol=1e-6, atol=1e-8)


@each_loss
@each_width
def test_shapes_and_widths(loss, width):
    y, raw = rows(loss)
    raw = raw.astype(width)
    value, gradient = loss.value_gradient(y, raw)
    assert value.shape == y.shape
    assert gradient.shape == raw.shape
    assert loss.predict(raw).shape == raw.shape
    assert np.can_cast(width, value.dtype)
    assert np.can_cast(width, gradient.dtype)


@each_loss
def test_arguments_are_left_alone(loss):
    y, raw = rows(loss)
    before = y.copy(), raw.copy()
    loss.value_gradient(y, raw)
    loss.predict(raw)
    np.testing.assert_array_equal(y, before[0])
    np.testing.assert_array_equal(raw, before[1])


@each_loss
def test_rows_are_independent(loss):
    y, raw = rows(loss)
    together = loss.value_gradient(y, raw)
    alone = [loss.value_gradient(y[i : i + 1], raw[i : i + 1]) for i in range(len(y))]
    np.testing.assert_array_equal(together[0], np.concatenate([value for value, _ in alone]))
    np.testing.assert_array_equal(together[1], np.concatenate([gradient for _, gradient in alone]))


@each_loss
@each_width
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_stable_at_large_raw_predictions(loss, width, size):
    y, raw = rows(loss)
    raw = raw.astype(width)
    raw.reshape(len(y), -1)[:, 0] = size
    value, gradient = loss.value_gradient(y, raw)
    wide_value, wide_gradient = loss.value_gradient(y, raw.astype(np.longdouble))
    assert np.isfinite(value).all()
    assert (value >= 0).all()
    np.testing.assert_allclose(value, wide_value.astype(float), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, wide_gradient.astype(float), rtol=1e-5, atol=1e-5)
    assert np.isfinite(loss.predict(raw)).all()


@each_loss
def test_curvature_bounds_the_second_derivative(loss):
    y, raw = rows(loss, spread=1.0)
    rng = np.random.default_rng(1)
    move = 1e-5 * rng.normal(size=raw.shape)
    change = loss.value_gradient(y, raw + move)[1] - loss.value_gradient(y, raw - move)[1]
    second = (move * change).reshape(len(y), -1).sum(axis=1) / (2 * np.square(move).reshape(len(y), -1).sum(axis=1))
    assert (second >= -1e-6).all()  # convex
    assert (second <= loss.curvature + 1e-6).all()


def test_logistic_against_scipy():
    y, raw = rows(Logistic(), spread=10)
    value, gradient = Logistic().value_gradient(y, raw)
    np.testing.assert_allclose(value, -special.log_expit(np.where(y == 1, raw, -raw)), rtol=1e-13)
    np.testing.assert_allclose(gradient, special.expit(raw) - y, rtol=1e-10, atol=1e-15)


def test_multinomial_against_scipy():
    y, raw = rows(Multinomial(4), spread=10)
    value, _ = Multinomial(4).value_gradient(y, raw)
    np.testing.assert_allclose(value, -special.log_softmax(raw, axis=1)[np.arange(len(y)), y.astype(int)], atol=1e-13)


def test_two_classes_of_multinomial_are_logistic():
    y, raw = rows(Logistic())
    value, gradient = Logistic().value_gradient(y, raw)
    both = np.column_stack([np.zeros(len(y)), raw])
    as_two, gradients = Multinomial(2).value_gradient(y, both)
    np.testing.assert_allclose(as_two, value, atol=1e-14)
    np.testing.assert_allclose(gradients[:, 1], gradient, atol=1e-14)


@pytest.mark.parametrize(
    ("loss", "inverse_link"),
    [
        (SquaredError(), lambda raw: raw),
        (Logistic(), special.expit),
        (Multinomial(4), lambda raw: special.softmax(raw, axis=1)),
    ],
    ids=repr,
)
def test_predict_is_the_inverse_link(loss, inverse_link):
    _, raw = rows(loss, spread=5)
    np.testing.assert_allclose(loss.predict(raw), inverse_link(raw), rtol=1e-12)


@pytest.mark.parametrize("loss", [SquaredError(), Logistic(), Multinomial(3)], ids=repr)
def test_mean_of_the_targets_is_where_the_gradient_vanishes(loss):
    """The gradient of a canonical link is prediction − target: summed over rows it vanishes at their mean."""
    y, raw = rows(loss)
    value = loss.predict(raw)
    target = np.eye(loss.outputs)[y.astype(int)] if loss.outputs > 1 else y
    np.testing.assert_allclose(loss.value_gradient(y, raw)[1], value - target, atol=1e-14)


def test_targets_of_each_loss():
    assert Logistic().targets.contains(np.array([0.0, 1.0, 2.0, 0.5])).tolist() == [True, True, False, False]
    assert Multinomial(3).targets.contains(np.array([0.0, 2.0, 3.0, -1.0])).tolist() == [True, True, False, False]
    with pytest.raises(ParameterError, match="classes must be a whole number >= 2"):
        Multinomial(1)
