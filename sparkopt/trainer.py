"""Trainer: what to minimise, how, and where, joined once and then fitted to a store of blocks."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from sparkopt.blocks.moments import Moments
from sparkopt.blocks.store import BlockStore
from sparkopt.callbacks import ProgressBar
from sparkopt.cluster.aggregate import Aggregator
from sparkopt.cluster.choose import AutoAggregator
from sparkopt.errors import NotConvergedWarning, ParameterError
from sparkopt.losses import Loss
from sparkopt.objective import LinearObjective
from sparkopt.optim import Optimizer, lbfgs
from sparkopt.penalties import NoPenalty, Penalty
from sparkopt.report import Receipt
from sparkopt.solve import Callback, Problem, Solution, Stop, check_compatible
from sparkopt.typing import Floats, Seed
from sparkopt.validation import Interval, check
from sparkopt.work import FullGradient, MiniBatch, Work

__all__ = ["Fit", "Trainer"]

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
    constants : ndarray of shape (constants,)
        The loss's own parameters.
    solution : Solution
        Where the loop ended, and its history.
    receipt : Receipt
        What it cost.
    """

    coefficients: Floats
    intercept: Floats
    constants: Floats
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
    seed : int, default 0
        Determines the rows that are drawn.
    aggregator : Aggregator, default ``AutoAggregator()``
        Where the loop runs; by default wherever it is cheapest.
    callbacks : sequence of Callback
        Called after each step.
    progress : bool, default True
        Show a progress bar on fits that take more than two seconds.
    """

    loss: Loss
    optimizer: Optimizer = field(default_factory=lbfgs)
    penalty: Penalty = NoPenalty()
    stop: Stop = Stop()
    fit_intercept: bool = True
    standardization: bool = True
    scale_target: bool = False
    mini_batch_fraction: float = 1.0
    seed: Seed = 0
    aggregator: Aggregator = AutoAggregator()
    callbacks: Sequence[Callback] = ()
    progress: bool = True

    def __post_init__(self) -> None:
        check("miniBatchFraction", self.mini_batch_fraction, Interval(0, 1, closed="right"))
        check("seed", self.seed, Interval(0, None, whole=True))
        check_compatible(self.optimizer, self.penalty, is_exact=self.mini_batch_fraction == 1.0)

    def fit(self, store: BlockStore, initial: tuple[Floats, Floats] | None = None) -> Fit:
        """Train on the store's rows.

        Parameters
        ----------
        store : BlockStore
            The rows.
        initial : pair of ndarray or None, default None
            Coefficients (features, outputs) and intercept (outputs,) to start from, in the user's units; where None,
            no coefficients, and the intercept that fits the targets' mean.

        Raises
        ------
        DivergedError
            When the objective stops being finite.
        ParameterError
            Where a mini-batch would hold less than one row.
        """
        begin = time.perf_counter()
        objective, penalty = self._coordinates(store.moments)
        start = self._start(objective, store.moments) if initial is None else objective.rescale(*initial)
        work = self._work(objective, store.moments.rows)
        bar = ProgressBar(self.optimizer.name)
        watchers = (*self.callbacks, bar) if self.progress else tuple(self.callbacks)
        start = penalty.prox(start, 0.0)  # inside the bounds, where there are any
        problem = Problem(self.optimizer, start, penalty, self._stop(), watchers)
        try:
            run = self.aggregator.run([problem], work, store)
        finally:
            bar.close()
        (solution,) = run.solutions
        self._warn(solution)
        receipt = Receipt.of(
            optimizer=self.optimizer.name,
            loss=self.loss.name,
            engine=run.engine,
            store=store,
            solution=solution,
            passes=run.passes,
            seconds=time.perf_counter() - begin,
        )
        logger.info("%s", receipt.line())
        return Fit(*objective.unscale(solution.coef), objective.constants(solution.coef), solution, receipt)

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

    def _work(self, objective: LinearObjective, rows: int) -> Work:
        if self.mini_batch_fraction == 1.0:
            return FullGradient(objective)
        if self.mini_batch_fraction * rows < 1:
            raise ParameterError(
                f"miniBatchFraction={self.mini_batch_fraction:g} of {rows} rows is less than one row a step. "
                f"Use at least {1 / rows:.3g}."
            )
        return MiniBatch(objective, self.mini_batch_fraction, self.seed)

    def _stop(self) -> Stop:
        """Compare objectives of whole epochs where steps see only a part of the rows."""
        return replace(self.stop, window=max(self.stop.window, ceil(1.0 / self.mini_batch_fraction)))

    def _warn(self, solution: Solution) -> None:
        if solution.converged or self.stop.tol == 0 or self.mini_batch_fraction < 1 or self.stop.max_iter == 0:
            return
        warnings.warn(
            f"{self.optimizer.name!r} stopped at maxIter={self.stop.max_iter} before its tolerance of "
            f"{self.stop.tol:g} was met. Raise maxIter, or tol.",
            NotConvergedWarning,
            stacklevel=4,
        )
