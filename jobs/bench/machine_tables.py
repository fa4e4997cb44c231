"""Tables for the comparison of whole processes on one machine, and their objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NON_ZEROS = 50
FILES = 8


@dataclass(frozen=True)
class Work:
    """One kind of model.

    Attributes
    ----------
    reg_param : float
        Strength of the penalty, on the scale of the mean loss.
    label : callable
        Draws labels from raw predictions, (n, outputs).
    loss : callable
        The mean loss of raw predictions and labels.
    outputs : int, default 1
        Raw predictions of a row.
    is_l1 : bool, default False
        Whether the penalty is the sum of absolute values rather than half the sum of squares.
    is_scaled : bool, default True
        Whether coefficients are penalised per standard deviation of their feature.
    """

    reg_param: float
    label: Callable[[Any, np.random.Generator], Any]
    loss: Callable[[Any, Any], float]
    outputs: int = 1
    is_l1: bool = False
    is_scaled: bool = True

    def objective(self, X: Any, y: Any, coef: Any, intercept: Any) -> float:
        """Return what all of them minimise, at some coefficients, (outputs, features)."""
        raw = np.asarray(X @ coef.T) + intercept
        scaled = coef * scale(X) if self.is_scaled else coef
        penalty = np.abs(scaled).sum() if self.is_l1 else 0.5 * (scaled**2).sum()
        return float(self.loss(raw, y) + self.reg_param * penalty)


def scale(X: Any) -> Any:
    """Return the standard deviations of features, in pieces that need no copy of the rows."""
    first = X.mean(axis=0, dtype=np.float64)
    starts = range(0, X.shape[0], 50_000)
    pieces = [((X[start : start + 50_000] - first) ** 2).sum(axis=0, dtype=np.float64) for start in starts]
    return np.sqrt(sum(pieces) / (X.shape[0] - 1))


def _logistic(raw: Any, y: Any) -> float:
    return float(np.mean(np.logaddexp(0, raw[:, 0]) - y * raw[:, 0]))


def _softmax(raw: Any, y: Any) -> float:
    from scipy import special  # in the functions that use it: children that do not would pay for its import

    return float(np.mean(special.logsumexp(raw, axis=1) - raw[np.arange(len(y)), y.astype(int)]))


WORKS = {
    "logistic": Work(1e-3, lambda raw, rng: raw[:, 0] + rng.logistic(size=len(raw)) > 0, _logistic),
    "lasso": Work(
        1e-2,
        lambda raw, rng: raw[:, 0] + rng.normal(size=len(raw)),
        lambda raw, y: 0.5 * float(np.mean((raw[:, 0] - y) ** 2)),
        is_l1=True,
    ),
    "multinomial": Work(
        1e-3, lambda raw, rng: np.argmax(raw + rng.gumbel(size=raw.shape), axis=1), _softmax, outputs=10
    ),
    "poisson": Work(
        1e-3,
        lambda raw, rng: rng.poisson(np.exp(0.2 * raw[:, 0])),
        lambda raw, y: float(np.mean(np.exp(raw[:, 0]) - y * raw[:, 0])),
        is_scaled=False,
    ),
    "sparse": Work(1e-3, lambda raw, rng: raw[:, 0] + rng.logistic(size=len(raw)) > 0, _logistic, is_scaled=False),
}


def generate(folder: Path, name: str, rows: int, features: int) -> Path:
    """Write the Parquet files of a kind of model once; return their folder."""
    path = folder / f"machine-{name}-{rows}x{features}"
    if not (path / "_SUCCESS").exists():
        path.mkdir(parents=True, exist_ok=True)
        truth = np.random.default_rng(0).normal(size=(features, WORKS[name].outputs))
        for number in range(FILES):
            rng = np.random.default_rng(number + 1)
            make = _sparse if name == "sparse" else _dense
            column, raw = make(rng, rows // FILES, truth)
            label = WORKS[name].label(raw, rng).astype(np.float64)
            pq.write_table(pa.table({"features": column, "label": label}), path / f"part-{number}.parquet")
        (path / "_SUCCESS").touch()
    return path


def _dense(rng: np.random.Generator, rows: int, truth: Any) -> tuple[pa.Array, Any]:
    X = rng.normal(size=(rows, len(truth))).astype(np.float32)
    offsets = np.arange(0, X.size + 1, X.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(X.reshape(-1))), X @ truth / np.sqrt(len(truth))


def _sparse(rng: np.random.Generator, rows: int, truth: Any) -> tuple[pa.Array, Any]:
    """Draw columns by a power law, as words are: Vectors as Spark writes them."""
    drawn = np.sort((len(truth) * rng.random((rows, NON_ZEROS)) ** 3).astype(np.int32), axis=1)
    new = np.diff(drawn, axis=1, prepend=-1) > 0
    counts, indices = new.sum(axis=1), drawn[new]
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    ones = np.ones(len(indices))
    columns = [
        pa.array(np.zeros(rows, np.int8)),
        pa.array(np.full(rows, len(truth), np.int32)),
        pa.ListArray.from_arrays(offsets, pa.array(indices)),
        pa.ListArray.from_arrays(offsets, pa.array(ones)),
    ]
    from scipy import sparse

    X = sparse.csr_array((ones, indices, offsets.to_numpy()), shape=(rows, len(truth)))
    return pa.StructArray.from_arrays(columns, ["type", "size", "indices", "values"]), X @ truth / np.sqrt(NON_ZEROS)


def read(path: str) -> tuple[Any, Any]:
    """Return features and labels as users of NumPy read them, by pyarrow."""
    table = pq.read_table(path)
    y = table.column("label").to_numpy()
    features = table.column("features").combine_chunks()
    if isinstance(features, pa.ChunkedArray):
        features = features.combine_chunks()
    if not pa.types.is_struct(features.type):
        return features.flatten().to_numpy().reshape(len(y), -1), y
    from scipy import sparse

    values, indices = features.field("values"), features.field("indices")
    parts = (values.flatten().to_numpy(), indices.flatten().to_numpy(), indices.offsets.to_numpy())
    return sparse.csr_matrix(parts, shape=(len(y), features.field("size")[0].as_py())), y
