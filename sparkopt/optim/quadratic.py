"""A quadratic model of the objective plus a nonsmooth penalty, minimised where the loop runs, without the data."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import field
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from numpy.typing import NDArray

from sparkopt.io.imports import UNNEEDED, postponed
from sparkopt.optim.base import Point
from sparkopt.typing import Floats
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["PenalisedQuadratic", "QuadraticModel", "with_diagonal"]

RIDGE = 1e-13
"""Added to the curvature in every direction, over the largest: the directions that the loss does not determine."""
FLAT = 1e-6
"""Least curvature over the largest where the Hessian is not positive semidefinite: it is then inexact, or the
objective not convex."""
ROUNDS = 100
"""Most rounds of coordinate descent and steps within the active set."""
SWEEPS = 2
"""Sweeps over the active coordinates in each of them."""
PROXIMAL_STEPS = 5000
"""Most proximal gradient steps, for penalties that are not separable."""


@dataclass(frozen=True)
class PenalisedQuadratic:
    """f(w) + gᵀ(u − w) + ½ (u − w)ᵀ H (u − w) + the nonsmooth part of a penalty, a function of u.

    Attributes
    ----------
    at : Point
        The point w, with gradient g.
    hessian : ndarray of shape (size, size), or what multiplies vectors likewise
        H, positive definite.
    penalty : Penalty
        The penalty.
    """

    at: Point
    hessian: Any
    penalty: Penalty

    @abstractmethod
    def minimum(self) -> Floats:
        """Return its minimum, shape (size,)."""

    def slope(self, to: Floats) -> float:
        """Return gᵀ(to − w) plus the change of the nonsmooth part: a bound of the objective's change per step."""
        return float(self.at.gradient @ (to - self.at.coef)) + self._nonsmooth(to) - self._nonsmooth(self.at.coef)

    def decrease(self, to: Floats) -> float:
        """Return by how much the model is lower at ``to`` than at w."""
        step = to - self.at.coef
        return -self.slope(to) - 0.5 * float(step @ self.hessian @ step)

    def gradient(self, to: Floats) -> Floats:
        """Return the gradient of the quadratic part at ``to``."""
        gradient: Floats = self.at.gradient + self.hessian @ (to - self.at.coef)
        return gradient

    def _nonsmooth(self, coef: Floats) -> float:
        return 0.0 if self.penalty.smooth else self.penalty.value(coef) - self.penalty.smooth_value(coef)

    def _by_proximal_gradients(self, length: float, most: int, enough: Callable[[float, Floats], bool]) -> Floats:
        """FISTA with restarts (Beck & Teboulle, 2009, §4; O'Donoghue & Candès, 2015, §3.2).

        ``most`` steps of ``length``, or until ``enough`` of the last step's largest entry and where it leads.
        """
        coef = ahead = self.at.coef
        t = 1.0
        for _ in range(most):
            after = self.penalty.prox(ahead - length * self.gradient(ahead), length)
            if enough(float(np.abs(after - ahead).max()), after):
                return after
            if (ahead - after) @ (after - coef) > 0:
                t, ahead = 1.0, after
            else:
                further = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * t * t))
                ahead, t = after + (t - 1.0) / further * (after - coef), further
            coef = after
        return coef


@dataclass(frozen=True)
class QuadraticModel(PenalisedQuadratic):
    """The model with a Hessian of shape (size, size).

    Attributes
    ----------
    factor : ndarray of shape (size, size), optional
        Upper Cholesky factor of the Hessian, where it is known; what is below its diagonal has no meaning.
    """

    hessian: Floats
    factor: Any = field(default=None, repr=False)

    @classmethod
    def of(cls, at: Point, hessian: Floats, penalty: Penalty) -> QuadraticModel:
        """Return the model; a Hessian that is not positive definite is replaced by one near it.

        Where there are negative curvatures, their size is taken instead of their sign (Dauphin et al., 2014, §4).
        """
        largest = float(np.abs(hessian.diagonal()).max(initial=0.0)) or 1.0
        ridged = with_diagonal(hessian, RIDGE * largest)
        factor = _cholesky(ridged)
        if factor is not None:
            return cls(at, ridged, penalty, factor)
        values, vectors = _linalg().eigh(hessian)
        values = np.maximum(np.abs(values), FLAT * float(np.abs(values).max()) or 1.0)
        return cls(at, (vectors * values) @ vectors.T, penalty)

    def minimum(self) -> Floats:
        parts = self.penalty.separable(len(self.at.coef))
        if parts is None:
            last, scale = len(self.at.coef) - 1, float(np.abs(self.at.gradient).max())
            length = 1.0 / float(_linalg().eigvalsh(self.hessian, subset_by_index=[last, last])[0])
            return self._by_proximal_gradients(
                length,
                PROXIMAL_STEPS,
                lambda moved, to: moved <= 1e-13 * max(length * scale, float(np.abs(to).max())),
            )
        weights, lower, upper = parts
        if not weights.any() and np.isinf(lower).all() and np.isinf(upper).all():
            factor = _cholesky(self.hessian) if self.factor is None else self.factor
            return self.at.coef - _solved(factor, self.at.gradient)
        return _Separable(self.hessian, self.at, weights, lower, upper).minimum()


@cache
def _linalg() -> Any:
    """Return scipy.linalg, which is imported in the midst of a fit: without what it does not need."""
    with postponed(*UNNEEDED):
        return import_module("scipy.linalg")


@cache
def _lapack() -> Any:
    """Return SciPy's functions of LAPACK.

    By themselves where SciPy has them in the module of today: all of scipy.linalg takes a cold fit 0.1 s to import.
    """
    name = "scipy.linalg._flapack"
    folder = Path(scipy.__file__).parent / "linalg"
    spec = None if name in sys.modules else PathFinder.find_spec(name, [str(folder)])
    if spec is None or spec.loader is None:
        return _linalg().lapack
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_diagonal(hessian: Floats, added: float) -> Floats:
    """Return a matrix with a number added to its diagonal."""
    found = hessian.copy()
    found.flat[:: len(found) + 1] += added
    return found


def _cholesky(hessian: Floats) -> Floats | None:
    """Return the upper factor of a matrix, None where it is not positive definite.

    LAPACK's own function: of a hundred coefficients, what ``cho_factor`` does around it takes ten times as long.
    """
    factor, refused = _lapack().dpotrf(hessian, clean=0)
    return None if refused else factor


def _solved(factor: Floats | None, vector: Floats) -> Floats:
    if factor is None:
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    solution: Floats = _lapack().dpotrs(factor, vector)[0]
    return solution


class _Separable:
    """Coordinate descent for Σ c |u| inside bounds (Friedman, Hastie & Tibshirani, 2010, §2), made finite.

    After sweeps over the coordinates, the quadratic is minimised exactly over those that are free to move, as far as
    none of them changes its sign or meets a bound (the step of Lee, Battle, Raina & Ng, 2006, *Efficient sparse
    coding algorithms*, algorithm 1). Once the free coordinates are the right ones, this is the minimum.
    """

    def __init__(self, hessian: Floats, at: Point, weights: Floats, lower: Floats, upper: Floats) -> None:
        self.hessian, self.diagonal = hessian, hessian.diagonal()
        self.weights, self.lower, self.upper = weights, lower, upper
        self.at = np.clip(at.coef, lower, upper)
        self.coef = self.at.copy()
        self.start = at.gradient + hessian @ (self.at - at.coef)
        self.slope = self.start.copy()

    def minimum(self) -> Floats:
        tolerance = 1e-11 * float(np.abs(self.start).max() + self.weights.max())
        for _ in range(ROUNDS):
            is_whole = self._move_free()
            violations = self._violations()
            free = self._free()
            if is_whole and violations[~free].max(initial=0.0) <= tolerance:
                break
            moving = np.flatnonzero(free | (violations > tolerance))
            for _ in range(SWEEPS):
                self._sweep(moving)
        return self.coef

    def _violations(self) -> Floats:
        """Return the least subgradient of each coordinate, 0 at the minimum."""
        coef, slope, c = self.coef, self.slope, self.weights
        up = slope + np.where(coef >= 0, c, -c)  # the derivative to the right
        down = slope + np.where(coef > 0, c, -c)  # to the left
        rises, falls = np.maximum(-up, 0.0), np.maximum(down, 0.0)
        rises[coef >= self.upper] = 0.0
        falls[coef <= self.lower] = 0.0
        return np.maximum(rises, falls)

    def _free(self) -> NDArray[np.bool_]:
        inside = (self.coef > self.lower) & (self.coef < self.upper)
        free: NDArray[np.bool_] = inside & ((self.coef != 0) | (self.weights == 0))
        return free

    def _sweep(self, coordinates: NDArray[np.intp]) -> None:
        hessian, coef, slope = self.hessian, self.coef, self.slope
        tables = (self.diagonal, self.weights, self.lower, self.upper)
        diagonal, weights, lower, upper = (table[coordinates].tolist() for table in tables)
        for i, j in enumerate(coordinates.tolist()):
            curvature, c, now = diagonal[i], weights[i], float(coef[j])
            target = curvature * now - float(slope[j])
            shrunk = target - c if target > c else target + c if target < -c else 0.0
            to = min(max(shrunk / curvature, lower[i]), upper[i])
            if to != now:
                slope += hessian[j] * (to - now)  # a row of a symmetric matrix
                coef[j] = to

    def _move_free(self) -> bool:
        """Minimise over the free coordinates, up to where the first reaches zero or a bound; whether none does."""
        free, length = np.flatnonzero(self._free()), 1.0
        if len(free):
            self.slope = self.start + self.hessian @ (self.coef - self.at)
            own, c = self.coef[free], self.weights[free]
            slope = self.slope[free] + c * np.sign(own)
            step = -_solved(_cholesky(self.hessian[np.ix_(free, free)]), slope)
            ends = np.where(step > 0, self.upper[free], self.lower[free])
            crosses = (c > 0) & (own * step < 0)  # through zero, which comes before a bound beyond it
            ends = np.where(crosses, np.where(step > 0, np.minimum(ends, 0.0), np.maximum(ends, 0.0)), ends)
            with np.errstate(divide="ignore", invalid="ignore"):
                room = np.where(step != 0, (ends - own) / step, np.inf)
            nearest = int(np.argmin(room))
            length = min(1.0, float(room[nearest]))
            self.coef[free] = own + length * step
            if length < 1.0:
                self.coef[free[nearest]] = ends[nearest]
        self.slope = self.start + self.hessian @ (self.coef - self.at)
        return length == 1.0
