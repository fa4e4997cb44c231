"""Losses with kinks by methods with a line search: rounded losses of falling width, one after the other.

A rounded loss lies below the exact one by at most half its width (Beck & Teboulle, 2012, *Smoothing and first order
methods*, §4), so the widths fall until that is small against the objective.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sparkopt.blocks.moments import Moments
from sparkopt.blocks.store import BlockStore
from sparkopt.checkpoint_format import Stage, columns, records
from sparkopt.errors import NotConvergedWarning
from sparkopt.losses import Loss
from sparkopt.report import Receipt
from sparkopt.solve import Solution
from sparkopt.trainer import Fit, Initial, Trainer, checkpoints_of, fit_many

__all__ = ["fit_rounded"]

RATIO = 0.1
"""Each width over the one before it."""
WIDTHS = 9
"""Most widths: the last one is 1e-8 of the first."""
WARM = 4
"""Number of the first width where all models start from earlier ones: wider ones would lead away from them."""
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
    starts = [None] * len(trainers) if initials is None else list(initials)
    run = checkpoints_of(trainers, starts, store)
    saved = run.saved() if run else None
    done = _Done.of(saved.stage) if saved else _Done.nothing(starts)
    receipts: dict[int, Receipt] = {}
    widest = _widest(loss, store.moments)
    while done.left:
        width = widest * RATIO**done.number
        group = [_rounded(trainers[i], width, done.taken(i)) for i in done.left]
        stage = replace(run, stage=done.stage()) if run else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)  # the whole is judged at its end
            found = fit_many(store, group, [done.starts[i] for i in done.left], stage)
        stage_fits = dict(zip(done.left, found, strict=True))
        for i, fit in stage_fits.items():
            receipts[i] = _added(receipts.get(i), fit.receipt, done.taken(i))
        done = done.after(stage_fits)
        done = replace(done, left=[i for i, fit in stage_fits.items() if _goes_on(trainers[i], fit, done, i, width)])
    fits = [done.fit(i, receipts) for i in range(len(trainers))]
    if run and all(fit.solution.reason != "callback" for fit in fits):
        run.remove()
    for trainer, fit in zip(trainers, fits, strict=True):
        trainer._warn(fit.solution)
    return fits


@dataclass(frozen=True)
class _Done:
    """What the widths so far came to, one entry a model.

    Attributes
    ----------
    number : int
        Number of the next width.
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
    steps: int
    left: list[int]
    starts: list[Initial | None]
    solutions: list[Solution | None]

    @classmethod
    def nothing(cls, starts: Sequence[Initial | None]) -> _Done:
        first = WARM if all(start is not None for start in starts) else 0
        return cls(first, 0, list(range(len(starts))), list(starts), [None] * len(starts))

    @classmethod
    def of(cls, stage: Stage) -> _Done:
        """Return what ``stage`` was made of."""
        solutions = [
            None if parts is None else Solution(**{**parts, "history": records(parts["history"])})
            for parts in stage.before["solutions"]
        ]
        return cls(stage.number, stage.steps, stage.before["left"], stage.before["starts"], solutions)

    def stage(self) -> Stage:
        """Return the next width as a stage of the run: all that it needs to know, as data."""
        solutions: list[dict[str, Any] | None] = [
            None if solution is None else {**vars(solution), "history": columns(solution.history)}
            for solution in self.solutions
        ]
        before = {"left": self.left, "starts": self.starts, "solutions": solutions}
        return Stage(self.number, self.steps, before)

    def taken(self, model: int) -> int:
        """Return the steps that a model has taken."""
        solution = self.solutions[model]
        return 0 if solution is None else solution.iterations

    def after(self, fits: Mapping[int, Fit]) -> _Done:
        """Return what there is after one more width."""
        starts, solutions = list(self.starts), list(self.solutions)
        for i, fit in fits.items():
            starts[i] = (fit.coefficients, fit.intercept, fit.constants)
            solutions[i] = _joined(solutions[i], fit.solution)
        steps = self.steps + max(fit.solution.iterations for fit in fits.values())
        return replace(self, number=self.number + 1, steps=steps, starts=starts, solutions=solutions)

    def fit(self, model: int, receipts: Mapping[int, Receipt]) -> Fit:
        """Return a model at its end; an earlier attempt may have finished it."""
        start, solution = self.starts[model], self.solutions[model]
        if start is None or solution is None:
            raise RuntimeError(f"model {model} was not trained: every model takes part in the first width")
        coefficients, intercept, constants = start  # type: ignore[misc]  # ``after`` gives all three
        receipt = receipts.get(model) or _free(next(iter(receipts.values())), solution.iterations)
        return Fit(coefficients, intercept, constants, solution, _restated(receipt, solution))


def _widest(loss: Loss, moments: Moments) -> float:
    """Return a width at which the loss is nearly smooth: a margin of 1, or the target's spread."""
    return 1.0 if loss.targets.whole else float(moments.std[-1]) or 1.0


def _rounded(trainer: Trainer, width: float, taken: int) -> Trainer:
    stop = replace(trainer.stop, max_iter=trainer.stop.max_iter - taken, tol=trainer.stop.tol * TIGHTER)
    return replace(trainer, loss=trainer.loss.smoothed(width), stop=stop)


def _goes_on(trainer: Trainer, fit: Fit, done: _Done, model: int, width: float) -> bool:
    """Whether a smaller width is worth its steps."""
    if fit.solution.reason in ("callback", "validation", "maxIter") or done.number >= WIDTHS:
        return False
    small = 0.5 * width <= SHARE * trainer.stop.tol * abs(fit.solution.objective)
    return not small and done.taken(model) < trainer.stop.max_iter


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
