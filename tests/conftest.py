"""One Spark session for all tests that need one: small, quiet, and the same for everybody."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests import jvm, tiers
from tests.tiers import _no_other_jvm, horovod, installs, jvms, kills, minutes, s3, tab  # noqa: F401

pytest.register_assert_rewrite("tests.ml.behaviours")  # before any test imports it
for name in ("SPARK_SUBMIT_OPTS", "SPARK_DAEMON_JAVA_OPTS"):  # of all JVMs that tests start, in whatever process
    os.environ[name] = jvm.OPTIONS
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, help="skip tests that would begin after so many minutes")


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("hypothesispytest"):  # some environments are without it
        from hypothesis import settings

        settings.register_profile("untimed", deadline=None)  # by default an example that takes 0.2 s fails
        settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)  # before pytest's own, which selects by -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tiers.mark(items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    tiers.skip_where_time_is_up(item)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """Two cores, two shuffle partitions."""
    from sparkopt.launch.session import session

    settings = {
        "spark.master": "local[2]",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.memory": "2g",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={ROOT}/conf/log4j2.properties",
    }
    started = session(ROOT / "conf" / "local.conf", "sparkopt tests", settings)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data for heavier tests, where it is present."""
    if not SHARED.is_dir():
        pytest.skip("the shared data sets are not on this machine")
    return SHARED
