"""What a run asks of a cluster, or of this machine: how many processes, and which resources each task is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.launch.devices import check_request, describe
from sparkopt.launch.on_ray import other_nodes, ray_gpus, ray_ranks

__all__ = ["count_of", "gpus_of", "others_of", "ray_resources", "resources_of"]


def count_of(launcher: str, given: int | None, session: Any, device: str) -> int:
    """Return the number of processes: as given, or as many as Spark has task slots.

    Without Spark, as many as there are accelerators to use: on CPUs one process keeps all cores busy.

    Parameters
    ----------
    launcher : str
        "torch", "horovod", "ray" or "local".
    given : int or None
        ``numProc``.
    session : SparkSession or None
        None is this machine.
    device : str
        What is asked for.

    Raises
    ------
    ParameterError
        For several processes under the local launcher.
    """
    if launcher == "local":
        if given not in (None, 1):
            raise ParameterError(f"numProc={given} needs launcher='torch' or 'horovod': 'local' is one process.")
        return 1
    if given is not None:
        return int(given)
    if launcher == "ray":
        return ray_ranks(device)
    if session is None:
        return _accelerators(device)
    from sparkopt.blocks.backend import is_connect
    from sparkopt.blocks.connect import slots_of

    slots = slots_of(session) if is_connect(session) else session.sparkContext.defaultParallelism
    return max(1, slots // int(_setting(session, "spark.task.cpus", "1")))


def gpus_of(device: str, session: Any, by_stage: bool) -> int:
    """Return how many GPUs the stage must request for each task; Horovod's own stage cannot request any.

    Raises
    ------
    ParameterError
        Where a GPU is asked for that no task would get.
    """
    if session is None:
        return 0  # every process finds its own
    parts = ("spark.master", *(f"spark.{part}.resource.gpu.amount" for part in ("task", "executor")))
    settings = {key: found for key in parts if (found := _setting(session, key, ""))}
    return check_request(device, settings, by_stage=by_stage)


def resources_of(resource: str | Mapping[str, int] | None, session: Any, by_stage: bool) -> dict[str, int]:
    """Return what the stage must request for each task, by name: what the session's settings do not give it.

    Parameters
    ----------
    resource : str, mapping of str to int, or None
        A name, of which each task gets one, or names and amounts.
    session : SparkSession or None
        None is this machine.
    by_stage : bool
        Whether the stage can request resources.

    Raises
    ------
    IncompatibleError
        Where no Spark schedules resources.
    ParameterError
        Where no task would be given what is asked for.
    """
    wanted = {resource: 1} if isinstance(resource, str) else dict(resource or {})
    if not wanted:
        return {}
    names = ", ".join(wanted)
    master = "local" if session is None else _setting(session, "spark.master", "")
    if master == "local" or master.startswith("local["):
        raise IncompatibleError(
            f"resource={names!r}: executors of a cluster are given resources; local mode, and this machine without "
            "Spark, have none. Take device=, by which each process finds an accelerator of its own."
        )
    missing = {}
    for name, amount in wanted.items():
        task, executor = (
            _setting(session, f"spark.{part}.resource.{name}.amount", "0") for part in ("task", "executor")
        )
        if float(task) >= amount:
            continue
        if not by_stage or float(executor) < amount:
            raise ParameterError(
                f"resource={name!r}: each task needs {amount}, and Spark gives it {task}: "
                f"spark.task.resource.{name}.amount is {task}, spark.executor.resource.{name}.amount is {executor}. "
                "Start Spark with both, and with a discovery script."
            )
        missing[name] = amount
    return missing


def ray_resources(resource: str | Mapping[str, int] | None, device: str) -> dict[str, int]:
    """Return what each rank asks of Ray besides cores: what was named, and a GPU where one is to be used.

    Raises
    ------
    ParameterError
        Where the cluster has no GPU and one was asked for.
    """
    wanted = {resource: 1} if isinstance(resource, str) else dict(resource or {})
    gpus = ray_gpus()
    if device in ("cuda", "rocm") and not gpus:
        raise ParameterError(f"device={device!r}, but Ray has no GPU: ray start --num-gpus says how many a node has.")
    return {"gpu": 1, **wanted} if gpus and device in ("auto", "cuda", "rocm") else wanted


def others_of(launcher: str) -> str | None:
    """Return how errors call the other machines that ranks run on, where a launcher has some and no session does."""
    return other_nodes() if launcher == "ray" else None


def _setting(session: Any, key: str, default: str) -> str:
    """Return a setting of a session; its default where a server of Spark Connect does not show it."""
    from pyspark.errors import PySparkException

    from sparkopt.blocks.backend import is_connect

    if not is_connect(session):
        return str(session.sparkContext.getConf().get(key, default))
    try:
        return str(session.conf.get(key, default))
    except PySparkException:
        return default


def _accelerators(device: str) -> int:
    """Return how many accelerators ``device`` may be; 1 where it is a CPU."""
    if device == "cpu":
        return 1
    best = [one for one in describe().devices if one.kind not in ("cpu", "xla") and device in ("auto", one.kind)]
    return max(1, sum(one.kind == best[0].kind for one in best))
