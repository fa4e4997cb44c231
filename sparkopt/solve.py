"""The one training loop.

It knows nothing of Spark, features or losses: only ``reduce(query) → PartialSum``. It is written as a generator
that asks for the objective at some places and is sent the answers, so that a line search may ask for several places
in one pass over the data, and many models can be trained in one pass per step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from sparkopt.compatible import check_compatible
from sparkopt.errors import DivergedError
from sparkopt.objective import PartialSum, Query
from sparkopt.optim.base import Ask, Evaluate, Optimizer, Point
from sparkopt.penalties import NoPenalty, Penalty
from sparkopt.typing import Floats, State
from sparkopt.validation import Interval, check

__all__ = [
    "Callback",
    "Problem",
    "Progress",
    "Record",
    "Reduce",
    "Solution",
    "Stop",
    "check_compatible",
    "minimise",
    "minimise_many",
]

Reduce: TypeAlias = Callable[[Query], PartialSum]
"""A question about some places to the sums over the data."""


@dataclass(frozen=True)
class Stop:
    """When to stop.

    Parameters
    ----------
    max_iter : int, default 100
        Most steps, ≥ 0.
    tol : float, default 1e-6
        Stop when the objective's relative change from one window to the next is at most this. 0 never stops so.
    gradient_tol : float, default 0
        Stop when the norm of the (proximal) gradient is at most this, in each of the last ``window`` steps.
    window : int, default 1
        Steps whose objectives are averaged before they are compared; for mini-batches, about one epoch.
    """

    max_iter: int = 100
    tol: float = 1e-6
    gradient_tol: float = 0.0
    window: int = 1

    def __post_init__(self) -> None:
        check("maxIter", self.max_iter, Interval(0, None, whole=True))
        check("tol", self.tol, Interval(0, None))
        check("gradient_tol", self.gradient_tol, Interval(0, None))
        check("window", self.window, Interval(1, None, whole=True))

    def reason(self, history: Sequence[Record]) -> str | None:
        """Say why to stop now, or None to go on."""
        recent = history[-self.window :]  # one mini-batch without a gradient says nothing about the other rows
        if len(recent) == self.window and all(record.gradient_norm <= self.gradient_tol for record in recent):
            return "gradient"
        if self.tol > 0 and len(history) > 2 * self.window - 1 and self._change(history) <= self.tol:
            return "tolerance"
        return "maxIter" if history[-1].step >= self.max_iter else None

    def _change(self, history: Sequence[Record]) -> float:
        values = [record.objective for record in history[-2 * self.window :]]
        before, now = np.mean(values[: self.window]), np.mean(values[self.window :])
        return float(abs(before - now) / max(abs(before), abs(now), np.finfo(float).tiny))


@dataclass(frozen=True)
class Record:
    """One step as history keeps it.

    Attributes
    ----------
    step : int
        Number of the step; 0 is the start.
    objective : float
        Objective at the coefficients after the step, penalty included (on the step's rows, for mini-batches).
    gradient_norm : float
        Norm of the gradient there (with kinks: of the proximal gradient step of length 1).
    evaluations : int
        Passes over the step's rows.
    rows : int
        Rows touched in these passes.
    seconds : float
        Since the start of the loop.
    """

    step: int
    objective: float
    gradient_norm: float
    evaluations: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each step: the step's record, the coefficients, and how far it may go."""

    record: Record
    coef: Floats
    max_iter: int


class Callback(Protocol):
    """Called after each step; a true result stops the loop."""

    def __call__(self, progress: Progress, /) -> bool | None:
        """Look at the progress; return True to stop."""
        ...


@dataclass(frozen=True)
class Problem:
    """What one model asks of the loop.

    Parameters
    ----------
    optimizer : Optimizer
        Direction and distance.
    initial : ndarray of shape (size,)
        Where to start.
    penalty : Penalty, default none
        Added to the mean loss.
    stop : Stop
        When to end.
    callbacks : sequence of Callback
        Called after each step, in order.
    """

    optimizer: Optimizer
    initial: Floats
    penalty: Penalty = NoPenalty()
    stop: Stop = Stop()
    callbacks: Sequence[Callback] = ()

    def point(self, coef: Floats, loss: float, gradient: Floats, vector: Floats | None = None) -> Point:
        """Add the penalty to the mean loss and gradient, or to the product of the Hessian with ``vector``."""
        if vector is not None:
            return Point(coef, 0.0, 0.0, gradient + self.penalty.hessian_product(vector))
        smooth = loss + self.penalty.smooth_value(coef)
        return Point(coef, loss + self.penalty.value(coef), smooth, gradient + self.penalty.gradient(coef))

    def gradient_norm(self, at: Point) -> float:
        """Norm of the proximal gradient step of length 1; of the gradient, where the penalty is smooth."""
        if self.penalty.smooth:
            return float(np.linalg.norm(at.gradient))
        return float(np.linalg.norm(at.coef - self.penalty.prox(at.coef - at.gradient, 1.0)))


@dataclass(frozen=True)
class Solution:
    """Where the loop ended.

    Attributes
    ----------
    coef : ndarray of shape (size,)
        The coefficients, in the solver's coordinates.
    history : tuple of Record
        Every step, the start included; once more the last step, where the optimiser ends with a mean of its steps.
    reason : {"tolerance", "gradient", "precision", "callback", "maxIter"}
        Why it ended; ``precision``: no lower objective can be found within rounding.
    """

    coef: Floats
    history: tuple[Record, ...] = field(repr=False)
    reason: str

    @property
    def objective(self) -> float:
        """Objective at ``coef``."""
        return self.history[-1].objective

    @property
    def iterations(self) -> int:
        """Steps taken."""
        return self.history[-1].step

    @property
    def converged(self) -> bool:
        """Whether it ended before its step limit."""
        return self.reason != "maxIter"


@dataclass(frozen=True)
class _Request:
    """A question to the data, about the rows of this step."""

    step: int
    ask: Ask

    @property
    def kind(self) -> tuple[int, bool, bool, int]:
        """Requests of one kind share a pass; the earliest step comes first."""
        return self.step, self.ask.vectors is not None, self.ask.every_row, self.ask.sample or 0


@dataclass(frozen=True)
class _Answer:
    points: list[Point]
    rows: int


_Descent: TypeAlias = Generator[_Request, _Answer, Solution]


def minimise(reduce: Reduce, problem: Problem) -> Solution:
    """Minimise mean loss plus penalty.

    Parameters
    ----------
    reduce : callable
        ``reduce(query)`` with m places of shape (size,) returns the PartialSum over the step's rows.
    problem : Problem
        Optimiser, penalty, start, stop rule, callbacks.

    Raises
    ------
    IncompatibleError
        Where the optimiser cannot serve the penalty.
    DivergedError
        When the objective stops being finite.

    Examples
    --------
    The mean of 1, 2 and 6 minimises the mean of ½ (w − y)²:

    >>> import numpy as np
    >>> from sparkopt import optim
    >>> y = np.array([1.0, 2.0, 6.0])
    >>> def reduce(query):
    ...     residual = query.coefs - y
    ...     return PartialSum(0.5 * (residual**2).sum(axis=1), residual.sum(axis=1, keepdims=True), 3.0, 3)
    >>> minimise(reduce, Problem(optim.lbfgs(), np.zeros(1))).coef.round(6)
    array([3.])
    """
    return minimise_many(reduce, [problem])[0]


def minimise_many(reduce: Reduce, problems: Sequence[Problem]) -> list[Solution]:
    """Minimise several problems over the same rows: those at the same step share each pass over the data."""
    descents = [_descend(problem) for problem in problems]
    requests = {i: next(descent) for i, descent in enumerate(descents)}
    solutions: dict[int, Solution] = {}
    while requests:
        kind = min(request.kind for request in requests.values())
        group = {i: request for i, request in requests.items() if request.kind == kind}
        sums = reduce(_query(list(group.values())))
        losses, gradients = sums.mean()
        first = 0
        for i, request in group.items():
            places = range(first, first + len(request.ask.coefs))
            first = places.stop
            vectors: Sequence[Floats | None] = request.ask.vectors or [None] * len(places)
            points = [
                problems[i].point(coef, float(losses[at]), gradients[at], vector)
                for coef, vector, at in zip(request.ask.coefs, vectors, places, strict=True)
            ]
            try:
                requests[i] = descents[i].send(_Answer(points, sums.rows))
            except StopIteration as end:
                solutions[i] = end.value
                del requests[i]
    return [solutions[i] for i in range(len(problems))]


def _query(requests: Sequence[_Request]) -> Query:
    """Join requests of one kind."""
    first = requests[0]
    coefs = np.stack([coef for request in requests for coef in request.ask.coefs])
    vectors = [vector for request in requests for vector in request.ask.vectors or ()]
    return Query(coefs, first.step, np.stack(vectors) if vectors else None, first.ask.every_row, first.ask.sample)


def _descend(problem: Problem) -> _Descent:
    """The loop itself, for one problem."""
    check_compatible(problem.optimizer, problem.penalty)
    begin = time.perf_counter()
    transform, search, penalty = problem.optimizer.transform, problem.optimizer.search, problem.penalty
    answer = yield _Request(0, Ask([penalty.prox(problem.initial, 0.0)]))  # inside the bounds, if there are any
    at = answer.points[0]
    state, search_state = transform.init(at.coef), search.init(at.coef)
    log = _Log(problem, begin)
    reason = log.add(0, at, 1, answer.rows)
    counted = _Counter(1)
    fresh = True  # whether the optimiser's memory is empty
    while reason is None:
        direction, state = transform.update(at.gradient, state, at.coef)
        to, search_state = yield from counted.run(search.run(at, direction, penalty, search_state))
        if to is at:  # nowhere lower: forget what was learnt and try once more, then accept it
            if fresh:
                reason = "precision"
                break
            state, search_state, fresh = transform.init(at.coef), search.init(at.coef), True
            continue
        at, fresh = to, False
        reason = log.add(counted.step, at, counted.evaluations, counted.rows)
        counted = _Counter(counted.step + 1)
    last = transform.finish(state, at.coef)
    if last is not at.coef:  # a mean of the steps is what is wanted: its objective is on the last step's rows
        answer = yield _Request(log.history[-1].step, Ask([last]))
        at = answer.points[0]
        log.write(log.history[-1].step, at, 1, answer.rows)
    return log.solution(at, reason)


class _Counter:
    """Turns a search's questions into requests and counts what they cost."""

    def __init__(self, step: int) -> None:
        self.step, self.evaluations, self.rows = step, 0, 0

    def run(self, search: Evaluate) -> Generator[_Request, _Answer, tuple[Point, State]]:
        try:
            ask = next(search)
            while True:
                answer = yield _Request(self.step, ask)
                self.evaluations += 1
                self.rows += answer.rows
                ask = search.send(answer.points)
        except StopIteration as end:
            result: tuple[Point, State] = end.value
            return result


class _Log:
    """History, divergence, stop rules and callbacks after each step."""

    def __init__(self, problem: Problem, begin: float) -> None:
        self.problem, self.begin, self.history = problem, begin, list[Record]()

    def add(self, step: int, at: Point, evaluations: int, rows: int) -> str | None:
        record = self.write(step, at, evaluations, rows)
        progress = Progress(record, at.coef, self.problem.stop.max_iter)
        wishes = [callback(progress) for callback in self.problem.callbacks]
        return "callback" if any(wishes) else self.problem.stop.reason(self.history)

    def write(self, step: int, at: Point, evaluations: int, rows: int) -> Record:
        if not at.is_finite:
            raise self._diverged(step)
        norm = self.problem.gradient_norm(at)
        self.history.append(Record(step, at.value, norm, evaluations, rows, time.perf_counter() - self.begin))
        return self.history[-1]

    def _diverged(self, step: int) -> DivergedError:
        name = self.problem.optimizer.name
        if step == 0:
            return DivergedError("the objective is not finite at the initial coefficients: start elsewhere")
        last = self.history[-1]
        return DivergedError(
            f"{name!r} diverged at step {step}: the objective was {last.objective:.6g} one step earlier and "
            f"is not finite now. Use a smaller stepSize, or optimizer='lbfgs', which chooses its own."
        )

    def solution(self, at: Point, reason: str) -> Solution:
        return Solution(at.coef, tuple(self.history), reason)
