"""How a path is fitted: from the Gram matrix where that can be held, else by fits that start where the last ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import Any

import numpy as np
import scipy  # loads scipy.linalg where it is used

from sparkopt.blocks.descriptions import of_subject
from sparkopt.blocks.failures import data_errors
from sparkopt.blocks.moments import Moments
from sparkopt.blocks.rows import Rows, rows_to_fit, schema_of
from sparkopt.blocks.store import BlockStore
from sparkopt.engines.selection import check_engine
from sparkopt.errors import DataError, IncompatibleError, ParameterError
from sparkopt.launch.threads import task_threads
from sparkopt.ml.evaluation import RegressionEvaluator
from sparkopt.ml.folds import FOLD, Draw, drawn, given
from sparkopt.ml.metrics.held_out import held_out_metrics
from sparkopt.ml.path import LinearRegressionPath, checked_grid, log_grid
from sparkopt.ml.path_gram import Gram, gram_sums, held_out_losses, null_gradient
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.rows import feature_names
from sparkopt.ml.training import TrainingTask, fits_of
from sparkopt.optim import by_name
from sparkopt.penalties import GroupLasso, Penalty
from sparkopt.training.coordinates import SolverCoordinates
from sparkopt.training.trainer import Fit, Trainer
from sparkopt.typing import Floats
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["MOST_FEATURES", "PathRequest", "fit_path"]

MOST_FEATURES = 4096
"""Features up to which the Gram matrix is held: it then has 128 MiB."""
LEAST_L1 = 1e-3
"""Share of L1 that the largest regParam is computed for at least: without L1 no finite one has no coefficients."""


@dataclass(frozen=True)
class PathRequest:
    """What `LinearRegression.fitPath` is asked for; its parameters are described there."""

    lambdas: Sequence[float] | None
    num_lambdas: int
    min_ratio: float | None
    groups: Sequence[Sequence[int]] | None
    num_folds: int
    fold_column: str
    seed: int

    def __post_init__(self) -> None:
        check("numLambdas", self.num_lambdas, Interval(1, None, whole=True))
        if self.min_ratio is not None:
            check("minRatio", self.min_ratio, Interval(0, 1, closed="neither"))
        if self.num_folds != 0:
            check("numFolds", self.num_folds, Interval(2, None, whole=True))
        elif self.fold_column:
            raise ParameterError(f"foldCol={self.fold_column!r} needs numFolds: set how many folds it has.")

    def grid(self, most: float, moments: Moments) -> Floats:
        """Return the values of regParam, by glmnet's rule where none are given."""
        if self.lambdas is not None:
            return checked_grid(self.lambdas)
        if most <= 0:
            raise DataError("the target does not depend on any feature: every path is of zeros. Give lambdas=[...].")
        ratio = self.min_ratio or (1e-4 if moments.rows > moments.features else 1e-2)
        return log_grid(most, self.num_lambdas, ratio)


@dataclass(frozen=True)
class _Points:
    """A path in the user's units, and how good it is."""

    lambdas: Floats
    coefficients: Floats
    intercepts: Floats
    r2: Floats
    errors: Floats | None


@illegal_arguments()
def fit_path(estimator: Any, dataset: Any, request: PathRequest, kind: Any) -> LinearRegressionPath:
    """Fit a path, whose models are of this class; the estimator's own regParam is not looked at."""
    if request.lambdas is not None:
        checked_grid(request.lambdas)
    rows = rows_to_fit(dataset)
    task = _task(estimator, rows, request)
    check_engine(task.engine, rows)
    with of_subject(f"path of {task.name}"), data_errors():
        return _fitted(estimator, rows, task, request, kind)


def _task(estimator: Any, rows: Rows, request: PathRequest) -> TrainingTask[Any]:
    """Return the training task at regParam=1, or refuse what has no path."""
    for name, has_none in (
        ("loss", estimator.getLoss() == "squaredError"),
        ("miniBatchFraction", estimator.getMiniBatchFraction() == 1.0),
        ("validationIndicatorCol", not estimator._columns().validation),
    ):
        if not has_none:
            raise IncompatibleError(
                f"{name}={estimator.getOrDefault(name)!r} has no path: fitPath minimises the squared error over all "
                f"rows, and measures by numFolds or foldCol. Leave {name} at its default."
            )
    if request.groups is not None and estimator.getElasticNetParam() != 0.0:
        raise IncompatibleError(
            f"groups and elasticNetParam={estimator.getElasticNetParam():g} are two penalties. Leave one of them out."
        )
    task: TrainingTask[Any] = estimator.copy({estimator.regParam: 1.0})._task(schema_of(rows))
    if task.shared is None:
        raise IncompatibleError(
            "local steps and lossy compression do not end at the optimum of each point. Leave out localSteps and "
            "compression."
        )
    return task


def _fitted(
    estimator: Any, rows: Rows, task: TrainingTask[Any], request: PathRequest, kind: Any
) -> LinearRegressionPath:
    """Read the rows once, and follow the path."""
    reading, folds, folded = task.reading, request.num_folds, rows
    reading.columns.check(schema_of(rows))
    columns = reading.columns
    if folds and request.fold_column:
        folded, columns = given(rows, request.fold_column, folds), replace(columns, fold=request.fold_column)
    elif folds:
        bounds = tuple((fold / folds, (fold + 1) / folds) for fold in range(folds))
        folded, columns = drawn(rows, Draw(bounds, request.seed)), replace(columns, fold=FOLD)
    if folds:
        columns = replace(columns, folds=folds)
    is_by_gram = estimator.getOptimizer() in ("auto", "proximal-newton") and estimator.getSolver() != "l-bfgs"
    with BlockStore.write(folded, columns, reading.targets, reading.block_codec) as store:
        for fold in range(folds):
            if not store.fold_rows(fold):
                raise DataError(
                    f"numFolds={folds}: no row is in fold {fold}, so it measures nothing. Take fewer folds."
                )
        plan = _Plan(store, task, request, kind)
        follow = _by_gram if is_by_gram and store.moments.features <= MOST_FEATURES else _by_fits
        _ = scipy.linalg.cho_solve  # loaded before threads are limited: it brings libraries of its own
        with task_threads():  # matrices are small for several threads, which wait for one another on a busy machine
            found = follow(plan)
        weights = [_weight(store, fold) for fold in range(folds)]
    names = feature_names(rows, estimator._features())
    return LinearRegressionPath(
        found.lambdas,
        found.coefficients,
        found.intercepts,
        np.count_nonzero(found.coefficients, axis=1),
        found.r2,
        found.errors,
        np.array(weights) if folds else None,
        tuple(names) if len(names) == found.coefficients.shape[1] else (),
        "gram" if follow is _by_gram else "fits",
        _models(estimator, kind),
    )


def _models(estimator: Any, kind: Any) -> Callable[[float, Floats, float], Any]:
    def model(strength: float, coefficients: Floats, intercept: float) -> Any:
        own = kind(coefficients[None], np.array([intercept]))
        return estimator._copyValues(own._resetUid(estimator.uid), {own.regParam: strength})

    return model


def _weight(store: BlockStore, fold: int) -> float:
    return store.moments.weight - store.moments_without(fold).weight


@dataclass(frozen=True)
class _Plan:
    """The rows, and the problem at regParam=1."""

    store: BlockStore
    task: TrainingTask[Any]
    request: PathRequest
    kind: Any

    def trainer(self, moments: Moments, strength: float = 1.0) -> Trainer:
        """Return the trainer at a value of regParam on rows with these moments."""
        trainer, groups = self.task.trainer(moments), self.request.groups
        if groups is None:
            return replace(trainer, penalty=trainer.penalty.times(strength))
        # as in sparkopt.ml.population: a penalty of the coefficients of features over population deviations
        freedom = moments.weight - moments.weight_squares / moments.weight
        strength *= sqrt(freedom / moments.weight) if trainer.standardization and freedom > 0 else 1.0
        return replace(trainer, penalty=GroupLasso(strength, groups), optimizer=by_name("fista"))

    def coordinates(self, fold: int | None, strength: float = 1.0) -> SolverCoordinates:
        """Return the problem without a fold, at a value of regParam."""
        moments = self.store.moments_without(fold)
        return self.trainer(moments, strength)._coordinates(moments)

    @property
    def folds(self) -> list[int | None]:
        """The folds that are left out, one after the other; first none."""
        return [None, *range(self.request.num_folds)]


def _largest(gradient: Floats, penalty: Penalty) -> float:
    """Return the least strength at which no coefficient enters, for a gradient (features,) at no coefficients."""
    if isinstance(penalty, GroupLasso):
        # proximal steps end a rounding error from the optimum, at which a group would be there that has just entered
        return (1 + 1e-9) * max(_group_limit(gradient, penalty, members) for members in penalty.groups)
    own: Any = penalty
    own = own if own.elastic_net_param >= LEAST_L1 else replace(own, elastic_net_param=LEAST_L1)
    weights = own.l1_weights(len(gradient))
    is_penalised = weights > 0
    return float(np.max(np.abs(gradient[is_penalised]) / weights[is_penalised], initial=0.0))


def _unpenalised(penalty: Penalty, features: int) -> Any:
    """Return for each feature whether the penalty leaves it free, shape (features,)."""
    is_free = np.zeros(features, bool)
    if isinstance(penalty, GroupLasso):
        is_free[:] = True
        is_free[[member for group in penalty.groups for member in group]] = False
    return is_free


def _group_limit(gradient: Floats, penalty: GroupLasso, members: Sequence[int]) -> float:
    """Return the least strength at which a group does not enter: ‖gradient / factors‖ over the group's weight."""
    own = np.array(members)
    factors = np.ones(len(own)) if penalty.factors is None else np.abs(penalty.factors[own])
    ratio = np.divide(gradient[own], factors, out=np.zeros(len(own)), where=factors > 0)
    return float(np.linalg.norm(ratio)) / (penalty.reg_param * sqrt(len(own)))


def _by_gram(plan: _Plan) -> _Points:
    """Follow the path on the Gram matrix of one pass, then without each fold on its own sums."""
    store, request = plan.store, plan.request
    whole, folds = plan.coordinates(None), request.num_folds
    objective, features = whole.objective, store.moments.features
    start = whole.start(None)
    sums = gram_sums(store, objective, start, folds)
    held = np.flatnonzero(sums.weight > 0).tolist()
    gram = Gram.of(sums, held, features)
    penalty = _over_features(whole, whole, features)
    lambdas = request.grid(_largest(gram.entering(_unpenalised(penalty, features)), penalty), store.moments)
    coefs = _followed(gram, penalty, lambdas)
    moves = np.array([gram.whole(coef) for coef in coefs])
    user = [objective.unscale(start + move) for move in moves]
    losses = np.array([gram.loss(coef) for coef in coefs])
    errors = []
    for fold in range(folds):
        own = plan.coordinates(fold)
        others = Gram.of(sums, [index for index in held if index != fold], features)
        if own.objective.scale is not None:
            others = others.without(own.objective.scale == 0)
        points = _followed(others, _over_features(own, whole, features), lambdas)
        found = held_out_losses(sums, fold, np.array([others.whole(coef) for coef in points]))
        errors.append(2.0 * found / objective.target_scale**2)
    return _Points(
        lambdas,
        np.array([matrix[:, 0] for matrix, _ in user]),
        np.array([float(intercept[0]) for _, intercept in user]),
        1.0 - losses / gram.value if gram.value > 0 else np.zeros(len(lambdas)),
        np.array(errors).T if folds else None,
    )


def _followed(gram: Gram, penalty: Penalty, lambdas: Floats) -> Floats:
    """Return the coefficients (points, features), each from those before."""
    found, coef = np.empty((len(lambdas), len(gram.gradient))), np.zeros(len(gram.gradient))
    for at, strength in enumerate(lambdas):
        coef = gram.minimum(penalty.times(float(strength)), coef)
        found[at] = coef
    return found


def _over_features(own: SolverCoordinates, whole: SolverCoordinates, features: int) -> Penalty:
    """Return the penalty of some rows' problem as a function of the coefficients in all rows' coordinates.

    Deviations of features and target are those of the rows that are trained on; the objective in other coordinates is
    the same but for a factor, by which the penalty is multiplied too.
    """
    mine, theirs = own.objective, whole.objective
    penalty: Any = own.penalty
    ratio = np.full(features, mine.target_scale / theirs.target_scale)
    if mine.scale is not None and theirs.scale is not None:
        ratio *= np.divide(theirs.scale, mine.scale, out=np.ones(features), where=mine.scale > 0)
    # a column that does not vary among all rows is never penalised to infinity, nor moved
    ratio = np.where(ratio > 0, ratio, 1.0)
    factors = penalty.factors[:features] * ratio
    factor = (theirs.target_scale / mine.target_scale) ** 2
    scaled: Penalty = replace(penalty.times(factor), factors=factors)
    return scaled


def _by_fits(plan: _Plan) -> _Points:
    """Fit every point from the one before; models without a fold share the passes."""
    store, request = plan.store, plan.request
    whole = plan.coordinates(None)
    objective, features, start = whole.objective, store.moments.features, whole.start(None)
    gradient = null_gradient(store, objective, start)[:features]
    lambdas = request.grid(_largest(gradient, _over_features(whole, whole, features)), store.moments)
    initials: list[Any] = [None] * len(plan.folds)
    points: list[list[Any]] = []
    for strength in lambdas:
        tasks = [_at(plan, float(strength), initial) for initial in initials]
        fits = fits_of(store, list(zip(tasks, plan.folds, strict=True)))
        initials = [(fit.coefficients, fit.intercept) for fit in fits]
        points.append(fits)
    losses = [_loss(plan, point[0], float(strength)) for point, strength in zip(points, lambdas, strict=True)]
    null = _null_loss(store.moments, objective.target_scale, objective.fit_intercept)
    return _Points(
        lambdas,
        np.array([point[0].coefficients[:, 0] for point in points]),
        np.array([float(point[0].intercept[0]) for point in points]),
        1.0 - np.array(losses) / null,
        _errors_of(plan, points) if request.num_folds else None,
    )


def _at(plan: _Plan, strength: float, initial: Any) -> TrainingTask[Any]:
    """Return the task of one point."""
    chooses = plan.task.chooses and plan.request.groups is None
    return replace(plan.task, trainer=partial(plan.trainer, strength=strength), initial=initial, chooses=chooses)


def _loss(plan: _Plan, fit: Fit, strength: float) -> float:
    """Return half the mean square that a fit ended at: its objective, less the penalty."""
    penalty = plan.coordinates(None, strength).penalty
    return fit.solution.objective - penalty.value(fit.solution.coef)


def _null_loss(moments: Moments, target_scale: float, fit_intercept: bool) -> float:
    squares = float(moments.squares[-1]) / moments.weight
    return 0.5 * target_scale**2 * (squares + (0.0 if fit_intercept else float(moments.mean[-1]) ** 2))


def _errors_of(plan: _Plan, points: Sequence[Sequence[Any]]) -> Floats:
    """Return the mean squared error of each point and fold."""
    models = [
        [plan.kind(point[1 + fold].coefficients.T, point[1 + fold].intercept) for point in points]
        for fold in range(plan.request.num_folds)
    ]
    columns = plan.store.columns
    evaluator = RegressionEvaluator(metricName="mse", labelCol=columns.label)
    if columns.weight is not None:
        evaluator.setWeightCol(columns.weight)
    found = held_out_metrics(plan.store, models, evaluator)
    if found is None:
        raise DataError("a fold has no row with a weight, so it measures nothing. Take fewer folds.")
    return np.array(found).T
