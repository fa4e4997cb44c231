"""Trials of a search: which values are tried, how long each is trained before it is judged, and what came of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

import numpy as np
from pyspark.ml.param import Param

from sparkopt.errors import IncompatibleError, MissingDependencyError, ParameterError
from sparkopt.values import dataclass

__all__ = ["Asking", "GridTrials", "OptunaTrials", "RandomTrials", "Rung", "SearchTrial", "brackets", "checked_space"]

Space = Mapping[Param[Any], Any]
"""By parameter: a list of values, or a frozen distribution of SciPy."""


@dataclass
class SearchTrial:
    """One candidate of a search.

    Attributes
    ----------
    number : int
        Its number, from 0.
    params : dict of str to any
        Its values, by the parameters' names.
    state : {"running", "pruned", "complete"}
        What came of it.
    values : list of (int, float)
        After so many steps, the mean over the folds of the metric of held-out rows.
    passes : int
        Passes over the rows that it took part in, of all folds' models.
    """

    number: int
    params: dict[str, Any]
    state: str = "running"
    values: list[tuple[int, float]] = field(default_factory=list)
    passes: int = 0

    @property
    def metric(self) -> float:
        """The last value; NaN before there is one."""
        return self.values[-1][1] if self.values else math.nan


@dataclass(frozen=True)
class Rung:
    """Where trials are judged.

    Attributes
    ----------
    steps : int
        Steps that each has taken by then.
    keep : int
        How many go on.
    """

    steps: int
    keep: int


def brackets(pruner: str, trials: int, most: int, least: int | None, factor: int) -> list[tuple[int, list[Rung]]]:
    """Return the brackets of some trials: how many each has, and its rungs.

    "halving" is successive halving (Jamieson & Talwalkar, 2016) as scikit-learn has it: one bracket, whose last rung
    is ``most`` steps. "hyperband" (Li et al., 2018, algorithm 1) has one bracket for each number of rungs; the trials
    are divided among them in the algorithm's proportions.

    Examples
    --------
    >>> brackets("halving", 9, 90, None, 3)
    [(9, [Rung(steps=10, keep=3), Rung(steps=30, keep=1), Rung(steps=90, keep=0)])]
    >>> [(count, [rung.steps for rung in rungs]) for count, rungs in brackets("hyperband", 22, 9, 1, 3)]
    [(12, [1, 3, 9]), (6, [3, 9]), (4, [9])]
    """
    if pruner == "none":
        return [(trials, [Rung(most, 0)])]
    possible = 1 + (int(math.log(most / least, factor) + 1e-9) if least else int(math.log(most, factor) + 1e-9))
    rungs = min(possible, 1 + int(math.log(trials, factor) + 1e-9))
    if pruner == "halving":
        return [(trials, _rungs(trials, rungs, most, factor))]
    wanted = [math.ceil(rungs / (more + 1) * factor**more) for more in range(rungs - 1, -1, -1)]
    ends = [round(trials * sum(wanted[: number + 1]) / sum(wanted)) for number in range(rungs)]
    counts = np.diff([0, *ends]).tolist()
    return [(count, _rungs(count, rungs - number, most, factor)) for number, count in enumerate(counts) if count]


def _rungs(trials: int, rungs: int, most: int, factor: int) -> list[Rung]:
    found = []
    for left in range(rungs - 1, -1, -1):
        trials = math.ceil(trials / factor)
        found.append(Rung(max(1, most // factor**left), trials if left else 0))
    return found


def checked_space(space: Any) -> None:
    """Refuse what is no space of parameters.

    Raises
    ------
    ParameterError
        Where something else than a parameter has values, or values are neither a list nor a distribution.
    """
    if not isinstance(space, Mapping) or not space:
        raise ParameterError(
            f"paramDistributions must be a dict of parameters and their values. Got {space!r} instead."
        )
    for param, values in space.items():
        if not isinstance(param, Param):
            raise ParameterError(
                f"paramDistributions has the key {param!r}, which is no parameter: write estimator.regParam."
            )
        if not (isinstance(values, (list, tuple)) and values) and not hasattr(values, "rvs"):
            raise ParameterError(
                f"paramDistributions of {param.name} must be a list of values, or a distribution of SciPy such as "
                f"scipy.stats.loguniform(1e-6, 1). Got {values!r} instead."
            )


class Asking(ABC):
    """Which values are tried next, given what came of those before."""

    @abstractmethod
    def ask(self, count: int) -> list[dict[Param[Any], Any]]:
        """Return the values of the next trials; fewer where there are no more."""

    def report(self, trials: Sequence[SearchTrial]) -> list[SearchTrial]:
        """Note what trials have reached at a rung; return those that a pruner of its own ends."""
        return []

    def tell(self, trials: Sequence[SearchTrial]) -> None:
        """Note what came of the trials of the last ``ask``."""
        return


class GridTrials(Asking):
    """The param maps that are given, in order.

    Parameters
    ----------
    maps : sequence of dict
        Parameters and their values.
    """

    def __init__(self, maps: Sequence[dict[Param[Any], Any]]) -> None:
        self._left = list(maps)

    def ask(self, count: int) -> list[dict[Param[Any], Any]]:
        """Return the next param maps."""
        found, self._left = self._left[:count], self._left[count:]
        return found


class RandomTrials(Asking):
    """Values that are drawn, each trial's by a generator of its own.

    Parameters
    ----------
    space : dict
        What is drawn from.
    seed : int
        Determines them.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed, self._next = space, seed, 0

    def ask(self, count: int) -> list[dict[Param[Any], Any]]:
        """Draw values."""
        first, self._next = self._next, self._next + count
        return [self._drawn(number) for number in range(first, self._next)]

    def _drawn(self, number: int) -> dict[Param[Any], Any]:
        generator = np.random.default_rng([abs(self._seed), number])
        found = {}
        for param, values in self._space.items():
            if hasattr(values, "rvs"):
                value = values.rvs(random_state=generator)
                found[param] = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
            else:
                found[param] = values[int(generator.integers(len(values)))]
        return found


class OptunaTrials(Asking):
    """Values that a sampler of Optuna suggests.

    Parameters
    ----------
    space : dict
        What it suggests from.
    seed : int
        Seed of the sampler "tpe".
    sampler : "tpe" or optuna.samplers.BaseSampler
        The sampler.
    pruner : optuna.pruners.BasePruner or None
        A pruner of Optuna's.
    larger : bool
        Whether a larger metric is better.
    """

    def __init__(self, space: Space, seed: int, sampler: Any, pruner: Any, larger: bool) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MissingDependencyError.of("RandomizedSearch(sampler='tpe')", "optuna", "optuna") from error
        self._optuna = optuna
        for name, given, kind in (
            ("sampler", None if isinstance(sampler, str) else sampler, optuna.samplers.BaseSampler),
            ("pruner", pruner, optuna.pruners.BasePruner),
        ):
            if given is not None and not isinstance(given, kind):
                raise ParameterError(f"{name} must be a name, or a {kind.__name__} of Optuna. Got {given!r} instead.")
        if isinstance(sampler, (optuna.samplers.GridSampler, optuna.samplers.BruteForceSampler)):
            raise IncompatibleError("Optuna's samplers of a whole grid stop its own loop: give estimatorParamMaps.")
        if isinstance(sampler, str):
            sampler = optuna.samplers.TPESampler(seed=abs(seed) % 2**32)
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        direction = "maximize" if larger else "minimize"
        self.study = optuna.create_study(
            sampler=sampler, pruner=pruner or optuna.pruners.NopPruner(), direction=direction
        )
        optuna.logging.set_verbosity(before)
        self._names = {param.name: param for param in space}
        self._space = {param.name: self._distribution(param.name, values) for param, values in space.items()}
        self._asked: dict[int, Any] = {}

    def ask(self, count: int) -> list[dict[Param[Any], Any]]:
        """Return what the sampler suggests."""
        found = []
        for _ in range(count):
            trial = self.study.ask(fixed_distributions=self._space)
            self._asked[trial.number] = trial
            found.append({self._names[name]: value for name, value in trial.params.items()})
        return found

    def report(self, trials: Sequence[SearchTrial]) -> list[SearchTrial]:
        """Report the metrics of a rung to the study, and ask its pruner."""
        for trial in trials:
            self._asked[trial.number].report(trial.metric, trial.values[-1][0])
        return [trial for trial in trials if self._asked[trial.number].should_prune()]

    def tell(self, trials: Sequence[SearchTrial]) -> None:
        """Tell the study what came of the trials."""
        states = self._optuna.trial.TrialState
        for trial in trials:
            if trial.state == "complete" and not math.isnan(trial.metric):
                self.study.tell(trial.number, trial.metric)
            else:
                self.study.tell(trial.number, state=states.PRUNED if trial.state == "pruned" else states.FAIL)

    def _distribution(self, name: str, values: Any) -> Any:
        """Return a list or a distribution of SciPy in Optuna's words."""
        kinds = self._optuna.distributions
        if not hasattr(values, "rvs"):
            return kinds.CategoricalDistribution(list(values))
        kind = getattr(getattr(values, "dist", None), "name", None)
        if kind in ("loguniform", "reciprocal", "uniform"):
            low, high = values.support()
            return kinds.FloatDistribution(float(low), float(high), log=kind != "uniform")
        if kind == "randint":
            low, high = values.support()
            return kinds.IntDistribution(int(low), int(high))
        raise IncompatibleError(
            f"paramDistributions of {name} is a {kind} of SciPy, which Optuna has not. Give a list, or uniform, "
            f"loguniform or randint of scipy.stats; or take sampler='random'."
        )
