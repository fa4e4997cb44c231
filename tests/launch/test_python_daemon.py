"""Spark's Python workers: what they have imported when they start, and what their garbage collections look at."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparkopt import BlockStore, Columns
from sparkopt.blocks import handles, tasks
from sparkopt.io import worker
from sparkopt.launch.python_daemon import MODULE, PRELOADED, can_be_started
from sparkopt.validation import Interval
from tests.tiers import needs

ROOT = Path(__file__).parents[2]


def look(*_):
    return os.getpid(), sys.modules.keys() & {*PRELOADED}, gc.get_freeze_count(), np.random.random()


def test_workers_have_the_modules_and_draw_different_numbers(spark):
    """They are forks of one process, whose state of NumPy's generator they must not share."""
    if "spark.python.daemon.module" in os.environ.get("PYSPARK_SUBMIT_ARGS", ""):
        pytest.skip("coverage is measured in the workers of another daemon")
    assert spark.conf.get("spark.python.daemon.module") == MODULE
    found = spark.sparkContext.range(0, 2, 1, 2).map(look).collect()
    for _, modules, frozen, _ in found:
        assert modules == {*PRELOADED}
        assert frozen > 50_000
    assert len({number for *_, number in found}) == 2


def test_a_task_spares_what_it_has_imported(spark):
    """Where the daemon is Spark's own as well: then it is the first task that imports."""
    df = spark.range(10).selectExpr("array(double(id)) AS features", "double(id) AS label").coalesce(1)

    def as_the_first(part, blocks):
        gc.unfreeze()
        worker._Spared.modules = 0
        task = tasks.PartitionTask(lambda part, blocks: gc.get_freeze_count(), handles.KnownRows([0, 0], [0]))
        return gc.get_freeze_count(), task(handles.Handle.empty(0)).value

    with BlockStore.write(df, Columns("features", "label"), Interval()) as store:
        ((before, after),) = [result.value for result in store.collect(as_the_first)]
    assert before == 0
    assert after > 50_000


def test_outside_of_a_worker_nothing_is_spared():
    before = gc.get_freeze_count()
    worker.spare_modules()
    assert gc.get_freeze_count() == before


@pytest.mark.parametrize("finds", [True, False])
def test_the_daemon_is_asked_for_where_it_finds_the_same_package(finds, tmp_path):
    """Not where a script put it on the path of its own process, whether another is installed or none."""
    (tmp_path / "sparkopt").symlink_to(ROOT / "sparkopt")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "from sparkopt.launch.python_daemon import can_be_started; print(can_be_started(sys.executable))"
    )
    found = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": os.pathsep.join([*[str(tmp_path)] * finds, *filter(None, sys.path)])},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(finds)


def test_another_interpreter_has_its_own_daemon():
    assert not can_be_started("/usr/bin/another-python")


def in_a_process(code, *arguments, **environment):
    """Run a script and return what it prints last."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


TASKS = {"sparkopt.blocks.tasks", "sparkopt.blocks.summaries", "sparkopt.objective.work", "sparkopt.losses"}
NOT_NEEDED = {"pandas", "torch", "cv2", "horovod", "sklearn", "mlflow", "pyspark.ml", "scipy.optimize", "scipy.stats"}
NOT_NEEDED |= {"scipy.sparse", "scipy.special"}  # of sparse rows, and of some losses


def test_the_daemon_imports_what_the_tasks_of_a_fit_need_and_no_more(tmp_path):
    (tmp_path / "load.py").write_text(
        "import importlib, json, sys\nfrom sparkopt.launch.python_daemon import PRELOADED\n"
        "for name in PRELOADED:\n    importlib.import_module(name)\nprint(json.dumps(list(sys.modules)))"
    )
    found = set(in_a_process(tmp_path / "load.py"))
    assert found >= TASKS
    assert not found & {*NOT_NEEDED, "scipy.linalg"}  # which the loop needs, where one task runs it


@pytest.mark.parametrize("where", ["machine", pytest.param("spark", marks=needs("jvms"))])
@pytest.mark.parametrize("features", ["lists", "vectors"])
def test_workers_that_fit_parquet_import_no_more_than_they_need(where, features, tmp_path):
    """In a new process, by its worker processes or by Spark's: what each has imported after a fit."""
    found = in_a_process(Path(__file__).with_name("modules_of_workers.py"), where, features, tmp_path)
    assert set().union(*(modules for modules, _ in found)) >= TASKS
    for modules, late in found:
        assert not {*modules} & NOT_NEEDED
        if where == "spark":  # the daemon had all of them
            assert not [name for name in late if name.partition(".")[0] in ("sparkopt", "pyarrow")]
