"""An Airflow pipeline (Airflow 3, and 2.10 or newer): preprocess, train, evaluate, promote, score.

Training starts from the model that was accepted last. Evaluation is a gate: a model that is worse fails the run at
once, without retries, and nothing is promoted. Every output is in a folder of the run's data interval, so any task
may be cleared and repeated.

Put this file into the folder of DAGs. Airflow's own environment needs the Spark provider (or Databricks'), pyarrow,
and sparkopt's wheel without what it depends on: ``pip install --no-deps dist/sparkopt-*.whl``. What a run may change
is a parameter of the DAG; what belongs to the installation is read from the environment when the file is parsed:

==============================  ==============================================================================
``SPARKOPT_IMAGES``             images of an interval, such as ``s3://photos/{date}`` (parameter ``images``)
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

Or call :func:`training_pipeline` in a file of your own.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
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
    from airflow.sdk import CronDataIntervalTimetable
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import AirflowException, AirflowFailException
    from airflow.timetables.interval import CronDataIntervalTimetable

from sparkopt.errors import DataError
from sparkopt.integrations.model_registry import refusal
from sparkopt.jobs.pipeline import DataInterval, Pipeline

Callback = Callable[[Any], None]
DEFAULTS = Pipeline(
    os.environ.get("SPARKOPT_IMAGES", "/data/images/{date}"), os.environ.get("SPARKOPT_ROOT", "/data/sparkopt")
)
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
    """Return an operator that does not retry after the evaluation has refused the model."""

    class Judged(operator):
        def execute(self, context: Any) -> Any:
            try:
                return super().execute(context)
            except (AirflowException, RuntimeError) as error:
                reason = _verdict(context["ti"].xcom_pull(task_ids="plan", key="evaluation"))
                if reason is None:
                    raise
                raise AirflowFailException(reason) from error

    return Judged


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
    return asdict(Pipeline.of(params).plan(interval))


@task
def promote(candidate: str, evaluation: str, interval: str, params: Any = None) -> str:
    """Accept the model; return its version."""
    try:
        return Pipeline.of(params).registry.promote(candidate, evaluation, interval).version
    except DataError as error:
        raise AirflowFailException(str(error)) from error


def parameters(defaults: Pipeline) -> dict[str, Param]:
    """Return the parameters that a run may change."""
    text, share = {"type": "string", "minLength": 1}, {"type": "number", "minimum": 0, "maximum": 1}
    flags = {"type": "array", "items": {"type": "string"}}
    return {
        "images": Param(
            defaults.images, **text, description="Folder of images; {date}, {start}, {end} are filled in"
        ),
        "root": Param(defaults.root, **text, description="Folder of all outputs"),
        "on": Param(DEFAULT_ON, enum=["spark", "machine", "auto"], description="Where jobs run; see this page's top"),
        "image_size": Param(defaults.image_size, type="integer", minimum=1, description="Width and height in pixels"),
        "color": Param(defaults.color, enum=["gray", "rgb"]),
        "labels": Param(defaults.labels, type="string", description="Names of labels 0, 1, …, with commas between"),
        "test_fraction": Param(defaults.test_fraction, **share, description="Share that only evaluation sees"),
        "metric": Param(defaults.metric, **text, description="Metric of the gate"),
        "tolerance": Param(defaults.tolerance, type="number", minimum=0, description="Share of it that may be lost"),
        "min_value": Param(defaults.min_value, type=["null", "number"], description="Least value of the metric"),
        "preprocess": Param(list(defaults.preprocess), **flags, description="Further flags of preprocessing"),
        "train": Param(list(defaults.train), **flags, description="Further flags of training"),
    }


def training_pipeline(
    dag_id: str,
    runner: Runner,
    *,
    defaults: Pipeline = DEFAULTS,
    schedule: str = "@daily",
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
    defaults : Pipeline
        Defaults of the DAG's parameters.
    schedule : str, default "@daily"
        Cron expression or preset, in UTC; "" for none.
    start_date : datetime
        Start of the first interval. Intervals that are over when the DAG is enabled are not made up for.
    retries : int, default 2
        How often a failed task is retried, after 5, 10, 20 … minutes.
    task_timeout, run_timeout : timedelta
        Longest time of a task, and of a run; then it fails.
    on_failure, on_success : sequence of callable
        Called with Airflow's context: of each task that failed for good, and of a run that ended well.
    """
    with DAG(
        dag_id,
        description="Preprocess, train from the last accepted model, evaluate, promote, score",
        doc_md=__doc__,
        schedule=CronDataIntervalTimetable(schedule, timezone="UTC") if schedule else None,
        start_date=start_date,
        catchup=False,
        max_active_runs=1,  # a run starts from the model that the one before it has promoted
        dagrun_timeout=run_timeout,
        params=parameters(defaults),
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
        preprocessed = runner("preprocess", "preprocess_images", run["preprocess"])
        trained = runner("train", "train", run["train"])
        evaluated = runner("evaluate", "evaluate", run["evaluate"], is_gate=True)
        promoted = promote(run["candidate"], run["evaluation"], run["interval"])
        scored = runner("score", "score", run["score"])
        preprocessed >> trained >> evaluated >> promoted >> scored
    return dag


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
