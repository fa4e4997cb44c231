"""Nonsmooth losses by methods with a line search: smoothed losses in turn, with ever smaller smoothing parameters.

A smoothed loss exceeds the exact one at the few rows near a nonsmooth point. At the optimum, the mean of that excess
is about the error that smoothing causes. One pass over the rows after each stage measures it, and the smoothing
parameter falls until the excess is small (Beck & Teboulle, 2012, *Smoothing and first order methods*, §4). The excess
falls with the square of the parameter, so large data sets need no small one. Small ones need none either: the line
through two optima leads near the next one, and to the exact one, where the same pass measures the loss too.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from sparkopt.blocks.moments import Moments
from sparkopt.blocks.store import BlockStore
from sparkopt.checkpoint.format import Stage, columns, records
from sparkopt.errors import NotConvergedWarning
from sparkopt.losses import Loss
from sparkopt.optim import ProximalNewton, QuasiNewton
from sparkopt.report import Receipt
from sparkopt.solver.problem import Solution
from sparkopt.solver.progress import CAUTION, SLOW_SHARE
from sparkopt.training.coordinates import Initial
from sparkopt.training.trainer import Fit, Trainer, checkpoints_of, fit_many
from sparkopt.values import dataclass

__all__ = ["fit_smoothed"]

RATIO = 0.3
"""A smoothing parameter is at least this times the one before it."""
WARM = 1e-3
"""First smoothing parameter where all models start from earlier ones, over the largest: that would lead away."""
LEAST = 1e-9
"""Last smoothing parameter over the largest."""
ROUGH = 0.01
"""Tolerance of a stage over the square of its smoothing parameter, where that is more than what is asked for."""
LAST = ("callback", "validation", "maxIter")
"""Why a stage ends that is the last one."""
SEED_EVERY = 5
"""Steps between a quasi-Newton method's Hessians: which rows are near a nonsmooth point changes quickly."""
TIGHTER = 0.01
"""Relative gap of a stage's end over the tolerance of the whole."""


def fit_smoothed(
    store: BlockStore, trainers: Sequence[Trainer], initials: Sequence[Initial | None] | None = None
) -> list[Fit]:
    """Train like ``fit_many``; methods that compare objectives minimise a smoothed loss instead of a nonsmooth one.

    ``Stop.max_iter`` counts the steps of all stages together. Objectives are those of the smoothed losses, so they
    may rise by a little where a stage begins; the last objective of the fit is the exact one.

    Parameters
    ----------
    store : BlockStore
        The rows.
    trainers : sequence of Trainer
        As for ``fit_many``.
    initials : sequence of tuples of ndarray or None, optional
        Where each starts.
    """
    loss = trainers[0].loss
    if loss.smooth or not any(trainer.optimizer.search.needs_exact for trainer in trainers):
        return fit_many(store, trainers, initials)
    starts = [None] * len(trainers) if initials is None else list(initials)
    run = checkpoints_of(trainers, starts, store)
    saved = run.saved() if run else None
    state = _Stages.restored(saved.stage) if saved else _Stages.first(starts)
    receipts: list[list[Receipt]] = [[] for _ in trainers]
    largest = _largest(loss, store.moments)
    while state.left:
        running = {i: trainers[i] for i in state.left}
        group = [
            _smoothed(trainer, largest * state.share, state.taken(i), store.moments.features, state.share)
            for i, trainer in running.items()
        ]
        stage = replace(run, stage=state.as_stage()) if run else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)  # the end of all stages is judged
            fits = fit_many(store, group, [state.starts[i] for i in running], stage)
            found = dict(zip(running, fits, strict=True))
            ends = {i: _End.of(fit, state) for i, fit in found.items()}
            last = [i for i, fit in found.items() if not _is_rough(trainers[i], fit, state)]
            reached = {i: _Reached(found[i], ends[i], state.ends[i]) for i in ends.keys() - last}
            reached |= _measured(store, {i: trainers[i] for i in last}, found, ends, state)
        shares = {}
        for i, trainer in running.items():
            receipts[i].append(found[i].receipt.after(state.taken(i)))
            end = state.taken(i) + found[i].solution.iterations
            if i in last:
                receipts[i].append(reached[i].fit.receipt.after(end))
            share = _next_share(trainer, reached[i], state.share)
            if share is not None and end < trainer.stop.max_iter:
                shares[i] = share
        state = state.next(reached, shares)
    any_receipt = next(parts[0] for parts in receipts if parts)
    fits = []
    for trainer, start, solution, parts in zip(trainers, state.starts, state.solutions, receipts, strict=True):
        if start is None or solution is None:
            raise RuntimeError("every model takes part in the first stage")
        trainer._warn(solution)
        receipt = reduce(add, parts) if parts else any_receipt.idle(solution.iterations)
        coefficients, intercept, auxiliary = start  # type: ignore[misc]  # ``next`` gives all three
        fits.append(Fit(coefficients, intercept, auxiliary, solution, receipt.with_solution(solution)))
    if run and all(fit.solution.reason != "callback" for fit in fits):
        run.remove()
    return fits


@dataclass(frozen=True)
class _End:
    """Where a stage ended: the minimum of a smoothed objective.

    The least smoothed objective is a convex function of the smoothing parameter, and equals the exact one at 0. So
    the line through two of its values is below it beyond them, which bounds the optimum. The minimum itself moves
    along a smooth path, nearly a straight line once the rows near a nonsmooth point stay the same.
    """

    share: float
    objective: float
    at: Initial

    @classmethod
    def of(cls, fit: Fit, state: _Stages) -> _End:
        return cls(state.share, fit.solution.objective, (fit.coefficients, fit.intercept, fit.auxiliary))

    def beyond(self, before: _End, share: float) -> Initial:
        """Return the point of the line from an earlier end through this one at another smoothing parameter.

        Coefficients that a penalty holds at zero stay there.
        """
        length = (self.share - share) / (before.share - self.share)
        pairs = zip(before.at, self.at, strict=True)
        moved = (np.where(last == 0, 0.0, last + length * (last - first)) for first, last in pairs)
        return tuple(moved)  # type: ignore[return-value]

    def bound(self, before: _End) -> float:
        """Return a number that the exact optimum exceeds."""
        return self.objective - self.share * (before.objective - self.objective) / (before.share - self.share)


@dataclass(frozen=True)
class _Reached:
    """What a stage gave: the fit with the least exact objective known, where it ended, and how it continues.

    Attributes
    ----------
    fit : Fit
        Its last objective is the exact one, where that was measured, and its gap holds for that.
    end : _End
        The end of the stage.
    line : _End or None
        An earlier end, unless the line through both leads to something worse than this end.
    excess : float or None, default None
        The smoothed objective over the exact one there, where that was measured.
    above : float or None, default None
        The exact objective over a bound of the optimum, where there is one.
    """

    fit: Fit
    end: _End
    line: _End | None
    excess: float | None = None
    above: float | None = None

    def start(self, share: float) -> Initial:
        """Return where the next stage starts."""
        return self.end.at if self.line is None else self.end.beyond(self.line, share)


@dataclass(frozen=True)
class _Stages:
    """What the stages so far gave; lists have one entry for each model.

    Attributes
    ----------
    number : int
        Number of the next stage.
    share : float
        The next smoothing parameter, over the largest.
    steps : int
        Steps of the stages so far, each by the model that took most.
    left : list of int
        Models that take part in the next stage.
    starts : list of tuple of ndarray or None
        Where each model starts, or what it ended with.
    ends : list of _End or None
        Where each model's last stage ended.
    solutions : list of Solution or None
        How each got there.
    """

    number: int
    share: float
    steps: int
    left: list[int]
    starts: list[Initial | None]
    ends: list[_End | None]
    solutions: list[Solution | None]

    @classmethod
    def first(cls, starts: Sequence[Initial | None]) -> _Stages:
        share = WARM if all(start is not None for start in starts) else 1.0
        none: list[Any] = [None] * len(starts)
        return cls(0, share, 0, list(range(len(starts))), list(starts), none, none)

    @classmethod
    def restored(cls, stage: Stage) -> _Stages:
        """Return what ``as_stage`` was called on."""
        before = stage.before
        solutions = [
            None if parts is None else Solution(**{**parts, "history": records(parts["history"])})
            for parts in before["solutions"]
        ]
        ends = [None if end is None else _End(*end) for end in before.get("ends", [None] * len(before["starts"]))]
        return cls(stage.number, before["share"], stage.steps, before["left"], before["starts"], ends, solutions)

    def as_stage(self) -> Stage:
        """Return the next stage of the run, with all that it needs to know, as data."""
        solutions: list[dict[str, Any] | None] = [
            None if solution is None else {**vars(solution), "history": columns(solution.history)}
            for solution in self.solutions
        ]
        ends = [None if end is None else (end.share, end.objective, end.at) for end in self.ends]
        before = {"share": self.share, "left": self.left, "starts": self.starts}
        return Stage(self.number, self.steps, {**before, "ends": ends, "solutions": solutions})

    def taken(self, model: int) -> int:
        """Return the steps that a model has taken."""
        solution = self.solutions[model]
        return 0 if solution is None else solution.iterations

    def next(self, reached: Mapping[int, _Reached], shares: Mapping[int, float]) -> _Stages:
        """Return the state after a stage; models with a share take part in the next one, at the least of them."""
        share = min(shares.values(), default=self.share)
        starts, ends, solutions = list(self.starts), list(self.ends), list(self.solutions)
        for i, found in reached.items():
            fit = found.fit
            is_done = i not in shares
            starts[i] = (fit.coefficients, fit.intercept, fit.auxiliary) if is_done else found.start(share)
            ends[i] = found.end
            solutions[i] = _joined(solutions[i], fit.solution)
        steps = self.steps + max(found.fit.solution.iterations for found in reached.values())
        return _Stages(self.number + 1, share, steps, list(shares), starts, ends, solutions)


def _largest(loss: Loss, moments: Moments) -> float:
    """Return a smoothing parameter at which the loss is nearly smooth: a margin of 1, or the target's spread."""
    return 1.0 if loss.targets.whole else float(moments.std[-1]) or 1.0


def _smoothed(trainer: Trainer, smoothing: float, taken: int, features: int, share: float) -> Trainer:
    """Return the trainer of a stage; a quasi-Newton method takes the Hessian of all rows, as few are nonsmooth."""
    optimizer, tol = trainer.optimizer, max(trainer.stop.tol, ROUGH * share**2) * TIGHTER
    search = optimizer.search
    if isinstance(search, QuasiNewton) and features + 1 <= search.initial_hessian.up_to:
        every = min(search.initial_hessian.every, SEED_EVERY)
        initial = replace(search.initial_hessian, rows=None, every=every)
        optimizer, tol = replace(optimizer, search=replace(search, initial_hessian=initial)), float(np.sqrt(tol))
    elif isinstance(search, ProximalNewton):
        tol = float(np.sqrt(tol))
    elif search.converges_linearly:
        tol *= CAUTION / SLOW_SHARE  # the same gap as that of the others
    unit = max(1.0, smoothing / share)  # the loss is of the target's unit, and so are coefficients: not its square
    stop = replace(trainer.stop, max_iter=trainer.stop.max_iter - taken, tol=tol, unit=unit)
    return replace(trainer, loss=trainer.loss.smoothed(smoothing), stop=stop, optimizer=optimizer)


def _is_rough(trainer: Trainer, fit: Fit, state: _Stages) -> bool:
    """Whether a stage ended early, and another one follows in any case."""
    is_last = fit.solution.reason in LAST or fit.solution.iterations >= trainer.stop.max_iter
    return ROUGH * state.share**2 > trainer.stop.tol and not is_last


def _measured(
    store: BlockStore,
    trainers: Mapping[int, Trainer],
    fits: Mapping[int, Fit],
    ends: Mapping[int, _End],
    state: _Stages,
) -> dict[int, _Reached]:
    """Measure exact losses where fits to smoothed ones ended, and where the lines to there lead, in one pass."""
    if not trainers:
        return {}
    lines = {
        i: before
        for i, trainer in trainers.items()
        if (before := state.ends[i]) is not None
        and not trainer.penalty.is_bounds
        and fits[i].solution.reason == "tolerance"
    }
    points = [(i, ends[i].at) for i in trainers] + [(i, ends[i].beyond(line, 0.0)) for i, line in lines.items()]
    still = {
        i: replace(trainer, stop=replace(trainer.stop, max_iter=0), callbacks=(), checkpointer=None, progress=False)
        for i, trainer in trainers.items()
    }
    measured = fit_many(store, [still[i] for i, _ in points], [at for _, at in points])
    here = dict(zip(trainers, measured, strict=False))
    beyond = dict(zip(lines, measured[len(here) :], strict=True))
    return {i: _judged(fits[i], ends[i], here[i], lines.get(i), beyond.get(i)) for i in trainers}


def _judged(fit: Fit, end: _End, here: Fit, before: _End | None, beyond: Fit | None) -> _Reached:
    """Choose between the end of a stage and what is beyond it; the history's last objective is then the exact one."""
    excess = abs(end.objective - here.solution.objective)
    best, line = here, None
    if beyond is not None and beyond.solution.objective < here.solution.objective:
        best, line = beyond, before
    objective = best.solution.objective
    history = list(fit.solution.history)
    last = history[fit.solution.step]
    above = None if before is None else max(objective - end.bound(before), 0.0)
    gap = None if last.gap is None else last.gap + min(excess, np.inf if above is None else above)
    history[fit.solution.step] = replace(last, objective=objective, gap=gap)
    solution = replace(fit.solution, coef=best.solution.coef, history=tuple(history))
    return _Reached(replace(best, solution=solution), end, line, excess, above)


def _next_share(trainer: Trainer, found: _Reached, share: float) -> float | None:
    """Return a model's next smoothing parameter, over the largest; None where it is done.

    The excess falls with the square of the smoothing parameter, once rows are many: aim at half of what is allowed.
    """
    solution = found.fit.solution
    if solution.reason in LAST or share <= LEAST:
        return None
    if found.excess is None:
        return share * RATIO
    allowed = trainer.stop.tol * abs(solution.objective)
    if found.excess <= allowed or (found.above is not None and found.above <= allowed):
        return None
    return share * float(np.clip(np.sqrt(0.5 * allowed / found.excess), RATIO, 0.5))


def _joined(first: Solution | None, last: Solution) -> Solution:
    """Return two solutions, the second from where the first one ended, as one."""
    if first is None:
        return last
    steps, seconds = first.iterations, first.history[-1].seconds
    later = [
        replace(record, step=record.step + steps, seconds=record.seconds + seconds) for record in last.history[1:]
    ]
    return Solution(last.coef, (*first.history, *later), last.reason, last.step + steps)
