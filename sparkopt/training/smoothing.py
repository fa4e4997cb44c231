"""Losses with kinks by methods with a line search: rounded losses of falling width, one after the other.

A rounded loss lies above the exact one by what the few rows near a kink add. At the optimum of the exact one that is
about as much as where the rounded one's minimum is, and nobody could gain more. One pass over the rows after each
width measures it; the widths fall until it is small (Beck & Teboulle, 2012, *Smoothing and first order methods*, §4).
It falls with the square of the width, so large data sets need no small ones.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparkopt.blocks.moments import Moments
from sparkopt.blocks.store import BlockStore
from sparkopt.checkpoint.format import Stage, columns, records
from sparkopt.errors import NotConvergedWarning
from sparkopt.losses import Loss
from sparkopt.optim import QuasiNewton
from sparkopt.report import Receipt
from sparkopt.solver.loop import Solution
from sparkopt.training.trainer import Fit, Initial, Trainer, checkpoints_of, fit_many

__all__ = ["fit_smoothed"]

RATIO = 0.1
"""A width is at least this times the one before it."""
WARM = 1e-3
"""First width where all models start from earlier ones, over the widest: wider ones would lead away from them."""
LEAST = 1e-9
"""Last width over the widest."""
SEED_EVERY = 5
"""Steps after which a quasi-Newton method looks at the Hessian anew: which rows are near a kink changes quickly."""
TIGHTER = 0.1
"""Tolerance of a width's own minimisation over that of the whole, where Newton's steps end it."""
MUCH_TIGHTER = 1e-3
"""The same for other methods: a small change of one of their steps is no end yet."""


def fit_smoothed(
    store: BlockStore, trainers: Sequence[Trainer], initials: Sequence[Initial | None] | None = None
) -> list[Fit]:
    """Train like ``fit_many``; a loss with kinks is rounded off for methods that compare objectives.

    ``Stop.max_iter`` counts the steps of all widths together. Objectives are those of the rounded losses, so they may
    rise by a little where the width falls; where a width ends, and so at the end of all, it is the exact one.

    Parameters
    ----------
    store : BlockStore
        The rows.
    trainers : sequence of Trainer
        As for ``fit_many``.
    initials : sequence of pairs of ndarray or None, optional
        Where each starts.
    """
    loss = trainers[0].loss
    if loss.smooth or not any(trainer.optimizer.search.needs_exact for trainer in trainers):
        return fit_many(store, trainers, initials)
    starts = [None] * len(trainers) if initials is None else list(initials)
    run = checkpoints_of(trainers, starts, store)
    saved = run.saved() if run else None
    done = _Done.of(saved.stage) if saved else _Done.nothing(starts)
    receipts: dict[int, Receipt] = {}
    widest = _widest(loss, store.moments)
    while done.left:
        group = [_rounded(trainers[i], widest * done.share, done.taken(i), store.moments.features) for i in done.left]
        stage = replace(run, stage=done.stage()) if run else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)  # the whole is judged at its end
            found = fit_many(store, group, [done.starts[i] for i in done.left], stage)
            measured = _measured(store, [trainers[i] for i in done.left], found)
        shares = {}
        for i, fit, exact in zip(done.left, found, measured, strict=True):
            begin, end = done.taken(i), done.taken(i) + fit.solution.iterations
            receipts[i] = _added(_added(receipts.get(i), fit.receipt, begin), exact.receipt, end)
            shares[i] = _next_share(trainers[i], fit.solution, exact.solution.objective, done)
        done = done.after(dict(zip(done.left, map(_exactly, found, measured), strict=True)))
        done = done.going_on({i: share for i, share in shares.items() if done.taken(i) < trainers[i].stop.max_iter})
    results = [done.fit(i, receipts) for i in range(len(trainers))]
    if run and all(fit.solution.reason != "callback" for fit in results):
        run.remove()
    for trainer, fit in zip(trainers, results, strict=True):
        trainer._warn(fit.solution)
    return results


@dataclass(frozen=True)
class _Done:
    """What the widths so far came to, one entry a model.

    Attributes
    ----------
    number : int
        Number of the next width.
    share : float
        The next width, over the widest.
    steps : int
        Steps that the widths so far took, of the models that took most.
    left : list of int
        Models that go on.
    starts : list of tuple of ndarray or None
        Where each model is.
    solutions : list of Solution or None
        How each came there.
    """

    number: int
    share: float
    steps: int
    left: list[int]
    starts: list[Initial | None]
    solutions: list[Solution | None]

    @classmethod
    def nothing(cls, starts: Sequence[Initial | None]) -> _Done:
        share = WARM if all(start is not None for start in starts) else 1.0
        return cls(0, share, 0, list(range(len(starts))), list(starts), [None] * len(starts))

    @classmethod
    def of(cls, stage: Stage) -> _Done:
        """Return what ``stage`` was made of."""
        solutions = [
            None if parts is None else Solution(**{**parts, "history": records(parts["history"])})
            for parts in stage.before["solutions"]
        ]
        before = stage.before
        return cls(stage.number, before["share"], stage.steps, before["left"], before["starts"], solutions)

    def stage(self) -> Stage:
        """Return the next width as a stage of the run: all that it needs to know, as data."""
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

    def after(self, fits: Mapping[int, Fit]) -> _Done:
        """Return what there is after one more width."""
        starts, solutions = list(self.starts), list(self.solutions)
        for i, fit in fits.items():
            starts[i] = (fit.coefficients, fit.intercept, fit.auxiliary)
            solutions[i] = _joined(solutions[i], fit.solution)
        steps = self.steps + max(fit.solution.iterations for fit in fits.values())
        return replace(self, number=self.number + 1, steps=steps, starts=starts, solutions=solutions)

    def going_on(self, shares: Mapping[int, float | None]) -> _Done:
        """Return the same with the models that go on, to the least of the widths that they ask for."""
        wanted = {i: share for i, share in shares.items() if share is not None}
        return replace(self, left=list(wanted), share=min(wanted.values(), default=self.share))

    def fit(self, model: int, receipts: Mapping[int, Receipt]) -> Fit:
        """Return a model at its end; an earlier attempt may have finished it."""
        start, solution = self.starts[model], self.solutions[model]
        if start is None or solution is None:
            raise RuntimeError(f"model {model} was not trained: every model takes part in the first width")
        coefficients, intercept, auxiliary = start  # type: ignore[misc]  # ``after`` gives all three
        receipt = receipts.get(model) or _free(next(iter(receipts.values())), solution.iterations)
        return Fit(coefficients, intercept, auxiliary, solution, _restated(receipt, solution))


def _widest(loss: Loss, moments: Moments) -> float:
    """Return a width at which the loss is nearly smooth: a margin of 1, or the target's spread."""
    return 1.0 if loss.targets.whole else float(moments.std[-1]) or 1.0


def _rounded(trainer: Trainer, width: float, taken: int, features: int) -> Trainer:
    """Return the trainer of a rounded loss; a quasi-Newton method looks at all of the few rows near a kink."""
    optimizer, tighter = trainer.optimizer, MUCH_TIGHTER
    search = optimizer.search
    if isinstance(search, QuasiNewton) and features + 1 <= search.initial_hessian.up_to:
        every = min(search.initial_hessian.every, SEED_EVERY)
        initial = replace(search.initial_hessian, rows=None, every=every)
        optimizer, tighter = replace(optimizer, search=replace(search, initial_hessian=initial)), TIGHTER
    stop = replace(trainer.stop, max_iter=trainer.stop.max_iter - taken, tol=trainer.stop.tol * tighter)
    return replace(trainer, loss=trainer.loss.smoothed(width), stop=stop, optimizer=optimizer)


def _measured(store: BlockStore, trainers: Sequence[Trainer], fits: Sequence[Fit]) -> list[Fit]:
    """Return the exact losses where fits to rounded ones ended: one pass, no step."""
    still = [
        replace(trainer, stop=replace(trainer.stop, max_iter=0), callbacks=(), checkpointer=None, progress=False)
        for trainer in trainers
    ]
    return fit_many(store, still, [(fit.coefficients, fit.intercept, fit.auxiliary) for fit in fits])


def _exactly(fit: Fit, exact: Fit) -> Fit:
    """Return a fit with the exact objective in the place of the rounded one, where it ended."""
    history = list(fit.solution.history)
    history[fit.solution.step] = replace(history[fit.solution.step], objective=exact.solution.objective)
    return replace(fit, solution=replace(fit.solution, history=tuple(history)))


def _next_share(trainer: Trainer, solution: Solution, exact: float, done: _Done) -> float | None:
    """Return the next width for a model, over the widest; None where it is done.

    What rounding adds falls with the square of the width, once rows are many: aim at half of what is allowed.
    """
    gap, allowed = abs(solution.objective - exact), trainer.stop.tol * abs(exact)
    if solution.reason in ("callback", "validation", "maxIter") or gap <= allowed or done.share <= LEAST:
        return None
    return done.share * float(np.clip(np.sqrt(0.5 * allowed / gap), RATIO, 0.5))


def _joined(first: Solution | None, last: Solution) -> Solution:
    """Return two solutions, the second from where the first one ended, as one."""
    if first is None:
        return last
    steps, seconds = first.iterations, first.history[-1].seconds
    later = [
        replace(record, step=record.step + steps, seconds=record.seconds + seconds) for record in last.history[1:]
    ]
    return Solution(last.coef, (*first.history, *later), last.reason, last.step + steps)


def _added(one: Receipt | None, other: Receipt, taken: int) -> Receipt:
    """Return what both cost; they read the same blocks. ``taken`` steps came before the first of this attempt."""
    if one is None:
        return replace(other, resumed_at=taken + other.resumed_at, sent=_sent([], other.sent, taken))
    seconds = {name: one.seconds[name] + other.seconds[name] for name in one.seconds}
    seconds["ingest"] -= other.seconds["ingest"]
    seconds["total"] -= other.seconds["ingest"]
    return replace(
        other,
        passes=one.passes + other.passes,
        rows_touched=one.rows_touched + other.rows_touched,
        seconds=seconds,
        bytes={
            **{name: one.bytes[name] + count for name, count in other.bytes.items()},
            "stored": one.bytes["stored"],
        },
        peak_memory=max(one.peak_memory, other.peak_memory),
        resumed_at=one.resumed_at,
        sent=_sent(one.sent, other.sent, taken),
        codecs=dict(Counter(one.codecs) + Counter(other.codecs)),
    )


def _sent(first: Sequence[int], then: Sequence[int], taken: int) -> list[int]:
    """Return the bytes of each step, where ``then`` begins after ``taken`` steps."""
    found = [*first, *[0] * (taken + len(then) - len(first))]
    for step, count in enumerate(then, taken):
        found[step] += count
    return found


def _free(receipt: Receipt, steps: int) -> Receipt:
    """Return the receipt of a model that an earlier attempt had finished, beside one that this attempt trained."""
    seconds = {**dict.fromkeys(receipt.seconds, 0.0), "ingest": receipt.seconds["ingest"]}
    seconds["total"] = seconds["ingest"]
    sent = {**dict.fromkeys(receipt.bytes, 0), "stored": receipt.bytes["stored"]}
    return replace(receipt, passes=0, rows_touched=0, seconds=seconds, bytes=sent, resumed_at=steps, sent=[])


def _restated(receipt: Receipt, solution: Solution) -> Receipt:
    """Return the receipt of all widths."""
    return replace(
        receipt,
        reason=solution.reason,
        steps=solution.iterations,
        objective=[record.objective for record in solution.history],
        elapsed=[record.seconds for record in solution.history],
        validation=[record.validation for record in solution.history],
        chosen_step=solution.step,
    )
