"""A cluster of each framework, of two workers here: ``make test-dask``, ``make test-ray``, ``make test-flink``."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sparkopt import Table

ROWS, WIDTH, PARTS = 480, 6, 4
NAMES = [f"x{j}" for j in range(WIDTH)]


def numbers() -> tuple[np.ndarray, np.ndarray]:
    """Features, mostly zeros, and labels."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(ROWS, WIDTH)) * (rng.random((ROWS, WIDTH)) < 0.4)
    y = X @ np.linspace(-1, 2, WIDTH) + rng.logistic(size=ROWS) > 0.2
    return X, y.astype(float)


def columns(kind: str) -> pd.DataFrame:
    """The rows as pandas: features in columns, in a list, or in a Vector's struct."""
    X, y = numbers()
    if kind == "columns":
        frame = pd.DataFrame(X, columns=NAMES)
    elif kind == "list":
        frame = pd.DataFrame({"features": pd.array(list(X), pd.ArrowDtype(pa.list_(pa.float64())))})
    else:
        frame = pd.DataFrame({"features": pd.array(_vectors(X, kind), pd.ArrowDtype(VECTOR))})
    return frame.assign(label=y, id=np.arange(ROWS))


VECTOR = pa.struct(
    [("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float64()))]
)


def _vectors(X: np.ndarray, kind: str) -> list[dict[str, Any]]:
    found = []
    for index, row in enumerate(X):
        where = np.flatnonzero(row)
        if kind == "mixed" and index % 3 == 0:
            found.append({"type": 1, "size": None, "indices": None, "values": row.tolist()})
        else:
            found.append({"type": 0, "size": WIDTH, "indices": where.tolist(), "values": row[where].tolist()})
    return found


@dataclass(frozen=True)
class Framework:
    """A framework with a running cluster.

    Attributes
    ----------
    name : str
        As ``make`` calls it.
    frame : callable
        From a pandas DataFrame to the framework's, in ``PARTS`` partitions in the rows' order.
    pandas : callable
        From the framework's frame to pandas.
    where : callable
        From a frame, a column and a number to the rows that are below it there.
    kill : callable
        Kills a worker process, with SIGKILL.
    """

    name: str
    frame: Callable[[pd.DataFrame], Any]
    pandas: Callable[[Any], pd.DataFrame]
    where: Callable[[Any, str, int], Any]
    kill: Callable[[], None]


def _dask() -> Iterator[Framework]:
    import dask.dataframe as dd
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):

        def kill() -> None:
            running = [nanny.process.pid for nanny in cluster.workers.values() if nanny.process and nanny.process.pid]
            os.kill(running[0], signal.SIGKILL)

        yield Framework(
            "dask",
            lambda frame: dd.from_pandas(frame, npartitions=PARTS),
            _computed,
            _below,
            kill,
        )


def _below(frame: Any, name: str, least: int) -> Any:
    return frame[frame[name] < least]


def _computed(frame: Any) -> pd.DataFrame:
    return frame.compute()


def _ray() -> Iterator[Framework]:
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def kill() -> None:
        here = os.getpid()
        workers = [found for found in Path("/proc").glob("[0-9]*") if _is_worker(found) and _is_below(found, here)]
        os.kill(int(workers[0].name), signal.SIGKILL)

    def frame(rows: pd.DataFrame) -> Any:
        size = len(rows) // PARTS
        parts = [rows.iloc[start : start + size] for start in range(0, len(rows), size)]
        return ray.data.from_arrow([pa.Table.from_pandas(part, preserve_index=False) for part in parts])

    def where(data: Any, name: str, least: int) -> Any:
        from ray.data.expressions import col

        return data.filter(expr=col(name) < least)

    yield Framework("ray", frame, lambda data: data.to_pandas(), where, kill)
    ray.shutdown()


def _is_worker(process: Path) -> bool:
    """Whether it runs Ray's tasks, or waits for them."""
    try:
        title = (process / "cmdline").read_bytes()
    except OSError:  # it has ended
        return False
    return title.startswith((b"ray::IDLE", b"ray::sparkopt", b"ray::_Staying"))


def _is_below(process: Path, ancestor: int) -> bool:
    """Whether a process was started by another one, or by one that it started."""
    while process.name not in ("0", "1"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            return False
        if int(parent) == ancestor:
            return True
        process = process.parent / parent
    return False


def _flink() -> Iterator[Framework]:
    import logging

    from tests.frameworks.flink import environment, rows_of, table_of

    logging.getLogger("py4j").setLevel(logging.ERROR)
    tables = environment()
    from pyflink.table.expressions import col

    yield Framework(
        "flink",
        lambda frame: table_of(tables, frame),
        rows_of,
        lambda data, name, least: data.filter(col(name) < least),
        lambda: pytest.fail("passes do not run in Flink"),
    )


CLUSTERS = {"dask": ("distributed", _dask), "ray": ("ray", _ray), "flink": ("pyflink", _flink)}


@pytest.fixture(scope="session", params=CLUSTERS)
def framework(request: pytest.FixtureRequest) -> Iterator[Framework]:
    """Each framework that is installed."""
    package, start = CLUSTERS[request.param]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed here: make test-{request.param}")
    yield from start()


@pytest.fixture
def mortal(framework: Framework) -> Iterator[Framework]:
    """A framework whose workers may be killed: not every one of Dask's that is killed in tests is started again."""
    if framework.name == "dask":
        yield from _dask()
    else:
        yield framework


def here(frame: Any) -> Table:
    """Return the same partitions in this process's memory: what one machine makes of them is the reference."""
    if hasattr(frame, "made_of"):  # a Table of Flink
        return Table.of(frame.made_of)
    table = Table.of(frame)
    parts = [part.holding(part.load(part.reference)) for part in table.partitions]  # type: ignore[attr-defined]
    return Table(table.schema, tuple(parts))
