"""Every loss under one contract: the gradient is the value's derivative, rows are independent, nothing overflows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import special, stats
from sklearn._loss import loss as theirs
from sklearn.metrics import mean_pinball_loss, mean_tweedie_deviance

from sparkopt.errors import ParameterError
from sparkopt.losses import (
    AcceleratedFailureTime,
    Binomial,
    BinomialLogit,
    CumulativeLogit,
    FixedHuber,
    Gamma,
    Gaussian,
    Hinge,
    Huber,
    Logistic,
    Loss,
    MultiLabel,
    Multinomial,
    NegativeBinomial,
    PlattLogistic,
    Poisson,
    Quantile,
    SquaredError,
    SquaredHinge,
    SquaredResidual,
    Tweedie,
    WorkingResponse,
    check_loss,
)
from sparkopt.objective.linear import LinearObjective
from tests.problems import named

LOSSES: list[Loss] = [
    SquaredError(),
    SquaredResidual(),
    Huber(),
    Huber(2.5),
    FixedHuber(0.7),
    Quantile(0.3),
    Quantile(0.3, smoothing=0.5),
    Logistic(),
    Multinomial(2),
    Multinomial(4),
    MultiLabel(3),
    PlattLogistic(0.1, 0.8),
    Hinge(),
    Hinge(smoothing=0.5),
    SquaredHinge(),
    Poisson(),
    Poisson("identity"),
    Poisson("sqrt"),
    Gamma(),
    Gamma("inverse"),
    Gamma("identity"),
    Gaussian(),
    Gaussian("log"),
    Gaussian("inverse"),
    Tweedie(1.5),
    Tweedie(1.7, 0.3),
    Tweedie(3.0),
    Tweedie(3.0, -2.0),
    Binomial("probit"),
    Binomial("cloglog"),
    BinomialLogit(),
    WorkingResponse(Poisson("sqrt")),
    WorkingResponse(Gamma("inverse")),
    AcceleratedFailureTime(),
    CumulativeLogit(2),
    CumulativeLogit(5),
    NegativeBinomial(),
]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# Not convex in the raw prediction: an auxiliary parameter enters nonlinearly, or the link is not canonical.
NOT_CONVEX = (Huber, Gaussian, Tweedie, AcceleratedFailureTime, CumulativeLogit, NegativeBinomial)


def shape(loss: Loss, n: int) -> tuple[int, ...]:
    columns = loss.outputs + loss.auxiliary
    return (n, columns) if columns > 1 else (n,)


def rows(loss: Loss, n: int = 40, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Return targets of the loss's domain and raw predictions of its shape, with a mean in the family."""
    rng = np.random.default_rng(0)
    low, high = loss.targets.low, loss.targets.high
    raw = spread * rng.normal(size=shape(loss, n))
    if low is None:
        y = rng.normal(size=n)
    elif high is None:
        y = rng.exponential(size=n) + 0.1 if loss.targets.closed == "neither" else rng.poisson(1.0, n).astype(float)
    else:
        y = rng.integers(low, high + 1, size=n).astype(float)
    return y, np.abs(raw) + 0.1 if needs_positive(loss) else raw


def needs_positive(loss: Loss) -> bool:
    return isinstance(loss, Tweedie) and loss.link != "log" and (loss.power, loss.link) != (0.0, "identity")


def by_differences(loss: Loss, y: np.ndarray, raw: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Return the derivative of each row's loss with respect to each of its raw predictions."""
    table = raw.reshape(len(y), -1)
    gradient = np.empty(table.shape)
    for output in range(table.shape[1]):
        direction = np.zeros(table.shape)
        direction[:, output] = step
        up, down = ((table + sign * direction).reshape(raw.shape) for sign in (1, -1))
        gradient[:, output] = (loss.value_gradient(y, up)[0] - loss.value_gradient(y, down)[0]) / (2 * step)
    return gradient.reshape(raw.shape)


@each_loss
def test_gradient_is_the_derivative_of_the_value(loss):
    y, raw = rows(loss)
    np.testing.assert_allclose(loss.value_gradient(y, raw)[1], by_differences(loss, y, raw), rtol=2e-6, atol=1e-7)


@each_loss
def test_hessian_product_is_the_derivative_of_the_gradient(loss):
    y, raw = rows(loss)
    direction = np.random.default_rng(1).normal(size=raw.shape)
    step = 1e-6
    change = loss.value_gradient(y, raw + step * direction)[1] - loss.value_gradient(y, raw - step * direction)[1]
    found = loss.hessian_product(y, raw, direction)
    assert found.shape == raw.shape
    np.testing.assert_allclose(found, change / (2 * step), rtol=2e-5, atol=1e-6)


@each_loss
@each_dtype
def test_shapes_and_types(loss, dtype):
    y, raw = rows(loss)
    raw = raw.astype(dtype)
    value, gradient = loss.value_gradient(y, raw)
    predicted = loss.predict(raw[:, 0] if loss.auxiliary else raw)
    assert value.shape == y.shape
    assert gradient.shape == raw.shape
    assert predicted.shape == ((len(y), loss.outputs) if loss.outputs > 1 else (len(y),))
    for found in (value, gradient, predicted, loss.hessian_product(y, raw, raw)):
        assert np.can_cast(dtype, found.dtype)


@each_loss
def test_arguments_are_left_alone(loss):
    y, raw = rows(loss)
    before = y.copy(), raw.copy()
    loss.value_gradient(y, raw)
    loss.hessian_product(y, raw, raw)
    loss.predict(raw)
    np.testing.assert_array_equal(y, before[0])
    np.testing.assert_array_equal(raw, before[1])


@each_loss
def test_rows_are_independent(loss):
    y, raw = rows(loss)
    direction = np.random.default_rng(1).normal(size=raw.shape)

    def everything(at):
        return [*loss.value_gradient(y[at], raw[at]), loss.hessian_product(y[at], raw[at], direction[at])]

    alone = [everything(slice(i, i + 1)) for i in range(len(y))]
    for together, parts in zip(everything(slice(None)), zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(together, np.concatenate(parts), rtol=1e-14, atol=1e-15)


@each_loss
@each_dtype
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_stable_at_large_raw_predictions(loss, dtype, size):
    """No NaN, and the same as in a type whose exponent does not overflow there."""
    y, raw = rows(loss)
    raw = raw.astype(dtype)
    raw.reshape(len(y), -1)[:, 0] = size
    value, gradient = loss.value_gradient(y, raw)
    second = loss.hessian_product(y, raw, np.ones_like(raw))
    assert not np.isnan(value).any()
    assert not np.isnan(gradient).any()
    assert not np.isnan(second).any()
    assert (value >= 0).all()
    if isinstance(loss, Binomial):  # SciPy's special functions have no wider form: see the test of its tails
        return
    with np.errstate(over="ignore"):
        wide_value, wide = loss.value_gradient(y.astype(np.longdouble), raw.astype(np.longdouble))
        finite = np.isfinite(value)
        np.testing.assert_allclose(value, wide_value.astype(dtype), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradient[finite], wide.astype(dtype)[finite], rtol=1e-5, atol=1e-5)


@each_loss
def test_curvature_bounds_the_second_derivative(loss):
    y, raw = rows(loss, spread=1.0)
    rng = np.random.default_rng(1)
    for _ in range(5):
        direction = rng.normal(size=raw.shape)
        second = (direction * loss.hessian_product(y, raw, direction)).reshape(len(y), -1).sum(axis=1)
        second /= np.square(direction).reshape(len(y), -1).sum(axis=1)
        assert isinstance(loss, NOT_CONVEX) or (second >= -1e-12).all()
        assert loss.curvature is None or (second <= loss.curvature + 1e-12).all()


@pytest.mark.parametrize(
    "loss", [loss for loss in LOSSES if not (loss.auxiliary or isinstance(loss, MultiLabel))], ids=repr
)
def test_the_start_is_the_best_constant_prediction_or_close_to_it(loss):
    """Losses that are made for the mean start where their gradient sums to zero."""
    y, _ = rows(loss, n=200)
    y = y + 3 if loss.targets.low is None else y  # a logarithm's mean is positive
    classes = np.eye(loss.outputs)[y.astype(int)] if loss.outputs > 1 else y[:, None]
    start = loss.start(classes.mean(axis=0))
    assert start.shape == (loss.outputs,)
    raw = np.broadcast_to(start, (len(y), loss.outputs))
    gradient = loss.value_gradient(y, raw[:, 0] if loss.outputs == 1 else raw)[1]
    if not isinstance(loss, (FixedHuber, Quantile, Hinge, SquaredHinge, WorkingResponse)):
        np.testing.assert_allclose(gradient.mean(axis=0), 0, atol=1e-12)


@pytest.mark.parametrize("mean", [0.0, 1.0])
@each_loss
def test_the_start_is_finite_where_one_class_or_no_count_occurs(loss, mean):
    shares = np.eye(loss.outputs)[int(mean)] if loss.outputs > 1 else np.array([mean])
    assert np.isfinite(loss.start(shares)).all()


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
    ("ours", "sklearns"),
    [
        (Poisson(), theirs.HalfPoissonLoss()),
        (Gamma(), theirs.HalfGammaLoss()),
        (Tweedie(1.5), theirs.HalfTweedieLoss(power=1.5)),
        (Tweedie(3.0), theirs.HalfTweedieLoss(power=3.0)),
        (Tweedie(1.7, "identity"), theirs.HalfTweedieLossIdentity(power=1.7)),
        (SquaredError(), theirs.HalfSquaredError()),
        (Quantile(0.3), theirs.PinballLoss(quantile=0.3)),
        (FixedHuber(0.7), theirs.HuberLoss(delta=0.7)),
    ],
    ids=named,
)
def test_regression_losses_against_scikit_learn(ours, sklearns):
    """Equal derivatives, and values that differ by what depends on the target alone."""
    y, raw = rows(ours)
    if isinstance(ours, FixedHuber):
        sklearns.delta = 0.7
    value, gradient = ours.value_gradient(y, raw)
    np.testing.assert_allclose(gradient, sklearns.gradient(y, raw), rtol=1e-10, atol=1e-12)
    other = raw[::-1].copy()
    fall, theirs_fall = value - ours.value_gradient(y, other)[0], sklearns.loss(y, raw) - sklearns.loss(y, other)
    np.testing.assert_allclose(fall, theirs_fall, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("power", [0.0, 1.0, 1.3, 2.0, 3.0])
def test_half_deviance_against_scikit_learn(power):
    y, raw = rows(Tweedie(power, "log"))
    value, _ = Tweedie(power, "log").value_gradient(y, raw)
    assert 2 * value.mean() == pytest.approx(mean_tweedie_deviance(y, np.exp(raw), power=power))


def test_check_loss_against_scikit_learn():
    y, raw = rows(Quantile(0.8))
    assert Quantile(0.8).value_gradient(y, raw)[0].mean() == pytest.approx(mean_pinball_loss(y, raw, alpha=0.8))


@pytest.mark.parametrize("loss", [Quantile(0.2), Quantile(0.7), Hinge()], ids=repr)
def test_smoothed_losses_exceed_the_exact_one_only_near_the_nonsmooth_point(loss):
    y, raw = rows(loss, n=400)
    exact, _ = loss.value_gradient(y, raw)
    distance = 1 - (2 * y - 1) * raw if isinstance(loss, Hinge) else raw - y
    for smoothing in (1e-3, 0.1, 2.0):
        above = loss.smoothed(smoothing).value_gradient(y, raw)[0] - exact
        assert (above >= -1e-15).all()
        assert above.max() <= smoothing / 8 + 1e-12
        assert (np.abs(above[2 * np.abs(distance) >= smoothing]) <= 1e-12).all()
        curved = loss.smoothed(smoothing).curved(y, raw)
        np.testing.assert_array_equal(curved, loss.smoothed(smoothing).hessian_product(y, raw, np.ones_like(raw)) > 0)
        assert loss.smoothed(smoothing).smooth
        assert not loss.smooth


def test_huber_is_scikit_learns_objective():
    from sklearn.linear_model._huber import _huber_loss_and_gradient

    y, raw = rows(Huber())
    for scale in (0.3, 1.0, 7.0):
        parameter = Huber().parameter(scale)
        assert Huber().scale(parameter) == pytest.approx(scale)
        columns = np.stack([raw[:, 0], np.full(len(y), parameter)], axis=1)
        # their features are these predictions, with a coefficient of 1
        both = _huber_loss_and_gradient(np.array([1.0, scale]), raw[:, :1], y, 1.35, 0.0, np.ones(len(y)))
        value, gradient = Huber().value_gradient(y, columns)
        assert 2 * value.sum() == pytest.approx(both[0])
        assert 2 * (gradient[:, 0] @ raw[:, 0]) == pytest.approx(both[1][0])
        slope = 1.0 if scale >= 1 else scale
        assert 2 * gradient[:, 1].sum() == pytest.approx(slope * both[1][1])


def test_survival_times_against_scipy():
    """log t is of the Gumbel distribution of minima; its density is t's, times t."""
    y, raw = rows(AcceleratedFailureTime())
    value, _ = AcceleratedFailureTime().value_gradient(y, raw)
    time, scale = np.log(np.abs(y)), np.exp(raw[:, 1])
    observed = -stats.gumbel_l.logpdf(time, raw[:, 0], scale)
    censored = -stats.gumbel_l.logsf(time, raw[:, 0], scale)
    np.testing.assert_allclose(value, np.where(y > 0, observed, censored), rtol=1e-10)
    weibull = stats.weibull_min.logpdf(np.abs(y), 1 / scale, scale=np.exp(raw[:, 0]))
    np.testing.assert_allclose(value[y > 0], -(weibull + time)[y > 0], rtol=1e-10)


def test_negative_binomial_against_scipy():
    y, raw = rows(NegativeBinomial())
    size, mean = np.exp(-raw[:, 1]), np.exp(raw[:, 0])
    value, _ = NegativeBinomial().value_gradient(y, raw)
    np.testing.assert_allclose(value, -stats.nbinom.logpmf(y, size, size / (size + mean)), rtol=1e-9)


def test_ordered_classes_against_logistic_tails():
    loss = CumulativeLogit(5)
    y, raw = rows(loss)
    value, _ = loss.value_gradient(y, raw)
    gaps = np.where(raw[:, 1:] < 0, np.exp(np.minimum(raw[:, 1:], 0)), 1 + raw[:, 1:])
    above = np.cumsum(np.column_stack([np.zeros(len(y)), gaps]), axis=1)
    np.testing.assert_allclose(loss.thresholds(raw[0, 1:]), above[0])
    below = stats.logistic.cdf(
        np.column_stack([np.full(len(y), -np.inf), above, np.full(len(y), np.inf)]) - raw[:, :1]
    )
    probability = np.diff(below, axis=1)
    np.testing.assert_allclose(loss.probability(raw), probability, atol=1e-12)
    np.testing.assert_allclose(value, -np.log(probability[np.arange(len(y)), y.astype(int)]), rtol=1e-8)


def test_two_ordered_classes_are_logistic():
    y, raw = rows(Logistic())
    for found, expected in zip(
        CumulativeLogit(2).value_gradient(y, raw), Logistic().value_gradient(y, raw), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-14)


def test_several_labels_are_the_sum_of_logistic_losses():
    y, raw = rows(MultiLabel(3))
    labels = (y.astype(int)[:, None] // [1, 2, 4] % 2).astype(float)
    value, gradient = MultiLabel(3).value_gradient(y, raw)
    each = [Logistic().value_gradient(labels[:, i], raw[:, i]) for i in range(3)]
    np.testing.assert_allclose(value, sum(one for one, _ in each), rtol=1e-14)
    np.testing.assert_allclose(gradient, np.stack([slope for _, slope in each], axis=1), rtol=1e-14)


def test_binomial_against_statistics_of_scipy():
    y, raw = rows(Binomial(), spread=4)
    side = np.where(y == 1, raw, -raw)
    value, gradient = Binomial("probit").value_gradient(y, raw)
    np.testing.assert_allclose(value, -stats.norm.logcdf(side), rtol=1e-12)
    mills = np.exp(stats.norm.logpdf(side) - stats.norm.logcdf(side))
    np.testing.assert_allclose(gradient, np.where(y == 1, -mills, mills), rtol=1e-9)
    value, _ = Binomial("cloglog").value_gradient(y, raw)
    gumbel = np.where(y == 1, stats.gumbel_l.logcdf(raw), stats.gumbel_l.logsf(raw))
    np.testing.assert_allclose(value, -gumbel, rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("raw", [-1e4, -50.0, 50.0, 1e4])
def test_tails_of_the_binomial_links(raw):
    """The probit's tail is x²/2 + log|x| + ½ log 2π, its slope |x|; the complementary log-log's is −x."""
    (one, zero), at = np.array([[1.0], [0.0]]), np.array([raw])
    against, along = (one, zero) if raw < 0 else (zero, one)
    tail = raw**2 / 2 + np.log(abs(raw)) + 0.5 * np.log(2 * np.pi)
    assert Binomial().value_gradient(against, at)[0][0] == pytest.approx(tail, rel=1e-3)
    assert abs(Binomial().value_gradient(against, at)[1][0]) == pytest.approx(abs(raw), rel=1e-3)
    assert Binomial().hessian_product(against, at, np.ones(1))[0] == pytest.approx(1, abs=1e-3)
    assert Binomial().value_gradient(along, at)[0][0] == pytest.approx(0, abs=1e-300)
    value, gradient = Binomial("cloglog").value_gradient(one, at)
    assert (value[0], gradient[0]) == pytest.approx((-raw, -1.0) if raw < 0 else (0.0, 0.0))


@pytest.mark.parametrize(
    ("loss", "inverse_link"),
    [
        (SquaredError(), lambda raw: raw),
        (Logistic(), special.expit),
        (Multinomial(4), lambda raw: special.softmax(raw, axis=1)),
        (Poisson(), np.exp),
        (Poisson("sqrt"), np.square),
        (Gamma("inverse"), lambda raw: 1 / raw),
        (Tweedie(1.5, 0.25), lambda raw: raw**4),
        (Binomial("probit"), stats.norm.cdf),
        (Binomial("cloglog"), stats.gumbel_l.cdf),
        (Hinge(), lambda raw: raw > 0),
    ],
    ids=named,
)
def test_predict_is_the_inverse_link(loss, inverse_link):
    _, raw = rows(loss, spread=5)
    np.testing.assert_allclose(loss.predict(raw), inverse_link(raw), rtol=1e-12)


def test_predictions_outside_the_family_have_no_mean_and_an_infinite_loss():
    raw = np.array([-1.0, 0.0, 2.0])
    loss = Gamma("inverse")
    np.testing.assert_array_equal(loss.predict(raw), [np.nan, np.nan, 0.5])
    value, gradient = loss.value_gradient(np.ones(3), raw)
    assert np.isinf(value).tolist() == [True, True, False]
    assert gradient[:2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("loss", [SquaredError(), Logistic(), Multinomial(3), Poisson()], ids=repr)
def test_mean_of_the_targets_is_where_the_gradient_vanishes(loss):
    """The gradient of a canonical link is prediction − target: summed over rows it vanishes at their mean."""
    y, raw = rows(loss)
    value = loss.predict(raw)
    target = np.eye(loss.outputs)[y.astype(int)] if loss.outputs > 1 else y
    np.testing.assert_allclose(loss.value_gradient(y, raw)[1], value - target, atol=1e-14)


def test_targets_of_each_loss():
    numbers = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    accepted = {
        Logistic(): [0, 1],
        SquaredHinge(): [0, 1],
        Multinomial(3): [0, 1, 2],
        Poisson(): [0, 0.5, 1, 2],
        Tweedie(1.5): [0, 0.5, 1, 2],
        Gamma(): [0.5, 1, 2],
        Gaussian(): [-1, 0, 0.5, 1, 2],
        Quantile(): [-1, 0, 0.5, 1, 2],
    }
    for loss, wanted in accepted.items():
        assert numbers[loss.targets.contains(numbers)].tolist() == wanted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Multinomial(1), "classes must be a whole number >= 2"),
        (lambda: Huber(1.0), "epsilon must be > 1"),
        (lambda: FixedHuber(0.0), "delta must be > 0"),
        (lambda: Quantile(1.0), r"quantile must be in \(0, 1\)"),
        (lambda: Hinge(-1.0), "smoothing must be >= 0"),
        (lambda: Tweedie(0.5), "variancePower must be 0 or >= 1. Got 0.5"),
        (lambda: Poisson("logit"), "link must be one of 'identity', 'log'"),
        (lambda: Binomial("logit"), "link must be one of 'probit', 'cloglog'"),
    ],
)
def test_parameters_have_domains(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


@dataclass(frozen=True)
class LogCosh(Loss):
    """A user's own: as few lines as it takes."""

    factor: float = 1.0
    name = "log_cosh"

    def value_gradient(self, y, raw):
        residual = raw - y
        return np.logaddexp(residual, -residual), self.factor * np.tanh(residual)

    def predict(self, raw):
        return raw


class WrongShape(LogCosh):
    def value_gradient(self, y, raw):
        return super().value_gradient(y, raw)[0].sum(), raw


class NeverFinite(LogCosh):
    def value_gradient(self, y, raw):
        return np.full(len(y), np.nan), raw


class WrongHessian(LogCosh):
    def hessian_product(self, y, raw, direction):
        return 2 * direction


@each_loss
def test_every_loss_passes_the_check_of_first_use(loss):
    check_loss(loss)


def test_a_loss_of_ones_own_is_checked_on_first_use():
    LinearObjective(LogCosh(), 2)
    for wrong, message in {
        LogCosh(2.0): "loss 'log_cosh': at y=.*, raw=.* its value_gradient returns .*, but finite .* Correct",
        WrongHessian(): "its hessian_product returns",
        WrongShape(): r"loss 'log_cosh' returns losses of shape \(\) for 32 rows; \(32,\) is needed",
        NeverFinite(): "loss 'log_cosh' is not finite at any",
    }.items():
        with pytest.raises(ParameterError, match=message):
            LinearObjective(wrong, 2)


@dataclass(frozen=True)
class Slanted(Quantile):
    """A wrong derivative, off by a thousandth."""

    def value_gradient(self, y, raw):
        value, gradient = super().value_gradient(y, raw)
        return value, gradient + 0.001


@pytest.mark.parametrize("unit", [1e-12, 1e-3, 1e3, 1e6, 1e7, 1e9, 1e12])
def test_the_check_holds_in_every_unit(unit):
    """Prices in cents or turnovers of a country: the smoothing parameter is in the label's unit."""
    for loss in (Quantile(0.9, unit), FixedHuber(unit)):
        check_loss(loss)
    if unit < 1e7:  # beyond, rounding hides a thousandth
        with pytest.raises(ParameterError, match="its value_gradient returns"):
            check_loss(Slanted(0.9, unit))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loss_without_second_derivative_takes_differences(dtype):
    y, raw = rows(SquaredError(), spread=1.0)
    raw, direction = raw.astype(dtype), np.random.default_rng(1).normal(size=len(y)).astype(dtype)
    found = LogCosh().hessian_product(y, raw, direction)
    np.testing.assert_allclose(found, direction / np.cosh(raw - y) ** 2, rtol=1e-7, atol=1e-9)
    assert LogCosh().hessian_product(y, raw, 0 * direction).tolist() == [0.0] * len(y)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss.smooth], ids=repr)
def test_differences_are_as_good_as_second_derivatives(loss):
    y, raw = rows(loss)
    direction = np.random.default_rng(1).normal(size=raw.shape)
    np.testing.assert_allclose(
        Loss.hessian_product(loss, y, raw, direction), loss.hessian_product(y, raw, direction), rtol=1e-4, atol=1e-5
    )
