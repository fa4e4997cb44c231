"""Constructor arguments that all linear estimators share, declared once.

Type checkers and editors read them from ``**shared: Unpack[LinearArguments]`` (PEP 692); ``documented`` puts the same
names and types, with the parameters' defaults, into ``help()`` and ``inspect.signature``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypedDict, TypeVar, get_type_hints

from sparkopt.ml.params import LinearParams
from sparkopt.solver.progress import Callback

__all__ = ["LinearArguments", "documented"]

T = TypeVar("T", bound=LinearParams)


class LinearArguments(TypedDict, total=False):
    """Arguments that the constructor of every linear estimator takes, by name only.

    Parameters
    ----------
    featuresCol : str, default "features"
        Vector or array<numeric> column.
    featuresCols : list of str, optional
        Numeric columns, instead of featuresCol.
    labelCol : str, default "label"
        Targets.
    weightCol : str, optional
        Row weights ≥ 0.
    predictionCol : str, default "prediction"
        Output column.
    handleInvalid : {"error", "skip", "keep"}, default "error"
        What becomes of rows with null, NaN or infinity in a column that is read. "error" names the first one. "skip"
        leaves them out when the model is fitted, scores and is evaluated; "keep" does too, but gives them null
        predictions. The receipt counts those that were left out of the fit.
    maxIter : int, default 100
        Maximum number of steps.
    tol : float, default 1e-6
        Relative change of the objective that ends the fit.
    regParam : float, default 0
        Strength of the penalty.
    elasticNetParam : float, default 0
        α, the share of L1 in it: 0 is ridge, 1 the lasso.
    fitIntercept : bool, default True
        Whether there is an intercept; it is never penalised.
    standardization : bool, default True
        Penalise the coefficients of standardised features.
    optimizer : str, default "auto"
        The method by name; "auto" is the cheapest for the rows: "proximal-newton", or where a Hessian costs too much
        "lbfgs" (up to 256 coefficients, smooth penalties) or "proximal-lbfgs". ``explain`` shows the estimates.
    stepSize : float, optional
        Learning rate; unset, the optimiser's own default.
    stepSizeSchedule : {"constant", "inverse_time", "step", "exponential", "cosine", "warm_up"}, default "constant"
        How the learning rate changes over maxIter steps.
    miniBatchFraction : float, default 1
        Share of the rows that a step draws.
    localSteps : int, default 1
        Local steps: steps of the optimiser that each partition takes on its own rows before the coefficients are
        averaged, so that fewer bytes are sent for as many steps. maxIter and stepSizeSchedule then count these
        rounds, each of which starts with a new state of the optimiser. optimizer="auto" is then "sgd".
    localStepsWarmUp : int, default 0
        Number of rounds of a single step at the beginning (post-local SGD).
    outerOptimizer : str, default "average"
        Method that takes the average of the local updates as its gradient: "average" (plain averaging), "diloco"
        (Nesterov's momentum over rounds), or any optimiser with fixed steps.
    outerStepSize : float, optional
        Its learning rate: 1 for "average" and 0.7 for "diloco" where unset.
    compression : str, default "none"
        Codec of the gradients that tasks send: "none", "fp16", "bf16", "int8", "qsgd", "sign", "top-k", "random-k" or
        "powersgd". Lossy ones add their error to the next step's gradient (error feedback), and need an optimiser
        with fixed steps; optimizer="auto" is then "sgd". "auto" times some steps with none, fp16, int8 and top-k and
        keeps the cheapest; with an optimiser that needs exact sums, and where it would not pay, that is none.
    blockCodec : str, default "none"
        Compression of the blocks on the executors' disks: "none" maps them into memory; "lz4" and "zstd" take less
        space, and are decompressed in every step.
    seed : int, default 0
        Determines the rows of mini-batches, and what random codecs draw.
    aggregationDepth : int, default 2
        Levels of the aggregation tree, for wide models.
    maxBlockSizeInMB : float, default 0
        Taken as pyspark.ml takes it, and without effect: blocks have the size of a core's cache.
    engine : {"auto", "driver", "resident", "allreduce", "local"}, default "auto"
        Where the loop runs: "driver" starts one Spark job for each pass, "resident" one for the fit, whose tasks
        stay; "allreduce" runs on each rank of a barrier stage, "local" in one task. "auto" takes the cheapest and
        logs why.
    validationIndicatorCol : str, optional
        Boolean column, true in rows that are not trained on. Their loss is evaluated after each step, or with
        mini-batches once in an epoch. The fit stops when it has not fallen by minDelta in patience evaluations, and
        the model is the step with the lowest.
    patience : int, default 10
        Validation evaluations without a lower loss after which the fit stops.
    minDelta : float, default 0
        How far that loss must fall to count.
    checkpointDir : str, optional
        Folder of checkpoints, any URI that pyarrow.fs knows. After its driver was killed, the same call resumes from
        them and returns the same model.
    checkpointInterval : int, default 10
        Steps between checkpoints; -1 for none.
    initialModel : model, optional
        Where to start: a fitted or loaded model of the same kind, of sparkopt or pyspark.ml. It is not saved.
    callbacks : sequence of Callback, default ()
        Called after each step; a true result stops the fit. They are not saved.
    """

    featuresCol: str
    featuresCols: list[str] | None
    labelCol: str
    weightCol: str | None
    predictionCol: str
    handleInvalid: str
    maxIter: int
    tol: float
    regParam: float
    elasticNetParam: float
    fitIntercept: bool
    standardization: bool
    optimizer: str
    stepSize: float | None
    stepSizeSchedule: str
    miniBatchFraction: float
    localSteps: int
    localStepsWarmUp: int
    outerOptimizer: str
    outerStepSize: float | None
    compression: str
    blockCodec: str
    seed: int
    aggregationDepth: int
    maxBlockSizeInMB: float
    engine: str
    validationIndicatorCol: str | None
    patience: int
    minDelta: float
    checkpointDir: str | None
    checkpointInterval: int
    initialModel: Any
    callbacks: Sequence[Callback]


def documented(kind: type[T]) -> type[T]:
    """Show the shared arguments in an estimator's signature, and describe them in the place of ``{shared}``.

    ``setParams`` has the constructor's signature. Defaults are those of the parameters; an argument whose parameter
    has none defaults to None.
    """
    unset = kind()
    init: Any = kind.__init__
    # at run time Unpack need not exist: any generic class evaluates
    own = inspect.signature(init, eval_str=True, locals={"Unpack": list}).parameters.values()
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default(unset, name), annotation=annotation)
        for name, annotation in get_type_hints(LinearArguments).items()
    ]
    named = [parameter for parameter in own if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    init.__signature__ = inspect.Signature([*named, *shared], return_annotation=None)
    set_params: Any = vars(kind)["setParams"]
    set_params.__signature__ = inspect.Signature([*named, *shared], return_annotation=kind)
    if kind.__doc__ and LinearArguments.__doc__:  # python -OO strips them
        text = LinearArguments.__doc__.split("----------\n", 1)[1].strip()
        kind.__doc__ = kind.__doc__.replace("{shared}", text)
    return kind


def _default(unset: LinearParams, name: str) -> Any:
    """Return what an estimator made without this argument has."""
    if not unset.hasParam(name):  # what cannot be saved, and so is none
        return getattr(unset, name)
    return unset.getOrDefault(name) if unset.isDefined(name) else None
