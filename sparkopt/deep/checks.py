"""What a training refuses before any job, and what its parameters mean on this cluster, or on this machine.

Where a function takes a SparkSession, None is this machine without Spark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.columns import column_type
from sparkopt.deep.mixing import check_mixing
from sparkopt.deep.params import TrainingParams
from sparkopt.deep.replica import check_compression
from sparkopt.deep.sharding import check_strategy
from sparkopt.errors import IncompatibleError, ParameterError, SchemaError
from sparkopt.images import Compose, mixing_from_json
from sparkopt.io.filesystem import resolve
from sparkopt.launch.requests import count_of, gpus_of, ray_resources
from sparkopt.launch.settings import SessionSettings, refuse_barrier, refuse_group
from sparkopt.objective.work import LocalSteps
from sparkopt.shards.fields import Fields
from sparkopt.shards.held_out import HeldOut
from sparkopt.validation import Interval, check

__all__ = [
    "check_fields",
    "check_session",
    "check_training",
    "gpus_per_task",
    "process_count",
    "rounds_of",
    "selected_fields",
    "stream_count",
]


def check_session(params: TrainingParams, session: SparkSession | None, callbacks: Sequence[Any]) -> None:
    """Refuse what a session cannot run, before any job.

    Raises
    ------
    IncompatibleError
        Naming the setting, or what Spark Connect does not have.
    """
    launcher = params.value("launcher")
    if session is None or launcher in ("local", "ray"):
        return
    if not is_connect(session):
        settings = SessionSettings.of_context(session.sparkContext)
    else:
        settings = SessionSettings.of_session(session)
        if launcher == "horovod":
            raise IncompatibleError(
                "launcher='horovod' starts its processes by a SparkContext, which Spark Connect does not have. Take "
                "launcher='torch'."
            )
        if callbacks:
            raise IncompatibleError(
                "callbacks are called in this process, which the tasks of a Spark Connect server do not reach. Use "
                "loggers, which run in the process of rank 0, or launcher='local'."
            )
    refuse_group(settings)
    if launcher == "torch":
        refuse_barrier(settings)


def check_training(params: TrainingParams, session: SparkSession | None, processes: int) -> None:
    """Refuse combinations of parameters that cannot work.

    Raises
    ------
    ParameterError, IncompatibleError
        Naming the parameters, and what to change.
    """
    rounds = params._local_steps()
    _check_rounds(params, rounds)
    compression = params.value("compression")
    check_compression(params.value("launcher"), compression, params.value("precision"), rounds is not None)
    _check_strategy(params, rounds is not None, session is None and processes == 1)
    if session is None and params.value("launcher") == "horovod":
        raise IncompatibleError(
            "launcher='horovod' starts its processes by Spark, and a table has none. Take launcher='torch', or give "
            "a DataFrame."
        )
    gpus_per_task(params, session)
    if stream_count(params, processes) % processes:
        raise ParameterError(
            f"streams={params.value('streams')} is no multiple of numProc={processes}: every process needs as many."
        )
    _check_fewest(params, processes)
    pipeline = params.value("imagePipeline")
    if pipeline and Compose.from_json(pipeline).random and not params.value("evaluationPipeline"):
        raise ParameterError(
            "imagePipeline is random: set evaluationPipeline to what is done with images outside of training."
        )
    if params.value("checkpointDir"):
        resolve(params.value("checkpointDir"), "checkpointDir")


def _check_rounds(params: TrainingParams, rounds: LocalSteps | None) -> None:
    """Refuse an outer optimiser that needs more than the mean local update, or settings that nothing uses."""
    if rounds is None:
        unused = [name for name in ("localStepsWarmUp", "outerStepSize") if params.isSet(params.getParam(name))]
        if any(params.value(name) for name in unused):
            raise ParameterError(f"{unused[0]} is for local steps: set localSteps > 1, or outerOptimizer.")
        return
    if rounds.outer.search.needs_gradient:
        raise IncompatibleError(
            f"outerOptimizer={rounds.outer.name!r} needs the gradient at several points, and a round has one local "
            "update. Take 'diloco', 'average', or an optimiser with fixed steps."
        )


def _check_strategy(params: TrainingParams, is_local: bool, is_alone: bool) -> None:
    """Refuse what a network that is divided over processes cannot do."""
    strategy = params.value("strategy") or "ddp"
    if strategy == "ddp" and params.value("wrappedModules"):
        raise ParameterError("wrappedModules is for networks that are divided: set strategy='fsdp'.")
    is_elastic = params.value("minProc") is not None
    check_strategy(strategy, params.value("launcher"), params.value("compression"), is_local, is_elastic)
    if strategy == "fsdp" and is_alone and params.value("launcher") == "torch":  # which trains in this very process
        raise IncompatibleError(
            "strategy='fsdp' divides the network over processes, and there is one. Set numProc, or strategy='ddp'."
        )


def rounds_of(params: TrainingParams) -> dict[str, Any]:
    """Return the settings of local steps, as `TrainConfig` calls them."""
    if params._local_steps() is None:
        return {}
    return {
        "local_steps": params.getLocalSteps(),
        "local_steps_warm_up": params.getLocalStepsWarmUp(),
        "outer_optimizer": params.getOuterOptimizer(),
        "outer_step_size": params.value("outerStepSize"),
    }


def _check_fewest(params: TrainingParams, processes: int) -> None:
    fewest = params.value("minProc")
    if fewest is None:
        return
    check("minProc", fewest, Interval(1, processes, whole=True))
    if not params.value("maxRestarts"):
        raise ParameterError(
            f"minProc={fewest} is about continuing after a loss, which maxRestarts=0 rules out. Set maxRestarts."
        )


def process_count(params: TrainingParams, session: SparkSession | None) -> int:
    """Return the number of processes: ``numProc``, or as many as Spark has task slots.

    Without Spark, as many as there are accelerators to use: on CPUs one process keeps all cores busy.

    Raises
    ------
    ParameterError
        For several processes under the local launcher.
    """
    return count_of(params.value("launcher"), params.value("numProc"), session, params.value("device"))


def stream_count(params: TrainingParams, processes: int) -> int:
    """Return the number of parts that the rows are cut into."""
    return int(params.value("streams") or processes)


def gpus_per_task(params: TrainingParams, session: SparkSession | None) -> int:
    """Return how many GPUs the stage must request for each task, or Ray for each actor; Horovod's requests none.

    Raises
    ------
    ParameterError
        Where a GPU is asked for that no task would get.
    """
    if params.value("launcher") == "ray":
        return ray_resources(None, params.value("device")).get("gpu", 0)
    return gpus_of(params.value("device"), session, by_stage=params.value("launcher") == "torch")


def check_fields(params: TrainingParams, fields: Fields) -> None:
    """Refuse columns that the parameters cannot be applied to.

    Raises
    ------
    SchemaError, ParameterError
        Naming the column and the parameter.
    """
    evaluation = ["evaluationPipeline"] if params.value("evaluationPipeline") else []
    params._check_pipelines(fields, "imagePipeline", *evaluation)
    if params.evaluation_pipeline() is not None and not any(one.is_image for one in fields.inputs):
        name = "imagePipeline" if params.value("imagePipeline") else "evaluationPipeline"
        raise SchemaError(
            f"{name} is set, and the features {', '.join(one.title for one in fields.inputs)} hold numbers: it would "
            "not be run. Images are bytes, paths, tensors or rows of Spark's image schema; a store of tensors is one "
            f"of images where it was written with {name}. Or leave {name} out."
        )
    if params.value("batchMixing"):
        check_mixing(fields, mixing_from_json(params.value("batchMixing")), params.value("batchSize"))


def selected_fields(params: TrainingParams, schema: StructType) -> tuple[Fields, HeldOut | None]:
    """Return the columns to train on, and which rows are held out (None: no row is).

    Raises
    ------
    SchemaError, ParameterError
        For a column that is missing or of the wrong type, or where both ways to hold rows out are set.
    """
    weight = params.value("weightCol") or None
    several = params.value("labelCols")
    fields = Fields.of(
        schema,
        params.features(),
        params.getLabelCol() if several is None else None,
        weight,
        params.value("labelKind"),
        labels=several or (),
        padded=params.value("paddedCols") or (),
        prepared=params.evaluation_pipeline() is not None,
    )
    check_fields(params, fields)
    indicator, fraction = params.value("validationIndicatorCol"), params.value("validationFraction")
    if indicator:
        if fraction:
            raise ParameterError("validationFraction and validationIndicatorCol are both set: choose one.")
        kind = column_type(schema, indicator, "validation indicator").simpleString()
        if kind != "boolean":
            raise SchemaError(f"validation indicator column {indicator!r} has type {kind}; it must be boolean.")
        return fields, HeldOut((indicator,))
    if not fraction:
        return fields, None
    names = dict.fromkeys(name for entry in fields.all for name in entry.columns)
    return fields, HeldOut(tuple(names), fraction, params.getSeed())
