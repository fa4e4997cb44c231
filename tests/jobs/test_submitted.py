"""Every job through spark-submit: in local mode, on a standalone cluster of real processes, with bad input, killed.

The normal run has one of each; ``make test-all`` has them all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest

from jobs.bench.network import Cluster
from sparkopt.jobs.pipeline import STEPS, DataInterval, Pipeline
from sparkopt.ml import LogisticRegression
from tests import jvm
from tests.jobs.running import command, kill_when, submit

pytestmark = pytest.mark.usefixtures("jvms")

SHAPE = ["--features", "a,b", "--label", "c", "--loss", "logistic", "--reg-param", "0.01", "--engine", "driver"]


@dataclass(frozen=True)
class Case:
    """A job, called with ``flags``; braces name what the tests have made.

    ``wrong`` are flags that replace these, with their exit code and error. ``killed`` returns, from the
    output's folder and what the job has printed, whether it is time to kill it; ``more`` are flags for that run.
    ``check`` tests the output.
    """

    flags: list[str]
    wrong: tuple[list[str], int, str]
    killed: Callable[[Path, str], bool]
    check: Callable[[Path], None]
    more: tuple[str, ...] = ()


def read(output: Path, name: str) -> dict:
    return json.loads((output / name).read_text())


def is_writing(output: Path, log: str) -> bool:
    return any(output.parent.glob(f".{output.name}.*.unfinished/*"))


def trained(output: Path) -> None:
    assert read(output, "metrics.json")["held_out"]["accuracy"] > 0.9
    assert read(output, "receipt.json")["engine"] == "driver"


def trained_deep(output: Path) -> None:
    receipt = read(output, "receipt.json")
    assert (receipt["launcher"], receipt["processes"]) == ("torch", 2)


def preprocessed(output: Path) -> None:
    report = json.loads(output.with_name(f"{output.name}-report.json").read_text())
    assert (report["good"], report["images"], report["failures"]) == (120, 120, {})


def scored(output: Path) -> None:
    assert read(output, "_manifest.json")["metrics"]["rows"] == 400


def evaluated(output: Path) -> None:
    assert read(output, "metrics.json")["gate"]["passed"] is True


CASES = {
    "train": Case(
        ["--parquet", "{table}", *SHAPE],
        (["--parquet", "/nowhere/rows"], 1, "cannot read '/nowhere/rows': [PATH_NOT_FOUND]"),
        is_writing,
        trained,
    ),
    "train_deep": Case(
        [
            *("--images", "{images}", "--image-size", "8", "--epochs", "20", "--widths", "8"),
            *("--launcher", "torch", "--processes", "2"),
            *("--store-path", "{here}/store", "--checkpoint-dir", "{here}/checkpoints"),
        ],
        (["--images", "{images}/0"], 1, "has images of 1 classes; a classifier needs two"),
        lambda output, log: any(output.parent.glob("checkpoints/**/epoch-00000[3-9]-*")),
        trained_deep,
    ),
    "preprocess_images": Case(
        ["--input", "{images}", "--size", "16", "--parts", "3", "--encoding", "png"],
        (["--input", "{images}", "--encoding", "gif"], 2, "argument --encoding: invalid choice: 'gif'"),
        lambda output, log: any(output.glob("part-*.parquet")),
        preprocessed,
    ),
    "score": Case(
        ["--model", "{model}", "--parquet", "{table}"],
        (["--model", "/nowhere", "--parquet", "{table}"], 1, "'/nowhere' holds no saved model"),
        is_writing,
        scored,
    ),
    "evaluate": Case(
        ["--model", "{model}", "--parquet", "{table}", "--min-value", "0.9"],
        (["--model", "{model}", "--parquet", "{table}", "--min-value", "1.5"], 3, "accuracy 1 is below --min-value"),
        lambda output, log: '"evaluated"' in log,
        evaluated,
        ("--log-format", "json"),
    ),
}


@pytest.fixture(scope="module")
def pictures(digits, tmp_path_factory) -> str:
    """A folder of 120 images of two digits."""
    folder = tmp_path_factory.mktemp("images")
    for name in ("0", "1"):
        (folder / name).mkdir()
        for path in sorted((digits / name).iterdir())[:60]:
            shutil.copy(path, folder / name)
    return str(folder)


@pytest.fixture(scope="module")
def model(spark, table, tmp_path_factory) -> str:
    """A model of the table."""
    rows = spark.read.parquet(table)
    fitted = LogisticRegression(featuresCols=["a", "b"], labelCol="c", regParam=0.01, tol=1e-3).fit(rows)
    path = str(tmp_path_factory.mktemp("made") / "model")
    fitted.save(path)
    return path


@pytest.fixture
def made(job, table, pictures, request) -> dict[str, str]:
    """What the flags of a job name; only of some, a model, for which a session of this process is needed."""
    models = {"model": request.getfixturevalue("model")} if job in ("score", "evaluate") else {}
    return {"table": table, "images": pictures, **models}


@pytest.fixture(scope="module")
def cluster():
    with Cluster.up(workers=2, loopback=True) as running:
        yield running


def filled(flags: list[str], made: dict[str, str], here: Path) -> list[str]:
    return [flag.format(**made, here=here) for flag in flags]


def settings_of(cluster: Cluster | None) -> dict:
    """How to submit there; the profile of a standalone cluster, with less memory."""
    if cluster is None:
        return {"settings": {"spark.driver.memory": "1g"}}
    return {"settings": {**cluster.settings, **jvm.EXECUTORS, "spark.driver.memory": "1g"}, "profile": "standalone"}


def looked_at(job: str, output: Path, master: str) -> None:
    """The output is whole: every file that the manifest names, the page among them."""
    hidden = "_" * (job in ("score", "preprocess_images"))
    manifest = read(output, f"{hidden}manifest.json")
    assert manifest["status"] == "complete"
    assert manifest["spark"]["master"].startswith(master)
    assert f"{hidden}report.html" in manifest["outputs"]
    assert all((output / name).exists() for name in manifest["outputs"])
    CASES[job].check(output)


@pytest.mark.parametrize("job", CASES)
def test_in_local_mode(made, tmp_path, job):
    output = tmp_path / "out"
    run = submit(job, *filled(CASES[job].flags, made, tmp_path), "--output", str(output), **settings_of(None))
    assert run.returncode == 0, run.stdout[-2000:]
    looked_at(job, output, "local")


@pytest.mark.parametrize("job", CASES)
def test_on_a_standalone_cluster(made, cluster, tmp_path, job):
    output = tmp_path / "out"
    run = submit(job, *filled(CASES[job].flags, made, tmp_path), "--output", str(output), **settings_of(cluster))
    assert run.returncode == 0, run.stdout[-2000:]
    looked_at(job, output, "spark://127.0.0.1:")


@pytest.mark.parametrize("job", CASES)
def test_bad_input_is_one_line(made, tmp_path, job):
    """An exit code, one line, and no output but a gate's verdict; test_frame.py tables what can be wrong."""
    flags, code, line = CASES[job].wrong
    run = submit(job, *filled(flags, made, tmp_path), "--output", str(tmp_path / "out"))
    # spark-submit sends both of the job's streams to its own standard output
    log = [text for text in (run.stdout + run.stderr).splitlines() if not text.startswith("WARNING: Using incubator")]
    errors = [text for text in log if text.startswith(f"sparkopt {job.replace('_', '-')}: error: ")]
    assert run.returncode == code, log
    assert len(errors) == 1, log
    assert line in errors[0]
    if code != 3:
        assert log == errors
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("job", CASES)
def test_killed_and_run_again(made, tmp_path, job):
    """SIGKILL, to all its processes, in the middle: nothing half is left, and the same command ends well."""
    case, output, log = CASES[job], tmp_path / "out", tmp_path / "log"
    flags = [*filled(case.flags, made, tmp_path), "--output", str(output), *case.more]
    line = command(job, *flags, **settings_of(None))
    kill_when(line, lambda: case.killed(output, log.read_text() if log.exists() else ""), log)
    if job == "preprocess_images":  # which resumes its output
        assert read(output, "_manifest.json")["status"] == "unfinished"
    else:
        assert not output.exists()
    run = submit(job, *flags, **settings_of(None))
    assert run.returncode == 0, run.stdout[-2000:]
    looked_at(job, output, "local")
    assert not list(tmp_path.glob(".out*"))
    if job == "preprocess_images":
        assert json.loads((tmp_path / "out-report.json").read_text())["skipped"] > 0
    if job == "train_deep":
        assert read(output, "receipt.json")["resumed"]


@pytest.mark.parametrize("place", ["local", "standalone"])
def test_the_pipeline(pictures, request, tmp_path, spark, place):
    """All its steps in their order, as a scheduler submits them; the gate's exit code is the one that stops it."""
    where = settings_of(request.getfixturevalue("cluster") if place == "standalone" else None)
    day = DataInterval(*(datetime(2026, 11, number, tzinfo=timezone.utc) for number in (23, 24)))
    training = ("--reg-param", "0.01", "--max-iter", "30")
    pipeline = Pipeline(pictures, str(tmp_path), image_size=8, preprocess=("--parts", "1"), train=training)
    plan = pipeline.plan(day)
    scripts = dict(zip(STEPS, ("preprocess_images", "train", "evaluate", "score"), strict=True))
    for step, script in scripts.items():
        run = submit(script, *getattr(plan, step), **where)
        assert run.returncode == 0, (step, run.stdout[-2000:])
    assert read(Path(plan.evaluation), "metrics.json")["metrics"]["accuracy"] > 0.95
    assert spark.read.parquet(str(Path(plan.candidate).with_name("scores"))).count() == 120
    run = submit("evaluate", *plan.evaluate, "--min-value", "1.5", **where)
    assert run.returncode == 3
