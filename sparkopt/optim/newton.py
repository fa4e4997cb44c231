"""Newton's method, by Hessian-vector products instead of a Hessian."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from sparkopt.optim.base import Evaluate, Point, Search
from sparkopt.optim.request import HessianProducts, Request
from sparkopt.optim.search import StrongWolfe
from sparkopt.typing import Floats, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["NewtonCG"]


@dataclass(frozen=True)
class NewtonCG(Search):
    """Line-search Newton-CG (Nocedal & Wright, 2006, algorithm 7.1; Dembo, Eisenstat & Steihaug, 1982).

    The Newton equation is solved by conjugate gradients, each of whose steps needs one Hessian-vector product and so
    costs one pass, up to a residual of min(½, √(‖g‖/‖g₀‖)) · ‖g‖, which makes convergence superlinear. Where the
    curvature is not positive, the direction found so far is taken. The chain's direction is ignored.

    Parameters
    ----------
    max_products : int, default 50
        Most products per step.
    """

    max_products: int = 50

    def __post_init__(self) -> None:
        check("max_products", self.max_products, Interval(1, None, whole=True))

    def init(self, coef: Floats) -> State:
        """Return None: the norm of the first gradient is not known yet."""
        return None

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Solve for the Newton direction, then search along it."""
        norm = float(np.linalg.norm(at.gradient))
        first = norm if state is None else state
        newton = yield from self._solve(at, min(0.5, np.sqrt(norm / first) if first > 0 else 0.5) * norm)
        point, _ = yield from StrongWolfe().run(at, newton, penalty, ())
        return point, first

    def _solve(self, at: Point, tolerance: float) -> Generator[Request, list[Point], Floats]:
        """Return an approximate solution of H · solution = −gradient."""
        solution = np.zeros_like(at.coef)
        residual, direction = at.gradient, -at.gradient
        square = float(residual @ residual)
        for count in range(min(self.max_products, 2 * len(at.coef))):
            (product,) = yield HessianProducts(at.coef[None], direction[None])
            curvature = float(direction @ product.gradient)
            if not curvature > np.finfo(float).eps * float(direction @ direction):
                return direction if count == 0 else solution
            length = square / curvature
            solution = solution + length * direction
            residual = residual + length * product.gradient
            before, square = square, float(residual @ residual)
            if np.sqrt(square) <= tolerance:
                break
            direction = (square / before) * direction - residual
        return solution
