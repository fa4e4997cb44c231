"""The DAG in a real Airflow, in an environment of its own (``make airflow``): read, and run on the digits."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.jobs.running import ROOT, SPARK, SUBMIT, run_unless_hung

AIRFLOW = ROOT / ".venv-airflow" / "bin"
DAG_ID = "sparkopt_training_pipeline"
STEPS = ["plan", "preprocess", "train", "evaluate", "promote", "score"]
QUICK = {
    "image_size": 8,
    "preprocess": ["--parts", "1"],
    "train": ["--reg-param", "0.01", "--max-iter", "60", "--tol", "1e-4"],
}
HASTY = {
    **QUICK,
    "train": ["--optimizer", "sgd", "--step-size", "1000", "--mini-batch-fraction", "0.05", "--max-iter", "1"],
}

pytestmark = [
    pytest.mark.usefixtures("jvms"),
    pytest.mark.timeout(3600),  # a loaded machine is slow; run_unless_hung ends what hangs
    pytest.mark.skipif(not (AIRFLOW / "airflow").exists(), reason="Airflow is not set up: make airflow"),
]

NOTIFY = """
from pathlib import Path

def failed(context):
    Path(__file__).with_name("failed.txt").open("a").write(context["ti"].task_id + "\\n")
"""
LOOK = f"""
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag()
dag = bag.dags["{DAG_ID}"]
tasks = {{task.task_id: task for task in dag.tasks}}
print("FOUND " + json.dumps({{
    "errors": bag.import_errors,
    "order": [task.task_id for task in dag.topological_sort()],
    "params": {{name: dag.params[name] for name in dag.params}},
    "kinds": {{name: [base.__name__ for base in type(task).__mro__] for name, task in tasks.items()}},
    "retries": {{name: task.retries for name, task in tasks.items()}},
    "timeouts": {{name: task.execution_timeout.total_seconds() for name, task in tasks.items()}},
    "run_timeout": dag.dagrun_timeout.total_seconds(),
    "callbacks": [len(task.on_failure_callback) for task in tasks.values()],
}}))
"""


class Installation:
    """Airflow with a database and outputs of its own."""

    def __init__(self, folder: Path, images: Path) -> None:
        self.folder, self.root = folder, folder / "out"
        (folder / "notify.py").write_text(NOTIFY)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST"))}
        self.environment = {
            **kept,
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "jobs" / "dags"),
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[2]"}),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "SPARK_HOME": str(SPARK),
            "SPARKOPT_SPARK_SUBMIT": str(SUBMIT),
            "SPARKOPT_PROPERTIES_FILE": str(ROOT / "conf" / "local.conf"),
            "SPARKOPT_IMAGES": str(images),
            "SPARKOPT_ROOT": str(self.root),
            "SPARKOPT_ON_FAILURE": "notify:failed",
        }
        self.run("airflow", "db", "migrate")

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_unless_hung([str(AIRFLOW / command[0]), *command[1:]], {**self.environment, **environment})

    def look(self, **environment: str) -> dict:
        """What the DAG is."""
        done = self.run("python", "-c", LOOK, **environment)
        found = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
        assert found, done.stdout[-2000:] + done.stderr[-2000:]
        return json.loads(found[0].removeprefix("FOUND "))

    def pipeline(self, date: str, conf: dict, **environment: str) -> dict[str, tuple[str, int]]:
        """Run it for the interval that ends at a date; return state and number of tries of each task."""
        done = self.run("airflow", "dags", "test", DAG_ID, date, "--conf", json.dumps(conf), **environment)
        with sqlite3.connect(self.folder / "airflow.db") as database:
            query = (
                "select task_id, task_instance.state, try_number from task_instance join dag_run using (run_id) "
                "where logical_date like ?"
            )
            states = {task: (state, tries) for task, state, tries in database.execute(query, (f"{date}%",))}
        assert set(states) == set(STEPS), done.stdout[-3000:] + done.stderr[-3000:]
        return states

    def output(self, date: str, name: str) -> dict:
        """A JSON file of a run."""
        return json.loads((self.root / "runs" / f"{date}T00-00-00" / name).read_text())

    @property
    def accepted(self) -> list[dict]:
        return json.loads((self.root / "models" / "accepted.json").read_text())["models"]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, digits):
    return Installation(tmp_path_factory.mktemp("airflow"), digits)


def test_the_dag_is_sound(airflow):
    found = airflow.look()
    assert found["errors"] == {}
    assert found["order"] == STEPS
    assert {name for name, kinds in found["kinds"].items() if "SparkSubmitOperator" in kinds} == {
        "preprocess",
        "train",
        "evaluate",
        "score",
    }
    assert set(found["retries"].values()) == {2}
    assert set(found["timeouts"].values()) == {2 * 3600}
    assert found["run_timeout"] == 6 * 3600
    assert set(found["callbacks"]) == {1}
    assert found["params"]["root"] == str(airflow.root)
    assert found["params"]["min_value"] is None


FIRST, SECOND, THIRD = "2026-11-02", "2026-11-03", "2026-11-04"


BESIDE = """
import importlib.util, json, pathlib, sys, tempfile
from airflow.dag_processing.dagbag import DagBag
from airflow.exceptions import AirflowException, AirflowFailException
bag = DagBag()
dag = bag.dags["sparkopt_table_pipeline"]
found = {"order": [task.task_id for task in dag.topological_sort()], "params": sorted(dag.params)}
found["outlets"] = {task.task_id: [one.uri for one in task.outlets] for task in dag.tasks if task.outlets}
(file,) = pathlib.Path(bag.dag_folder).glob("training_pipeline.py")
spec = importlib.util.spec_from_file_location("pipeline_of_the_test", file)
module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
folder = tempfile.mkdtemp()
class Deferred:
    def execute(self, context):
        return "deferred"
    def execute_complete(self, context, event=None):
        raise AirflowException("the job failed")
class Instance:
    def xcom_pull(self, task_ids, key):
        return folder
found["ends"] = []
for passed in (True, False):
    gate = {"gate": {"passed": passed, "reason": "it got worse"}}
    pathlib.Path(folder, "metrics.json").write_text(json.dumps(gate))
    task = module._judged(Deferred)()
    found["ends"].append(task.execute({"ti": Instance()}))
    try:
        task.execute_complete({"ti": Instance()}, {})
    except AirflowException as error:
        found["ends"].append([type(error).__name__, str(error)])
print("FOUND " + json.dumps(found))
"""


def test_tables_assets_and_deferred_gates(airflow):
    done = airflow.run("python", "-c", BESIDE)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stderr[-2000:]
    found = json.loads(lines[0].removeprefix("FOUND "))
    assert found["order"] == [name for name in STEPS if name != "preprocess"]
    assert {"rows", "held_out", "rows_format", "label", "features", "on", "root"} <= {*found["params"]}
    assert [*found["outlets"]] == ["promote"]
    assert found["outlets"]["promote"][0].endswith("/tables/models")
    assert found["ends"] == [
        "deferred",
        ["AirflowException", "the job failed"],
        "deferred",
        ["AirflowFailException", "it got worse"],
    ]


def test_the_first_run_promotes_a_model(airflow):
    states = airflow.pipeline(FIRST, QUICK)
    assert states == dict.fromkeys(STEPS, ("success", 1))
    (accepted,) = airflow.accepted
    assert accepted["interval"] == f"{FIRST}T00:00:00+00:00"
    assert airflow.output(FIRST, "evaluate/metrics.json")["metrics"]["accuracy"] > 0.9
    assert airflow.output(FIRST, "scores/_manifest.json")["metrics"]["rows"] == 1797
    assert airflow.output(FIRST, "train/manifest.json")["config"]["initial_model"] is None


def test_the_second_run_starts_from_it(airflow):
    states = airflow.pipeline(SECOND, QUICK)
    assert states == dict.fromkeys(STEPS, ("success", 1))
    first, second = airflow.accepted
    assert airflow.output(SECOND, "train/manifest.json")["config"]["initial_model"] == f"{first['folder']}/model"
    cold, warm = (airflow.output(date, "train/receipt.json") for date in (FIRST, SECOND))
    assert warm["objective"][0] == pytest.approx(cold["objective"][-1], rel=1e-6)  # the same rows
    assert warm["steps"] < cold["steps"] / 2
    gate = airflow.output(SECOND, "evaluate/metrics.json")["gate"]
    assert gate["baseline"] == airflow.output(FIRST, "evaluate/metrics.json")["metrics"]["accuracy"]
    assert second["interval"] == f"{SECOND}T00:00:00+00:00"


def test_a_model_that_got_worse_is_not_promoted(airflow):
    before = airflow.accepted
    states = airflow.pipeline(THIRD, HASTY)
    assert states["evaluate"] == ("failed", 1)  # and was not tried again
    assert [states[name][0] for name in STEPS] == ["success"] * 3 + ["failed"] + ["upstream_failed"] * 2
    assert airflow.output(THIRD, "evaluate/metrics.json")["gate"]["passed"] is False
    assert airflow.accepted == before
    assert not (airflow.root / "runs" / f"{THIRD}T00-00-00" / "scores").exists()
    assert (airflow.folder / "failed.txt").read_text() == "evaluate\n"


def test_jobs_run_without_spark_where_that_is_asked_for(airflow, tmp_path):
    """By the command, on Airflow's own worker; the gate is not tried again there either."""
    command = {"SPARKOPT_COMMAND": str(Path(sys.executable).parent / "sparkopt"), "JAVA_HOME": "/nowhere"}
    command |= {"SPARKOPT_ROOT": str(tmp_path), "SPARKOPT_SPARK_SUBMIT": "/nowhere/spark-submit"}
    states = airflow.pipeline("2026-11-06", {**QUICK, "on": "machine"}, **command)
    assert states == dict.fromkeys(STEPS, ("success", 1))
    run = tmp_path / "runs" / "2026-11-06T00-00-00"
    assert json.loads((run / "train" / "manifest.json").read_text())["spark"]["application"] is None
    assert json.loads((run / "scores" / "_manifest.json").read_text())["metrics"]["rows"] == 1797
    states = airflow.pipeline("2026-11-07", {**HASTY, "on": "machine"}, **command)
    assert states["evaluate"] == ("failed", 1)


WORKSPACE = {"conn_type": "databricks", "host": "127.0.0.1", "schema": "http", "password": "none"}


class Workspace(BaseHTTPRequestHandler):
    """As much of Databricks' interface as a run needs; it keeps what it was sent, and leaves what the jobs would."""

    sent: list[dict] = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.sent.append(body)
        self.work(body["spark_python_task"])
        self.answer({"run_id": len(self.sent)})

    def do_GET(self):
        state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS", "state_message": ""}
        self.answer({"state": state, "run_page_url": "http://127.0.0.1/run", "tasks": []})

    def answer(self, content):
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass

    def work(self, task):
        flags = task["parameters"]
        output = Path(flags[flags.index("--output") + 1])
        if task["python_file"].endswith("/train.py"):
            (output / "model").mkdir(parents=True)
            (output / "model" / "data").write_text("coefficients")
        if task["python_file"].endswith("/evaluate.py"):
            output.mkdir(parents=True)
            (output / "metrics.json").write_text(json.dumps({"gate": {"passed": True}}))


def test_with_a_connection_to_databricks_the_jobs_run_there(airflow, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Workspace)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "SPARKOPT_DATABRICKS_CONN_ID": "workspace",
        "SPARKOPT_DATABRICKS_CLUSTER": "0000-cluster",
        "SPARKOPT_JOBS": "/Workspace/jobs",
        "SPARKOPT_ROOT": str(tmp_path),
        "AIRFLOW_CONN_WORKSPACE": json.dumps({**WORKSPACE, "port": server.server_port}),
    }
    try:
        assert "DatabricksSubmitRunOperator" in airflow.look(**environment)["kinds"]["train"]
        states = airflow.pipeline("2026-11-05", QUICK, **environment)
    finally:
        server.shutdown()
    assert states == dict.fromkeys(STEPS, ("success", 1))
    assert [each["spark_python_task"]["python_file"] for each in Workspace.sent] == [
        f"/Workspace/jobs/{job}.py" for job in ("preprocess_images", "train", "evaluate", "score")
    ]
    assert {each["existing_cluster_id"] for each in Workspace.sent} == {"0000-cluster"}
    assert "--reg-param" in Workspace.sent[1]["spark_python_task"]["parameters"]
    assert (
        json.loads((tmp_path / "models" / "accepted.json").read_text())["models"][0]["interval"][:10] == "2026-11-05"
    )
