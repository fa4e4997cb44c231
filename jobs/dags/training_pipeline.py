"""Airflow pipelines (Airflow 3, and 2.10 or newer): preprocess images, train, evaluate, promote, score.

There are two DAGs: ``sparkopt_training_pipeline`` for images, and ``sparkopt_table_pipeline``, without preprocessing,
for tables. What they promote is an asset, the folder ``models`` below ``root``, on which other DAGs can be scheduled.

Training starts from the model that was accepted last. Evaluation is a gate: a model that is worse fails the run at
once, without retries, and nothing is promoted. Every output is in a folder of the run's data interval, so any task
may be cleared and repeated.

Put this file into the folder of DAGs. Airflow's own environment needs the Spark provider (or Databricks'), pyarrow,
and sparkopt's wheel without what it depends on: ``pip install --no-deps dist/sparkopt-*.whl``. What a run may change
is a parameter of the DAG; what belongs to the installation is read from the environment when the file is parsed:

==============================  ==============================================================================
``SPARKOPT_IMAGES``             images of an interval, such as ``s3://photos/{date}`` (parameter ``images``)
``SPARKOPT_ROWS``               rows of an interval, such as ``s3://rows/{date}`` (parameter ``rows``)
``SPARKOPT_ROOT``               folder of all outputs (parameter ``root``), which Airflow's workers reach too
``SPARKOPT_JOBS``               folder of the job scripts, as Spark or Databricks sees it
``SPARKOPT_SCHEDULE``           cron expression or preset, by default ``@daily``; empty for none
``SPARKOPT_SPARK_CONN_ID``      connection of the SparkSubmitOperator, by default ``spark_default``
``SPARKOPT_SPARK_SUBMIT``       its command, by default ``spark-submit``
``SPARKOPT_PROPERTIES_FILE``    its settings: one of ``conf/``
``SPARKOPT_ON``                 where jobs run by default (parameter ``on``): ``spark``, by spark-submit; ``machine``,
                                by the ``sparkopt`` command on Airflow's worker, without Spark; ``auto``, by that
                                command, which takes Spark for large inputs, with the properties file as its profile
``SPARKOPT_COMMAND``            that command, by default ``sparkopt``: in an environment with its packages
``SPARKOPT_DATABRICKS_CONN_ID`` a connection to Databricks: then the jobs run there
``SPARKOPT_DATABRICKS_CLUSTER`` id of a cluster there, or JSON that describes a new one
``SPARKOPT_ON_FAILURE``         callbacks of tasks that failed for good: ``package.module:function``, …
``SPARKOPT_ON_SUCCESS``         callbacks of runs that ended well
==============================  ==============================================================================

Or call :func:`training_pipeline` or :func:`table_pipeline` in a file of your own.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol

try:
    from airflow.sdk import DAG, Param, task
except ImportError:  # Airflow 2
    from airflow.decorators import task
    from airflow.models.dag import DAG
    from airflow.models.param import Param
try:
    from airflow.sdk import Asset
except ImportError:  # Airflow 2
    from airflow.datasets import Dataset as Asset
try:
    from airflow.sdk import CronDataIntervalTimetable
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import AirflowException, AirflowFailException
    from airflow.timetables.interval import CronDataIntervalTimetable

from sparkopt.errors import DataError
from sparkopt.integrations.model_registry import refusal
from sparkopt.jobs.pipeline import FORMATS, DataInterval, Pipeline, TablePipeline

Callback = Callable[[Any], None]
DEFAULTS = Pipeline(
    os.environ.get("SPARKOPT_IMAGES", "/data/images/{date}"), os.environ.get("SPARKOPT_ROOT", "/data/sparkopt")
)
TABLE_DEFAULTS = TablePipeline(os.environ.get("SPARKOPT_ROWS", "/data/rows/{date}"), f"{DEFAULTS.root}/tables")
DEFAULT_ON = os.environ.get("SPARKOPT_ON", "spark")


class Runner(Protocol):
    """Makes the task that runs a job; the gate's task is not retried once the model is refused."""

    def __call__(self, task_id: str, job: str, arguments: Any, *, is_gate: bool = False) -> Any:
        """Return the operator."""
        ...


@dataclass(frozen=True)
class SparkSubmit:
    """Runs jobs through ``spark-submit``.

    Parameters
    ----------
    jobs : str
        Folder of the job scripts.
    conn_id, binary : str
        Airflow's connection, which has the master, and the command.
    properties_file : str or None
        Settings of Spark.
    conf : mapping
        Further settings.
    command : str
        The ``sparkopt`` command, which runs jobs where the parameter ``on`` is not "spark".
    """

    jobs: str
    conn_id: str = "spark_default"
    binary: str = "spark-submit"
    properties_file: str | None = None
    conf: Mapping[str, str] = field(default_factory=dict)
    command: str = "sparkopt"

    def __call__(self, task_id: str, job: str, arguments: Any, *, is_gate: bool = False) -> Any:
        """Return the operator."""
        from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

        profile = ["--profile", self.properties_file] if self.properties_file else []
        operator = _on_machine(SparkSubmitOperator, [self.command, job.replace("_", "-")], profile)
        operator = _judged(operator) if is_gate else operator
        return operator(
            task_id=task_id,
            name=f"sparkopt {task_id}",
            application=f"{self.jobs}/{job}.py",
            application_args=arguments,
            conn_id=self.conn_id,
            spark_binary=self.binary,
            properties_file=self.properties_file,
            conf=dict(self.conf),
        )


@dataclass(frozen=True)
class Databricks:
    """Runs jobs on Databricks.

    Parameters
    ----------
    jobs : str
        Folder of the job scripts there: in the workspace, in a volume, or in an object store.
    conn_id : str
        Airflow's connection.
    cluster : str
        Id of a cluster, or JSON that describes a new one.
    """

    jobs: str
    conn_id: str
    cluster: str

    def __call__(self, task_id: str, job: str, arguments: Any, *, is_gate: bool = False) -> Any:
        """Return the operator."""
        from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

        is_new = self.cluster.lstrip().startswith("{")
        where = {"new_cluster": json.loads(self.cluster)} if is_new else {"existing_cluster_id": self.cluster}
        operator = _judged(DatabricksSubmitRunOperator) if is_gate else DatabricksSubmitRunOperator
        return operator(
            task_id=task_id,
            run_name=f"sparkopt {task_id}",
            spark_python_task={"python_file": f"{self.jobs}/{job}.py", "parameters": arguments},
            databricks_conn_id=self.conn_id,
            **where,
        )


def _on_machine(operator: Any, command: Sequence[str], profile: Sequence[str]) -> Any:
    """Return an operator that runs a command in place of Spark's, where the parameter ``on`` asks for that."""

    class OnMachine(operator):
        def execute(self, context: Any) -> Any:
            on = context["params"].get("on", "spark")
            if on == "spark":
                return super().execute(context)
            flags = context["ti"].xcom_pull(task_ids="plan", key=self.task_id)
            line = [*command, *flags, "--on", on, *(profile if on == "auto" else [])]
            self.process = subprocess.Popen(line)  # noqa: S603  # the installation's command, flags as a list
            if code := self.process.wait():
                raise AirflowException(f"{' '.join(command)} ended with exit code {code}; its last line says why")
            return None

        def on_kill(self) -> None:
            process = getattr(self, "process", None)
            if process is None:
                super().on_kill()
            else:
                process.terminate()  # it removes what is not finished

    return OnMachine


def _judged(operator: Any) -> Any:
    """Return an operator that does not retry after the evaluation has refused the model.

    A deferred operator hears of the job's end in ``execute_complete``.
    """

    class Judged(operator):
        def execute(self, context: Any) -> Any:
            with _final(context):
                return super().execute(context)

        def execute_complete(self, context: Any, event: Any = None) -> Any:
            with _final(context):
                return super().execute_complete(context, event)

    return Judged


@contextmanager
def _final(context: Any) -> Iterator[None]:
    """Let a failure be final where the model was refused: Airflow's way to ask for a deferral passes."""
    try:
        yield
    except (AirflowException, RuntimeError) as error:
        reason = _verdict(context["ti"].xcom_pull(task_ids="plan", key="evaluation"))
        if reason is None:
            raise
        raise AirflowFailException(reason) from error


def _verdict(evaluation: str) -> str | None:
    """Return why the model was refused; None where it was not, or where the job failed before the gate."""
    try:
        return refusal(evaluation)
    except DataError:
        return None


@task(multiple_outputs=True)
def plan(
    params: Any = None,
    dag_run: Any = None,
    logical_date: Any = None,
    data_interval_start: Any = None,
    data_interval_end: Any = None,
) -> dict[str, Any]:
    """Return the command lines of this run."""
    started = getattr(dag_run, "run_after", None) or logical_date or datetime.now(timezone.utc)
    interval = DataInterval.of(data_interval_start, data_interval_end, started)
    return asdict(_pipeline(params).plan(interval))


@task
def promote(candidate: str, evaluation: str, interval: str, params: Any = None) -> str:
    """Accept the model; return its version."""
    try:
        return _pipeline(params).registry.promote(candidate, evaluation, interval).version
    except DataError as error:
        raise AirflowFailException(str(error)) from error


def _pipeline(params: Mapping[str, Any]) -> Pipeline | TablePipeline:
    """Return the pipeline of a run's parameters."""
    return TablePipeline.of(params) if "rows" in params else Pipeline.of(params)


TEXT = {"type": "string", "minLength": 1}
FLAGS = {"type": "array", "items": {"type": "string"}}


def shared_parameters(defaults: Pipeline | TablePipeline) -> dict[str, Param]:
    """Return the parameters that runs of both pipelines may change."""
    return {
        "root": Param(defaults.root, **TEXT, description="Folder of all outputs"),
        "on": Param(DEFAULT_ON, enum=["spark", "machine", "auto"], description="Where jobs run; see this page's top"),
        "metric": Param(defaults.metric, **TEXT, description="Metric of the gate"),
        "tolerance": Param(defaults.tolerance, type="number", minimum=0, description="Share of it that may be lost"),
        "min_value": Param(defaults.min_value, type=["null", "number"], description="Least value of the metric"),
        "train": Param(list(defaults.train), **FLAGS, description="Further flags of training"),
    }


def table_parameters(defaults: TablePipeline) -> dict[str, Param]:
    """Return the parameters that a run on tables may change."""
    filled = "{date}, {start}, {end} are filled in"
    return {
        "rows": Param(defaults.rows, **TEXT, description=f"Rows to train on and to score; {filled}"),
        "held_out": Param(defaults.held_out, type="string", description=f"Rows to evaluate on; {filled}"),
        "rows_format": Param(defaults.rows_format, enum=list(FORMATS)),
        "label": Param(defaults.label, **TEXT, description="Column of the targets"),
        "features": Param(defaults.features, type="string", description="Columns, with commas between; all others"),
        "score": Param(list(defaults.score), **FLAGS, description="Further flags of scoring"),
        **shared_parameters(defaults),
    }


def parameters(defaults: Pipeline) -> dict[str, Param]:
    """Return the parameters that a run on images may change."""
    share = {"type": "number", "minimum": 0, "maximum": 1}
    return {
        "images": Param(
            defaults.images, **TEXT, description="Folder of images; {date}, {start}, {end} are filled in"
        ),
        "image_size": Param(defaults.image_size, type="integer", minimum=1, description="Width and height in pixels"),
        "color": Param(defaults.color, enum=["gray", "rgb"]),
        "labels": Param(defaults.labels, type="string", description="Names of labels 0, 1, …, with commas between"),
        "test_fraction": Param(defaults.test_fraction, **share, description="Share that only evaluation sees"),
        "preprocess": Param(list(defaults.preprocess), **FLAGS, description="Further flags of preprocessing"),
        **shared_parameters(defaults),
    }


def training_pipeline(
    dag_id: str,
    runner: Runner,
    *,
    defaults: Pipeline | TablePipeline = DEFAULTS,
    schedule: str | Sequence[Any] = "@daily",
    start_date: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc),
    retries: int = 2,
    task_timeout: timedelta = timedelta(hours=2),
    run_timeout: timedelta = timedelta(hours=6),
    on_failure: Sequence[Callback] = (),
    on_success: Sequence[Callback] = (),
) -> DAG:
    """Return the pipeline as a DAG.

    Parameters
    ----------
    dag_id : str
        Its name.
    runner : Runner
        Runs the jobs: :class:`SparkSubmit` or :class:`Databricks`.
    defaults : Pipeline or TablePipeline
        Defaults of the DAG's parameters; of tables for the pipeline without preprocessing.
    schedule : str or sequence of Asset, default "@daily"
        Cron expression or preset, in UTC; "" for none. Runs that assets start take the day before as their interval.
    start_date : datetime
        Start of the first interval. Intervals that are over when the DAG is enabled are not made up for.
    retries : int, default 2
        How often a failed task is retried, after 5, 10, 20 … minutes.
    task_timeout, run_timeout : timedelta
        Longest time of a task, and of a run; then it fails.
    on_failure, on_success : sequence of callable
        Called with Airflow's context: of each task that failed for good, and of a run that ended well.
    """
    on_images = isinstance(defaults, Pipeline)
    begin = "Preprocess, train" if on_images else "Train"
    cron = CronDataIntervalTimetable(schedule, timezone="UTC") if schedule and isinstance(schedule, str) else None
    with DAG(
        dag_id,
        description=f"{begin} from the last accepted model, evaluate, promote, score",
        doc_md=__doc__,
        schedule=cron or schedule or None,
        start_date=start_date,
        catchup=False,
        max_active_runs=1,  # a run starts from the model that the one before it has promoted
        dagrun_timeout=run_timeout,
        params=parameters(defaults) if isinstance(defaults, Pipeline) else table_parameters(defaults),
        on_success_callback=list(on_success) or None,
        default_args={
            "retries": retries,
            "retry_delay": timedelta(minutes=5),
            "retry_exponential_backoff": True,
            "execution_timeout": task_timeout,
            "on_failure_callback": list(on_failure) or None,
        },
        tags=["sparkopt"],
    ) as dag:
        run = plan()
        trained = runner("train", "train", run["train"])
        evaluated = runner("evaluate", "evaluate", run["evaluate"], is_gate=True)
        accept = promote.override(outlets=[models_of(defaults.root)])
        promoted = accept(run["candidate"], run["evaluation"], run["interval"])
        scored = runner("score", "score", run["score"])
        if on_images:
            runner("preprocess", "preprocess_images", run["preprocess"]) >> trained
        trained >> evaluated >> promoted >> scored
    return dag


def table_pipeline(
    dag_id: str, runner: Runner, *, defaults: TablePipeline = TABLE_DEFAULTS, schedule: str | Sequence[Any] = "@daily"
) -> DAG:
    """Return the pipeline for tables: train, evaluate, promote, score; more settings are ``training_pipeline``'s."""
    return training_pipeline(dag_id, runner, defaults=defaults, schedule=schedule)


def models_of(root: str) -> Any:
    """Return the asset that a promotion updates: the folder of accepted models."""
    folder = f"{root.rstrip('/')}/models"
    return Asset(uri=f"file://{folder}" if folder.startswith("/") else folder)


def runner_of(environment: Mapping[str, str]) -> Runner:
    """Return the runner that the environment names."""
    jobs = environment.get("SPARKOPT_JOBS", str(Path(__file__).resolve().parents[1]))
    databricks = environment.get("SPARKOPT_DATABRICKS_CONN_ID")
    if databricks:
        return Databricks(jobs, databricks, environment["SPARKOPT_DATABRICKS_CLUSTER"])
    return SparkSubmit(
        jobs,
        environment.get("SPARKOPT_SPARK_CONN_ID", "spark_default"),
        environment.get("SPARKOPT_SPARK_SUBMIT", "spark-submit"),
        environment.get("SPARKOPT_PROPERTIES_FILE"),
        command=environment.get("SPARKOPT_COMMAND", "sparkopt"),
    )


def callbacks_of(names: str) -> list[Callback]:
    """Return functions by their names, ``package.module:function``, with commas between."""
    pairs = [name.strip().rpartition(":") for name in names.split(",") if name.strip()]
    return [getattr(importlib.import_module(module), function) for module, _, function in pairs]


dag = training_pipeline(
    "sparkopt_training_pipeline",
    runner_of(os.environ),
    schedule=os.environ.get("SPARKOPT_SCHEDULE", "@daily"),
    on_failure=callbacks_of(os.environ.get("SPARKOPT_ON_FAILURE", "")),
    on_success=callbacks_of(os.environ.get("SPARKOPT_ON_SUCCESS", "")),
)
table_dag = training_pipeline(
    "sparkopt_table_pipeline",
    runner_of(os.environ),
    defaults=TABLE_DEFAULTS,
    schedule=os.environ.get("SPARKOPT_SCHEDULE", "@daily"),
    on_failure=callbacks_of(os.environ.get("SPARKOPT_ON_FAILURE", "")),
    on_success=callbacks_of(os.environ.get("SPARKOPT_ON_SUCCESS", "")),
)
