"""Factorisation machines and multilayer perceptrons: their optima, starts, options and refusals, without Spark."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml.linalg import Vectors
from scipy import sparse
from scipy.optimize import minimize

from sparkopt import ml
from sparkopt.errors import IncompatibleError, NotConvergedWarning, ParameterError
from sparkopt.ml import local
from sparkopt.optim import OPTIMIZERS
from sparkopt.solver.progress import Progress
from tests.ml.tables import COLUMNS, ROWS, WIDTH, N, X, column

TIGHT: dict[str, Any] = {"tol": 1e-12, "maxIter": 500}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "machine": (ml.FMRegressor, {"labelCol": "amount", "factorSize": 2}),
    "machine of classes": (ml.FMClassifier, {"factorSize": 2}),
    "network": (ml.MultilayerPerceptronClassifier, {"labelCol": "kind", "layers": [WIDTH, 3, 3]}),
    "network of numbers": (ml.MultilayerPerceptronRegressor, {"labelCol": "amount", "layers": [WIDTH, 3, 1]}),
}
every = pytest.mark.parametrize("name", KINDS)
pytestmark = pytest.mark.filterwarnings("ignore::sparkopt.errors.NotConvergedWarning")


def estimator(name: str, **options: Any) -> Any:
    kind, own = KINDS[name]
    return kind(**{"regParam": 0.01, **own, **options})


def margins(flat: np.ndarray, rows: np.ndarray, factors: int) -> np.ndarray:
    """b + x·w + Σ over pairs of (vᵢ·vⱼ) xᵢ xⱼ, from the pairs."""
    b, w, V = flat[0], flat[1 : 1 + WIDTH], flat[1 + WIDTH :].reshape(WIDTH, factors)
    pairs = np.triu(V @ V.T, 1)
    return np.asarray(b + rows @ w + np.einsum("ni,ij,nj->n", rows, pairs, rows))


@pytest.mark.parametrize("name", ["machine", "machine of classes"])
def test_a_machine_ends_where_scipy_does(name: str) -> None:
    """From the fitted model, SciPy finds nothing lower; and the objective is the one that is written down."""
    model = estimator(name, weightCol="weight", **TIGHT).fit(ROWS)
    weight, strength = COLUMNS["weight"] / COLUMNS["weight"].mean(), 0.01

    def objective(flat: np.ndarray) -> float:
        raw = margins(flat, X, 2)
        if name == "machine":
            losses = (COLUMNS["amount"] - raw) ** 2
        else:
            losses = np.logaddexp(0.0, raw) - COLUMNS["label"] * raw
        return float(np.mean(weight * losses) + strength / 2 * np.square(flat[1:]).sum())

    ours = np.concatenate([[model.intercept], model.linear.toArray(), model.factors.toArray().ravel()])
    assert model.summary.objectiveHistory[-1] == pytest.approx(objective(ours), rel=1e-6)
    theirs = minimize(objective, ours, method="BFGS", options={"gtol": 1e-9, "maxiter": 300})
    assert objective(ours) <= theirs.fun * (1 + 1e-7)
    raw = column(model.transform(ROWS), "prediction" if name == "machine" else "rawPrediction")
    np.testing.assert_allclose(raw if name == "machine" else raw[:, 1], margins(ours, X, 2), rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(model.linear.toArray(), model.arrays[0][0])
    assert model.factors.toArray().shape == (WIDTH, 2)


def test_a_network_starts_at_initial_weights_and_their_objective_falls() -> None:
    """The objective at the start, and at the end that of its weights, by the definition of the network."""
    start = np.random.default_rng(5).normal(size=(WIDTH + 1) * 3 + 4 * 3)

    def objective(flat: np.ndarray) -> float:
        first, bias = flat[: WIDTH * 3].reshape(WIDTH, 3), flat[WIDTH * 3 : WIDTH * 3 + 3]
        rest = flat[WIDTH * 3 + 3 :]
        hidden = 1 / (1 + np.exp(-(X @ first + bias)))
        raw = hidden @ rest[:9].reshape(3, 3) + rest[9:]
        return float(np.mean(np.logaddexp.reduce(raw, axis=1) - raw[np.arange(len(X)), COLUMNS["kind"]]))

    for weights in (Vectors.dense(start), start.tolist()):
        model = estimator("network", regParam=0.0, initialWeights=weights, maxIter=30).fit(ROWS)
        history = model.summary.objectiveHistory
        assert history[0] == pytest.approx(objective(start), rel=1e-6)
        assert history[-1] == pytest.approx(objective(model.weights.toArray()), rel=1e-6)
        assert history[-1] < history[0] / 1.2
    again = estimator("network", regParam=0.0, initialModel=model, maxIter=0).fit(ROWS)
    np.testing.assert_allclose(again.weights.toArray(), model.weights.toArray(), rtol=1e-9, atol=1e-12)


def test_a_network_without_hidden_layers_is_multinomial_regression() -> None:
    own = ml.MultilayerPerceptronClassifier(labelCol="kind", layers=[WIDTH, 3], regParam=0.1, **TIGHT).fit(ROWS)
    known = ml.LogisticRegression(labelCol="kind", regParam=0.1, **TIGHT).fit(ROWS)
    probability = [column(model.transform(ROWS), "probability") for model in (own, known)]
    np.testing.assert_allclose(*probability, atol=1e-4)


def test_what_is_not_fitted_is_zero() -> None:
    model = estimator("machine", fitLinear=False, fitIntercept=False, regParam=0.0).fit(ROWS)
    assert not model.linear.toArray().any()
    assert model.intercept == 0.0
    assert model.factors.toArray().all()


@every
def test_seeds_engines_and_forms_of_rows(name: str) -> None:
    """The same seed gives the same bits by every engine; sparse rows the same to rounding; another seed others."""
    fits = [estimator(name, engine=engine, maxIter=5, tol=0.0).fit(ROWS) for engine in ("driver", "local", "driver")]
    first = fits[0]
    for other in fits[1:]:
        for mine, its in zip((*first.arrays, first.auxiliary), (*other.arrays, other.auxiliary), strict=True):
            np.testing.assert_array_equal(mine, its)
    label = COLUMNS[KINDS[name][1].get("labelCol", "label")].astype(float)
    own = estimator(name, maxIter=5, tol=0.0)
    own.clear(own.labelCol)
    sparse_rows = own.fit((sparse.csr_array(X), label))
    np.testing.assert_allclose(sparse_rows.arrays[0], first.arrays[0], rtol=1e-6, atol=1e-8)
    assert not np.array_equal(estimator(name, seed=1, maxIter=5, tol=0.0).fit(ROWS).arrays[0], first.arrays[0])


@every
def test_one_row_predicts_what_the_table_does(name: str) -> None:
    model = estimator(name, maxIter=10).fit(ROWS)
    scored = column(model.transform(ROWS), "prediction")
    for row in range(5):
        nonzero = np.flatnonzero(X[row])
        for vector in (Vectors.dense(X[row]), Vectors.sparse(WIDTH, nonzero.tolist(), X[row, nonzero].tolist())):
            assert model.predict(vector) == scored[row]


@every
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimiser_trains_or_is_refused(name: str, optimizer: str) -> None:
    """With the tolerance that users have, which must not end a fit whose first steps are tiny, or none."""
    own = estimator(name, optimizer=optimizer, maxIter=100)
    if optimizer in ("proximal-newton", "subsampled-newton"):
        with pytest.raises(IncompatibleError, match="needs Hessians, and those of .* are not definite") as refused:
            own.fit(ROWS)
        assert "\n" not in str(refused.value)
        return
    model = own.fit(ROWS)
    history = model.summary.objectiveHistory
    assert np.isfinite(history).all()
    assert history[-1] < 0.98 * history[0]
    assert all(np.isfinite(part).all() for part in (*model.arrays, model.auxiliary))


@every
def test_batches_continue_and_grids_share_rows(name: str) -> None:
    own = estimator(name)
    model = own.partialFit(ROWS, None, steps=20)
    again = own.partialFit(ROWS, model, steps=20)
    alone = own.partialFit(ROWS, None, steps=40)
    assert again.onlineState.steps == 40
    np.testing.assert_allclose(again.arrays[0], alone.arrays[0], rtol=1e-6, atol=1e-8)
    assert again.onlineState.loss < model.onlineState.loss
    grid = [{own.regParam: value} for value in (0.001, 0.1)]
    models = dict(own.copy({own.maxIter: 20, own.tol: 0.0}).fitMultiple(ROWS, grid))
    for index, params in enumerate(grid):
        single = own.copy({**params, own.maxIter: 20, own.tol: 0.0}).fit(ROWS)
        found, wanted = (each.summary.objectiveHistory[-1] for each in (models[index], single))
        assert found == pytest.approx(wanted, rel=1e-3)


def test_solvers_are_pysparks_names_of_optimisers() -> None:
    wanted = {"auto": "lbfgs", "gd": "gd", "adamW": "adam", "l-bfgs": "lbfgs"}
    for solver, optimizer in wanted.items():
        assert estimator("machine", solver=solver, maxIter=1).fit(ROWS).summary.receipt.optimizer == optimizer
    few = estimator("machine", miniBatchFraction=0.2, maxIter=2).fit(ROWS).summary.receipt
    assert few.optimizer == "prodigy"
    assert estimator("network", miniBatchFraction=0.2, maxIter=2).fit(ROWS).summary.receipt.optimizer == "adam"
    rounds = estimator("machine", localSteps=2, maxIter=2).fit(ROWS).summary.receipt
    assert rounds.optimizer.startswith("adam, 2 local steps")
    assert estimator("machine", stepSize=0.01, maxIter=2).fit(ROWS).summary.receipt.optimizer == "adam"
    lasso = estimator("machine", elasticNetParam=0.5, maxIter=2).fit(ROWS).summary.receipt
    assert lasso.optimizer == "proximal-lbfgs"


def test_what_is_wrong_is_one_line() -> None:
    cases: dict[str, Any] = {
        "both choose the method": lambda: estimator("machine", solver="gd", optimizer="adam").fit(ROWS),
        "layers must be set": lambda: ml.MultilayerPerceptronClassifier().fit(ROWS),
        "layers begins with 7, and the rows have 4": lambda: estimator("network", layers=[7, 3]).fit(ROWS),
        "the last the number of classes": lambda: estimator("network", layers=[4]).fit(ROWS),
        "the last 1. Got": lambda: estimator("network of numbers", layers=[4, 2]).fit(ROWS),
        "the number of classes, 2 or more": lambda: estimator("network", layers=[4, 1]).fit(ROWS),
        "initialWeights must have 27 entries": lambda: estimator("network", initialWeights=[1.0]).fit(ROWS),
        "factorSize must be a whole number >= 1": lambda: estimator("machine", factorSize=0).fit(ROWS),
        "initStd must be > 0": lambda: estimator("machine", initStd=0.0).fit(ROWS),
        "each class, 3. Got 2": lambda: estimator("network", thresholds=[0.5, 0.5]).fit(ROWS),
        "each class, 2. Got 3": lambda: ml.FMClassifier(thresholds=[0.5, 0.2, 0.3]).fit(ROWS),
        "initialModel has factorSize=2, and factorSize is 3": lambda: estimator(
            "machine", factorSize=3, initialModel=estimator("machine", maxIter=1).fit(ROWS)
        ).fit(ROWS),
        r"initialModel has layers=\[4, 3, 3\], and layers is \[4, 3, 5, 3\]": lambda: estimator(
            "network", layers=[WIDTH, 3, 5, 3], initialModel=estimator("network", maxIter=1).fit(ROWS)
        ).fit(ROWS),
        "stepSizeSchedule='cosine' needs a stepSize": lambda: estimator(
            "machine", stepSizeSchedule="cosine", miniBatchFraction=0.5
        ).fit(ROWS),
        "thresholds must be >= 0": lambda: estimator("network", thresholds=[-1.0, 0.5, 0.5]).fit(ROWS),
    }
    for message, call in cases.items():
        with pytest.raises((ParameterError, IncompatibleError), match=message):
            call()


class Killed(Exception):
    pass


def kill(progress: Progress) -> None:
    if progress.record.step == 7:
        raise Killed


@every
@pytest.mark.parametrize("method", [{}, {"optimizer": "soap"}, {"miniBatchFraction": 0.3}], ids=str)
def test_a_killed_fit_resumes_to_the_same_bits(tmp_path: Path, name: str, method: dict[str, Any]) -> None:
    for engine in ("driver", "local"):
        options = {"engine": engine, "maxIter": 12, "tol": 0.0, **method}
        kept = {**options, "checkpointDir": str(tmp_path / engine), "checkpointInterval": 3}
        whole = estimator(name, **options).fit(ROWS)
        with pytest.raises(Killed):
            estimator(name, **kept, callbacks=[kill]).fit(ROWS)
        resumed = estimator(name, **kept).fit(ROWS)
        assert resumed.summary.receipt.resumed_at == 6
        for found, wanted in zip((*resumed.arrays, resumed.auxiliary), (*whole.arrays, whole.auxiliary), strict=True):
            np.testing.assert_array_equal(found, wanted)


@every
def test_a_fit_goes_on_from_a_model(tmp_path: Path, name: str) -> None:
    """Fitted or loaded, with the objective that it ended with."""
    model = estimator(name, maxIter=3, tol=0.0).fit(ROWS)
    local.write(model, tmp_path / "model")
    for each in (model, local.read(tmp_path / "model")):
        history = estimator(name, maxIter=20, initialModel=each).fit(ROWS).summary.objectiveHistory
        assert history[0] == pytest.approx(model.summary.objectiveHistory[-1], rel=1e-6)
        assert history[-1] <= history[0]


@every
def test_raw_columns_are_features(tmp_path: Path, name: str) -> None:
    """Text and nulls, encoded by the stage before; a category that was never seen is scored too."""
    rng = np.random.default_rng(4)
    user, age = rng.integers(0, 5, N), np.where(rng.random(N) < 0.1, np.nan, rng.integers(0, 9, N))
    raw = pa.table(
        {
            "user": [f"u{i}" for i in user],
            "age": pa.array(age, from_pandas=True),
            "label": (user % 2).astype(float),
            "kind": user % 3,
            "amount": user + rng.normal(size=N) / 10,
        }
    )
    encoding = ml.TableFeatures(inputCols=["user", "age"], outputCol="features")
    width = len(encoding.fit(raw).featureNames)
    layers = {"layers": [width, *KINDS[name][1]["layers"][1:]]} if "network" in name else {}
    model = ml.Pipeline(stages=[encoding, estimator(name, maxIter=150, **layers)]).fit(raw)
    label = raw[KINDS[name][1].get("labelCol", "label")].to_numpy()
    scored = column(model.transform(raw), "prediction")
    if name in ("machine", "network of numbers"):
        assert np.mean((scored - label) ** 2) < 0.1 * np.var(label)
    else:
        assert np.mean(scored == label) > 0.95
    local.write(model, tmp_path / "model")
    np.testing.assert_array_equal(column(local.read(tmp_path / "model").transform(raw), "prediction"), scored)
    unseen = raw.slice(0, 2).set_column(0, "user", pa.array(["new", "u1"]))
    assert np.isfinite(column(model.transform(unseen), "prediction")).all()


@pytest.mark.parametrize("name", ["machine", "machine of classes"])
def test_batches_of_rare_features_train_by_default(name: str) -> None:
    """One-hot rows, most of whose features occur a few times: Adam's steps at its default rate end higher."""
    rng = np.random.default_rng(5)
    count, users, films = 3000, 1000, 1000
    user, film = rng.integers(0, users, count), rng.integers(0, films, count)
    places = np.stack([user, users + film], axis=1).ravel()
    rows = sparse.csr_array((np.ones(2 * count), places, np.arange(0, 2 * count + 1, 2)))
    label = (user % 3 + film % 2) / 1.0 if name == "machine" else (user % 2) / 1.0
    kind, _ = KINDS[name]
    options = dict(factorSize=2, regParam=1e-3, miniBatchFraction=0.1, tol=0.0)
    start = kind(factorSize=2, regParam=1e-3, maxIter=0).fit((rows, label)).summary.objectiveHistory[-1]
    found = kind(maxIter=200, **options).fit((rows, label)).summary.objectiveHistory[-1]
    assert found < 0.9 * start
    assert kind(maxIter=200, optimizer="adam", **options).fit((rows, label)).summary.objectiveHistory[-1] > start


def test_one_hot_rows_are_learnt_with_their_interactions() -> None:
    """Users and films: pairs that were left out are predicted better than by the two effects alone."""
    rng = np.random.default_rng(3)
    users, films, size = 40, 30, 3
    P, Q = rng.normal(size=(users, size)), rng.normal(size=(films, size))
    pairs = np.array([(u, f) for u in range(users) for f in range(films)])
    rng.shuffle(pairs)
    rating = 3 + np.einsum("nk,nk->n", P[pairs[:, 0]], Q[pairs[:, 1]])
    places = np.stack([pairs[:, 0], users + pairs[:, 1]], axis=1).ravel()
    rows = sparse.csr_array((np.ones(len(places)), places, np.arange(0, len(places) + 1, 2)))
    known, unseen = slice(0, 900), slice(900, None)
    machine = ml.FMRegressor(factorSize=3, regParam=1e-4, maxIter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        model = machine.fit((rows[known], rating[known]))
        linear = ml.LinearRegression(regParam=1e-4).fit((rows[known], rating[known]))
    vectors = [Vectors.sparse(users + films, [u, users + f], [1.0, 1.0]) for u, f in pairs[unseen].tolist()]
    errors = [
        np.mean((np.array([each.predict(vector) for vector in vectors]) - rating[unseen]) ** 2)
        for each in (model, linear)
    ]
    assert errors[0] < errors[1] / 10


def test_one_against_the_rest_takes_machines_and_is_loaded_without_spark(tmp_path: Path) -> None:
    rest = ml.OneVsRest(classifier=ml.FMClassifier(factorSize=2, regParam=0.01, maxIter=20), labelCol="kind")
    model = rest.fit(ROWS)
    wanted = column(model.transform(ROWS), "prediction")
    assert np.mean(wanted == COLUMNS["kind"]) > 0.5
    local.write(model, tmp_path / "rest")
    np.testing.assert_array_equal(column(local.read(tmp_path / "rest").transform(ROWS), "prediction"), wanted)
