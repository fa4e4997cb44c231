"""Which engine runs in which Spark session: settings are named before the job, and ``auto`` takes what can run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pyspark import SparkConf

from sparkopt.engines import allreduce
from sparkopt.engines.base import FitSize, SessionTraits
from sparkopt.engines.selection import ENGINES, by_name, choose, refuse
from sparkopt.errors import IncompatibleError
from sparkopt.launch import settings
from sparkopt.launch.settings import SessionSettings, refuse_barrier

SETTINGS = {
    "new": {},
    "dynamic allocation": {"spark.dynamicAllocation.enabled": "true"},
    "speculation": {"spark.speculation": "true"},
    "speculation of long tasks": {"spark.speculation": "true", "spark.speculation.task.duration.threshold": "60s"},
    "long tasks, without speculation": {"spark.speculation.task.duration.threshold": "60s"},
    "one attempt a task": {"spark.task.maxFailures": "1"},
    "encryption": {"spark.network.crypto.enabled": "true"},
    "TLS": {"spark.ssl.rpc.enabled": "TRUE"},
    "SASL": {"spark.authenticate": "true", "spark.authenticate.enableSaslEncryption": "true"},
    "authentication": {"spark.authenticate": "true"},
    "IPv6": {"spark.driver.host": "[::1]", "spark.driver.bindAddress": "[::1]"},
    "encryption and dynamic allocation": {
        "spark.network.crypto.enabled": "true",
        "spark.dynamicAllocation.enabled": "true",
    },
}

ALL = {"driver", "resident", "allreduce", "local"}
REFUSED = {  # on Spark Classic: the engines that do not run, and what the error names
    "dynamic allocation": {"allreduce": "spark.dynamicAllocation.enabled=false"},
    "speculation of long tasks": {"local": "spark.speculation.task.duration.threshold"},
    "encryption": {"allreduce": "spark.network.crypto.enabled=false"},
    "TLS": {"allreduce": "spark.ssl.rpc.enabled=false"},
    "SASL": {"allreduce": "spark.authenticate.enableSaslEncryption=false"},
    "encryption and dynamic allocation": {"allreduce": "spark.network.crypto.enabled=false"},
}
SIZES = {
    "small": FitSize(2_000_000, 408, 8, 8),
    "medium": FitSize(400_000_000, 808, 8, 8),
    "wide": FitSize(40_000_000_000, 8_000_000, 256, 64),
}


def classic(given):
    conf = SparkConf(loadDefaults=False).setAll(list(given.items()))
    return SimpleNamespace(sparkContext=SimpleNamespace(getConf=lambda: conf))


def connect(given):
    """A session whose class is of Spark Connect's modules, as ``is_connect`` looks at it."""
    session = type("Session", (), {"__module__": "pyspark.sql.connect.session"})()
    session.conf = SimpleNamespace(get=given.get)
    return session


@pytest.fixture(autouse=True)
def _torch(monkeypatch):
    monkeypatch.setattr(allreduce, "_has_torch", lambda: True)


@pytest.mark.parametrize("kind", ["classic", "connect"])
@pytest.mark.parametrize("engine", sorted(ALL))
@pytest.mark.parametrize("name", SETTINGS)
def test_an_engine_runs_or_names_the_setting(name, engine, kind):
    session = SessionTraits.of((classic if kind == "classic" else connect)(SETTINGS[name]))
    expected = REFUSED.get(name, {}).get(engine)
    if kind == "connect" and engine == "resident":
        expected = "use a Spark Classic session"
    if expected is None:
        refuse(by_name(engine), session)
        return
    with pytest.raises(IncompatibleError, match=f"engine='{engine}' cannot run in this Spark session") as raised:
        refuse(by_name(engine), session)
    assert expected in str(raised.value)
    assert "Or use engine=" in str(raised.value)
    assert repr(engine) not in str(raised.value).partition("Or use engine=")[2]  # what it offers instead can run


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["classic", "connect"])
@pytest.mark.parametrize("name", SETTINGS)
def test_auto_takes_what_can_run(name, kind, size):
    session = SessionTraits.of((classic if kind == "classic" else connect)(SETTINGS[name]))
    choice = choose(SIZES[size], ENGINES["auto"]().candidates(session))
    refuse(choice.engine, session)
    refused = set(REFUSED.get(name, {})) | ({"resident"} if kind == "connect" else set())
    assert choice.seconds.keys() <= ALL - refused
    if not refused and size == "wide":
        assert choice.engine.name == "allreduce"


@pytest.mark.parametrize("engine", sorted(ALL))
def test_without_a_key_exchange_nothing_of_ours_connects_under_encryption(engine, monkeypatch):
    monkeypatch.setattr(settings, "can_encrypt", lambda: False)
    session = SessionTraits.of(classic(SETTINGS["encryption"]))
    if engine == "driver":
        refuse(by_name(engine), session)
        return
    with pytest.raises(IncompatibleError, match="set spark.network.crypto.enabled=false"):
        refuse(by_name(engine), session)


def test_settings_that_a_server_does_not_show_are_those_of_a_new_session():
    from pyspark.errors import PySparkException

    def get(key, default):
        raise PySparkException("[CONFIG_NOT_AVAILABLE] Configuration is not available.")

    session = connect({})
    session.conf = SimpleNamespace(get=get)
    assert SessionSettings.of_session(session) == SessionSettings()


def test_processes_of_a_barrier_stage_are_refused_with_dynamic_allocation():
    found = SessionSettings.of_context(classic(SETTINGS["dynamic allocation"]).sparkContext)
    with pytest.raises(IncompatibleError, match=r"set spark.dynamicAllocation.enabled=false.*launcher='local'"):
        refuse_barrier(found)
    refuse_barrier(SessionSettings())
