"""What examples take for granted: a session, some rows, yesterday's model, a folder of photographs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sparkopt import images
from sparkopt.codecs import registry
from sparkopt.images.spark import _BOUNDS
from sparkopt.ml import LogisticRegression


@pytest.fixture(scope="session")
def given(spark) -> dict[str, Any]:
    """Names that examples use without saying where from; ``df`` has a column for each of them."""
    df = _rows(spark, 240).cache()
    held_out = _rows(spark, 80, seed=1).cache()
    yesterday = LogisticRegression(regParam=0.01).fit(df.where("x1 < 1"))
    return {"spark": spark, "np": np, "df": df, "held_out": held_out, "yesterday": yesterday}


@pytest.fixture(autouse=True)
def _session_as_it_was(request):
    """Examples may set the session's batches and register codecs; other tests want things as they were."""
    if "spark" not in request.fixturenames:  # a test that reads pages needs no JVM
        yield
        return
    spark = request.getfixturevalue("spark")
    codecs = dict(registry._REGISTRY)
    before = {name: spark.conf.get(name, None) for name in _BOUNDS}
    yield
    for name, value in before.items():
        if value is None:
            spark.conf.unset(name)
        else:
            spark.conf.set(name, value)
    registry._REGISTRY.clear()
    registry._REGISTRY.update(codecs)


@pytest.fixture
def mlflow_runs(folder, monkeypatch):
    """A function after whose call MLflow writes below ``folder``; it skips the test where MLflow is missing."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = []

    def begin():
        mlflow = pytest.importorskip("mlflow")
        before.append(mlflow.get_tracking_uri())
        mlflow.set_tracking_uri((folder / "runs").as_uri())
        mlflow.set_experiment("examples")  # or MLflow looks there for one that another store has

    yield begin
    if before:
        importlib.import_module("mlflow").set_tracking_uri(before[0])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with photographs in it."""
    rng = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png(rng))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _rows(spark: Any, count: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3))
    label = (x @ [1.0, -2.0, 0.5] + rng.logistic(size=count) > 0).astype(float)
    frame = pd.DataFrame(
        {
            "features": list(x),
            "label": label,
            "x1": x[:, 0],
            "x2": x[:, 1],
            "days": rng.integers(1, 9, count).astype(float),
            "minutes": np.exp(x[:, 0]),
            "held_out": rng.random(count) < 0.2,
            "content": [bytearray(_png(rng)) for _ in range(count)],
            "text": ["the quick brown fox " * 5] * count,
            "payload": [bytearray(rng.integers(0, 4, 200).astype(np.uint8).tobytes()) for _ in range(count)],
        }
    )
    return spark.createDataFrame(frame).repartition(2, "x1")


def _png(rng: np.random.Generator) -> bytes:
    return images.functional.encode(rng.integers(0, 256, (8, 8, 1)).astype(np.uint8), "png")
