"""Spark starts from an archive of its classes: where there is none it is written, whole, and never in the way."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparkopt.launch import class_archive
from sparkopt.launch.class_archive import KEPT, OPTIONS, VARIABLE, archive_path, use_archive

LOCAL = {"spark.master": "local[2]", "spark.ui.enabled": "false"}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with a Java and a Spark, where nothing has run yet; what would run at exit is collected instead."""
    for name in ("SPARK_SUBMIT_OPTS", "SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS", "PYSPARK_GATEWAY_PORT", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    jars, java = tmp_path / "spark" / "jars", tmp_path / "java"
    (java / "bin").mkdir(parents=True)
    jars.mkdir(parents=True)
    (java / "bin" / "java").write_text("#!/bin/sh\n")
    (java / "release").write_text('JAVA_VERSION="17.0.15"\n')
    (jars / "spark-core.jar").write_text("classes")
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))
    monkeypatch.setenv("JAVA_HOME", str(java))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("pyspark.SparkContext._gateway", None)
    monkeypatch.setattr("pyspark.SparkContext._active_spark_context", None)
    at_exit: list = []
    monkeypatch.setattr(class_archive.atexit, "register", lambda *call: at_exit.append(call))
    return SimpleNamespace(
        folder=tmp_path, jars=jars, java=java, cache=tmp_path / "cache" / "sparkopt", at_exit=at_exit
    )


def jvm_that(monkeypatch, script: str, classes: int = 20_000) -> None:
    """Stand in for Spark's JVM: it ends when its input does, as PySpark's, and writes what the script writes."""
    process = subprocess.Popen(["sh", "-c", f"cat >/dev/null; {script}"], stdin=subprocess.PIPE)
    bean = SimpleNamespace(getLoadedClassCount=lambda: classes)
    factory = SimpleNamespace(getClassLoadingMXBean=lambda: bean)
    management = SimpleNamespace(ManagementFactory=factory)
    java = SimpleNamespace(lang=SimpleNamespace(management=management))
    gateway = SimpleNamespace(proc=process, jvm=SimpleNamespace(java=java))
    monkeypatch.setattr("pyspark.SparkContext._gateway", gateway)


def written(settings: dict[str, str]) -> Path:
    """The file that the JVM of a session is to write."""
    _, _, name = settings[OPTIONS].partition('"-XX:ArchiveClassesAtExit=')
    return Path(name.rstrip('"'))


def finish(machine) -> None:
    ((call, *arguments),) = machine.at_exit
    call(*arguments)


def test_a_first_session_writes_the_archive_and_a_second_one_starts_from_it(machine, monkeypatch):
    first = use_archive(LOCAL)
    file = written(first)
    assert {key: value for key, value in first.items() if key != OPTIONS} == LOCAL
    assert file.parent == machine.cache
    assert file != archive_path()
    jvm_that(monkeypatch, f"rm '{file}'; echo classes >'{file}'")
    finish(machine)
    assert archive_path().read_text() == "classes\n"
    assert list(machine.cache.iterdir()) == [archive_path()]
    monkeypatch.setattr("pyspark.SparkContext._gateway", None)
    second = use_archive(LOCAL)[OPTIONS]
    assert f'"-XX:SharedArchiveFile={archive_path()}"' in second
    assert "-Xshare:auto" in second
    assert "ArchiveClassesAtExit" not in second


@pytest.mark.parametrize(
    ("script", "classes"),
    [
        pytest.param("exit 1", 20_000, id="java failed"),
        pytest.param("true", 20_000, id="nothing written"),
        pytest.param("echo classes >'{}'", 9_000, id="a session that did nothing"),
        pytest.param("echo classes >'{}'; kill -9 $$", 20_000, id="killed"),
    ],
)
def test_what_is_not_whole_or_not_worth_it_is_removed(machine, monkeypatch, script, classes):
    file = written(use_archive(LOCAL))
    jvm_that(monkeypatch, script.format(file), classes)
    finish(machine)
    assert list(machine.cache.iterdir()) == []


def test_of_two_first_sessions_at_the_same_time_each_writes_its_own_file(machine, monkeypatch):
    one, other = written(use_archive(LOCAL)), written(use_archive(LOCAL))
    assert one != other
    for (call, *arguments), file, text in zip(machine.at_exit, (one, other), ("one", "other"), strict=True):
        jvm_that(monkeypatch, f"printf {text} >'{file}'")
        call(*arguments)
    assert archive_path().read_text() == "other"
    assert list(machine.cache.iterdir()) == [archive_path()]


def test_a_forked_worker_leaves_it_to_its_parent(machine, monkeypatch):
    file = written(use_archive(LOCAL))
    ((call, *arguments),) = machine.at_exit
    jvm_that(monkeypatch, f"printf classes >'{file}'")
    call(*arguments[:-1], os.getpid() + 1)
    assert file.exists()
    finish(machine)
    assert archive_path().read_text() == "classes"


@pytest.mark.parametrize(
    ("settings", "variables"),
    [
        pytest.param({"spark.master": "yarn"}, {}, id="a cluster"),
        pytest.param({}, {"MASTER": "spark://host:7077"}, id="a cluster by Spark's variable"),
        pytest.param(
            {}, {"PYSPARK_SUBMIT_ARGS": "--master yarn pyspark-shell"}, id="a cluster by PySpark's variable"
        ),
        pytest.param(LOCAL, {VARIABLE: "off"}, id="turned off"),
        pytest.param(LOCAL, {"PYSPARK_GATEWAY_PORT": "1"}, id="spark-submit's JVM"),
        pytest.param(LOCAL, {"SPARK_SUBMIT_OPTS": "-XX:SharedArchiveFile=mine.jsa"}, id="an archive of the user's"),
        pytest.param({**LOCAL, "spark.driver.extraJavaOptions": "-Xshare:off"}, {}, id="options of the user's"),
        pytest.param({**LOCAL, "spark.driver.extraClassPath": "/jars"}, {}, id="another class path"),
        pytest.param(LOCAL, {"HADOOP_CONF_DIR": "/etc/hadoop"}, id="a folder on the class path"),
        pytest.param(LOCAL, {"JAVA_HOME": "/nonexistent"}, id="no Java"),
        pytest.param(LOCAL, {"SPARK_HOME": "/nonexistent"}, id="no Spark"),
    ],
)
def test_other_sessions_stay_as_they_are(machine, monkeypatch, settings, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert use_archive(settings) == settings
    assert machine.at_exit == []


def test_a_running_jvm_and_a_configured_spark_stay_as_they_are(machine, monkeypatch):
    jvm_that(monkeypatch, "true")
    assert use_archive(LOCAL) == LOCAL
    monkeypatch.setattr("pyspark.SparkContext._gateway", None)
    (machine.folder / "spark" / "conf").mkdir()
    assert OPTIONS in use_archive(LOCAL)
    (machine.folder / "spark" / "conf" / "spark-defaults.conf").write_text("spark.master yarn\n")
    assert use_archive(LOCAL) == LOCAL


def test_a_home_that_cannot_be_written_is_logged_once_and_not_in_the_way(machine, monkeypatch, caplog):
    (machine.folder / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine.folder / "file"))
    with caplog.at_level(logging.INFO, "sparkopt"):
        assert use_archive(LOCAL) == LOCAL
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "without an archive" in record.getMessage()


def test_the_users_own_options_come_last_and_a_path_is_one_word(machine, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine.folder / "a folder"))
    found = use_archive({**LOCAL, OPTIONS: "-Xlog:gc"})[OPTIONS]
    assert found.endswith('" -Xlog:gc')
    assert f'"-XX:ArchiveClassesAtExit={machine.folder}/a folder/sparkopt/' in found


def test_another_java_or_another_spark_has_another_archive(machine):
    found = [archive_path()]
    (machine.java / "release").write_text('JAVA_VERSION="21.0.1"\n')
    found.append(archive_path())
    (machine.jars / "spark-core.jar").write_text("other classes")
    found.append(archive_path())
    (machine.jars / "another.jar").write_text("")
    found.append(archive_path())
    assert len(set(found)) == 4


def test_archives_used_long_ago_and_unfinished_ones_are_removed(machine, monkeypatch):
    machine.cache.mkdir(parents=True)
    for age in range(1, 6):
        path = machine.cache / f"spark-1.0-{age}.jsa"
        path.write_text("classes")
        os.utime(path, (time.time() - 1000 * age,) * 2)
    left, begun = machine.cache / "spark-1.0-1.jsa.abc", machine.cache / "spark-1.0-1.jsa.def"
    for path in (left, begun):
        path.write_text("half")
    os.utime(left, (time.time() - 10_000,) * 2)
    (machine.cache / "horovod").mkdir()
    file = written(use_archive(LOCAL))
    assert not left.exists()
    jvm_that(monkeypatch, f"printf classes >'{file}'")
    finish(machine)
    kept = {archive_path().name, *(f"spark-1.0-{age}.jsa" for age in range(1, KEPT))}
    assert {path.name for path in machine.cache.iterdir()} == {*kept, begun.name, "horovod"}


SESSION = """
import sparkopt
spark = sparkopt.session("local", settings={
    "spark.driver.memory": "1g",
    "spark.master": "local[1]",
    "spark.driver.extraJavaOptions": "-Xlog:class+load:file=LOG -Dlog4j2.configurationFile=CONF",
})
print(spark.range(10).selectExpr("sum(id)").first()[0])
"""


@pytest.mark.usefixtures("jvms")
def test_java_writes_it_starts_from_it_and_is_silent_about_one_that_it_cannot_read(tmp_path):
    """With a real Java, in processes of their own: what was loaded from where is in Java's own log."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("SPARK_SUBMIT_OPTS", VARIABLE)}
    log = tmp_path / "classes.log"
    conf = Path(__file__).parents[2] / "conf" / "log4j2.properties"
    program = SESSION.replace("LOG", str(log)).replace("CONF", str(conf))

    def archived() -> int:
        """Run a session; return how many classes came from the archive."""
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**inherited, "XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=400,
            check=True,
        )
        assert done.stdout == "45\n"
        assert [line for line in done.stderr.splitlines() if "cds" in line or "archive" in line] == []
        return log.read_text().count("shared objects file (top)")

    assert archived() == 0
    (archive,) = (tmp_path / "sparkopt").iterdir()
    assert archived() > 10_000
    archive.chmod(0o600)
    archive.write_text("not an archive")
    assert archived() == 0
