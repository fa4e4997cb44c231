"""What a training refuses before any job, and what its parameters mean on this cluster, or on this machine.

Where a function takes a SparkContext, None is this machine without Spark.
"""

from __future__ import annotations

from pyspark import SparkContext
from pyspark.sql.types import StructType

from sparkopt.blocks.columns import column_type
from sparkopt.deep.fields import Fields
from sparkopt.deep.held_out import HeldOut
from sparkopt.deep.params import TrainingParams
from sparkopt.deep.replica import check_compression
from sparkopt.deep.scorer import check_pipeline
from sparkopt.errors import IncompatibleError, ParameterError, SchemaError
from sparkopt.images import Compose
from sparkopt.io.filesystem import resolve
from sparkopt.launch.devices import check_request, describe
from sparkopt.validation import Interval, check

__all__ = ["check_training", "gpus_per_task", "process_count", "selected_fields", "stream_count"]


def check_training(params: TrainingParams, context: SparkContext | None, processes: int) -> None:
    """Refuse combinations of parameters that cannot work.

    Raises
    ------
    ParameterError, IncompatibleError
        Naming the parameters, and what to change.
    """
    check_compression(params.value("launcher"), params.value("compression"), params.value("precision"))
    if context is None and params.value("launcher") == "horovod":
        raise IncompatibleError(
            "launcher='horovod' starts its processes by Spark, and a table has none. Take launcher='torch', or give "
            "a DataFrame."
        )
    gpus_per_task(params, context)
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
    for name in ("storePath", "checkpointDir"):
        if params.value(name):
            resolve(params.value(name), name)
    on_cluster = context is not None and not str(context.master).startswith("local")
    if on_cluster and not params.value("storePath"):
        raise ParameterError("storePath must be set on a cluster: storage that driver and executors share.")


def _check_fewest(params: TrainingParams, processes: int) -> None:
    fewest = params.value("minProc")
    if fewest is None:
        return
    check("minProc", fewest, Interval(1, processes, whole=True))
    if not params.value("maxRestarts"):
        raise ParameterError(
            f"minProc={fewest} is about continuing after a loss, which maxRestarts=0 rules out. Set maxRestarts."
        )


def process_count(params: TrainingParams, context: SparkContext | None) -> int:
    """Return the number of processes: ``numProc``, or as many as Spark has task slots.

    Without Spark, as many as there are accelerators to use: on CPUs one process keeps all cores busy.

    Raises
    ------
    ParameterError
        For several processes under the local launcher.
    """
    given = params.value("numProc")
    if params.value("launcher") == "local":
        if given not in (None, 1):
            raise ParameterError(f"numProc={given} needs launcher='torch' or 'horovod': 'local' is one process.")
        return 1
    if given is None and context is None:
        return _accelerators(params.value("device"))
    if context is None:
        return int(given)
    cores = int(context.getConf().get("spark.task.cpus", "1"))
    return int(given or max(1, context.defaultParallelism // cores))


def _accelerators(device: str) -> int:
    """Return how many accelerators ``device`` may be; 1 where it is a CPU."""
    if device == "cpu":
        return 1
    best = [one for one in describe().devices if one.kind not in ("cpu", "xla") and device in ("auto", one.kind)]
    return max(1, sum(one.kind == best[0].kind for one in best))


def stream_count(params: TrainingParams, processes: int) -> int:
    """Return the number of parts that the rows are cut into."""
    return int(params.value("streams") or processes)


def gpus_per_task(params: TrainingParams, context: SparkContext | None) -> int:
    """Return how many GPUs the stage must request for each task; Horovod's own stage cannot request any.

    Raises
    ------
    ParameterError
        Where a GPU is asked for that no task would get.
    """
    if context is None:
        return 0  # every process finds its own
    settings = dict(context.getConf().getAll())
    return check_request(params.value("device"), settings, by_stage=params.value("launcher") == "torch")


def selected_fields(params: TrainingParams, schema: StructType) -> tuple[Fields, HeldOut | None]:
    """Return the columns to train on, and which rows are held out (None: no row is).

    Raises
    ------
    SchemaError, ParameterError
        For a column that is missing or of the wrong type, or where both ways to hold rows out are set.
    """
    fields = Fields.of(schema, params.features(), params.getLabelCol(), params.value("weightCol") or None)
    check_pipeline(fields, params.value("imagePipeline"))
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
