"""run: a function of the user's on ranks, with a share of a DataFrame's rows, whatever framework it trains with."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any, Generic, TypeVar

from sparkopt.errors import IncompatibleError, ParameterError, SchemaError
from sparkopt.io.hadoop import carry, provide, settings_of
from sparkopt.launch.communicator import Communicator
from sparkopt.launch.context import RunContext, RunSettings
from sparkopt.launch.devices import KINDS
from sparkopt.launch.launching import Launching, Losses
from sparkopt.launch.requests import count_of, gpus_of, others_of, ray_resources, resources_of
from sparkopt.launch.settings import SessionSettings, refuse_barrier, refuse_group
from sparkopt.validation import Interval, OneOf, check
from sparkopt.values import dataclass

__all__ = ["run"]

T = TypeVar("T")

LAUNCHERS = ("torch", "horovod", "ray", "local")
_COUNT, _AT_LEAST_0 = Interval(1, None, whole=True), Interval(0, None, whole=True)


def run(
    function: Callable[[RunContext], T],
    df: Any = None,
    *,
    columns: Sequence[str] | None = None,
    numProc: int | None = None,
    launcher: str = "torch",
    device: str = "auto",
    resource: str | Mapping[str, int] | None = None,
    batchSize: int = 32,
    shuffleRows: int = 8192,
    handleInvalid: str = "error",
    storePath: str | None = None,
    checkpointDir: str | None = None,
    resume: bool = True,
    maxRestarts: int = 0,
    minProc: int | None = None,
    onReport: Callable[[dict[str, Any]], bool | None] | None = None,
    session: Any = None,
    seed: int = 0,
) -> list[T]:
    """Run a function on several processes, which share the rows of a DataFrame; return what each of them returns.

    The function trains with what it likes: PyTorch, JAX, NumPy. It is given a `RunContext`: rank and size,
    collectives, a device, batches of its share of the rows, reports, and a state to save and restore. The processes
    are started as `sparkopt.deep.TorchEstimator` starts its own.

    Parameters
    ----------
    function : callable
        Called on each rank with a `RunContext`. It is sent to other processes by pickle; ``functools.partial`` gives
        it further arguments.
    df : DataFrame, or what ``sparkopt.Table.of`` takes, optional
        The rows: they are written once to ``storePath``, and each rank streams its share from there. Without Spark:
        Arrow, pandas, paths of Parquet files, or a pair (X, y) of arrays.
    columns : sequence of str, optional
        Columns to read; all where it is not given. Numbers, Vectors, arrays (nested or not), tensors, or bytes.
    numProc : int, optional
        Processes; as many as Spark has task slots where it is not given, and 1 for the local launcher. Without
        Spark, as many as this machine has accelerators, or 1.
    launcher : {"torch", "horovod", "ray", "local"}, default "torch"
        Tasks of a barrier stage of Spark's, or without Spark processes of this machine, with ``torch.distributed``
        initialised; Horovod on Spark, with ``horovod.torch`` initialised; actors of Ray, as those of "torch"; or this
        process.
    device : {"auto", "cpu", "cuda", "rocm", "mps"}, default "auto"
        What ``context.device`` is.
    resource : str or dict of str to int, optional
        What Spark schedules for each task, by the name that its settings have: "gpu", "tpu", or ``{"fpga": 2}``. The
        addresses are in ``context.resources``.
    batchSize : int, default 32
        Rows of a batch, on each rank.
    shuffleRows : int, default 8192
        Rows that are shuffled together; groups of rows are shuffled among all.
    handleInvalid : {"error", "skip"}, default "error"
        What becomes of rows with null, NaN or infinity: an error, or left out.
    storePath : str, optional
        A folder or URI that the driver and executors share; needed on a cluster.
    checkpointDir : str, optional
        Where ``context.save`` writes, shared likewise.
    resume : bool, default True
        False deletes what was saved before.
    maxRestarts : int, default 0
        How often processes may be lost: all are started again, and ``context.restore`` returns what was saved last.
    minProc : int, optional
        Fewest processes to start again with; under Horovod those that are left begin again at once, in the same
        processes.
    onReport : callable, optional
        Called in this process with each report of a rank, ``{"rank": 0, "metrics": {...}}``. A true result asks all
        ranks to stop: ``context.stopping()``. On Spark Connect it is called once the ranks have ended.
    session : SparkSession, optional
        Whose tasks the ranks are; that of ``df``. Without rows, the active one, or this machine where there is none.
    seed : int, default 0
        Determines the order of the rows.

    Returns
    -------
    list
        What the function returned, by rank.

    Raises
    ------
    RankError
        Where the function raises; the message has its traceback, and the other ranks end within seconds.
    LostRankError
        Where a process ended unexpectedly, more often than ``maxRestarts``.
    ParameterError, SchemaError, IncompatibleError
        For what cannot work, before any job.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrow as pa
    >>> from sparkopt.launch import run
    >>> table = pa.table({"x": np.arange(100.0), "y": 3 * np.arange(100.0)})
    >>> def slope(context):
    ...     sums = np.zeros(2)
    ...     for batch in context.batches():
    ...         x, y = batch["x"].astype(float), batch["y"].astype(float)
    ...         sums += [x @ y, x @ x]
    ...     xy, xx = context.communicator.all_reduce(sums)
    ...     return float(xy / xx)
    >>> run(slope, table, numProc=2)
    [3.0, 3.0]
    """
    counts = {"batchSize": batchSize, "shuffleRows": shuffleRows, "numProc": numProc, "minProc": minProc}
    _check_values(launcher, device, handleInvalid, counts, {"maxRestarts": maxRestarts, "seed": seed})
    rows = _rows(df)
    session = _session(rows, session)
    _check_session(launcher, session, resource)
    processes = count_of(launcher, numProc, session, device)
    if minProc is not None:
        check("minProc", minProc, Interval(1, processes, whole=True))
        if not maxRestarts:
            raise ParameterError(
                f"minProc={minProc} is about continuing after a loss, which maxRestarts=0 rules out. Set maxRestarts."
            )
    resources = _resources(launcher, session, resource, device)
    checkpoints = None if checkpointDir is None else _checkpoints(checkpointDir, resume)
    losses = Losses()
    reports = _Reports(onReport, losses)
    with contextlib.ExitStack() as stack:
        store = None
        if rows is not None:
            store = stack.enter_context(_stored(rows, columns, storePath, handleInvalid, session, launcher))
        storage = _storage(store, checkpoints)
        settings = RunSettings(store, processes, batchSize, seed, shuffleRows, device, checkpoints, storage)
        launching = Launching(launcher, session, processes, minProc, maxRestarts, resources)
        rank = _Rank(function, settings)
        results = launching.run(rank, watcher=reports, losses=losses, on_loss=reports.raise_error)
    reports.raise_error()
    return results


def _check_values(
    launcher: str, device: str, handleInvalid: str, counts: Mapping[str, Any], others: Mapping[str, Any]
) -> None:
    check("launcher", launcher, OneOf(LAUNCHERS))
    check("device", device, OneOf(KINDS))
    check("handleInvalid", handleInvalid, OneOf(["error", "skip"]))
    for names, domain in ((counts, _COUNT), (others, _AT_LEAST_0)):
        for name, value in names.items():
            if value is not None:
                check(name, value, domain)


def _resources(launcher: str, session: Any, resource: Any, device: str) -> dict[str, int]:
    """Return what the stage requests for each task."""
    if launcher == "local":
        return {}
    if launcher == "ray":
        return ray_resources(resource, device)
    found = resources_of(resource, session, by_stage=launcher == "torch")
    gpus = gpus_of(device, session, by_stage=launcher == "torch")
    return {"gpu": gpus, **found} if gpus else found


@dataclass(frozen=True)
class _Rank(Generic[T]):
    """What every rank runs."""

    function: Callable[[RunContext], T]
    settings: RunSettings = field(repr=False)

    def __call__(self, communicator: Communicator) -> T:
        carry(self.settings.storage)
        return self.function(RunContext(communicator, self.settings))


class _Reports:
    """What is called with the ranks' reports, in the driver."""

    def __init__(self, function: Callable[[dict[str, Any]], bool | None] | None, losses: Losses) -> None:
        self._function, self._losses = function, losses
        self._error: Exception | None = None

    def __call__(self, report: dict[str, Any]) -> bool:
        """Return whether the ranks shall stop; what the user's function raises ends the run."""
        if report.get("event") == "group":  # of the launcher's, where ranks were lost or have joined
            self._losses.survived += bool(report["lost"])
            return False
        if self._error is not None:
            return True
        if self._function is None:
            return False
        try:
            return bool(self._function(report))
        except Exception as error:  # noqa: BLE001  # raised again once the ranks have ended
            self._error = error
            return True

    def raise_error(self) -> None:
        """Raise what the user's function raised."""
        if self._error is not None:
            raise self._error


def _rows(df: Any) -> Any:
    if df is None:
        return None
    from sparkopt.blocks.rows import rows_to_fit

    return rows_to_fit(df)


def _session(rows: Any, given: Any) -> Any:
    """Return the session whose tasks the ranks are, or None for this machine."""
    from sparkopt.machine import Table

    if isinstance(rows, Table):
        return None
    if rows is not None:
        return rows.sparkSession
    if given is not None or "pyspark" not in sys.modules:
        return given
    from pyspark.sql import SparkSession

    return SparkSession.getActiveSession()


def _check_session(launcher: str, session: Any, resource: Any) -> None:
    if launcher == "local":
        if resource is not None:
            raise IncompatibleError(
                "resource is what Spark gives to its tasks, and launcher='local' is this process."
            )
        return
    if launcher == "ray":  # whose ranks read what Spark has written
        return
    if session is None:
        if launcher == "horovod":
            raise IncompatibleError(
                "launcher='horovod' starts its processes by Spark, and there is no session. Take launcher='torch', "
                "or give a DataFrame."
            )
        return
    from sparkopt.blocks.backend import is_connect

    if is_connect(session) and launcher == "horovod":
        raise IncompatibleError(
            "launcher='horovod' starts its processes by a SparkContext, which Spark Connect does not have. Take "
            "launcher='torch'."
        )
    if is_connect(session):
        settings = SessionSettings.of_session(session)
    else:
        settings = SessionSettings.of_context(session.sparkContext)
    refuse_group(settings)
    if launcher == "torch":
        refuse_barrier(settings)


def _checkpoints(folder: str, resume: bool) -> str:
    """Return the folder as all ranks find it, emptied where the run starts from the beginning."""
    from sparkopt.launch.checkpoints import CheckpointFolder
    from sparkopt.shards.temporary import absolute

    found = absolute(folder)
    if not resume:
        CheckpointFolder(found).clear()
    return found


def _storage(*uris: str | None) -> Mapping[str, str]:
    """Return the session's settings of file systems, which ranks are given."""
    from sparkopt.blocks.session_settings import session_settings

    provide(session_settings)
    return settings_of(*uris)


@contextlib.contextmanager
def _stored(
    rows: Any, columns: Sequence[str] | None, folder: str | None, handleInvalid: str, session: Any, launcher: str
) -> Any:
    """Give the URI of the rows, which are written for this run."""
    from sparkopt.blocks.rows import schema_of
    from sparkopt.shards.fields import Fields
    from sparkopt.shards.missing import RowCheck
    from sparkopt.shards.temporary import check_folder, temporary_store

    check_folder(folder, session, others_of(launcher))
    schema = schema_of(rows)
    names = schema.names if columns is None else list(columns)
    fields = Fields.of(schema, [[name] for name in names])
    for entry in fields.inputs:
        if entry.kind == "path":
            raise SchemaError(
                f"column {entry.title!r} holds text. Leave it out of columns=, or make numbers of it, by "
                "pyspark.ml's StringIndexer, say."
            )
    check_rows = RowCheck(fields.all) if handleInvalid == "skip" else None
    with temporary_store(rows, fields, folder, check=check_rows) as index:
        yield index.uri
