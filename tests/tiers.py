"""Tiers of tests: by what a test needs, which its fixtures say. Nobody marks a test by hand.

``unit``    starts no JVM                                 ``make check`` runs these, and the linters
``spark``   uses the worker's one Spark session           ``make test`` runs these too
``system``  starts clusters, submits jobs, kills, installs, browses, or takes minutes: ``make test-all``

A test's tier is that of its most expensive fixture. One that needs something of ``NEEDS`` but no value of it says
``@pytest.mark.usefixtures("jvms")``; if only one value of a parameter needs it, that value says
``pytest.param("horovod", marks=needs("horovod"))``.
"""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TIERS = ("unit", "spark", "system")
SPARK = frozenset({"spark"})
NEEDS = {
    "jvms": "JVMs of its own: spark-submit, a cluster, a Spark Connect server, another process's session",
    "kills": "the right to kill processes that a shared session works with",
    "horovod": "Horovod, and the processes that it starts",
    "installs": "pip: it builds a wheel, or an environment",
    "tab": "a browser",
    "s3": "a server that speaks S3",
    "minutes": "time",
}
"""Fixtures of the third tier."""
NO_JVM = "/no-JVM-here:-the-test-has-neither-of-the-fixtures-spark-and-jvms"


_began = time.monotonic()


def needs(name: str) -> pytest.MarkDecorator:
    """Mark a parameter's value whose tests need a fixture of ``NEEDS``."""
    assert name in NEEDS, name
    return pytest.mark.needs(name)


def tier(fixtures: list[str]) -> str:
    """Return the tier of a test that has these fixtures."""
    if NEEDS.keys() & set(fixtures):
        return "system"
    return "spark" if SPARK & set(fixtures) else "unit"


def mark(items: list[pytest.Item]) -> None:
    """Give each test its tier's mark and what its parameters need; tiers come in order, what takes minutes last."""
    for item in items:
        assert isinstance(item, pytest.Function)
        wanted = [found.args[0] for found in item.iter_markers("needs")]
        # a list of its own: the cases of a test share one
        item.fixturenames = [*(name for name in wanted if name not in item.fixturenames), *item.fixturenames]
        item.add_marker(tier(item.fixturenames))
    items.sort(key=lambda item: ("minutes" in item.fixturenames, TIERS.index(_tier_of(item))))


def _tier_of(item: pytest.Item) -> str:
    (found,) = (name for name in TIERS if item.get_closest_marker(name))
    return found


def skip_where_time_is_up(item: pytest.Item) -> None:
    """Skip tests that come after the time that ``--minutes`` gives to all; the longest ones are the last."""
    limit = item.config.getoption("minutes")
    if limit is not None and time.monotonic() - _began > 60 * limit:
        pytest.skip(f"not run: the {limit:g} minutes of --minutes are over")


@pytest.fixture(scope="session")
def jvms() -> None:
    """Permission to start JVMs."""


@pytest.fixture(scope="session")
def kills() -> None:
    """Permission to kill what a session works with."""


@pytest.fixture(scope="session")
def installs() -> None:
    """Permission to take pip's time."""


@pytest.fixture(scope="session")
def minutes() -> None:
    """Permission to take minutes."""


@pytest.fixture(scope="session")
def horovod() -> None:
    """Horovod, where it is built."""
    if importlib.util.find_spec("horovod") is None:
        pytest.skip("Horovod is not built here: make horovod")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an S3 server on this machine, where there is one."""
    command = ROOT / ".venv-s3" / "bin" / "moto_server"
    if not command.exists():
        pytest.skip("there is no S3 server here: make test-s3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    log = tmp_path_factory.mktemp("s3") / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen([command, "-H", "127.0.0.1", "-p", str(port)], stdout=stream, stderr=stream)
    try:
        while not _answers(port):
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A tab of a real browser, where there is one."""
    from tests.report import browser

    executable = browser.find()
    if executable is None:
        pytest.skip("no Chromium is on the PATH: apt-get install chromium, then this test runs")
    with browser.Browser(executable, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_other_jvm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tests of the third tier start JVMs of their own, in whatever process: others find no Java.

    The shared session is older than this fixture, whose scope is the narrowest.
    """
    if _tier_of(request.node) != "system":
        monkeypatch.setenv("JAVA_HOME", NO_JVM)
