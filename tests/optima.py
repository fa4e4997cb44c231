"""Optima of penalised linear models, certified: by SciPy and dense linear algebra, without any code of the package.

L-BFGS-B minimises over positive and negative parts, and finds which coefficients are free; Newton's method over these
ends at the optimum to about 1e-14. The optimality conditions of all coefficients certify it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import linalg, optimize, special

Floats = np.ndarray


@dataclass(frozen=True, eq=False)
class PenalisedModel:
    """mean loss + l2/2 ‖s u‖² + l1 ‖s u‖₁ for coefficients u inside bounds, all in the features' units.

    ``s`` has the features' standard deviations, over n − ``ddof``, with ``standardised``, else ones. A vector holds
    the coefficients of standardised features, feature by feature, and then the intercepts.
    """

    X: Floats
    y: Floats
    kind: str
    l1: float = 0.0
    l2: float = 0.0
    lower: float = -np.inf
    upper: float = np.inf
    standardised: bool = True
    intercept: bool = True
    ddof: int = 1

    @cached_property
    def std(self) -> Floats:
        std = self.X.std(axis=0, ddof=self.ddof)
        return np.where(std > 0, std, np.inf)  # a constant feature has no coefficient

    @property
    def outputs(self) -> int:
        return int(self.y.max()) + 1 if self.kind == "multinomial" else 1

    @cached_property
    def design(self) -> Floats:
        Z = (self.X - self.X.mean(axis=0) * self.intercept) / self.std
        return np.column_stack([Z, np.ones(len(Z))]) if self.intercept else Z

    @cached_property
    def factors(self) -> Floats:
        """What a penalty measures each entry by."""
        own = np.ones(self.X.shape[1]) if self.standardised else 1 / self.std
        return np.repeat(np.append(own, [0.0] * self.intercept), self.outputs)

    @cached_property
    def bounds(self) -> tuple[Floats, Floats]:
        scale = np.repeat(np.append(np.minimum(self.std, 1e300), [np.inf] * self.intercept), self.outputs)
        with np.errstate(invalid="ignore"):
            return tuple(
                np.where(np.isinf(scale), sign * np.inf, end * scale)
                for sign, end in ((-1, self.lower), (1, self.upper))
            )

    def derivatives(self, w: Floats, hessian: bool = False) -> tuple[float, Floats, Floats]:
        """Return value and gradient of the smooth part, and its Hessian or zeros."""
        Z, n, k = self.design, len(self.y), self.outputs
        raw = Z @ w.reshape(-1, k)
        if self.kind == "multinomial":
            p = special.softmax(raw, axis=1)
            rows = np.arange(n), self.y.astype(int)
            value, slope = (special.logsumexp(raw, axis=1) - raw[rows]).mean(), p.copy()
            slope[rows] -= 1
            D = np.einsum("na,ab->nab", p, np.eye(k)) - np.einsum("na,nb->nab", p, p) if hessian else None
        else:
            raw = raw[:, 0]
            if self.kind == "squared":
                value, slope, curvature = 0.5 * np.square(raw - self.y).mean(), raw - self.y, np.ones(n)
            else:
                p = special.expit(raw)
                value = -special.log_expit(np.where(self.y == 1, raw, -raw)).mean()
                slope, curvature = p - self.y, p * (1 - p)
            slope, D = slope[:, None], curvature[:, None, None]
        ridge, curvatures = self.l2 * self.factors**2, np.zeros((len(w), len(w)))
        if hessian:
            blocks = curvatures.reshape(Z.shape[1], k, Z.shape[1], k)
            for a, b in np.ndindex(k, k):
                blocks[:, a, :, b] = Z.T @ (D[:, a, b, None] * Z) / n
        gradient = (Z.T @ slope / n).ravel() + ridge * w
        return float(value + 0.5 * ridge @ w**2), gradient, curvatures + np.diag(ridge)

    def objective(self, w: Floats) -> float:
        return self.derivatives(w)[0] + self.l1 * float(self.factors @ np.abs(w))

    def vector(self, coefficients: Floats, intercept: Floats) -> Floats:
        """Return the vector of coefficients (features, outputs) and intercepts (outputs,) in the user's units."""
        scaled = coefficients * np.where(np.isinf(self.std), 0.0, self.std)[:, None]
        if not self.intercept:
            return scaled.ravel()
        return np.append(scaled.ravel(), intercept + self.X.mean(axis=0) @ coefficients)

    @cached_property
    def optimum(self) -> float:
        return self.objective(self._polished(self._found()))

    def gap(self, coefficients: Floats, intercept: Floats) -> float:
        """Return by how much a model's objective is above the optimum, relatively; infinity outside the bounds."""
        w, (lower, upper) = self.vector(coefficients, intercept), self.bounds
        slack = 1e-12 * np.maximum(1, np.abs(w))
        if (w < lower - slack).any() or (w > upper + slack).any():
            return np.inf
        return (self.objective(w) - self.optimum) / abs(self.optimum)

    def _found(self) -> Floats:
        size, (lower, upper) = len(self.factors), self.bounds

        def split(both: Floats) -> tuple[float, Floats]:
            value, gradient, _ = self.derivatives(both[:size] - both[size:])
            c = self.l1 * self.factors
            return value + c @ (both[:size] + both[size:]), np.concatenate([gradient + c, c - gradient])

        ends = [(max(low, 0.0), max(high, 0.0)) for low, high in zip(lower, upper, strict=True)]
        ends += [(max(-high, 0.0), max(-low, 0.0)) for low, high in zip(lower, upper, strict=True)]
        options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 3000, "maxfun": 10_000, "maxcor": 30}
        start = np.clip(np.full(2 * size, 0.01), *np.array(ends).T)
        both = optimize.minimize(split, start, jac=True, method="L-BFGS-B", bounds=ends, options=options).x
        return both[:size] - both[size:]

    def _polished(self, w: Floats) -> Floats:
        """Return the optimum near ``w``: Newton's method over free coefficients until all meet the conditions."""
        lower, upper = self.bounds
        c = self.l1 * self.factors
        near = 1e-6 * np.maximum(1, np.abs(w))
        w = np.where(
            (c > 0) & (np.abs(w) < near), 0.0, np.where(w - lower < near, lower, np.where(upper - w < near, upper, w))
        )
        for _ in range(200):
            _, gradient, hessian = self.derivatives(w, hessian=True)
            up, down = gradient + np.where(w >= 0, c, -c), gradient + np.where(w > 0, c, -c)
            moves = ((up < -1e-13) & (w < upper)) | ((down > 1e-13) & (w > lower))
            held = (w <= lower) | (w >= upper) | ((w == 0) & (c > 0))
            if not moves.any():
                return w
            free = ~held
            if not (moves & free).any() or np.abs((gradient + c * np.sign(w))[free]).max() < 1e-12:
                enters = moves & held
                if not enters.any():
                    return w
                free = free | enters  # the first of them moves off its bound, or off zero
            sign = np.where(w != 0, np.sign(w), -np.sign(gradient))
            block = hessian[np.ix_(free, free)]
            step = np.zeros_like(w)
            step[free] = -linalg.lstsq(block, (gradient + c * sign)[free])[0]
            length = 1.0
            while True:
                to = w + length * step
                to = np.where((c > 0) & (to * sign < 0), 0.0, np.clip(to, lower, upper))
                if self.objective(to) <= self.objective(w) + 1e-15 or length < 1e-8:
                    break
                length /= 2
            w = to
        raise AssertionError("no certified optimum was found")
