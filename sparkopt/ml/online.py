"""Learning from batch after batch: an optimiser's steps on each, whose state the model keeps.

The coordinates of the solver are those of the first batch, so that a later one continues exactly where the last one
ended: the same steps follow, whether they are taken in one process or each in another.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sparkopt.blocks.descriptions import of_subject
from sparkopt.blocks.failures import data_errors
from sparkopt.blocks.rows import Rows, rows_to_fit, schema_of
from sparkopt.blocks.store import BlockStore
from sparkopt.checkpoint.format import Stage, dump, load
from sparkopt.communication.sums import Pass, Summation
from sparkopt.engines.driver import DriverEngine
from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.io.fingerprint import describe
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.rows import training_rows
from sparkopt.ml.training import TrainingTask, stored
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.query import Query
from sparkopt.objective.work import FullGradient
from sparkopt.report import Receipt
from sparkopt.solver.loop import minimise
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Progress, Record, Snapshot, Stop
from sparkopt.training.coordinates import SolverCoordinates
from sparkopt.training.trainer import Fit, Trainer
from sparkopt.typing import Floats, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["OnlineState", "check_online", "partial_fit", "restored_state"]

DEFAULT = "adam"
"""The optimiser where the estimator's is "auto": its steps do not depend on the scale of the features."""


@dataclass(frozen=True, eq=False)
class OnlineState:
    """What a model keeps between two batches.

    Attributes
    ----------
    steps : int
        Steps that were taken.
    batches : int
        Batches that they were taken on.
    coef : ndarray of shape (size,)
        Coefficients in the coordinates of the first batch.
    transform, search : nested tuples, lists and dicts of arrays, numbers, strings and None
        The optimiser's state.
    scale, center : ndarray of shape (features,) or None
        Those coordinates.
    target_scale : float
        Factor of the targets.
    outputs : int
        Raw predictions of a row.
    method : any
        What the steps depend on, as JSON values: a state of another optimiser is refused.
    loss : float or None, default None
        Mean loss of the last batch before its first step, without penalty, on the scale of ``objectiveHistory``: how
        well the model predicted rows that it had not seen. It rises where the data drift.
    rows : int, default 0
        Rows of that batch.
    """

    steps: int
    batches: int
    coef: Floats
    transform: State
    search: State
    scale: Floats | None
    center: Floats | None
    target_scale: float
    outputs: int
    method: Any
    loss: float | None = None
    rows: int = 0

    def to_bytes(self) -> bytes:
        """Return it as bytes that know when they were altered; nothing is pickled."""
        facts = {name: value for name, value in vars(self).items() if name != "method"}
        return dump({"method": self.method}, [], Stage(0, self.steps, facts))

    @classmethod
    def from_bytes(cls, content: bytes) -> OnlineState:
        """Return what ``to_bytes`` was called on.

        Raises
        ------
        CorruptDataError
            For bytes that are truncated or altered.
        """
        saved = load(content)
        facts: Any = saved.stage.before
        return cls(**facts, method=saved.fingerprint["method"])


@illegal_arguments()
def partial_fit(estimator: Any, dataset: Any, model: Any, steps: int) -> Any:
    """Take steps on a batch, from the state of a model or from the start; return the model."""
    check("steps", steps, Interval(1, None, whole=True))
    own, rows = _with_steps(estimator), rows_to_fit(dataset)
    task = _task(own, rows)
    state = None if model is None else _state_of(model, own)
    with of_subject(f"batch of {task.name}"), data_errors(), stored(rows, task.reading) as store:
        return _stepped(own, task, store, training_rows(rows, store.columns), state, steps)


@illegal_arguments()
def check_online(estimator: Any, rows: Rows) -> None:
    """Refuse, before the first batch, what ``partial_fit`` would refuse of these columns; rows may be a stream."""
    _task(_with_steps(estimator), rows).reading.columns.check(schema_of(rows))


def _with_steps(estimator: Any) -> Any:
    """Return the estimator with an optimiser of single steps, where it is to choose one."""
    return estimator if estimator.getOptimizer() != "auto" else estimator.copy({estimator.optimizer: DEFAULT})


def _task(estimator: Any, rows: Rows) -> TrainingTask[Any]:
    """Return the training task, or refuse what takes no single steps."""
    for name, default in (("miniBatchFraction", 1.0), ("localSteps", 1), ("compression", "none")):
        if estimator.getOrDefault(name) != default:
            raise IncompatibleError(
                f"{name}={estimator.getOrDefault(name)!r} is of fits over many rows: partialFit takes the steps on "
                f"all rows of its batch. Leave it at {default!r}."
            )
    if estimator._columns().validation is not None:
        raise IncompatibleError("validationIndicatorCol ends a fit early; partialFit takes the steps it is told to.")
    task: TrainingTask[Any] = estimator._task(schema_of(rows))
    optimizer = estimator._optimizer()
    if optimizer.search.needs_exact:
        raise IncompatibleError(
            f"optimizer={optimizer.name!r} compares objectives from step to step, and every batch of partialFit has "
            f"its own. Use an optimiser with fixed steps such as 'sgd' or 'adam'."
        )
    return task


def _state_of(model: Any, estimator: Any) -> OnlineState:
    """Return the state that a model keeps."""
    if not hasattr(model, "onlineState"):
        raise ParameterError(f"model must be what partialFit returned. Got a {type(model).__name__} instead.")
    state: OnlineState | None = model.onlineState
    if state is None:
        raise ParameterError(
            "this model has no state of an optimiser: it was trained by fit. Give what partialFit returned, or start "
            "from its coefficients: partialFit(df) of an estimator with initialModel=model."
        )
    return state


def _trainer(
    estimator: Any, task: TrainingTask[Any], store: BlockStore, rows: Rows, state: OnlineState | None
) -> Trainer:
    """Return the trainer; the classes are those of the first batch or of the label's metadata, not of each batch."""
    trainer = task.trainer(store.moments)
    return replace(trainer, loss=estimator._batch_loss(trainer.loss, schema_of(rows), state and state.outputs))


def _method(trainer: Trainer) -> Any:
    facts = {
        "optimizer": trainer.optimizer,
        "loss": trainer.loss.name,
        "fitIntercept": trainer.fit_intercept,
        "standardization": trainer.standardization,
    }
    return json.loads(json.dumps({name: describe(value) for name, value in facts.items()}))


def _first(trainer: Trainer, store: BlockStore, task: TrainingTask[Any]) -> tuple[LinearObjective, Floats]:
    """Return the coordinates that the first batch gives, and where to start."""
    moments = store.moments
    found = SolverCoordinates.of(
        trainer.loss,
        trainer.penalty,
        moments,
        fit_intercept=trainer.fit_intercept,
        standardization=trainer.standardization,
        scale_target=trainer.scale_target,
    )
    scale, center = found.objective.scale, found.objective.center
    if not trainer.standardization:  # the user's units, as other libraries step in them
        scale = center = None
    elif scale is not None:  # a feature that this batch does not have may be in a later one
        scale = np.where(scale > 0, scale, 1.0)
    found = replace(found, objective=replace(found.objective, scale=scale, center=center))
    return found.objective, found.start(task.initial)


def _stepped(
    estimator: Any, task: TrainingTask[Any], store: BlockStore, rows: Rows, state: OnlineState | None, steps: int
) -> Any:
    """Take the steps on the rows of a store, and return the model with its state."""
    begin, passes = time.perf_counter(), list[Pass]()
    trainer = _trainer(estimator, task, store, rows, state)
    objective, problem = _problem(estimator, trainer, store, task, state, steps)
    taken: list[Snapshot] = []

    def keep(progress: Progress) -> bool:
        taken[:] = [progress.snapshot()]
        return False

    work = Summation(FullGradient(objective))
    with store.data_errors(), DriverEngine().reducing(work, store, passes) as reduce:
        solution = minimise(reduce, replace(problem, callbacks=(keep, *trainer.callbacks)))
    receipt = Receipt.of(
        optimizer=trainer.optimizer.name,
        loss=trainer.loss.name,
        engine="driver",
        store=store,
        solution=solution,
        passes=passes,
        seconds=time.perf_counter() - begin,
        startup=0.0,
    )
    fit = Fit(*objective.unscale(solution.coef), objective.auxiliary(solution.coef), solution, receipt)
    model = task.model(fit, rows)
    (last,) = taken
    before = (state.steps, state.batches) if state else (0, 0)
    model.onlineState = OnlineState(
        before[0] + solution.iterations,
        before[1] + 1,
        last.at.coef,
        last.transform,
        last.search,
        objective.scale,
        objective.center,
        objective.target_scale,
        objective.loss.outputs,
        _method(trainer),
        solution.history[0].objective - problem.penalty.value(_start(problem)),
        store.moments.rows,
    )
    return model


def _start(problem: Problem) -> Floats:
    """Return the coefficients before the first step."""
    return problem.initial.at.coef if isinstance(problem.initial, Snapshot) else problem.initial


def _problem(
    estimator: Any,
    trainer: Trainer,
    store: BlockStore,
    task: TrainingTask[Any],
    state: OnlineState | None,
    steps: int,
) -> tuple[LinearObjective, Problem]:
    """Return the objective of a batch, and what the loop is to do there."""
    if state is None:
        objective, start = _first(trainer, store, task)
    else:
        objective, start = _continued(trainer, store, state), state.coef
    penalty = estimator._penalty().times(objective.target_scale)
    penalty = penalty.at(objective.coordinates(trainer.standardization))
    optimizer = trainer.optimizer.shaped(objective.features, objective.loss.outputs)
    problem = Problem(optimizer, start, penalty, Stop(steps, 0.0))
    if state is None:
        return objective, problem
    return objective, replace(problem, initial=_resumed(objective, problem, store, state))


def _continued(trainer: Trainer, store: BlockStore, state: OnlineState) -> LinearObjective:
    """Return the objective in the coordinates of the first batch, or refuse another kind of batch."""
    if trainer.loss.outputs != state.outputs:
        raise ParameterError(
            f"the model has {state.outputs} outputs, and this batch needs {trainer.loss.outputs}: the classes are "
            f"those of the label's metadata, or else of the first batch. Begin with a batch that has all."
        )
    method = _method(trainer)
    names = [name for name, value in method.items() if state.method.get(name) != value]
    if names:
        raise IncompatibleError(
            f"the model's state is of another {', '.join(names)}: partialFit continues what it began. Give an "
            f"estimator with the same parameters, or start again from initialModel."
        )
    objective = LinearObjective(
        trainer.loss, store.moments.features, trainer.fit_intercept, state.scale, state.center, state.target_scale
    )
    if objective.size != len(state.coef):
        features = store.moments.features + (len(state.coef) - objective.size) // state.outputs
        raise ParameterError(
            f"the model has {features} features, and this batch {store.moments.features}. Give the same columns."
        )
    return objective


def _resumed(objective: LinearObjective, problem: Problem, store: BlockStore, state: OnlineState) -> Snapshot:
    """Return the state with the objective of the new batch at the coefficients."""
    request = problem.optimizer.search.first_request(state.coef[None])
    with DriverEngine().reducing(Summation(FullGradient(objective)), store, []) as reduce:
        sums = reduce(Query(request))
    losses, gradients = sums.mean()
    at = problem.point(state.coef, float(losses[0]), gradients[0], None, sums.rows)
    record = Record(0, at.value, problem.gradient_norm(at), 1, sums.rows, 0.0)
    return Snapshot(at, state.transform, state.search, False, (record,))


def restored_state(facts: Mapping[str, Any]) -> OnlineState | None:
    """Return the state in a row of a saved model's numbers, where it has one."""
    content = facts.get("online")
    return OnlineState.from_bytes(bytes(content)) if content else None
