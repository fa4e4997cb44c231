"""Line searches where the objective is rounded more coarsely than its gradient, as sums over float32 rows are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sparkopt import optim
from sparkopt.objective.query import PartialSum, Query
from sparkopt.optim import InitialHessian
from sparkopt.solver.loop import minimise
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Stop
from tests.problems import quadratic


@pytest.mark.parametrize("digits", [16, 12, 10])
def test_slopes_decide_where_values_are_rounded(digits):
    known = quadratic("bowl", np.geomspace(1.0, 0.01, 12))

    def reduce(query: Query) -> PartialSum:
        found = known.reduce(query)
        return replace(found, loss=np.round(1.0 + found.loss, digits))

    optimizer = optim.lbfgs(initial_hessian=InitialHessian(up_to=0))
    problem = Problem(optimizer, known.start, stop=Stop(90, 0.0, gradient_tol=1e-7))
    solution = minimise(reduce, problem)
    assert solution.reason == "gradient"
    assert known.value(solution.coef) < 1e-12
    assert sum(record.evaluations for record in solution.history) < 2 * len(solution.history)
