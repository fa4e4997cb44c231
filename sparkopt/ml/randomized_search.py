"""Searches that train many candidates a little, and the good ones for longer: all of a rung in the same passes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from pyspark.ml.param import Param
from pyspark.ml.util import MLWriter

from sparkopt.blocks.descriptions import of_subject
from sparkopt.blocks.moments import Moments
from sparkopt.blocks.rows import Rows, rows_to_fit, schema_of
from sparkopt.blocks.store import BlockStore
from sparkopt.errors import IncompatibleError, NotConvergedWarning, ParameterError
from sparkopt.io.fingerprint import describe, rounded
from sparkopt.ml.fold_stages import FoldedRows
from sparkopt.ml.folds import not_in_fold
from sparkopt.ml.metrics.held_out import held_out_metrics
from sparkopt.ml.param_maps import check_maps
from sparkopt.ml.randomized_search_model import RandomizedSearchModel, metric_name
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.rows import training_rows
from sparkopt.ml.rung_files import Candidate, RungFiles
from sparkopt.ml.search import ApartError, Plan
from sparkopt.ml.training import TrainingTask, fits_of, train
from sparkopt.ml.trials import (
    Asking,
    GridTrials,
    OptunaTrials,
    RandomTrials,
    Rung,
    SearchTrial,
    brackets,
    checked_space,
)
from sparkopt.ml.tuning import CrossValidator
from sparkopt.training.coordinates import Initial
from sparkopt.training.trainer import Fit, Trainer
from sparkopt.validation import Interval, OneOf, check
from sparkopt.values import dataclass

__all__ = ["RandomizedSearch"]

SAMPLERS = ["random", "tpe"]
PRUNERS = ["none", "halving", "hyperband"]
TOGETHER = 8
"""Trials that are trained together where later ones depend on what came of earlier ones."""


@dataclass(frozen=True)
class _Group:
    """Rows in a store, and the folds that are held out there."""

    every: FoldedRows
    store: BlockStore
    folds: Sequence[int]


class RandomizedSearch(CrossValidator):
    """Cross-validation of candidates that are drawn, of which most are ended early.

    All candidates are trained in the same passes over the rows, for a few steps. Those of the best metrics on the
    held-out folds are trained for longer, from the coefficients that they have; a pruned one drops out of the passes.
    The best of those that were trained to the end is then trained on all rows.

    Parameters
    ----------
    estimator : Estimator
        The estimator, as for `CrossValidator`; where its folds cannot be trained together, the search is refused.
    paramDistributions : dict of Param to list or distribution
        What values are drawn from: a list, or a frozen distribution of ``scipy.stats``.
    evaluator : Evaluator
        Computes the metric.
    estimatorParamMaps : list of dict, optional
        The candidates themselves, in place of ``paramDistributions``.
    numTrials : int, default 20
        How many candidates are drawn.
    sampler : {"random", "tpe"} or optuna.samplers.BaseSampler, default "random"
        What draws them: "tpe" is Optuna's tree-structured Parzen estimator.
    pruner : {"none", "halving", "hyperband"} or optuna.pruners.BasePruner, default "halving"
        Which ones are ended, and when. Optuna's decide at the steps that "halving" has.
    factor : int, default 3
        One of so many goes on at each rung, for so many times as many steps.
    minIter : int, optional
        Steps before the first rung, at least; by default as the number of trials needs. ``maxIter`` of the estimator
        is the most.
    numFolds, seed, foldCol, parallelism
        As for `CrossValidator`.
    checkpointDir : str, optional
        A folder or URI, where every rung is kept until the search ends: the same search resumes there.

    Notes
    -----
    Successive halving: Jamieson & Talwalkar (2016), *Non-stochastic best arm identification and hyperparameter
    optimization*. Hyperband: Li et al. (2018), algorithm 1. An optimiser starts again at each rung, at the
    coefficients that it had: what it has learnt of the curvature is left out.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sparkopt.ml import BinaryClassificationEvaluator, LogisticRegression
    >>> estimator = LogisticRegression(featuresCols=["x1", "x2"])
    >>> search = RandomizedSearch(
    ...     estimator=estimator,
    ...     paramDistributions={estimator.regParam: loguniform(1e-6, 10), estimator.elasticNetParam: [0.0, 0.5]},
    ...     evaluator=BinaryClassificationEvaluator(),
    ...     numTrials=9,
    ...     numFolds=2,
    ...     seed=1,
    ... )
    >>> model = search.fit(df)
    >>> len(model.trials), [trial.state for trial in model.trials].count("complete")
    (9, 1)
    """

    def __init__(
        self,
        *,
        estimator: Any = None,
        paramDistributions: dict[Param[Any], Any] | None = None,
        evaluator: Any = None,
        estimatorParamMaps: list[dict[Param[Any], Any]] | None = None,
        numTrials: int = 20,
        sampler: Any = "random",
        pruner: Any = "halving",
        factor: int = 3,
        minIter: int | None = None,
        numFolds: int = 3,
        seed: int | None = None,
        parallelism: int = 1,
        foldCol: str = "",
        checkpointDir: str | None = None,
    ) -> None:
        super().__init__(numFolds=numFolds, parallelism=parallelism, foldCol=foldCol)
        given = {"estimator": estimator, "evaluator": evaluator, "seed": seed}
        self._set(**{name: value for name, value in given.items() if value is not None})
        self.paramDistributions, self.candidates = paramDistributions, estimatorParamMaps
        self.numTrials, self.sampler, self.pruner = numTrials, sampler, pruner
        self.factor, self.minIter, self.checkpointDir = factor, minIter, checkpointDir

    def write(self) -> MLWriter:
        """Refuse: distributions and samplers are code.

        Raises
        ------
        IncompatibleError
            Always. The best model can be saved.
        """
        raise IncompatibleError("RandomizedSearch is not saved: its distributions are objects. Save model.bestModel.")

    @illegal_arguments()
    def _fit(self, dataset: Any) -> Any:
        rows = rows_to_fit(dataset)
        self._check_set("estimator", "evaluator")
        if self.candidates is not None:
            check_maps(self.getEstimator(), self.candidates)
        asking = self._asking()
        total = self.numTrials if self.candidates is None else len(self.candidates)
        together = TOGETHER if isinstance(asking, OptunaTrials) else total
        maps = asking.ask(min(together, total))
        try:
            plan = self._planned(rows, maps)
            with of_subject(f"{type(self).__name__} of {plan.tasks[0].name}"), self._groups(rows, plan) as groups:
                found = list(self._generation(groups, plan, maps, 0, asking, dataset))
                while len(found) < total:
                    maps = asking.ask(min(together, total - len(found)))
                    more = self._planned(rows, maps)
                    if more.tasks[0].reading != plan.tasks[0].reading:
                        raise ApartError("the trials are over columns, class weights or how blocks are compressed")
                    found += self._generation(groups, more, maps, len(found), asking, dataset)
                model = self._trained_on_all(groups[0], plan, self._best_of(found))
                if files := self._files(groups[0]):
                    files.remove()
        except ApartError as reason:
            raise IncompatibleError(
                f"RandomizedSearch trains its candidates in the same passes, which these cannot share: {reason}. "
                f"Take CrossValidator, which trains them one after the other."
            ) from None
        return self._searched(model, found)

    def _asking(self) -> Asking:
        """Return what draws the candidates, or refuse the settings."""
        check("numTrials", self.numTrials, Interval(1, None, whole=True))
        check("factor", self.factor, Interval(2, None, whole=True))
        if self.minIter is not None:
            check("minIter", self.minIter, Interval(1, None, whole=True))
        if isinstance(self.sampler, str):
            check("sampler", self.sampler, OneOf(SAMPLERS))
        if isinstance(self.pruner, str):
            check("pruner", self.pruner, OneOf(PRUNERS))
        if (self.paramDistributions is None) == (self.candidates is None):
            raise ParameterError("give either paramDistributions, or estimatorParamMaps with the candidates.")
        if self.candidates is not None:
            if not isinstance(self.sampler, str) or self.sampler != "random" or not isinstance(self.pruner, str):
                raise IncompatibleError("a sampler or pruner of Optuna draws from paramDistributions; give those.")
            return GridTrials(self.candidates)
        checked_space(self.paramDistributions)
        space = self.paramDistributions or {}
        if self.sampler == "random" and isinstance(self.pruner, str):
            return RandomTrials(space, self.getSeed())
        sampler = self.sampler
        if sampler == "random":
            raise IncompatibleError("a pruner of Optuna needs one of its samplers, as sampler='tpe'.")
        pruner = None if isinstance(self.pruner, str) else self.pruner
        return OptunaTrials(space, self.getSeed(), sampler, pruner, self.getEvaluator().isLargerBetter())

    def _planned(self, rows: Rows, maps: list[dict[Param[Any], Any]]) -> Plan:
        own: Any = self.copy({self.estimatorParamMaps: maps})
        own._check(rows)
        for values in maps:
            if any(param.name == "maxIter" for param in values):
                raise ParameterError("maxIter is what trials are given ever more of: set it on the estimator.")
        return CrossValidator._plan(own, rows)

    @contextmanager
    def _groups(self, rows: Rows, plan: Plan) -> Iterator[list[_Group]]:
        """Yield the stores: one, or with stages that are fitted to each fold's rows one for each fold."""
        every, folds = self._every(rows, plan), range(self._held_out)
        with ExitStack() as stack:
            if plan.fitted is None:
                plan.tasks[0].reading.columns.check(schema_of(every.whole))
                yield [_Group(every, stack.enter_context(self._stored(every, plan.tasks)), folds)]
                return
            stages_without = plan.fitted.fits(every)
            found = [replace(every, features=stages_without(fold)) for fold in folds]
            yield [
                _Group(own, stack.enter_context(self._stored(own, plan.tasks)), [fold])
                for fold, own in zip(folds, found, strict=True)
            ]

    def _generation(
        self, groups: list[_Group], plan: Plan, maps: Any, first: int, asking: Asking, dataset: Any
    ) -> list[Candidate]:
        """Train the candidates that were asked for, bracket after bracket."""
        none: list[Initial | None] = [None] * self._held_out
        every = [
            Candidate(SearchTrial(first + number, _named(values)), values, task, 0, [], none)
            for number, (values, task) in enumerate(zip(maps, plan.tasks, strict=True))
        ]
        pruner, most = self.pruner if isinstance(self.pruner, str) else "halving", self._most()
        start = 0
        for number, (count, rungs) in enumerate(brackets(pruner, len(every), most, self.minIter, self.factor)):
            running, start = every[start : start + count], start + count
            for rung in rungs:
                self._to_rung(groups, running, rung, f"{first}-{number}-{rung.steps}", dataset)
                running = self._left(running, rung, asking)
        asking.tell([one.trial for one in every])
        return every

    def _most(self) -> int:
        stages = self.getEstimator().getStages() if self._is_pipeline else [self.getEstimator()]
        return int(check("maxIter", stages[-1].getMaxIter(), Interval(1, None, whole=True)))

    def _left(self, running: list[Candidate], rung: Rung, asking: Asking) -> list[Candidate]:
        """Return the candidates that go on after a rung."""
        ended = asking.report([one.trial for one in running])
        if isinstance(self.pruner, str):
            sign = -1.0 if self.getEvaluator().isLargerBetter() else 1.0
            worst = [np.inf if np.isnan(one.trial.metric) else sign * one.trial.metric for one in running]
            going = {int(at) for at in np.argsort(worst, kind="stable")[: rung.keep]}
            ended = [one.trial for at, one in enumerate(running) if at not in going] if rung.keep else []
        is_last = rung.steps >= self._most()
        for one in running:
            one.trial.state = "pruned" if one.trial in ended and not is_last else "complete" if is_last else "running"
        return [one for one in running if one.trial.state == "running"]

    def _to_rung(self, groups: list[_Group], running: list[Candidate], rung: Rung, name: str, dataset: Any) -> None:
        """Train candidates up to a rung, in the same passes, and measure them; or read what an earlier run found."""
        left = [one for one in running if not one.converged]
        files = self._files(groups[0])
        if left and not (files and files.restore(name, left)):
            for group in groups:
                self._train_group(group, left, rung, dataset)
            if files:
                files.keep(name, left)
        for one in running:
            one.steps = rung.steps
            one.trial.values.append((rung.steps, float(np.mean(one.metrics))))

    def _train_group(self, group: _Group, left: list[Candidate], rung: Rung, dataset: Any) -> None:
        tasks = [one.task for one in left]
        self._check_rows(group.store)
        self._check_folds(group.store, tasks, group.folds)
        wanted = [(_shorter(one, fold, rung.steps), fold) for fold in group.folds for one in left]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)  # they are to stop here
            fits = fits_of(group.store, wanted)
        models = []
        for at, fold in enumerate(group.folds):
            own = fits[at * len(left) : (at + 1) * len(left)]
            models.append(self._models_of(group, fold, tasks, own))
            for one, fit in zip(left, own, strict=True):
                is_first = fold == 0
                one.metrics = [] if is_first else one.metrics
                one.at = [*one.at[:fold], (fit.coefficients, fit.intercept, fit.auxiliary), *one.at[fold + 1 :]]
                one.converged = (is_first or one.converged) and fit.solution.converged
                one.trial.passes += sum(record.evaluations for record in fit.solution.history)
        metrics = held_out_metrics(group.store, models, self.getEvaluator(), group.folds[0])
        if metrics is None:
            metrics = self._measured(group.every, models, group.folds, dataset)
        for fold_metrics in metrics:
            for one, metric in zip(left, fold_metrics, strict=True):
                one.metrics.append(metric)

    def _models_of(self, group: _Group, fold: int, tasks: list[TrainingTask[Any]], fits: list[Fit]) -> list[Any]:
        every = group.every
        rows = training_rows(every.of(not_in_fold(every.folded, every.fold, fold)), group.store.columns)
        return [task.model(fit, rows) for task, fit in zip(tasks, fits, strict=True)]

    def _best_of(self, found: list[Candidate]) -> Candidate:
        complete = [one for one in found if one.trial.state == "complete" and not np.isnan(one.trial.metric)]
        if not complete:
            raise IncompatibleError("no trial was trained to its end: the pruner ended all. Take another pruner.")
        sign = -1.0 if self.getEvaluator().isLargerBetter() else 1.0
        return min(complete, key=lambda one: sign * one.trial.metric)

    def _trained_on_all(self, group: _Group, plan: Plan, best: Candidate) -> Any:
        if plan.fitted is None:
            (fit,) = fits_of(group.store, [(best.task, None)])
            return self._whole(
                plan.stages, best.task.model(fit, training_rows(group.every.whole, group.store.columns))
            )
        features = plan.fitted.fits(group.every)(None)
        ((_, model),) = train(replace(group.every, features=features).of(group.every.whole), [best.task])
        return self._whole([*plan.stages, features], model)

    def _searched(self, model: Any, found: list[Candidate]) -> RandomizedSearchModel:
        average = [float(np.mean(one.metrics)) for one in found]
        spread = [float(np.std(one.metrics)) for one in found]
        own = self.copy({self.estimatorParamMaps: [one.values for one in found]})
        result = RandomizedSearchModel(model, average, None, spread)
        result.trials, result.metricName = [one.trial for one in found], metric_name(self.getEvaluator())
        return own._copyValues(result)

    def _files(self, group: _Group) -> RungFiles | None:
        """Return where rungs are kept."""
        if self.checkpointDir is None:
            return None
        if not self.isSet(self.seed):
            raise ParameterError("checkpointDir needs a seed, by which a search that resumes draws the same trials.")
        moments = group.store.moments
        scale = float(np.linalg.norm([*moments.mean, *moments.std]))
        settings = (
            self.factor,
            self.minIter,
            str(self.pruner),
            str(self.sampler),
            self.getNumFolds(),
            self.getSeed(),
        )
        evaluator = self.getEvaluator()
        identity = {
            "settings": describe(settings),
            "evaluator": [type(evaluator).__name__, metric_name(evaluator)],
            "data": [moments.rows, rounded(moments.mean, scale), rounded(moments.std, scale)],
        }
        return RungFiles(self.checkpointDir, identity)


def _shorter(one: Candidate, fold: int, steps: int) -> TrainingTask[Any]:
    """Return the task that takes a candidate's next steps up to a rung."""
    more = steps - one.steps

    def trainer(moments: Moments) -> Trainer:
        found = one.task.trainer(moments)
        return replace(found, stop=replace(found.stop, max_iter=more))

    return replace(one.task, trainer=trainer, initial=one.task.initial if one.at[fold] is None else one.at[fold])


def _named(values: dict[Param[Any], Any]) -> dict[str, Any]:
    return {param.name: value for param, value in values.items()}


def _kind(chosen: Any) -> str:
    """Return the name of a sampler or pruner, or of its class, which is the same in every process."""
    return chosen if isinstance(chosen, str) else type(chosen).__name__
