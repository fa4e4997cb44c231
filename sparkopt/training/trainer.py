"""Trainer: what to minimise, how, and where, joined once and then fitted to a store of blocks."""

from __future__ import annotations

import logging
import time
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from sparkopt.blocks.moments import Moments
from sparkopt.blocks.store import BlockStore
from sparkopt.checkpoint.checkpointer import Checkpointer
from sparkopt.checkpoint.checkpointer import Run as CheckpointRun
from sparkopt.codecs.gradient import GradientCodec, gradient_codec
from sparkopt.communication.encoder import Encoder
from sparkopt.engines.base import Engine, EngineRun
from sparkopt.engines.selection import AutoEngine
from sparkopt.errors import DataError, IncompatibleError, LostRankError, NotConvergedWarning, ParameterError
from sparkopt.losses import Loss
from sparkopt.objective.cross_validation import FoldedObjective, Objective
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.work import FullGradient, LocalSteps, LocalUpdate, MiniBatch, Validated, Work
from sparkopt.optim import Optimizer, lbfgs
from sparkopt.penalties import NoPenalty, Penalty
from sparkopt.report import Receipt
from sparkopt.solver.callbacks import ProgressBar
from sparkopt.solver.loop import Callback, Method, Problem, Solution, Stop, check_compatible
from sparkopt.training.lifecycle import watching
from sparkopt.training.run_identity import MODEL, PASSES, RUN, Initial, fingerprint, first_difference
from sparkopt.typing import Floats, Seed
from sparkopt.validation import Interval, check

__all__ = ["Fit", "Initial", "Trainer", "checkpoints_of", "fit_many"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """A trained linear model.

    Attributes
    ----------
    coefficients : ndarray of shape (features, outputs)
        In the user's units.
    intercept : ndarray of shape (outputs,)
        Zeros without an intercept.
    auxiliary : ndarray of shape (auxiliary,)
        The loss's own parameters.
    solution : Solution
        Where the loop ended, and its history.
    receipt : Receipt
        What it cost.
    """

    coefficients: Floats
    intercept: Floats
    auxiliary: Floats
    solution: Solution
    receipt: Receipt = field(repr=False)


@dataclass(frozen=True)
class Trainer:
    """A frozen join of loss, optimiser, penalty, batches and engine.

    Parameters
    ----------
    loss : Loss
        The loss of a row.
    optimizer : Optimizer, default ``lbfgs()``
        Direction and distance.
    penalty : Penalty, default none
        On the coefficients, never on the intercept.
    stop : Stop
        When to end.
    fit_intercept : bool, default True
        Whether there is an intercept.
    standardization : bool, default True
        Penalise the coefficients of the standardised features (True) or of the user's (False). The solver scales
        features to equal curvature either way, which does not change the optimum.
    scale_target : bool, default False
        Minimise over the target divided by its standard deviation, as pyspark.ml's LinearRegression does; the penalty
        is then divided by the same number.
    mini_batch_fraction : float, default 1
        Share of the rows that a step draws.
    local_steps : LocalSteps or None, default None
        Let every partition take several steps of ``optimizer`` by itself before their ways are joined; a step of the
        fit is then a round, and the optimiser's schedules count rounds. The penalty must be smooth.
    seed : int, default 0
        Determines the rows that are drawn.
    engine : Engine, default ``AutoEngine()``
        Where the loop runs; by default wherever it is cheapest.
    callbacks : sequence of Callback
        Called after each step.
    compression : str or GradientCodec, default "none"
        How the partitions' sums travel: "none", "fp16", "bf16", "int8", "qsgd", "sign", "top-k", "random-k" or
        "powersgd", whose lossy ones send what they left out with the next step, or a codec of `sparkopt.codecs`.
        "auto" times a few steps with each of none, fp16, int8 and top-k and goes on with the cheapest, where the
        optimiser allows it; which one that is depends on the machine, and so do the coefficients' last digits.
    checkpointer : Checkpointer or None, default None
        Where the state is kept, so that the same call goes on after its driver was killed.
    progress : bool, default True
        Show a progress bar on fits that take more than two seconds.
    held_out : int or None, default None
        The fold of the store's rows that is not trained on; None trains on all.
    """

    loss: Loss = field(metadata=RUN)
    optimizer: Optimizer = field(default_factory=lbfgs, metadata=MODEL)
    penalty: Penalty = field(default=NoPenalty(), metadata=MODEL)
    stop: Stop = Stop()
    fit_intercept: bool = field(default=True, metadata=RUN)
    standardization: bool = field(default=True, metadata=RUN)
    scale_target: bool = field(default=False, metadata=RUN)
    mini_batch_fraction: float = field(default=1.0, metadata=RUN)
    local_steps: LocalSteps | None = field(default=None, metadata=RUN)
    compression: str | GradientCodec = field(default="none", metadata=RUN)
    seed: Seed = field(default=0, metadata=RUN)
    engine: Engine = field(default=AutoEngine(), metadata=PASSES)
    callbacks: Sequence[Callback] = ()
    checkpointer: Checkpointer | None = field(default=None, metadata=PASSES)
    progress: bool = field(default=True, metadata=PASSES)
    held_out: int | None = None

    def __post_init__(self) -> None:
        check("miniBatchFraction", self.mini_batch_fraction, Interval(0, 1, closed="right"))
        check("seed", self.seed, Interval(0, None, whole=True))
        check_compatible(self._combination)

    @property
    def _combination(self) -> Method:
        return Method(
            self.optimizer,
            self.penalty,
            is_exact=self.mini_batch_fraction == 1.0,
            local_steps=self.local_steps,
            is_lossy=not self.codec.lossless,
        )

    @property
    def codec(self) -> GradientCodec:
        """What ``compression`` asks for; "auto" asks for nothing."""
        return gradient_codec("none" if self.compression == "auto" else self.compression)

    @property
    def _encodes(self) -> bool:
        """Whether sums travel encoded, or may."""
        if self.compression != "auto":
            return not self.codec.lossless
        try:
            check_compatible(replace(self._combination, is_lossy=True))
        except IncompatibleError as reason:
            logger.info("compression='auto' picks none: %s", reason)
            return False
        return True

    def fit(self, store: BlockStore, initial: Initial | None = None) -> Fit:
        """Train on the store's rows.

        Parameters
        ----------
        store : BlockStore
            The rows.
        initial : tuple of ndarray or None, default None
            Coefficients (features, outputs) and intercept (outputs,) to start from, in the user's units, and
            auxiliary parameters (auxiliary,) of a loss that has some; where None, no coefficients, and the intercept
            that fits the targets' mean.

        Raises
        ------
        DivergedError
            When the objective stops being finite.
        ParameterError
            Where a mini-batch would hold less than one row, or ``initial`` has another shape.
        """
        return fit_many(store, [self], [initial])[0]

    def _coordinates(self, moments: Moments) -> tuple[LinearObjective, Penalty]:
        """Return the objective in the solver's coordinates, and the penalty that means the same there."""
        std, mean = moments.std[:-1], moments.mean[:-1]
        target_scale = self._target_scale(moments)
        penalty = self.penalty.times(target_scale)
        spread = std
        if not self.standardization:  # the penalty curves the objective too, by as much in each of the user's units
            spread = np.sqrt(std * std + penalty.curvature / (self.loss.curvature or 1.0))
        scale = np.divide(1.0, spread, out=np.zeros_like(std), where=std > 0)
        center = mean if self.fit_intercept and not penalty.bounds_intercept else None
        objective = LinearObjective(self.loss, moments.features, self.fit_intercept, scale, center, target_scale)
        return objective, penalty.at(objective.coordinates(self.standardization))

    def _start(self, objective: LinearObjective, moments: Moments) -> Floats:
        """No coefficients, and the best intercept."""
        if self.loss.outputs > 1:  # the mean of class numbers says nothing of the classes' shares
            return objective.rescale(np.zeros((moments.features, self.loss.outputs)), np.zeros(self.loss.outputs))
        return objective.start(moments.mean[-1:])

    def _target_scale(self, moments: Moments) -> float:
        if not self.scale_target:
            return 1.0
        spread = float(moments.std[-1]) or abs(float(moments.mean[-1]))
        return 1.0 / spread if spread > 0 else 1.0

    def _work(self, store: BlockStore, objective: Objective) -> Work:
        penalty = self._coordinates(store.moments_without(self.held_out))[1]
        rows, share = store.moments.rows, self.mini_batch_fraction
        if share * rows < 1:
            raise ParameterError(
                f"miniBatchFraction={share:g} of {rows} rows is less than one row a step. "
                f"Use at least {1 / rows:.3g}."
            )
        batches = FullGradient(objective) if share == 1.0 else MiniBatch(objective, share, self.seed)
        chosen = (
            batches if self.local_steps is None else LocalUpdate(batches, self.optimizer, self.local_steps, penalty)
        )
        return chosen if store.validation is None else Validated(chosen, ceil(1.0 / chosen.share))

    def _stop(self) -> Stop:
        """Compare objectives of whole epochs where steps see only a part of the rows."""
        return replace(self.stop, window=max(self.stop.window, ceil(1.0 / self.mini_batch_fraction)))

    def _problem(self, base: LinearObjective, moments: Moments, initial: Initial | None) -> Problem:
        """Return what this trainer asks of the loop, where the data is asked in ``base``'s coordinates."""
        objective, penalty = self._coordinates(moments)
        start = self._start(objective, moments) if initial is None else objective.start_at(*initial)
        return Problem(
            self.local_steps.outer if self.local_steps else self.optimizer,
            start,
            penalty,
            self._stop(),
            self.callbacks,
            objective.factors_from(base),
            whole_at_end=self.mini_batch_fraction < 1.0,
            held_out=self.held_out,
        )

    @property
    def _method(self) -> str:
        """The optimiser's name, and the schedule where it is not the plain one."""
        if self.local_steps is None:
            return self.optimizer.name
        return f"{self.optimizer.name}, {self.local_steps.steps} local steps, {self.local_steps.outer.name}"

    def _fit(
        self,
        solution: Solution,
        store: BlockStore,
        done: EngineRun,
        seconds: float,
        models: int,
        resumed_at: int,
    ) -> Fit:
        """Return the model and what it cost."""
        self._warn(solution)
        receipt = Receipt.of(
            optimizer=self._method,
            loss=self.loss.name,
            engine=done.engine,
            store=store,
            solution=solution,
            passes=done.passes,
            seconds=seconds,
            startup=done.startup,
            models=models,
            resumed_at=resumed_at,
        )
        logger.info("%s", receipt.line())
        objective, _ = self._coordinates(store.moments_without(self.held_out))
        return Fit(*objective.unscale(solution.coef), objective.auxiliary(solution.coef), solution, receipt)

    def _warn(self, solution: Solution) -> None:
        if solution.converged or self.stop.tol == 0 or self.mini_batch_fraction < 1 or self.stop.max_iter == 0:
            return
        warnings.warn(
            f"{self.optimizer.name!r} stopped at maxIter={self.stop.max_iter} before its tolerance of "
            f"{self.stop.tol:g} was met. Raise maxIter, or tol.",
            NotConvergedWarning,
            stacklevel=5,
        )


def fit_many(
    store: BlockStore,
    trainers: Sequence[Trainer],
    initials: Sequence[Initial | None] | None = None,
    checkpoints: CheckpointRun | None = None,
) -> list[Fit]:
    """Train several models on the same rows at once: each pass over the data serves all of them.

    The coefficients of all models form one matrix, so 16 models cost far less than 16 fits. Each takes the steps that
    it would take alone, up to rounding.

    Parameters
    ----------
    store : BlockStore
        The rows.
    trainers : sequence of Trainer
        They may differ in optimizer, penalty, stop, callbacks and the fold that is held out; with local steps
        (``local_steps``) there is one only.
    initials : sequence of tuples of ndarray or None, optional
        Where each starts, as in ``Trainer.fit``.
    checkpoints : checkpoint.Run or None, default None
        The run that this is a stage of; None is a run of its own, where the trainers have a checkpointer.

    Raises
    ------
    IncompatibleError
        Where the trainers differ in anything else, or take local steps, of which each model has its own.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from sparkopt import BlockStore, Columns, losses, penalties
    >>> base = Trainer(losses.Logistic())
    >>> grid = [replace(base, penalty=penalties.L2(strength)) for strength in (0.1, 0.01, 0.001)]
    >>> with BlockStore.write(df, Columns("features", "label"), base.loss.targets) as store:
    ...     fits = fit_many(store, grid)
    >>> [fit.receipt.models for fit in fits]
    [3, 3, 3]
    """
    first = _agreed(trainers)
    for left in range(first.engine.retries, 0, -1):
        try:
            return _fit_once(store, trainers, initials, checkpoints)
        except LostRankError as error:
            logger.warning("%s The fit is begun again (it may be %d times).", error, left)
    return _fit_once(store, trainers, initials, checkpoints)


def _fit_once(
    store: BlockStore,
    trainers: Sequence[Trainer],
    initials: Sequence[Initial | None] | None,
    checkpoints: CheckpointRun | None,
) -> list[Fit]:
    """Train from the start, or from where checkpoints say that an earlier attempt was."""
    begin = time.perf_counter()
    first = trainers[0]
    _check_validation(first.loss, store)
    moments = {trainer.held_out: store.moments_without(trainer.held_out) for trainer in trainers}
    bases = {trainer.held_out: trainer._coordinates(moments[trainer.held_out])[0] for trainer in reversed(trainers)}
    starts = [None] * len(trainers) if initials is None else initials
    pairs = list(zip(trainers, starts, strict=True))
    problems = [
        trainer._problem(bases[trainer.held_out], moments[trainer.held_out], start) for trainer, start in pairs
    ]
    work = first._work(store, bases[None] if set(bases) == {None} else FoldedObjective(bases))
    bar = ProgressBar(first._method if len(trainers) == 1 else f"{len(trainers)} models")
    run = checkpoints or checkpoints_of(trainers, starts, store)
    encoder: Encoder | None = None
    if len(trainers) == 1 and first._encodes:
        codec = None if first.compression == "auto" else first.codec
        encoder = Encoder(codec, uuid.uuid4().hex, run.residual_store() if run else None, first.seed)
    with watching(problems, run, [bar] if first.progress else []) as watched:
        done = first.engine.run(watched.problems, work, store, encoder)
        watched.ended(done.solutions)
    seconds = time.perf_counter() - begin
    return [
        trainer._fit(solution, store, done, seconds, len(trainers), watched.resumed_at)
        for trainer, solution in zip(trainers, done.solutions, strict=True)
    ]


def checkpoints_of(
    trainers: Sequence[Trainer], initials: Sequence[Initial | None], store: BlockStore
) -> CheckpointRun | None:
    """Return the checkpoints of a run on these rows, or None where the trainers keep none."""
    keeper = trainers[0].checkpointer
    held_out = [trainer.held_out for trainer in trainers]
    return keeper.run(fingerprint(trainers, held_out, initials, store)) if keeper else None


def _agreed(trainers: Sequence[Trainer]) -> Trainer:
    """Return the first of some trainers that can share passes over the data."""
    first = trainers[0]
    if (name := first_difference(trainers)) is not None:
        raise IncompatibleError(
            f"these trainers differ in {name}, so they cannot share passes over the data. Fit them one by one, or in "
            f"groups that agree on it."
        )
    if first.local_steps is not None and len(trainers) > 1:
        raise IncompatibleError(
            f"{len(trainers)} trainers with local steps cannot share passes over the data: each model goes its own "
            f"ways. Fit them one by one."
        )
    if not first.codec.lossless and len(trainers) > 1:
        raise IncompatibleError(
            f"{len(trainers)} trainers with compression={first.codec.name!r} cannot share passes over the data: what "
            f"one left out must come back to it alone. Fit them one by one."
        )
    return first


def _check_validation(loss: Loss, store: BlockStore) -> None:
    """Refuse validation rows that the loss is not defined on: training rows alone decide the number of classes."""
    held_out = store.validation
    if held_out is None or loss.targets.contains(np.array([held_out.target_min, held_out.target_max])).all():
        return
    raise DataError(
        f"label column {store.columns.label!r} lies between {held_out.target_min:g} and {held_out.target_max:g} in "
        f"the validation rows; as the training rows have it, the {loss.name} loss wants {loss.targets}."
    )
