"""Losses from an expression, by each library: the hand-written ones' values and derivatives, and their optimum."""

from __future__ import annotations

import pickle
from importlib import import_module

import numpy as np
import pytest

from sparkopt import BlockStore, Columns, Stop, Trainer, losses, optim
from sparkopt.engines import DriverEngine, LocalEngine
from sparkopt.errors import MissingDependencyError, ParameterError
from sparkopt.machine import Table
from sparkopt.penalties import L2
from sparkopt.validation import Interval
from tests.ml.tables import ROWS

CLASS, COUNT = Interval(0, 1, whole=True), Interval(0, None)


class OnTorch:
    """What users write for PyTorch."""

    def __init__(self):
        self.np = np = import_module("torch")
        functional = np.nn.functional
        self.softmax = lambda raw: np.softmax(raw, dim=0)
        self.multinomial = lambda y, raw: functional.cross_entropy(raw, y.long())
        self.logistic = lambda y, raw: functional.softplus(raw) - y * raw
        self.sigmoid = np.sigmoid
        self.branch = lambda y, raw: raw if raw > 0 else -raw
        self.detached = lambda y, raw: (raw.detach() - y) ** 2


class OnJax:
    """What users write for JAX."""

    def __init__(self):
        jax = import_module("jax")
        self.np = jax.numpy
        self.softmax = jax.nn.softmax
        self.multinomial = lambda y, raw: jax.nn.logsumexp(raw) - raw[y.astype(int)]
        self.logistic = lambda y, raw: jax.nn.softplus(raw) - y * raw
        self.sigmoid = jax.nn.sigmoid
        self.branch = lambda y, raw: raw if raw > 0 else -raw
        self.detached = lambda y, raw: (jax.lax.stop_gradient(raw) - y) ** 2


class OnPytensor:
    """What users write for PyTensor."""

    def __init__(self):
        self.np = np = import_module("pytensor.tensor")
        self.softmax = lambda raw: np.special.softmax(raw)
        self.multinomial = lambda y, raw: np.logsumexp(raw) - raw[y.astype("int64")]
        self.logistic = lambda y, raw: np.softplus(raw) - y * raw
        self.sigmoid = np.sigmoid
        self.branch = lambda y, raw: raw if raw > 0 else -raw
        disconnected = import_module("pytensor.gradient").disconnected_grad
        self.detached = lambda y, raw: (disconnected(raw) - y) ** 2


BACKENDS = {"torch": OnTorch, "jax": OnJax, "pytensor": OnPytensor}


@pytest.fixture(params=BACKENDS, scope="module")
def backend(request):
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return request.param


@pytest.fixture(scope="module")
def written(backend):
    """The expressions in one library."""
    return BACKENDS[backend]()


class Student(losses.Loss):
    """2 log(1 + r²/3σ²) + log σ with σ = e^a: Student's t with 3 degrees of freedom, by hand."""

    name = "student"
    auxiliary = 1

    def value_gradient(self, y, raw):
        z2 = ((raw[:, 0] - y) * np.exp(-raw[:, 1])) ** 2
        slope = 4 / (3 + z2)
        by_raw = slope * (raw[:, 0] - y) * np.exp(-2 * raw[:, 1])
        return 2 * np.log1p(z2 / 3) + raw[:, 1], np.stack([by_raw, 1 - slope * z2], axis=1)

    def predict(self, raw):
        return raw


def pair(name, backend, written):
    """A loss from an expression, and the one by hand."""
    np_ = written.np

    def poisson(y, raw):
        return np_.exp(raw) - y * raw

    def squared(y, raw):
        return 0.5 * (raw - y) ** 2

    def student(y, raw, log_scale):
        return 2 * np_.log1p((raw - y) ** 2 * np_.exp(-2 * log_scale) / 3) + log_scale

    classes = {"outputs": 3, "targets": Interval(0, 2, whole=True), "predict": written.softmax}
    known = {
        "logistic": (written.logistic, {"targets": CLASS, "predict": written.sigmoid}, losses.Logistic()),
        "multinomial": (written.multinomial, classes, losses.Multinomial(3)),
        "poisson": (poisson, {"targets": COUNT, "predict": np_.exp}, losses.Poisson()),
        "squared error": (squared, {}, losses.SquaredError()),
        "auxiliary": (student, {}, Student()),
    }
    function, options, by_hand = known[name]
    return losses.of(function, backend, **options), by_hand


NAMES = ["logistic", "multinomial", "poisson", "squared error", "auxiliary"]


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_derivatives_are_the_hand_written_ones(name, kind, backend, written):
    loss, by_hand = pair(name, backend, written)
    rng = np.random.default_rng(0)
    for n in (1, 17, 700):  # a program is of any number of rows
        raw = rng.normal(size=n if loss.outputs + loss.auxiliary == 1 else (n, loss.outputs + loss.auxiliary))
        y = rng.integers(0, 3 if loss.outputs == 3 else 2, n).astype(float)
        raw, direction = raw.astype(kind), rng.normal(size=raw.shape).astype(kind)
        (value, slope), (expected, expected_slope) = (one.value_gradient(y, raw) for one in (loss, by_hand))
        value, expected = value - value[0], expected - expected[0]  # up to what depends on the label alone
        if name == "poisson":
            value, expected = value[y == y[0]], expected[y == y[0]]
        near = {"rtol": 1e-9, "atol": 1e-9} if kind == np.float64 else {"rtol": 2e-4, "atol": 2e-6}
        assert slope.dtype == kind
        np.testing.assert_allclose(value, expected, **near)
        np.testing.assert_allclose(slope, expected_slope, **near)
        near = near if name != "auxiliary" else {"rtol": 1e-4, "atol": 1e-5}  # that one takes differences
        product = loss.hessian_product(y, raw, direction)
        np.testing.assert_allclose(product, by_hand.hessian_product(y, raw, direction), **near)
        outputs = raw[:, 0] if name == "auxiliary" else raw
        np.testing.assert_allclose(loss.predict(outputs), by_hand.predict(outputs), rtol=1e-5)


@pytest.fixture(scope="module")
def store():
    with BlockStore.write(Table.of(ROWS), Columns("features", "label", "weight"), CLASS) as found:
        yield found


@pytest.mark.parametrize("engine", [LocalEngine(), DriverEngine()], ids=lambda engine: engine.name)
@pytest.mark.parametrize("optimizer", [optim.lbfgs(), optim.proximal_newton()], ids=lambda one: one.name)
def test_the_optimum_is_that_of_the_hand_written_loss(optimizer, engine, store, backend, written):
    loss, by_hand = pair("logistic", backend, written)
    options = {"optimizer": optimizer, "stop": Stop(200, 1e-13), "penalty": L2(0.01), "engine": engine}
    found, expected = (Trainer(one, progress=False, **options).fit(store) for one in (loss, by_hand))
    np.testing.assert_allclose(found.coefficients, expected.coefficients, rtol=1e-5, atol=1e-8)
    assert found.solution.objective == pytest.approx(expected.solution.objective, rel=1e-12)


def test_auxiliary_parameters_are_fitted(backend, written):
    loss, by_hand = pair("auxiliary", backend, written)
    with BlockStore.write(Table.of(ROWS), Columns("features", "amount"), loss.targets) as rows:
        found, expected = (Trainer(one, stop=Stop(300, 1e-13), progress=False).fit(rows) for one in (loss, by_hand))
    assert found.auxiliary[0] != 0
    np.testing.assert_allclose(found.auxiliary, expected.auxiliary, rtol=1e-4)
    np.testing.assert_allclose(found.coefficients, expected.coefficients, rtol=1e-4, atol=1e-6)


def test_what_is_sent_is_one_object_in_a_process(backend, written):
    """A task is sent once a pass; compiling it takes longer than a pass."""
    loss, _ = pair("logistic", backend, written)
    sent = pickle.dumps(loss)
    first, second = pickle.loads(sent), pickle.loads(pickle.dumps(pickle.loads(sent)))
    assert first is second
    y, raw = np.array([1.0, 0.0]), np.array([0.3, -2.0])
    np.testing.assert_array_equal(first.value_gradient(y, raw)[1], loss.value_gradient(y, raw)[1])
    assert (first.name, first.targets, first.predict(raw).tolist()) == (
        loss.name,
        loss.targets,
        loss.predict(raw).tolist(),
    )


class Killed(Exception):
    """Stands for the end of the driver."""


def test_a_checkpoint_holds_numbers_and_the_digest_of_the_function(tmp_path, store, written, backend):
    from sparkopt import Checkpointer

    def dies(progress):
        if progress.record.step == 3:
            raise Killed

    options = {"optimizer": optim.sgd(0.1), "stop": Stop(6, 0.0), "progress": False}
    kept = {**options, "checkpointer": Checkpointer(str(tmp_path), 1)}
    with pytest.raises(Killed):
        Trainer(pair("logistic", backend, written)[0], callbacks=(dies,), **kept).fit(store)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for file in files:
        assert not any(word in file.read_bytes() for word in (b"cloudpickle", b"\x80\x05", b"\x80\x04"))
    resumed, whole = (
        Trainer(pair("logistic", backend, written)[0], **each).fit(store) for each in (kept, options)
    )  # another object of the same code
    assert resumed.receipt.steps == whole.receipt.steps
    np.testing.assert_array_equal(resumed.coefficients, whole.coefficients)


def test_expressions_that_cannot_serve_are_refused_in_one_line(backend, written):
    for function, message in (
        (written.branch, r"loss '<lambda>': \w+ cannot compile it: .* Write a function of one row that returns one"),
        (lambda y, raw: written.np.stack([raw, raw]), "cannot compile it"),
        (
            written.detached,
            r"loss '<lambda>': at y=.*, raw=.* its value_gradient returns .*, but finite .* Write",
        ),
        (lambda y: y, r"function must take the label and the raw prediction of a row: function\(y, raw\)"),
    ):
        with pytest.raises(ParameterError, match=message):
            losses.of(function, backend)


def test_wrong_arguments_are_refused():
    for options, message in (
        ({"backend": "theano"}, "backend must be one of 'torch', 'jax', 'pytensor'"),
        ({"outputs": 0}, "outputs must be a whole number >= 1"),
        ({"curvature": -1.0}, "curvature must be > 0"),
    ):
        with pytest.raises(ParameterError, match=message):
            losses.of(lambda y, raw: raw, **options)


@pytest.mark.parametrize("library", BACKENDS)
def test_a_library_that_is_missing_is_named_with_its_extra(library, monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(__import__("sys").modules, f"sparkopt.losses.on_{library}", raising=False)
    with pytest.raises(MissingDependencyError, match=rf"losses.of\(backend='{library}'\) needs \w+, which is not"):
        losses.of(lambda y, raw: (raw - y) ** 2, library)


TWO = ["Add", "GE", "GT", "LE", "LT", "Maximum", "Minimum", "Mul", "Pow", "Sub", "TrueDiv"]


def by_element(np, name, x, y):
    """The operation of PyTensor that has this name in its graphs."""
    named = {"GE": np.ge, "GT": np.gt, "LE": np.le, "LT": np.lt, "Pow": np.power, "TrueDiv": np.true_div}
    if name == "Switch":
        return np.switch(x > y, x, y)
    function = named.get(name) or getattr(np, name.lower())
    return function(x, y) if name in TWO else function(x)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_operations_of_pytensor_are_those_of_numpy(kind):
    """What NumPy computes in place of PyTensor's compiled loops, at numbers of every size."""
    pytensor = pytest.importorskip("pytensor", reason="its operations are compared")
    own, np_ = import_module("sparkopt.losses.on_pytensor"), import_module("pytensor.tensor")
    numbers = np.concatenate(
        [[0.0, 1.0, -1.0, 87.0, -87.0, 1e-7, 1e4, -1e4], np.random.default_rng(0).normal(size=50)]
    )
    x, y = numbers.astype(kind), numbers[::-1].astype(kind)
    labels = np_.vector(dtype=kind), np_.vector(dtype=kind)
    for name in own.BY_ELEMENTS:
        output = np_.cast(by_element(np_, name, *labels), kind)
        program = own._program(labels, [output])
        assert program.__name__ == "run", name
        expected = pytensor.function(labels, output, on_unused_input="ignore")(x, y)
        found = program(x, y)[0]
        assert found.dtype == kind
        np.testing.assert_allclose(
            found, expected, rtol=3e-6 if kind == "float32" else 1e-13, atol=1e-37, err_msg=name
        )


def test_graphs_with_other_operations_are_compiled_by_pytensor():
    pytensor = pytest.importorskip("pytensor", reason="its graphs are looked at")
    own, np_ = import_module("sparkopt.losses.on_pytensor"), import_module("pytensor.tensor")
    x, shared = np_.vector(dtype="float64"), pytensor.shared(2.0)
    for output in (np_.special.softmax(x), np_.cosh(x), x * shared, x):
        assert isinstance(own._program([x], [output]), pytensor.compile.Function)
