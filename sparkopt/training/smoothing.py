"""Nonsmooth losses by methods with a line search: smoothed losses in turn, with ever smaller smoothing parameters.

A smoothed loss exceeds the exact one at the few rows near a nonsmooth point. At the optimum, the mean of that excess
is about the error that smoothing causes. One pass over the rows after each stage measures it, and the smoothing
parameter falls until the excess is small (Beck & Teboulle, 2012, *Smoothing and first order methods*, §4). The excess
falls with the square of the parameter, so large data sets need no small one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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

__all__ = ["fit_smoothed"]

RATIO = 0.1
"""A smoothing parameter is at least this times the one before it."""
WARM = 1e-3
"""First smoothing parameter where all models start from earlier ones, over the largest: that would lead away."""
LEAST = 1e-9
"""Last smoothing parameter over the largest."""
SEED_EVERY = 5
"""Steps between a quasi-Newton method's Hessians: which rows are near a nonsmooth point changes quickly."""
TIGHTER = 0.01
"""Relative gap of a stage's end over the tolerance of the whole."""


def fit_smoothed(
    store: BlockStore, trainers: Sequence[Trainer], initials: Sequence[Initial | None] | None = None
) -> list[Fit]:
    """Train like ``fit_many``; methods that compare objectives minimise a smoothed loss instead of a nonsmooth one.

    ``Stop.max_iter`` counts the steps of all stages together. Objectives are those of the smoothed losses, so they
    may rise by a little where a stage begins; the last objective of a stage, and so of the fit, is the exact one.

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
            _smoothed(trainer, largest * state.share, state.taken(i), store.moments.features)
            for i, trainer in running.items()
        ]
        stage = replace(run, stage=state.as_stage()) if run else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)  # the end of all stages is judged
            found = fit_many(store, group, [state.starts[i] for i in running], stage)
            measured = _measured(store, list(running.values()), found)
        shares = {}
        for (i, trainer), fit, exact in zip(running.items(), found, measured, strict=True):
            begin, end = state.taken(i), state.taken(i) + fit.solution.iterations
            receipts[i] += [fit.receipt.after(begin), exact.receipt.after(end)]
            share = _next_share(trainer, fit.solution, exact.solution.objective, state.share)
            if share is not None and end < trainer.stop.max_iter:
                shares[i] = share
        state = state.next(dict(zip(running, map(_exactly, found, measured), strict=True)), shares)
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
        Where each model is.
    solutions : list of Solution or None
        How each got there.
    """

    number: int
    share: float
    steps: int
    left: list[int]
    starts: list[Initial | None]
    solutions: list[Solution | None]

    @classmethod
    def first(cls, starts: Sequence[Initial | None]) -> _Stages:
        share = WARM if all(start is not None for start in starts) else 1.0
        return cls(0, share, 0, list(range(len(starts))), list(starts), [None] * len(starts))

    @classmethod
    def restored(cls, stage: Stage) -> _Stages:
        """Return what ``as_stage`` was called on."""
        solutions = [
            None if parts is None else Solution(**{**parts, "history": records(parts["history"])})
            for parts in stage.before["solutions"]
        ]
        before = stage.before
        return cls(stage.number, before["share"], stage.steps, before["left"], before["starts"], solutions)

    def as_stage(self) -> Stage:
        """Return the next stage of the run, with all that it needs to know, as data."""
        solutions: list[dict[str, Any] | None] = [
            None if solution is None else {**vars(solution), "history": columns(solution.history)}
            for solution in self.solutions
        ]
        before = {"share": self.share, "left": self.left, "starts": self.starts, "solutions": solutions}
        return Stage(self.number, self.steps, before)

    def taken(self, model: int) -> int:
        """Return the steps that a model has taken."""
        solution = self.solutions[model]
        return 0 if solution is None else solution.iterations

    def next(self, fits: Mapping[int, Fit], shares: Mapping[int, float]) -> _Stages:
        """Return the state after a stage; models with a share take part in the next one, at the least of them."""
        starts, solutions = list(self.starts), list(self.solutions)
        for i, fit in fits.items():
            starts[i] = (fit.coefficients, fit.intercept, fit.auxiliary)
            solutions[i] = _joined(solutions[i], fit.solution)
        steps = self.steps + max(fit.solution.iterations for fit in fits.values())
        share = min(shares.values(), default=self.share)
        return _Stages(self.number + 1, share, steps, list(shares), starts, solutions)


def _largest(loss: Loss, moments: Moments) -> float:
    """Return a smoothing parameter at which the loss is nearly smooth: a margin of 1, or the target's spread."""
    return 1.0 if loss.targets.whole else float(moments.std[-1]) or 1.0


def _smoothed(trainer: Trainer, smoothing: float, taken: int, features: int) -> Trainer:
    """Return the trainer of a stage; a quasi-Newton method takes the Hessian of all rows, as few are nonsmooth."""
    optimizer, tol = trainer.optimizer, trainer.stop.tol * TIGHTER
    search = optimizer.search
    if isinstance(search, QuasiNewton) and features + 1 <= search.initial_hessian.up_to:
        every = min(search.initial_hessian.every, SEED_EVERY)
        initial = replace(search.initial_hessian, rows=None, every=every)
        optimizer, tol = replace(optimizer, search=replace(search, initial_hessian=initial)), float(np.sqrt(tol))
    elif isinstance(search, ProximalNewton):
        tol = float(np.sqrt(tol))
    elif search.converges_linearly:
        tol *= CAUTION / SLOW_SHARE  # the same gap as that of the others
    stop = replace(trainer.stop, max_iter=trainer.stop.max_iter - taken, tol=tol)
    return replace(trainer, loss=trainer.loss.smoothed(smoothing), stop=stop, optimizer=optimizer)


def _measured(store: BlockStore, trainers: Sequence[Trainer], fits: Sequence[Fit]) -> list[Fit]:
    """Return the exact losses where fits to smoothed ones ended: one pass, no step."""
    still = [
        replace(trainer, stop=replace(trainer.stop, max_iter=0), callbacks=(), checkpointer=None, progress=False)
        for trainer in trainers
    ]
    return fit_many(store, still, [(fit.coefficients, fit.intercept, fit.auxiliary) for fit in fits])


def _exactly(fit: Fit, exact: Fit) -> Fit:
    """Return a fit whose last objective is the exact one; the excess of the smoothed one is a part of the gap."""
    history = list(fit.solution.history)
    last, objective = history[fit.solution.step], exact.solution.objective
    gap = None if last.gap is None else last.gap + abs(last.objective - objective)
    history[fit.solution.step] = replace(last, objective=objective, gap=gap)
    return replace(fit, solution=replace(fit.solution, history=tuple(history)))


def _next_share(trainer: Trainer, solution: Solution, exact: float, share: float) -> float | None:
    """Return a model's next smoothing parameter, over the largest; None where it is done.

    The excess falls with the square of the smoothing parameter, once rows are many: aim at half of what is allowed.
    """
    excess, allowed = abs(solution.objective - exact), trainer.stop.tol * abs(exact)
    if solution.reason in ("callback", "validation", "maxIter") or excess <= allowed or share <= LEAST:
        return None
    return share * float(np.clip(np.sqrt(0.5 * allowed / excess), RATIO, 0.5))


def _joined(first: Solution | None, last: Solution) -> Solution:
    """Return two solutions, the second from where the first one ended, as one."""
    if first is None:
        return last
    steps, seconds = first.iterations, first.history[-1].seconds
    later = [
        replace(record, step=record.step + steps, seconds=record.seconds + seconds) for record in last.history[1:]
    ]
    return Solution(last.coef, (*first.history, *later), last.reason, last.step + steps)
