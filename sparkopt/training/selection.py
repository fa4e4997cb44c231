"""Which optimiser is cheapest for a fit: its passes, times what each of them costs on this data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from sparkopt.blocks.store import BlockStore
from sparkopt.engines.base import Engine, FitSize, SessionTraits
from sparkopt.engines.local import LocalEngine
from sparkopt.engines.selection import engine_on
from sparkopt.losses import Loss, SquaredError
from sparkopt.objective.linear import LinearObjective
from sparkopt.optim import Hessians, InitialHessian, SubsampledNewton, by_name
from sparkopt.penalties import Penalty
from sparkopt.training.trainer import Trainer
from sparkopt.values import dataclass

__all__ = ["OptimizerChoice", "choose_optimizer", "with_cheapest_optimizers"]

logger = logging.getLogger(__name__)

NEWTON, SAMPLED, LIMITED = "proximal-newton", "subsampled-newton", "proximal-lbfgs"
PASSES: Mapping[str, int] = MappingProxyType({NEWTON: 9, SAMPLED: 12, "lbfgs": 30, LIMITED: 70})
"""Passes of a typical fit at the default tolerance, means over the data and penalties of tests/solver/test_parity.py.
A fit that the last does not end in the default ``maxIter`` counts as 200; half as many are typical where features are
standardised and there is an intercept. OWL-QN and FISTA take more on nearly all, and end farther from the optimum."""
UNPENALISED = 2.0
"""How many times as many passes these take without a penalty, whose problems are worse conditioned."""
QUADRATIC = 2
"""Passes of Newton's method where its model is exact."""
CURVED = 4 / 12
"""Share of the passes of sub-sampled Newton that have a Hessian."""
SAMPLING = 0.7
"""Time to choose the sample's rows over that of a gradient; measured, with 3% of the rows, 0.3 to 1."""
LARGEST = 0.5
"""Share of the rows from which on a sample saves nothing."""
SHARED = 0.5
"""Share of a pass that each further model adds, whose gradients need one more product with the same rows. Measured
on one core for eight models at 300, 100 and 20 features: 0.5, 0.65 and 0.9."""
OVERHEAD = 1e-3
"""Seconds of a step outside of its pass: the search, the query, its callbacks."""
FLOPS = 5e9
"""Floating-point operations per second of the process that runs the loop."""
CERTAIN = 1.5
"""Newton's method is taken unless another is estimated to be so many times as fast: how many passes the others take
depends on how the features are correlated, which is not known yet, and they end farther from the optimum."""
STAGES = 3
"""Passes with a nonsmooth loss over those with a smooth one: smoothed losses are minimised in turn."""
SHORT = 2.0
"""Seconds that Newton's method may take in any case: so long as a fit is short, what counts is its distance from the
optimum, and L-BFGS ends at 1e-7 of it where classes are many."""
NARROW = 2
"""Stored bytes of a row over its numbers, zeros included, below which a Hessian's dense products read more."""
ENTRY = 12
"""Stored bytes of a number of a sparse row, with its index."""
WIDEST = 2000
"""Most coefficients of which a Hessian is made: a partition's sum then has 16 MB."""


@dataclass(frozen=True)
class OptimizerChoice:
    """The cheapest of some optimisers.

    Attributes
    ----------
    name : str
        The optimiser that is estimated to take the least time, or Newton's method if it takes little more, or little.
    seconds : mapping of str to float
        Estimated seconds of a fit, by the names of those considered.
    """

    name: str
    seconds: Mapping[str, float]

    def __str__(self) -> str:
        estimates = ", ".join(f"{name} {cost:.2f}" for name, cost in self.seconds.items())
        return f"{self.name}; seconds with about as many passes as each needs: {estimates}"


def choose_optimizer(
    objective: LinearObjective,
    penalty: Penalty,
    size: FitSize,
    engines: Sequence[Engine],
    models: int = 1,
    rows: int = 0,
) -> OptimizerChoice:
    """Return the optimiser that would take the least time.

    Parameters
    ----------
    objective : LinearObjective
        A loss, over so many features; smoothed losses take the place of a nonsmooth one.
    penalty : Penalty
        The penalty.
    size : FitSize
        What a pass for the gradient of one model reads and sums.
    engines : sequence of Engine
        Where the loop may run.
    models : int, default 1
        Models that share the passes.
    rows : int, default 0
        Number of rows, where they may be sparse: a Hessian's arithmetic does not leave out their zeros.

    Examples
    --------
    >>> from sparkopt.engines import LocalEngine
    >>> from sparkopt.losses import Logistic
    >>> from sparkopt.penalties import L1
    >>> def chosen(features, rows):
    ...     size = FitSize(rows * features * 8, features * 8, 8, 8)
    ...     return choose_optimizer(LinearObjective(Logistic(), features), L1(0.1), size, [LocalEngine()]).name
    >>> chosen(30, 100_000), chosen(1500, 1_000_000)
    ('proximal-newton', 'proximal-lbfgs')
    """
    is_smooth = objective.loss.smooth
    is_seeded = penalty.smooth and (objective.size <= InitialHessian().up_to or not is_smooth)
    other = "lbfgs" if is_seeded else LIMITED  # without an initial Hessian, L-BFGS does not know the gap
    share = _sampled_share(objective.size, rows)
    own = [NEWTON, SAMPLED] if share < LARGEST and is_smooth else [NEWTON]
    names = [*own, other] if objective.size <= WIDEST else [other]
    hessian = hessian_cost(objective.features, objective.loss)
    if NARROW * rows * objective.features > size.stored:
        dense = hessian * NARROW * rows * objective.features / size.stored
        hessian = min(dense, sparse_hessian_cost(objective.features, size.stored / (ENTRY * rows), objective.loss))
    costs = {name: _cost(name, objective, penalty, models, hessian, share) for name in names}
    seconds = {name: _seconds(cost, size, engines) for name, cost in costs.items()}
    best = min(names, key=lambda name: seconds[name] / (CERTAIN if name in own else 1.0)) if is_smooth else other
    newton = min(own, key=lambda name: seconds.get(name, np.inf))
    if newton in costs:  # of nonsmooth losses by a local engine: Spark and one machine then choose alike
        spent = seconds[newton] if is_smooth else _seconds(costs[newton], size, [LocalEngine()])
        best = newton if spent <= SHORT else best
    return OptimizerChoice(best, MappingProxyType(seconds))


@dataclass(frozen=True)
class _Cost:
    """What a fit costs: passes, the arithmetic of one over that of a gradient, numbers in its sum, and the loop's."""

    passes: int
    work: float
    width: int
    solving: float


def _cost(
    name: str, objective: LinearObjective, penalty: Penalty, models: int, hessian: float, share: float
) -> _Cost:
    passes, gradients = PASSES[name], 1.0 + SHARED * (models - 1)
    passes *= 1 if objective.loss.smooth else STAGES
    outputs = output_cost(objective.loss)
    if name not in (NEWTON, SAMPLED):
        is_flat = penalty.smooth and penalty.curvature == 0
        passes = round(passes * (UNPENALISED if is_flat else 1))
        return _Cost(passes, outputs * gradients, models * objective.size, 0.0)
    width, work = models * Hessians.columns(objective.size), models * hessian
    if name == NEWTON:
        passes = QUADRATIC if isinstance(objective.loss, SquaredError) else passes
    else:
        width = round(models * objective.size + CURVED * width)
        work = gradients + CURVED * models * (SAMPLING + share * hessian)
    solving = passes * models * (1 if penalty.smooth else 3) * objective.size**3 / FLOPS
    return _Cost(passes, outputs * work, width, solving)


def _seconds(cost: _Cost, size: FitSize, engines: Sequence[Engine]) -> float:
    """Return the estimated seconds of a fit on the engine that is cheapest for it."""
    wanted = replace(size, stored=round(size.stored * cost.work), summed=8 * cost.width)
    able = [engine for engine in engines if engine.fits(size)] or list(engines)
    passes = cost.passes
    return cost.solving + passes * OVERHEAD + min(engine.seconds(wanted, passes) for engine in able)


def _sampled_share(size: int, rows: int) -> float:
    """Return the share of the rows in the first sample of sub-sampled Newton; 1 where their number is not known."""
    defaults = SubsampledNewton()
    return min(1.0, max(defaults.sample * size / rows, defaults.share)) if rows else 1.0


def output_cost(loss: Loss) -> float:
    """Return the arithmetic of a gradient with the loss's outputs over that with one.

    Measured on one core at 100 float32 features with 3 and 10 outputs: 5 and 6.
    """
    return 1.0 if loss.outputs == 1 else 4.0 + 0.2 * loss.outputs


def hessian_cost(features: int, loss: Loss) -> float:
    """Return the arithmetic of a pass with the Hessian over that of one without.

    Measured on one core at 30, 100, 300 and 1,000 float32 features with one output: 5.8, 8, 17 and 46. Each pair of
    outputs has a product.
    """
    pairs = loss.outputs * (loss.outputs + 1) // 2
    return 4.3 + 0.042 * features * pairs / loss.outputs


def sparse_hessian_cost(features: int, numbers: float, loss: Loss) -> float:
    """Return the same for sparse rows with so many numbers each that are not zero, and are multiplied as they are.

    Measured on one core at 300 features with 5 numbers and at 123 with 14: 15 and 10.
    """
    pairs = loss.outputs * (loss.outputs + 1) // 2
    return 4.3 + (0.34 * numbers + 5e-4 * features**2 / numbers) * pairs / loss.outputs


def with_cheapest_optimizers(store: BlockStore, trainers: Sequence[Trainer], may: Sequence[bool]) -> list[Trainer]:
    """Return trainers with the cheapest optimiser for the store's rows, where they ``may`` have another than theirs.

    Those that stop early by validation rows keep theirs: a few long steps would leave them few models to choose from.
    """
    session = SessionTraits.of_store(store)
    found = []
    for trainer, is_open in zip(trainers, may, strict=True):
        if not is_open or store.validation is not None:
            found.append(trainer)
            continue
        objective = LinearObjective(trainer.loss, store.moments.features, trainer.fit_intercept)
        size = FitSize.of(store, 8 * objective.size)
        engines = engine_on(trainer.engine, store).candidates(session)
        choice = choose_optimizer(objective, trainer.penalty, size, engines, len(trainers), store.moments.rows)
        logger.info("optimizer %s", choice)
        found.append(replace(trainer, optimizer=by_name(choice.name)))
    return found
