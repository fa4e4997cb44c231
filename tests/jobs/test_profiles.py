"""The profiles in conf/: one source for spark-submit, sparkopt.session and the wheel; each setting is explained."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import sparkopt
from sparkopt.errors import ParameterError
from sparkopt.launch.session import PROFILES, profile_path, read_profile
from tests.jobs.running import ROOT, SPARK, environment


def test_every_profile_has_its_file():
    assert {path.stem for path in (ROOT / "conf").glob("*.conf")} == set(PROFILES)
    assert all(profile_path(name) == ROOT / "conf" / f"{name}.conf" for name in PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_every_setting_has_its_reason_beside_it(name):
    lines = (ROOT / "conf" / f"{name}.conf").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("spark."):
            assert lines[number - 1].startswith("# "), f"{name}.conf, line {number + 1}: {line}"
            assert len(lines[number - 1]) > 20
        else:
            assert not line or line.startswith("#"), f"{name}.conf, line {number + 1}: {line}"


PATTERNS = ("spark.executor.resource.gpu.", "spark.task.resource.gpu.", "spark.worker.resource.gpu.")
UNREGISTERED = {"spark.master"}
"""What Spark reads without an entry of its own."""


@pytest.mark.parametrize("name", PROFILES)
def test_spark_knows_every_setting_and_takes_its_value(spark, name):
    """Asked of Spark itself: its registry of settings, YARN's and Kubernetes' included."""
    jvm = spark._jvm
    for settings in ("deploy.k8s.Config", "deploy.yarn.config.package"):
        jvm.java.lang.Class.forName(f"org.apache.spark.{settings}$")
    for key, value in read_profile(name).items():
        if key.startswith(PATTERNS) or key in UNREGISTERED:
            continue
        entry = jvm.org.apache.spark.internal.config.ConfigEntry.findEntry(key)
        assert entry is not None, f"Spark has no {key}"
        jvm.scala.Some(value).map(entry.valueConverter())  # raises where the value cannot be read


@pytest.mark.usefixtures("jvms")
def test_a_profile_is_read_as_spark_submit_reads_it(tmp_path):
    """Spark's own parser of such files against ours."""
    code = (
        "import sys; from pyspark.java_gateway import launch_gateway; from pyspark import SparkConf\n"
        "gateway = launch_gateway(SparkConf(loadDefaults=False).set('spark.ui.enabled', 'false'))\n"
        "utils = gateway.jvm.org.apache.spark.util.Utils\n"
        "for path in sys.argv[1:]:\n"
        "    found = utils.getPropertiesFromFile(path)\n"
        "    keys = found.keysIterator()\n"
        "    while keys.hasNext():\n"
        "        key = keys.next()\n"
        "        print(path, key, found.apply(key), sep='\\t')\n"
    )
    paths = [str(profile_path(name)) for name in PROFILES]
    command = [sys.executable, "-c", code, *paths]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=120)
    theirs: dict[str, dict[str, str]] = {path: {} for path in paths}
    for line in done.stdout.splitlines():
        path, key, value = line.split("\t")
        theirs[path][key] = value.replace("=conf/", f"={ROOT}/conf/")
    assert theirs == {path: read_profile(path) for path in paths}
    assert SPARK.is_dir()


def test_the_bundle_makes_the_cluster_of_the_profile():
    """And its tasks are jobs that exist, with flags that they have."""
    bundle = yaml.safe_load((ROOT / "conf" / "databricks.yml").read_text())
    (job,) = bundle["resources"]["jobs"].values()
    (cluster,) = job["job_clusters"]
    assert cluster["new_cluster"]["spark_conf"] == read_profile("databricks")
    assert cluster["new_cluster"]["data_security_mode"] == "SINGLE_USER"  # else there are no Volumes
    for task in job["tasks"]:
        script = task["spark_python_task"]
        assert (ROOT / "conf" / script["python_file"]).is_file()
        module = importlib.import_module(f"sparkopt.jobs.{task['task_key']}")
        module.JOB.check(module.JOB.parser().read(script["parameters"]))


def test_what_is_no_profile_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="'kuber' does not exist: name a file, or one of local, notebook"):
        read_profile("kuber")
    (tmp_path / "mine.conf").write_text("spark.ui.enabled\n")
    with pytest.raises(ParameterError, match="line 1: 'spark.ui.enabled' has no value"):
        read_profile(tmp_path / "mine.conf")


@pytest.mark.usefixtures("jvms")
def test_a_session_comes_from_a_profile(tmp_path):
    """By name, with settings of the call over the profile's, from any folder; importing starts nothing."""
    code = (
        "import sparkopt, sys\n"
        "assert 'pyspark' not in sys.modules and 'torch' not in sys.modules\n"
        "spark = sparkopt.session(profile='local', app_name='mine', settings={'spark.master': 'local[1]'})\n"
        "conf = spark.sparkContext.getConf()\n"
        "for key in ('spark.app.name', 'spark.master', 'spark.sql.files.openCostInBytes', 'spark.driver.memory'):\n"
        "    print(conf.get(key))\n"
        "print(conf.get('spark.driver.extraJavaOptions'))\n"
        "spark.stop()\n"
    )
    where = {**environment(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=where, capture_output=True, text=True, check=True, timeout=120
    )
    *values, java = done.stdout.split("\n")[:5]
    assert values == ["mine", "local[1]", "65536", read_profile("local")["spark.driver.memory"]]
    assert f"-Dlog4j2.configurationFile={ROOT}/conf/log4j2.properties" in java
    assert importlib.import_module("sparkopt.launch.session").session is sparkopt.session


IN_A_KERNEL = (
    "import sys, types\n"
    "shell = types.SimpleNamespace(kernel=object())\n"
    "sys.modules['IPython'] = types.SimpleNamespace(get_ipython=lambda: shell)\n"
)


@pytest.mark.usefixtures("jvms")
@pytest.mark.parametrize("start", ["sparkopt.session('notebook')", f"{IN_A_KERNEL}\nsparkopt.session()"])
def test_a_notebook_shows_nothing_of_the_jvm(start, tmp_path):
    """Whether the profile is named or the process is a kernel: the JVM's and its workers' words go to a file."""
    code = (
        "import sparkopt, sys\n"
        f"{start}\n"
        "spark = sparkopt.session()\n"
        "spark.range(4).rdd.foreach(lambda row: print('a worker speaks', file=sys.stderr))\n"
        "print(spark.conf.get('spark.ui.showConsoleProgress'), spark.conf.get('spark.sparkopt.log'))\n"
    )
    done = _run(code, tmp_path, {})
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    progress, log = done.stdout.split()
    assert progress == "false"
    assert "a worker speaks" in Path(log).read_text()


@pytest.mark.usefixtures("jvms")
def test_a_notebook_shows_why_there_is_no_jvm(tmp_path):
    done = _run("import sparkopt; sparkopt.session('notebook')", tmp_path, {"JAVA_HOME": "/no/java/here"})
    assert "JAVA_GATEWAY_EXITED" in done.stderr
    assert "/no/java/here/bin/java" in done.stderr


def _run(code, folder, settings):
    where = {**environment(), "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **settings}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True, timeout=120, check=False)
