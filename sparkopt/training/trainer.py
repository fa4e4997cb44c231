"""Trainer: what to minimise, how and where; ``fit_many`` runs it on the rows of a store."""

from __future__ import annotations

import logging
import time
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import field, replace
from math import ceil

import numpy as np

from sparkopt.blocks.moments import Moments
from sparkopt.blocks.store import BlockStore
from sparkopt.checkpoint.checkpointer import Checkpointer, CheckpointRun
from sparkopt.codecs.gradient import GradientCodec, gradient_codec
from sparkopt.communication.encoder import Encoder
from sparkopt.engines.base import Engine
from sparkopt.engines.selection import AutoEngine, engine_on
from sparkopt.errors import DataError, IncompatibleError, LostRankError, NotConvergedWarning, ParameterError
from sparkopt.losses import Loss
from sparkopt.objective.cross_validation import FoldedObjective, Objective
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.work import FullGradient, LocalSteps, LocalUpdate, MiniBatch, Validated, Work
from sparkopt.optim import Optimizer, lbfgs
from sparkopt.penalties import NoPenalty, Penalty
from sparkopt.report import Receipt
from sparkopt.solver.callbacks import ProgressBar
from sparkopt.solver.compatibility import Method, check_compatible
from sparkopt.solver.problem import Problem, Solution
from sparkopt.solver.progress import WORST_OF, Callback, Stop
from sparkopt.training.coordinates import Initial, SolverCoordinates
from sparkopt.training.lifecycle import attempt
from sparkopt.training.run_identity import MODEL, PASSES, RUN, fingerprint, first_difference
from sparkopt.typing import Floats, Seed
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["Fit", "Trainer", "TrainingPlan", "checkpoints_of", "fit_many"]

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
    """All choices of a fit: loss, penalty, optimiser, batches and engine.

    Parameters
    ----------
    loss : Loss
        The loss of a row.
    optimizer : Optimizer, default ``lbfgs()``
        The optimiser.
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
        Local steps of ``optimizer`` that each partition takes before the outer optimiser joins the local updates; a
        step of the fit is then a round, and the optimiser's schedules count rounds. The penalty must be smooth.
    seed : int, default 0
        Determines the rows that are drawn.
    engine : Engine, default ``AutoEngine()``
        Where the loop runs; by default wherever it is cheapest.
    callbacks : sequence of Callback
        Called after each step.
    compression : str or GradientCodec, default "none"
        Codec of the gradients that tasks send: "none", "fp16", "bf16", "int8", "qsgd", "sign", "top-k", "random-k",
        "powersgd", or a codec of `sparkopt.codecs`. Lossy ones add their error to the next step's gradient. "auto"
        times a few steps with each of none, fp16, int8 and top-k and keeps the cheapest, where the optimiser allows
        it; which one that is depends on the machine, and so do the coefficients' last digits.
    checkpointer : Checkpointer or None, default None
        Where the state is kept, so that the same call resumes after its driver was killed.
    progress : bool, default True
        Show a progress bar for a fit of more than two seconds.
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
        if not isinstance(self.engine, Engine):  # estimators take its name
            raise ParameterError(
                f"engine must be an Engine, such as sparkopt.engines.by_name('driver'). Got {self.engine!r} instead."
            )
        check_compatible(self.method)

    @property
    def method(self) -> Method:
        """What is combined, as compatibility is judged by it."""
        return Method(
            self.optimizer,
            self.penalty,
            is_exact=self.mini_batch_fraction == 1.0,
            local_steps=self.local_steps,
            is_lossy=not self.codec.lossless,
        )

    @property
    def codec(self) -> GradientCodec:
        """The codec that ``compression`` names; none for "auto"."""
        return gradient_codec("none" if self.compression == "auto" else self.compression)

    @property
    def _encodes(self) -> bool:
        """Whether gradients are encoded, or may be."""
        if self.compression != "auto":
            return not self.codec.lossless
        try:
            check_compatible(replace(self.method, is_lossy=True))
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
            auxiliary parameters (auxiliary,) of a loss that has some. None starts without coefficients, at the
            intercept that fits the targets' mean.

        Raises
        ------
        DivergedError
            When the objective stops being finite.
        ParameterError
            Where a mini-batch would hold less than one row, or ``initial`` has another shape.
        """
        return fit_many(store, [self], [initial])[0]

    def _coordinates(self, moments: Moments) -> SolverCoordinates:
        return SolverCoordinates.of(
            self.loss,
            self.penalty,
            moments,
            fit_intercept=self.fit_intercept,
            standardization=self.standardization,
            scale_target=self.scale_target,
        )

    def _shaped(self, objective: LinearObjective) -> Trainer:
        """Return the trainer whose optimisers know which coefficients are a matrix."""
        shape = (objective.features, objective.loss.outputs)
        local = self.local_steps and replace(self.local_steps, outer=self.local_steps.outer.shaped(*shape))
        return replace(self, optimizer=self.optimizer.shaped(*shape), local_steps=local)

    def _work(self, store: BlockStore, objective: Objective, penalty: Penalty) -> Work:
        """Return what a pass computes; ``penalty`` is in the solver's coordinates."""
        rows, share = store.moments.rows, self.mini_batch_fraction
        if share * rows < 1:
            raise ParameterError(
                f"miniBatchFraction={share:g} of {rows} rows is less than one row a step. "
                f"Use at least {1 / rows:.3g}."
            )
        work: Work = FullGradient(objective) if share == 1.0 else MiniBatch(objective, share, self.seed)
        if self.local_steps is not None:
            work = LocalUpdate(work, self.optimizer, self.local_steps, penalty)
        return work if store.validation is None else Validated(work, ceil(1.0 / work.share))

    def _problem(self, own: SolverCoordinates, base: LinearObjective, initial: Initial | None) -> Problem:
        """Return what this trainer asks of the loop, where queries are in ``base``'s coordinates."""
        window = max(self.stop.window, ceil(1.0 / self.mini_batch_fraction))  # compare the objectives of whole epochs
        return Problem(
            self.local_steps.outer if self.local_steps else self.optimizer,
            own.start(initial),
            own.penalty,
            replace(self.stop, window=window),
            self.callbacks,
            own.objective.factors_from(base),
            whole_at_end=self.mini_batch_fraction < 1.0,
            held_out=self.held_out,
        )

    @property
    def _label(self) -> str:
        """The optimiser's name, and the schedule where it is not the plain one."""
        if self.local_steps is None:
            return self.optimizer.name
        return f"{self.optimizer.name}, {self.local_steps.steps} local steps, {self.local_steps.outer.name}"

    def _warn(self, solution: Solution) -> None:
        """Warn of a solution that did not converge."""
        if solution.converged or self.stop.tol == 0 or self.mini_batch_fraction < 1 or self.stop.max_iter == 0:
            return
        warnings.warn(
            f"{self.optimizer.name!r} stopped at maxIter={self.stop.max_iter} before its tolerance of "
            f"{self.stop.tol:g} was met: {_distance(solution)}. Raise maxIter, or tol.",
            NotConvergedWarning,
            stacklevel=5,
        )


def _distance(solution: Solution) -> str:
    """Return how far a solution is from the optimum, as far as it is known."""
    now = solution.objective
    if solution.gap is not None:
        return f"its objective of {now:.6g} is about {solution.gap:.1e} above the optimum"
    before = solution.history[max(0, solution.step - WORST_OF)].objective
    return f"its objective of {now:.6g} fell by {before - now:.1e} in the last {min(solution.step, WORST_OF)} steps"


def fit_many(
    store: BlockStore,
    trainers: Sequence[Trainer],
    initials: Sequence[Initial | None] | None = None,
    checkpoints: CheckpointRun | None = None,
) -> list[Fit]:
    """Train several models in the same passes over the data.

    The coefficients of all models form one matrix, so 16 models cost far less than 16 fits. Each takes the steps that
    it would take alone, up to rounding.

    Parameters
    ----------
    store : BlockStore
        The rows.
    trainers : sequence of Trainer
        They may differ in optimizer, penalty, stop, callbacks and held_out; with local steps there is one only.
    initials : sequence of tuples of ndarray or None, optional
        Where each starts, as in ``Trainer.fit``.
    checkpoints : CheckpointRun or None, default None
        The run that this is a stage of; None is a run of its own, where the trainers have a checkpointer.

    Raises
    ------
    IncompatibleError
        Where the trainers differ in anything else, or several take local steps or compress with loss.

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
    plan = TrainingPlan.of(trainers, [None] * len(trainers) if initials is None else initials, store)
    for left in range(trainers[0].engine.retries, 0, -1):
        try:
            return _run(plan, store, checkpoints)
        except LostRankError as error:
            logger.warning("%s The fit starts again (it may do so %d times).", error, left)
    return _run(plan, store, checkpoints)


@dataclass(frozen=True)
class TrainingPlan:
    """What a fit consists of: everything that follows from trainers, starting points and rows.

    Attributes
    ----------
    trainers : sequence of Trainer
        One for each model.
    initials : sequence of (tuple of ndarray or None)
        Where each model starts.
    objectives : list of LinearObjective
        Each model's own, in the solver's coordinates.
    problems : list of Problem
        What each model asks of the loop.
    work : Work
        What a pass computes for all of them.
    """

    trainers: Sequence[Trainer]
    initials: Sequence[Initial | None]
    objectives: list[LinearObjective]
    problems: list[Problem]
    work: Work

    @classmethod
    def of(cls, trainers: Sequence[Trainer], initials: Sequence[Initial | None], store: BlockStore) -> TrainingPlan:
        """Plan a fit; refuse trainers that cannot share passes, and rows that the loss is not defined on."""
        _check_shared(trainers)
        _check_validation(trainers[0].loss, store)
        moments = {trainer.held_out: store.moments_without(trainer.held_out) for trainer in trainers}
        own = [trainer._coordinates(moments[trainer.held_out]) for trainer in trainers]
        bases: dict[int | None, LinearObjective] = {}  # the coordinates of queries, by the fold that is held out
        for trainer, coordinates in zip(trainers, own, strict=True):
            bases.setdefault(trainer.held_out, coordinates.objective)
        shaped = [trainer._shaped(coordinates.objective) for trainer, coordinates in zip(trainers, own, strict=True)]
        problems = [
            trainer._problem(coordinates, bases[trainer.held_out], initial)
            for trainer, coordinates, initial in zip(shaped, own, initials, strict=True)
        ]
        shared: Objective = bases[None] if set(bases) == {None} else FoldedObjective(bases)
        work = shaped[0]._work(store, shared, own[0].penalty)
        return cls(trainers, initials, [coordinates.objective for coordinates in own], problems, work)


def _run(plan: TrainingPlan, store: BlockStore, checkpoints: CheckpointRun | None) -> list[Fit]:
    """Train from the start, or from an earlier attempt's checkpoint."""
    begin = time.perf_counter()
    first, models = plan.trainers[0], len(plan.trainers)
    bar = ProgressBar(first._label if models == 1 else f"{models} models")
    run = checkpoints or checkpoints_of(plan.trainers, plan.initials, store)
    encoder: Encoder | None = None
    if models == 1 and first._encodes:
        codec = None if first.compression == "auto" else first.codec
        encoder = Encoder(codec, uuid.uuid4().hex, run.residual_store() if run else None, first.seed)
    with store.data_errors(), attempt(plan.problems, run, [bar] if first.progress else []) as this:
        done = engine_on(first.engine, store).run(this.problems, plan.work, store, encoder)
        this.ended(done.solutions)
    seconds = time.perf_counter() - begin
    fits = []
    for trainer, objective, solution in zip(plan.trainers, plan.objectives, done.solutions, strict=True):
        trainer._warn(solution)
        receipt = Receipt.of(
            optimizer=trainer._label,
            loss=trainer.loss.name,
            engine=done.engine,
            store=store,
            solution=solution,
            passes=done.passes,
            seconds=seconds,
            startup=done.startup,
            models=models,
            resumed_at=this.resumed_at,
        )
        logger.info("%s", receipt.line())
        fits.append(Fit(*objective.unscale(solution.coef), objective.auxiliary(solution.coef), solution, receipt))
    return fits


def checkpoints_of(
    trainers: Sequence[Trainer], initials: Sequence[Initial | None], store: BlockStore
) -> CheckpointRun | None:
    """Return the checkpoints of a run on these rows, or None where the trainers keep none."""
    keeper = trainers[0].checkpointer
    held_out = [trainer.held_out for trainer in trainers]
    return keeper.run(fingerprint(trainers, held_out, initials, store)) if keeper else None


def _check_shared(trainers: Sequence[Trainer]) -> None:
    """Refuse trainers that cannot share passes over the data."""
    first = trainers[0]
    if (name := first_difference(trainers)) is not None:
        raise IncompatibleError(
            f"these trainers differ in {name}, so they cannot share passes over the data. Fit them one by one, or in "
            f"groups that agree on it."
        )
    if len(trainers) > 1 and not first.method.shares_passes:
        own = "local steps" if first.local_steps else f"compression={first.codec.name!r}"
        raise IncompatibleError(
            f"{len(trainers)} trainers with {own} cannot share passes over the data: local updates and "
            f"error-feedback residuals are one model's own. Fit them one by one."
        )


def _check_validation(loss: Loss, store: BlockStore) -> None:
    """Refuse validation rows that the loss is not defined on: training rows alone decide the number of classes."""
    held_out = store.validation
    if held_out is None or loss.targets.contains(np.array([held_out.target_min, held_out.target_max])).all():
        return
    raise DataError(
        f"label column {store.columns.label!r} lies between {held_out.target_min:g} and {held_out.target_max:g} in "
        f"the validation rows; as the training rows have it, the {loss.name} loss wants {loss.targets}."
    )
