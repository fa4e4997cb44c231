"""Whatever is written to a disk that is full: one line that names the place, and nothing stays of it."""

from __future__ import annotations

import functools
import json
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from sparkopt import Table
from sparkopt.errors import SparkoptError
from sparkopt.integrations.model_registry import ModelRegistry
from sparkopt.jobs.cli import main
from sparkopt.ml import LinearRegression, LogisticRegressionModel

SIZE = 4096
"""Bytes that a file may have."""
rng = np.random.default_rng(0)
X = rng.normal(size=(300, 20))
ROWS = (X, X[:, 0])


def wide() -> Any:
    """A model whose coefficients do not fit."""
    return LogisticRegressionModel(rng.normal(size=(1, 3000)), np.zeros(1))


def network() -> Any:
    from torch import nn

    from sparkopt.deep import TorchEstimator

    module = functools.partial(nn.Linear, 20, 200)
    one = TorchEstimator(module=nn.Sequential(module(), nn.Linear(200, 1)), epochs=1, launcher="local", numProc=1)
    one.progress = False
    return one


def candidate(folder: Path) -> str:
    wide().save(str(folder / "model"))
    (folder / "metrics.json").write_text(json.dumps({"gate": {"passed": True}}))
    return str(folder)


def promoted(folder: Path) -> Callable[[Path], Any]:
    run = candidate(folder)
    return lambda target: ModelRegistry(str(target)).promote(run, run, "2026-11-24T00:00:00+00:00")


def scored(folder: Path) -> Callable[[Path], Any]:
    LinearRegression().fit(ROWS).save(str(folder / "model"))
    Table.of(ROWS).write_parquet(str(folder / "rows"))
    known = ("--on", "machine", "--model", f"{folder}/model", "--parquet", f"{folder}/rows")
    return lambda target: main(["score", *known, "--output", str(target)])


def received(folder: Path) -> Callable[[Path], Any]:
    receipt = LinearRegression().fit(ROWS).summary.receipt
    return lambda target: receipt.report(target)


def saved(folder: Path) -> Callable[[Path], Any]:
    model = wide()
    return lambda target: model.save(str(target))


def exported(folder: Path) -> Callable[[Path], Any]:
    pytest.importorskip("onnx", reason="ONNX's export needs onnx, of sparkopt's extra 'onnx'")
    model = wide()
    return lambda target: model.toOnnx(str(target))


def rows_of_networks(folder: Path) -> Callable[[Path], Any]:
    pytest.importorskip("torch", reason="networks need PyTorch, of sparkopt's extra 'torch'")
    from sparkopt.deep import RowStore

    estimator = network()
    return lambda target: RowStore.write(ROWS, str(target), estimator)


def temporary_rows(folder: Path) -> Callable[[Path], Any]:
    pytest.importorskip("torch", reason="networks need PyTorch, of sparkopt's extra 'torch'")
    estimator = network()
    return lambda target: estimator.setStorePath(str(target)).fit(ROWS)


def saved_network(folder: Path) -> Callable[[Path], Any]:
    pytest.importorskip("torch", reason="networks need PyTorch, of sparkopt's extra 'torch'")
    model = network().fit(ROWS)
    return lambda target: model.save(str(target))


def table(folder: Path) -> Callable[[Path], Any]:
    return lambda target: Table.of(ROWS).write_parquet(str(target))


WRITERS = {
    "model": saved,
    "network": saved_network,
    "rows of networks": rows_of_networks,
    "temporary rows of networks": temporary_rows,
    "table": table,
    "report": received,
    "ONNX": exported,
    "registry": promoted,
    "output of a job": scored,
}
"""By what is written: a function of a folder that prepares, and returns what writes to a path."""


def limit(size: int) -> None:
    """Let files of this process and its workers have so many bytes: the system's own refusal, as of a quota."""
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture
def full():
    """Return a function that fills the disk."""
    before, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: limit(SIZE)
    limit(before)


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_one_line_that_names_the_place(full, what, tmp_path, capsys):
    (tmp_path / "before").mkdir()
    write, target = WRITERS[what](tmp_path / "before"), tmp_path / "target"
    capsys.readouterr()
    full()
    try:
        status = write(target)
    except (SparkoptError, OSError) as error:
        line = str(error)
    else:
        assert status == 1, status  # of a command, which has printed it
        (line,) = (text for text in capsys.readouterr().err.splitlines() if "error" in text)
    assert str(target) in line or f".{target.name}." in line, line
    assert os.strerror(27) in line
    assert "\n" not in line
    assert [path for path in target.rglob("*") if path.is_file()] == []
    assert {path.name for path in tmp_path.iterdir()} <= {"before", "target"}
