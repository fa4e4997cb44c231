"""A cluster on one machine: fits across limited links, the kernel's count of bytes, and nothing that stays behind."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
import pytest

from jobs.bench import network
from jobs.bench.network import Cluster, leftovers
from tests.engines import fit_on_network

pytestmark = pytest.mark.usefixtures("jvms", "kills")

ROOT = Path(__file__).parents[2]
FEATURES = 1000


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """400 rows in two files."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("network")
    truth = rng.normal(size=(FEATURES, fit_on_network.CLASSES))
    for number in range(2):
        X = rng.normal(size=(200, FEATURES))
        y = (X @ truth).argmax(axis=1).astype(float)
        pq.write_table(pa.table({"features": list(X), "label": y}), folder / f"part-{number}.parquet")
    return str(folder)


def started(*arguments: str) -> tuple[subprocess.Popen[str], dict]:
    """Start the script; return it and what it found, while its cluster stands."""
    environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(ROOT / "tests/engines/fit_on_network.py"), *arguments]
    process = subprocess.Popen(script, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("RESULT "):
            return process, json.loads(line.removeprefix("RESULT "))
    raise AssertionError(f"the script ended with {process.wait()}")


def processes_of(pid: int) -> list[int]:
    """Processes of a script's cluster, by the folder that it gave them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{network.FOLDER}{pid}-".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def names() -> set[str]:
    """Everything that clusters of any process have made."""
    entries = [entry["name"] for entry in network._listed("netns", "list")]
    entries += [
        entry["ifname"] for kind in ("veth", "bridge") for entry in network._listed("link", "show", "type", kind)
    ]
    return {name for name in entries if network.NAMES.match(name)}


def test_a_fit_across_links(spark, parquet):
    """The coefficients of local mode, as many bytes as the receipt says, and nothing stays when it is interrupted."""
    process, found = started(parquet, "resident", "allreduce")
    assert processes_of(process.pid)
    try:
        with fit_on_network.store_of(spark, parquet) as store:
            fit = fit_on_network.trainer("driver").fit(store)
        expected = np.append(fit.coefficients, fit.intercept)
        for engine in ("resident", "allreduce"):
            assert found[engine]["engine"] == engine
            np.testing.assert_allclose(found[engine]["coefficients"], expected, rtol=1e-8, atol=1e-12, err_msg=engine)
        if not found["why_not"]:
            assert len(set(found["hosts"])) == 3  # the driver's, and one for each worker
            sent, up, down = (found["resident"][key] for key in ("sent", "up", "down"))
            assert sent < up + down < 1.2 * sent + 1e6
            sent, up, down = (found["allreduce"][key] for key in ("sent", "up", "down"))
            assert sent < up < 1.2 * sent + 1e6  # one rank's up is the other's down
            assert sent < down < 1.2 * sent + 2e6
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert not [name for name in names() if name.startswith(f"spk{process.pid}")]
    assert not processes_of(process.pid)
    if found["why_not"]:
        pytest.skip(f"no limited links here: {found['why_not']}")


def test_what_a_killed_process_leaves_is_cleared_by_the_next(parquet, caplog):
    process, found = started(parquet)
    process.kill()
    process.wait(30)
    if not found["why_not"]:
        assert {f"spk{process.pid}n0", f"spk{process.pid}b"} <= set(leftovers())
    with pytest.MonkeyPatch.context() as patched, caplog.at_level(logging.WARNING, logger="network"):
        patched.setattr(network, "_why_no_namespaces", lambda: "not today")
        with contextlib.suppress(ZeroDivisionError), Cluster.up(1) as cluster:
            assert not leftovers()
            assert not list(Path(tempfile.gettempdir()).glob(f"{network.FOLDER}{process.pid}-*"))
            assert (cluster.is_limited, cluster.why_not) == (False, "not today")
            assert cluster.url.startswith("spark://127.0.0.1:")
            assert (cluster.traffic().up, cluster.traffic().down) == (0, 0)
            pids = [one.pid for one in cluster.processes]
            folder = cluster.folder
            raise ZeroDivisionError
    assert "share this machine's network, unlimited and uncounted: not today" in caplog.text
    assert not network._of_sessions(set(pids))
    assert not folder.exists()
    deadline = time.monotonic() + 10
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(process.pid)


def test_a_worker_that_cannot_start_is_told_with_its_log(monkeypatch):
    monkeypatch.setattr(network, "_why_no_namespaces", lambda: "not today")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with (
        pytest.raises(RuntimeError, match="(?s)the master did not start: a process has ended.*/nowhere/bin/java"),
        Cluster.up(1),
    ):
        pass
