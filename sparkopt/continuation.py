"""Losses with kinks by methods with a line search: rounded losses of falling width, one after the other.

A rounded loss lies below the exact one by at most half its width (Beck & Teboulle, 2012, *Smoothing and first order
methods*, §4), so the widths fall until that is small against the objective.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from sparkopt.blocks.moments import Moments
from sparkopt.blocks.store import BlockStore
from sparkopt.errors import NotConvergedWarning
from sparkopt.losses import Loss
from sparkopt.report import Receipt
from sparkopt.solve import Solution
from sparkopt.trainer import Fit, Initial, Trainer, fit_many

__all__ = ["fit_rounded"]

RATIO = 0.1
"""Each width over the one before it."""
WIDTHS = 9
"""Most widths: the last one is 1e-8 of the first."""
SHARE = 10.0
"""The last width's bias is at most this times the tolerance."""
TIGHTER = 1e-3
"""Tolerance of a width's own minimisation over that of the whole: a small change of one step is no end yet."""


def fit_rounded(
    store: BlockStore, trainers: Sequence[Trainer], initials: Sequence[Initial | None] | None = None
) -> list[Fit]:
    """Train like ``fit_many``; a loss with kinks is rounded off for methods that compare objectives.

    ``Stop.max_iter`` counts the steps of all widths together. Objectives are those of the rounded losses, so they may
    rise by a little where the width falls.

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
    starts: list[Initial | None] = [None] * len(trainers) if initials is None else list(initials)
    done: list[Fit | None] = [None] * len(trainers)
    left, width = list(range(len(trainers))), _widest(loss, store.moments)
    for _ in range(WIDTHS):
        group = [_rounded(trainers[i], width, done[i]) for i in left]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)  # the whole is judged at its end
            fits = fit_many(store, group, [starts[i] for i in left])
        for i, fit in zip(left, fits, strict=True):
            starts[i] = (fit.coefficients, fit.intercept)
            done[i] = fit if (before := done[i]) is None else _joined(before, fit)
        left = [i for i, fit in zip(left, fits, strict=True) if _goes_on(trainers[i], fit, done[i], width)]
        if not left:
            break
        width *= RATIO
    found = [fit for fit in done if fit is not None]
    for trainer, fit in zip(trainers, found, strict=True):
        trainer._warn(fit.solution)
    return found


def _widest(loss: Loss, moments: Moments) -> float:
    """Return a width at which the loss is nearly smooth: a margin of 1, or the target's spread."""
    return 1.0 if loss.targets.whole else float(moments.std[-1]) or 1.0


def _rounded(trainer: Trainer, width: float, before: Fit | None) -> Trainer:
    taken = 0 if before is None else before.solution.iterations
    stop = replace(trainer.stop, max_iter=trainer.stop.max_iter - taken, tol=trainer.stop.tol * TIGHTER)
    return replace(trainer, loss=trainer.loss.smoothed(width), stop=stop)


def _goes_on(trainer: Trainer, fit: Fit, so_far: Fit | None, width: float) -> bool:
    """Whether a smaller width is worth its steps."""
    if fit.solution.reason in ("callback", "validation", "maxIter") or so_far is None:
        return False
    small = 0.5 * width <= SHARE * trainer.stop.tol * abs(fit.solution.objective)
    return not small and so_far.solution.iterations < trainer.stop.max_iter


def _joined(one: Fit, other: Fit) -> Fit:
    """Return two fits, the second from where the first one ended, as one."""
    first, last = one.solution, other.solution
    steps, seconds = first.iterations, first.history[-1].seconds
    later = [
        replace(record, step=record.step + steps, seconds=record.seconds + seconds) for record in last.history[1:]
    ]
    solution = Solution(last.coef, (*first.history, *later), last.reason, last.step + steps)
    return replace(other, solution=solution, receipt=_added(one.receipt, other.receipt, solution))


def _added(one: Receipt, other: Receipt, solution: Solution) -> Receipt:
    """Return what both cost; they read the same blocks."""
    seconds = {name: one.seconds[name] + other.seconds[name] for name in one.seconds}
    seconds["ingest"] -= other.seconds["ingest"]
    seconds["total"] -= other.seconds["ingest"]
    return replace(
        other,
        steps=solution.iterations,
        passes=one.passes + other.passes,
        rows_touched=one.rows_touched + other.rows_touched,
        seconds=seconds,
        bytes={**other.bytes, "sent": one.bytes["sent"] + other.bytes["sent"]},
        peak_memory=max(one.peak_memory, other.peak_memory),
        objective=[record.objective for record in solution.history],
        elapsed=[record.seconds for record in solution.history],
        validation=[record.validation for record in solution.history],
        chosen_step=solution.step,
        resumed_at=one.resumed_at + other.resumed_at,
    )
