"""The one training loop.

It knows nothing of Spark, features or losses: only ``reduce(query) → PartialSum``. It is written as a generator
that yields queries and is sent the answers, so that a line search may evaluate several points in one pass over the
data, and many models can be trained in one pass per step. Its state is data (``Snapshot``): from one that a callback
took after any step, another process continues to the same coefficients, bit by bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np

from sparkopt.errors import DivergedError
from sparkopt.objective.query import PartialSum, Query
from sparkopt.optim.base import Evaluate, Optimizer, Point
from sparkopt.optim.request import EveryRow, Gradients, HessianProducts, Hessians, Losses, Request
from sparkopt.solver.compatibility import Method, check_compatible
from sparkopt.solver.problem import Problem, Solution
from sparkopt.solver.progress import Progress, Record, Snapshot
from sparkopt.typing import Floats, State
from sparkopt.values import dataclass

__all__ = ["Reduce", "minimise", "minimise_many"]

Reduce: TypeAlias = Callable[[Query], PartialSum]
"""From a query to the sums over the data."""


@dataclass(frozen=True)
class _Answer:
    points: list[Point]
    rows: int


_Descent: TypeAlias = Generator[Query, _Answer, Solution]


def minimise(reduce: Reduce, problem: Problem) -> Solution:
    """Minimise mean loss plus penalty.

    Parameters
    ----------
    reduce : callable
        ``reduce(query)`` returns the PartialSum over the rows that the query selects, at its m points.
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
    ...     residual = query.request.points - y
    ...     return PartialSum(0.5 * (residual**2).sum(axis=1), residual.sum(axis=1, keepdims=True), 3.0, 3)
    >>> minimise(reduce, Problem(optim.lbfgs(), np.zeros(1))).coef.round(6)
    array([3.])
    """
    return minimise_many(reduce, [problem])[0]


@np.errstate(over="ignore", invalid="ignore")  # coefficients that grow without bound are a DivergedError
def minimise_many(reduce: Reduce, problems: Sequence[Problem]) -> list[Solution]:
    """Minimise several problems over the same rows: those at the same step share each pass over the data.

    All of them begin a step together, so a snapshot of each after the same step is a snapshot of the whole.
    """
    descents = [_descend(problem, model) for model, problem in enumerate(problems)]
    queries: dict[int, Query] = {}
    solutions: dict[int, Solution] = {}
    for i, descent in enumerate(descents):
        _advance(i, descent, None, queries, solutions)
    while queries:
        # The earliest step is next, and in it what prepares the step: the step's own gradients are shared by all.
        next_one = min(queries.values(), key=lambda query: (query.step, query.request.is_step_gradient))
        group = {i: query for i, query in queries.items() if query.is_like(next_one)}
        query, places = _joined([(problems[i], query.request) for i, query in group.items()], next_one.step)
        sums = reduce(query)
        for i, points in _points(problems, group, sums, places).items():
            _advance(i, descents[i], _Answer(points, sums.rows), queries, solutions)
    return [solutions[i] for i in range(len(problems))]


def _advance(
    i: int,
    descent: _Descent,
    answer: _Answer | None,
    queries: dict[int, Query],
    solutions: dict[int, Solution],
) -> None:
    """Send a descent its answer; keep its next query, or its solution."""
    try:
        queries[i] = next(descent) if answer is None else descent.send(answer)
    except StopIteration as end:
        queries.pop(i, None)
        solutions[i] = end.value


def _joined(requests: Sequence[tuple[Problem, Request]], step: int) -> tuple[Query, list[int]]:
    """Return one query for requests that are alike, in the data's coordinates, and where each point's answer is.

    Models that are at the same point, as those of a grid are at the start, share the answer.
    """
    first, *others = (request.map(problem.scaled) for problem, request in requests)
    folds = [problem.held_out for problem, request in requests for _ in request.points]
    query = Query(first.joined(others), step, None if all(fold is None for fold in folds) else folds)
    count = len(folds)
    if len(requests) == 1 or isinstance(first, HessianProducts):
        return query, list(range(count))
    numbers: dict[tuple[int | None, bytes], int] = {}
    keys = [(fold, point.tobytes()) for fold, point in zip(folds, query.request.points, strict=True)]
    places = [numbers.setdefault(key, len(numbers)) for key in keys]
    if len(numbers) == count:
        return query, places
    return query.only([places.index(number) for number in range(len(numbers))]), places


def _points(
    problems: Sequence[Problem], group: dict[int, Query], sums: PartialSum, places: Sequence[int]
) -> dict[int, list[Point]]:
    """Split the sums of a joined query into points for each model."""
    losses, gradients = sums.mean()
    evaluated = sums.validation_mean()
    if len(places) > len(losses):
        losses, gradients = losses[places], gradients[places]  # copies: each model may change its own
        evaluated = None if evaluated is None else evaluated[places]
    validation = [None] * len(losses) if evaluated is None else evaluated.tolist()
    means = iter(zip(losses.tolist(), gradients, validation, strict=True))
    return {i: _own_points(problems[i], query.request, means, sums.rows) for i, query in group.items()}


def _own_points(
    problem: Problem, request: Request, means: Iterator[tuple[float, Floats, float | None]], rows: int
) -> list[Point]:
    """Take one model's points from those of all."""
    if isinstance(request, HessianProducts):
        pairs = zip(request.points, request.vectors, strict=True)
        return [problem.product(coef, vector, next(means)[1], rows) for coef, vector in pairs]
    point = problem.curved_point if isinstance(request, Hessians) else problem.point
    return [point(coef, *next(means), rows) for coef in request.points]


@dataclass(frozen=True)
class _State:
    """The state of a descent between two steps."""

    at: Point
    transform: State
    search: State
    fresh: bool

    @classmethod
    def fresh_at(cls, optimizer: Optimizer, at: Point) -> _State:
        """Return the state at a point, with the optimiser's initial state."""
        return cls(at, optimizer.transform.init(at.coef), optimizer.search.init(at.coef), True)


def _descend(problem: Problem, model: int) -> _Descent:
    """The loop itself, for one problem."""
    optimizer = problem.optimizer
    check_compatible(Method(optimizer, problem.penalty))
    log = _Log(problem, model)
    if isinstance(problem.initial, Snapshot):
        now, reason = log.resume(problem.initial)
    else:
        inside = problem.penalty.prox(problem.initial, 0.0)  # inside bounds, where there are any
        answer = yield Query(optimizer.search.first_request(inside[None]))
        now = _State.fresh_at(optimizer, answer.points[0])
        reason = log.add(now, _Counter(0, 1, answer.rows))
    counted = _Counter(log.next_step)
    while reason is None:
        direction, transform = optimizer.transform.update(now.at.gradient, now.transform, now.at.coef)
        to, search = yield from counted.run(optimizer.search.run(now.at, direction, problem.penalty, now.search))
        if to is not now.at:
            now = _State(to, transform, search, False)
            reason = log.add(now, counted)
            counted = _Counter(log.next_step)
        elif now.fresh:
            reason = "precision"
        else:  # no descent: try once more with the initial state, then accept it
            now = _State.fresh_at(optimizer, now.at)
    last = optimizer.transform.finish(now.transform, now.at.coef)
    if last is not now.at.coef:  # the result is a mean of the steps
        answer = yield Query(Gradients(last[None]), log.history[-1].step)
        now = replace(now, at=log.end(now.at, answer))
    if problem.whole_at_end:
        whole = Losses(log.chosen(now.at)[1][None], rows=EveryRow())
        log.measured((yield Query(whole, log.history[-1].step)))
    return log.solution(now.at, reason)


class _Counter:
    """Turns a search's requests into queries of a step, and counts passes and rows."""

    def __init__(self, step: int, evaluations: int = 0, rows: int = 0) -> None:
        self.step, self.evaluations, self.rows = step, evaluations, rows

    def run(self, search: Evaluate) -> Generator[Query, _Answer, tuple[Point, State]]:
        try:
            request = next(search)
            while True:
                answer = yield Query(request, self.step)
                self.evaluations += 1
                self.rows += answer.rows
                request = search.send(answer.points)
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

    def resume(self, snapshot: Snapshot) -> tuple[_State, str | None]:
        """Continue from a snapshot, whose step is in the history already."""
        self.history, self.best = list(snapshot.history), snapshot.best
        self.before = self.history[-1].seconds
        now = _State(snapshot.at, snapshot.transform, snapshot.search, snapshot.fresh)
        return now, self._reason()

    def add(self, now: _State, counted: _Counter) -> str | None:
        """Record a step, call the callbacks, and return why to stop, or None."""
        at = now.at
        if not at.is_finite:
            raise self._diverged(counted.step, at)
        norm, elapsed = self.problem.gradient_norm(at), time.perf_counter() - self.begin
        gap = self.problem.optimizer.search.gap(at, self.problem.penalty, now.search)
        self.history.append(
            Record(
                counted.step,
                at.value,
                norm,
                counted.evaluations,
                counted.rows,
                self.before + elapsed,
                at.validation,
                gap,
            )
        )
        if at.validation is not None and (self.best is None or at.validation < self._lowest(self.best)):
            self.best = counted.step, at.coef
        take = partial(self._snapshot, now, self.next_step, self.best)
        limit = self.problem.stop.max_iter
        progress = Progress(self.history[-1], at.coef, limit, self.model, elapsed, take)
        stop_votes = [callback(progress) for callback in self.problem.callbacks]
        return "callback" if any(stop_votes) else self._reason()

    def _reason(self) -> str | None:
        search, learns = self.problem.optimizer.search, self.problem.optimizer.transform.learns_length
        return self.problem.stop.reason(self.history, search.converges_linearly, search.halving, learns)

    def end(self, at: Point, answer: _Answer) -> Point:
        """Replace the last step by the mean of the steps, unless a step has a lower validation loss."""
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
            gap=None,
        )
        return mean

    def chosen(self, at: Point) -> tuple[int, Floats]:
        """Return step and coefficients of the solution: the best on validation rows, or the last."""
        return self.best or (len(self.history) - 1, at.coef)

    def measured(self, answer: _Answer) -> None:
        """Replace the estimated objective of the solution by that over all rows."""
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

    def _snapshot(self, now: _State, steps: int, best: tuple[int, Floats] | None) -> Snapshot:
        return Snapshot(now.at, now.transform, now.search, now.fresh, tuple(self.history[:steps]), best)

    def _diverged(self, step: int, at: Point) -> DivergedError:
        name = self.problem.optimizer.name
        if step == 0 and np.isfinite(at.value):
            return DivergedError(
                f"{name!r} diverged in its first steps from the initial coefficients. Use a smaller stepSize."
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
