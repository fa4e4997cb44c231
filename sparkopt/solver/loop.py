"""The one training loop.

It knows nothing of Spark, features or losses: only ``reduce(query) → PartialSum``. It is written as a generator
that asks for the objective at some places and is sent the answers, so that a line search may ask for several places
in one pass over the data, and many models can be trained in one pass per step. Its state is data (``Snapshot``):
from what a callback took after any step, another process can go on, to the same coefficients bit by bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from sparkopt.errors import DivergedError
from sparkopt.objective.query import PartialSum, Query
from sparkopt.optim.base import Ask, Evaluate, Optimizer, Point
from sparkopt.solver.compatibility import check_compatible
from sparkopt.solver.problem import Problem, Solution
from sparkopt.solver.progress import Callback, Progress, Record, Snapshot, Stop, runs_beside_loop
from sparkopt.typing import Floats, State

__all__ = [
    "Callback",
    "Problem",
    "Progress",
    "Record",
    "Reduce",
    "Snapshot",
    "Solution",
    "Stop",
    "check_compatible",
    "minimise",
    "minimise_many",
    "runs_beside_loop",
]

Reduce: TypeAlias = Callable[[Query], PartialSum]
"""A question about some places to the sums over the data."""


@dataclass(frozen=True)
class _Request:
    """A question to the data, about the rows of this step."""

    step: int
    ask: Ask

    @property
    def kind(self) -> tuple[int, bool, bool, int, bool]:
        """Requests of one kind share a pass; the earliest step comes first, and in it what prepares a step."""
        ask = self.ask
        return self.step, ask.vectors is None, not ask.every_row, ask.sample or 0, ask.losses_only


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
    """Minimise several problems over the same rows: those at the same step share each pass over the data.

    All of them begin a step together, so a snapshot of each after the same step is a snapshot of the whole.
    """
    descents = [_descend(problem, model) for model, problem in enumerate(problems)]
    requests: dict[int, _Request] = {}
    solutions: dict[int, Solution] = {}
    for i, descent in enumerate(descents):
        _advance(i, descent, None, requests, solutions)
    while requests:
        kind = min(request.kind for request in requests.values())
        group = {i: request for i, request in requests.items() if request.kind == kind}
        sums = reduce(_query([(problems[i], request) for i, request in group.items()]))
        for i, points in _points(problems, group, sums).items():
            _advance(i, descents[i], _Answer(points, sums.rows), requests, solutions)
    return [solutions[i] for i in range(len(problems))]


def _advance(
    i: int,
    descent: _Descent,
    answer: _Answer | None,
    requests: dict[int, _Request],
    solutions: dict[int, Solution],
) -> None:
    """Send a descent its answer; keep its next request, or its solution."""
    try:
        requests[i] = next(descent) if answer is None else descent.send(answer)
    except StopIteration as end:
        requests.pop(i, None)
        solutions[i] = end.value


def _query(requests: Sequence[tuple[Problem, _Request]]) -> Query:
    """Join requests of one kind, in the data's coordinates."""
    first = requests[0][1]
    coefs = np.stack([problem.scaled(coef) for problem, request in requests for coef in request.ask.coefs])
    vectors = [problem.scaled(vector) for problem, request in requests for vector in request.ask.vectors or ()]
    asked = first.ask
    directions = np.stack(vectors) if vectors else None
    folds = [problem.held_out for problem, request in requests for _ in request.ask.coefs]
    held_out = None if all(fold is None for fold in folds) else folds
    return Query(coefs, first.step, directions, asked.every_row, asked.sample, asked.losses_only, held_out=held_out)


def _points(problems: Sequence[Problem], group: dict[int, _Request], sums: PartialSum) -> dict[int, list[Point]]:
    """Cut the answer to a joined query into points for each request."""
    losses, gradients = sums.mean()
    looked = sums.validation_mean()
    validation = [None] * len(losses) if looked is None else looked.tolist()
    places = iter(zip(losses.tolist(), gradients, validation, strict=True))
    return {i: _answers(problems[i], request.ask, places) for i, request in group.items()}


def _answers(problem: Problem, ask: Ask, places: Iterator[tuple[float, Floats, float | None]]) -> list[Point]:
    """Take a request's share of the places."""
    if ask.vectors is None:
        return [problem.point(coef, *next(places)) for coef in ask.coefs]
    pairs = zip(ask.coefs, ask.vectors, strict=True)
    return [problem.product(coef, vector, next(places)[1]) for coef, vector in pairs]


@dataclass(frozen=True)
class _Now:
    """Where a descent is between two steps."""

    at: Point
    transform: State
    search: State
    fresh: bool

    @classmethod
    def anew(cls, optimizer: Optimizer, at: Point) -> _Now:
        """Begin at a point, with nothing learnt yet."""
        return cls(at, optimizer.transform.init(at.coef), optimizer.search.init(at.coef), True)


def _descend(problem: Problem, model: int) -> _Descent:
    """The loop itself, for one problem."""
    optimizer = problem.optimizer
    check_compatible(optimizer, problem.penalty)
    log = _Log(problem, model)
    if isinstance(problem.initial, Snapshot):
        now, reason = log.resume(problem.initial)
    else:
        inside = problem.penalty.prox(problem.initial, 0.0)  # where there are bounds
        answer = yield _Request(0, Ask([inside]))
        now = _Now.anew(optimizer, answer.points[0])
        reason = log.add(now, _Counter(0, 1, answer.rows))
    counted = _Counter(log.next_step)
    while reason is None:
        direction, transform = optimizer.transform.update(now.at.gradient, now.transform, now.at.coef)
        to, search = yield from counted.run(optimizer.search.run(now.at, direction, problem.penalty, now.search))
        if to is not now.at:
            now = _Now(to, transform, search, False)
            reason = log.add(now, counted)
            counted = _Counter(log.next_step)
        elif now.fresh:
            reason = "precision"
        else:  # nowhere lower: forget what was learnt and try once more, then accept it
            now = _Now.anew(optimizer, now.at)
    last = optimizer.transform.finish(now.transform, now.at.coef)
    if last is not now.at.coef:  # a mean of the steps is what is wanted
        answer = yield _Request(log.history[-1].step, Ask([last]))
        now = replace(now, at=log.end(now.at, answer))
    if problem.whole_at_end:
        whole = Ask([log.chosen(now.at)[1]], every_row=True, losses_only=True)
        log.measured((yield _Request(log.history[-1].step, whole)))
    return log.solution(now.at, reason)


class _Counter:
    """Turns a search's questions into requests and counts what they cost."""

    def __init__(self, step: int, evaluations: int = 0, rows: int = 0) -> None:
        self.step, self.evaluations, self.rows = step, evaluations, rows

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
    """History, divergence, stop rules, the best step on validation rows, and callbacks after each step."""

    def __init__(self, problem: Problem, model: int) -> None:
        self.problem, self.model = problem, model
        self.history: list[Record] = []
        self.best: tuple[int, Floats] | None = None
        self.begin, self.before = time.perf_counter(), 0.0

    @property
    def next_step(self) -> int:
        return len(self.history)

    def resume(self, snapshot: Snapshot) -> tuple[_Now, str | None]:
        """Go on from a snapshot; its step has been logged and watched already."""
        self.history, self.best = list(snapshot.history), snapshot.best
        self.before = self.history[-1].seconds
        now = _Now(snapshot.at, snapshot.transform, snapshot.search, snapshot.fresh)
        return now, self.problem.stop.reason(self.history)

    def add(self, now: _Now, counted: _Counter) -> str | None:
        """Note a step, tell the callbacks, and return why to stop, or None."""
        at = now.at
        if not at.is_finite:
            raise self._diverged(counted.step, at)
        norm, elapsed = self.problem.gradient_norm(at), time.perf_counter() - self.begin
        self.history.append(
            Record(
                counted.step,
                at.value,
                norm,
                counted.evaluations,
                counted.rows,
                self.before + elapsed,
                at.validation,
            )
        )
        if at.validation is not None and (self.best is None or at.validation < self._lowest(self.best)):
            self.best = counted.step, at.coef
        take = partial(self._snapshot, now, self.next_step, self.best)
        limit = self.problem.stop.max_iter
        progress = Progress(self.history[-1], at.coef, limit, self.model, elapsed, take)
        wishes = [callback(progress) for callback in self.problem.callbacks]
        return "callback" if any(wishes) else self.problem.stop.reason(self.history)

    def end(self, at: Point, answer: _Answer) -> Point:
        """Put the mean of the steps in the place of the last one, unless validation rows liked a step better."""
        (mean,) = answer.points
        if mean.validation is not None and self.best is not None:
            if mean.validation >= self._lowest(self.best):
                return at
            self.best = self.history[-1].step, mean.coef
        last, norm = self.history[-1], self.problem.gradient_norm(mean)
        self.history[-1] = replace(
            last,
            objective=mean.value,
            gradient_norm=norm,
            evaluations=last.evaluations + 1,
            rows=last.rows + answer.rows,
            validation=mean.validation,
        )
        return mean

    def chosen(self, at: Point) -> tuple[int, Floats]:
        """Return step and coefficients that the solution is of: the best on validation rows, or the last."""
        return self.best or (len(self.history) - 1, at.coef)

    def measured(self, answer: _Answer) -> None:
        """Put the objective over all rows in the place of an estimate, at the coefficients that are chosen."""
        (point,) = answer.points
        step, _ = self.chosen(point)
        last = self.history[step]
        self.history[step] = replace(
            last,
            objective=point.value,
            evaluations=last.evaluations + 1,
            rows=last.rows + answer.rows,
        )

    def _lowest(self, best: tuple[int, Floats]) -> float:
        found = self.history[best[0]].validation
        return np.inf if found is None else found

    def _snapshot(self, now: _Now, steps: int, best: tuple[int, Floats] | None) -> Snapshot:
        return Snapshot(now.at, now.transform, now.search, now.fresh, tuple(self.history[:steps]), best)

    def _diverged(self, step: int, at: Point) -> DivergedError:
        name = self.problem.optimizer.name
        if step == 0 and np.isfinite(at.value):
            return DivergedError(
                f"{name!r} diverged on its way from the initial coefficients. Use a smaller stepSize."
            )
        if step == 0:
            return DivergedError("the objective is not finite at the initial coefficients: start elsewhere")
        last = self.history[-1]
        return DivergedError(
            f"{name!r} diverged at step {step}: the objective was {last.objective:.6g} one step earlier and "
            f"is not finite now. Use a smaller stepSize, or optimizer='lbfgs', which chooses its own."
        )

    def solution(self, at: Point, reason: str) -> Solution:
        step, coef = self.chosen(at)
        return Solution(coef, tuple(self.history), reason, step)
