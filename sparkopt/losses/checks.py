"""Check of a loss's shapes and derivatives, made before it is used on data."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.losses.base import Loss
from sparkopt.losses.projections import Derivatives, ProjectionLoss
from sparkopt.typing import Array, Floats

__all__ = ["check_loss"]

ROWS, STEP, TOLERANCE = 32, 1e-6, 1e-4
ROUNDING = 4 * float(np.finfo(float).eps)
"""Relative rounding of the difference of two values, which counts where the target's unit makes losses large."""


def check_loss(loss: Loss) -> None:
    """Compare a loss's derivatives with finite differences of its values on 32 rows, in less than a millisecond.

    Parameters
    ----------
    loss : Loss
        Any loss.

    Raises
    ------
    ParameterError
        If shapes, values or derivatives are wrong; the message names the loss and the method.

    Examples
    --------
    >>> from sparkopt.losses import Logistic
    >>> check_loss(Logistic())
    """
    if _never_changes(loss):
        _check_once(loss)  # a fit makes many objectives of few losses
    else:
        _check(loss)


def _never_changes(loss: Loss) -> bool:
    """Whether it is a frozen dataclass, which is equal to others by its class and values, and can be hashed."""
    parameters = getattr(loss, "__dataclass_params__", None)
    if parameters is None or not (parameters.frozen and parameters.eq):
        return False
    try:
        hash(loss)
    except TypeError:  # it has an array, say
        return False
    return True


@lru_cache(maxsize=64)
def _check_once(loss: Loss) -> None:
    _check(loss)


def _check(loss: Loss) -> None:
    if isinstance(loss, ProjectionLoss):
        _check(loss.base)
        _check_projections(loss)
        return
    rng = np.random.default_rng(0)
    y = _targets(loss, rng)
    columns = loss.outputs + loss.auxiliary
    raw = rng.normal(size=ROWS if columns == 1 else (ROWS, columns))
    direction = rng.normal(size=raw.shape)
    with np.errstate(all="ignore"):
        value, gradient = loss.value_gradient(y, raw)
        _check_shape(loss, "losses", value, (ROWS,))
        _check_shape(loss, "derivatives", gradient, raw.shape)
        (high, steep_high), (low, steep_low) = (loss.value_gradient(y, raw + s * STEP * direction) for s in (1, -1))
        known = np.isfinite(value) & np.isfinite(high) & np.isfinite(low)
        if not known.any():
            raise ParameterError(f"loss {loss.name!r} is not finite at any of {ROWS} raw predictions of about 1.")
        slope = (gradient * direction).reshape(ROWS, -1).sum(axis=1)
        rounding = ROUNDING * np.abs(value[known]) / STEP
        change = (high - low) / (2 * STEP)
        _check_close(loss, "value_gradient", slope[known], change[known], raw[known], y[known], rounding)
        if type(loss).hessian_product is not Loss.hessian_product:
            second = loss.hessian_product(y, raw, direction)
            _check_shape(loss, "hessian_product", second, raw.shape)
            rounding = ROUNDING * np.abs(gradient[known]) / STEP
            change = (steep_high - steep_low) / (2 * STEP)
            _check_close(loss, "hessian_product", second[known], change[known], raw[known], y[known], rounding)


def _check_projections(loss: ProjectionLoss) -> None:
    """Compare derivatives with respect to projections, their squares and parameters with finite differences."""
    rng = np.random.default_rng(0)
    y, weight = _targets(loss, rng), rng.uniform(0.5, 1.5, ROWS)
    shapes = [(ROWS, loss.outputs), (ROWS,), (loss.auxiliary,)]
    at, direction = ([rng.normal(size=shape) for shape in shapes] for _ in range(2))
    at[1] = np.abs(at[1])

    def found(step: float) -> Derivatives:
        moved = [one + step * along for one, along in zip(at, direction, strict=True)]
        squares = None if loss.squared_from is None else moved[1]
        return loss.derivatives(y, moved[0], squares, moved[2], weight)

    with np.errstate(all="ignore"):
        here, high, low = (found(step) for step in (0.0, STEP, -STEP))
    _check_shape(loss, "losses", here.value, (ROWS,))
    _check_shape(loss, "derivatives", here.projections, shapes[0])
    squares = np.zeros(ROWS) if here.squares is None else here.squares
    wanted = float(weight @ (high.value - low.value)) / (2 * STEP)
    parts = zip((here.projections, squares, here.parameters), direction, strict=True)
    slope = float(sum((one * along).sum() for one, along in parts))
    rounding = ROUNDING * float(weight @ np.abs(here.value)) / STEP
    if not abs(slope - wanted) <= TOLERANCE * (1 + abs(wanted)) + rounding:
        raise ParameterError(
            f"loss {loss.name!r}: its derivatives give {slope:.6g} along a direction, but finite differences "
            f"{wanted:.6g}. {loss.remedy('derivatives')}"
        )


def _targets(loss: Loss, rng: np.random.Generator) -> Floats:
    """Draw targets from the loss's domain, of about 1 where it is unbounded."""
    low, high = loss.targets.low, loss.targets.high
    if loss.targets.whole:
        first = -3 if low is None else int(low)
        last = first + 6 if high is None else int(high)
        return rng.integers(first, last, size=ROWS, endpoint=True).astype(float)
    if low is not None and high is not None:
        return rng.uniform(low, high, size=ROWS)
    if low is not None:
        return low + rng.exponential(size=ROWS)
    return rng.normal(size=ROWS) if high is None else high - rng.exponential(size=ROWS)


def _check_shape(loss: Loss, what: str, found: Array, shape: tuple[int, ...]) -> None:
    if np.shape(found) != shape:
        raise ParameterError(
            f"loss {loss.name!r} returns {what} of shape {np.shape(found)} for {ROWS} rows; {shape} is needed."
        )


def _check_close(loss: Loss, method: str, found: Array, wanted: Array, raw: Array, y: Array, rounding: Array) -> None:
    gap = np.abs(found - wanted) > TOLERANCE * (1 + np.abs(wanted)) + rounding
    wrong = gap.reshape(len(y), -1).any(axis=1) | ~np.isfinite(found).reshape(len(y), -1).all(axis=1)
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong)[0])
    raise ParameterError(
        f"loss {loss.name!r}: at y={y[row]:.4g}, raw={np.round(raw[row], 4).tolist()} its {method} returns "
        f"{np.round(found[row], 6).tolist()}, but finite differences give {np.round(wanted[row], 6).tolist()}. "
        f"{loss.remedy(method)}"
    )
