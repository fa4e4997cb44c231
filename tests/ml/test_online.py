"""partialFit: the steps of one run over all batches in turn, as PyTorch takes them, whatever happens in between."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from sparkopt.errors import CorruptDataError, IncompatibleError, ParameterError
from sparkopt.ml import (
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    QuantileRegression,
)

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def batches():
    """Five batches of different sizes."""
    rng = np.random.default_rng(0)
    found = []
    for rows in (40, 17, 60, 25, 33):
        X = rng.normal(size=(rows, 3)) * [1.0, 4.0, 0.3] + [0.0, 2.0, 1.0]
        raw = X @ [1.0, -0.3, 2.0] - 1.5
        columns = {name: X[:, i] for i, name in enumerate(NAMES)}
        columns["label"] = (raw + rng.logistic(size=rows) > 0).astype(float)
        columns["amount"] = raw + rng.normal(size=rows)
        columns["class"] = np.arange(rows) % 3.0
        columns["n"] = rng.poisson(np.exp(0.2 * raw)).astype(float)
        columns["weight"] = rng.uniform(0.5, 2.0, rows)
        found.append(pa.table(columns))
    return found


def trained(estimator, batches, between=lambda model: model, **options):
    model = None
    for batch in batches:
        model = between(estimator.partialFit(batch, model, **options))
    return model


TORCH = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "adam": ("Adam", {}),
    "rmsprop": ("RMSprop", {"alpha": 0.9}),
}


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("steps", [1, 3])
def test_steps_are_those_of_pytorch(batches, name, steps):
    torch = pytest.importorskip("torch")
    kind, options = TORCH[name]
    estimator = LogisticRegression(
        featuresCols=NAMES, optimizer=name, stepSize=0.05, standardization=False, regParam=0.1, weightCol="weight"
    )
    model = trained(estimator, batches, steps=steps)
    mean = np.average(batches[0]["label"], weights=batches[0]["weight"])
    coef = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    intercept = torch.tensor(np.log(mean / (1 - mean)), requires_grad=True)  # as a fit begins
    optimizer = getattr(torch.optim, kind)([coef, intercept], lr=0.05, **options)
    for batch in batches:
        X, y, weight = (
            torch.tensor(np.stack([batch[n] for n in names], axis=-1)) for names in (NAMES, ["label"], ["weight"])
        )
        for _ in range(steps):
            optimizer.zero_grad()
            losses = torch.nn.functional.binary_cross_entropy_with_logits(
                X @ coef + intercept, y[:, 0], weight=weight[:, 0], reduction="sum"
            )
            (losses / weight.sum() + 0.05 * coef @ coef).backward()
            optimizer.step()
    np.testing.assert_allclose(model.coefficients.toArray(), coef.detach().numpy(), rtol=1e-5, atol=1e-8)
    assert model.intercept == pytest.approx(float(intercept.detach()), rel=1e-5)
    assert (model.onlineState.steps, model.onlineState.batches) == (5 * steps, 5)


KINDS = {
    "least squares": LinearRegression(
        labelCol="amount", regParam=0.01, elasticNetParam=0.5, optimizer="sgd", stepSize=0.1
    ),
    "huber": LinearRegression(labelCol="amount", loss="huber", optimizer="adam"),
    "quantile": QuantileRegression(labelCol="amount", quantile=0.8, optimizer="adagrad"),
    "logistic": LogisticRegression(regParam=0.01),
    "multinomial": LogisticRegression(labelCol="class", optimizer="schedule-free-adamw"),
    "support vectors": LinearSVC(optimizer="ftrl"),
    "poisson": GeneralizedLinearRegression(family="poisson", labelCol="n", optimizer="dowg"),
    "a schedule": LogisticRegression(optimizer="momentum", stepSize=0.1, stepSizeSchedule="inverse_time"),
    "a mean of the steps": LogisticRegression(optimizer="nadam", fitIntercept=False),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_run_that_is_saved_and_loaded_is_undisturbed(batches, tmp_path, name):
    estimator = KINDS[name].copy().setFeaturesCols(NAMES)
    number = iter(range(100))

    def away(model):
        path = str(tmp_path / f"model-{next(number)}")
        model.save(path)
        loaded = type(model).load(path)
        assert not loaded.hasSummary
        return loaded

    whole, parted = trained(estimator, batches, steps=2), trained(estimator, batches, away, steps=2)
    for one, other in zip(whole.arrays, parted.arrays, strict=True):
        assert one.tobytes() == other.tobytes()
    assert whole.auxiliary.tobytes() == parted.auxiliary.tobytes()
    assert parted.onlineState.to_bytes() == whole.onlineState.to_bytes()
    once = trained(estimator, batches[:1], steps=2)
    assert once.arrays[0].tobytes() != whole.arrays[0].tobytes()
    assert once.copy().onlineState is once.onlineState


def test_many_steps_on_one_batch_end_at_its_optimum(batches):
    """Which fit finds: the coordinates and the penalty are its own."""
    options = dict(featuresCols=NAMES, labelCol="class", regParam=0.05)
    model = None
    for _ in range(6):
        model = LogisticRegression(optimizer="nesterov", stepSize=0.5, **options).partialFit(
            batches[0], model, steps=300
        )
    best = LogisticRegression(tol=1e-12, **options).fit(batches[0])
    np.testing.assert_allclose(model.arrays[0], best.arrays[0], atol=1e-6)


def test_it_begins_at_an_initial_model(batches):
    begun = LogisticRegression(featuresCols=NAMES).fit(batches[0])
    still = LogisticRegression(featuresCols=NAMES, optimizer="sgd", stepSize=1e-12, initialModel=begun)
    np.testing.assert_allclose(still.partialFit(batches[1]).arrays[0], begun.arrays[0], rtol=1e-6)


def test_a_batch_without_the_last_class(batches):
    estimator = LogisticRegression(featuresCols=NAMES, labelCol="class")
    model = estimator.partialFit(batches[0])
    two = batches[1].filter(pa.array(np.array(batches[1]["class"]) < 2))
    assert len(estimator.partialFit(two, model).arrays[1]) == 3
    begun = estimator.partialFit(two)
    with pytest.raises(ParameterError, match="the model has 1 outputs, and this batch needs 3"):
        estimator.partialFit(batches[0], begun)


def test_what_cannot_continue_is_refused(batches):
    def estimator(**options):
        return LogisticRegression(**{"featuresCols": NAMES, "optimizer": "sgd", "stepSize": 0.1, **options})

    model = estimator().partialFit(batches[0])
    for changed, what in (
        ({"optimizer": "adam"}, "optimizer"),
        ({"stepSize": 0.2}, "optimizer"),
        ({"fitIntercept": False}, "fitIntercept"),
        ({"standardization": False}, "standardization"),
    ):
        with pytest.raises(IncompatibleError, match=f"the model's state is of another {what}"):
            estimator(**changed).partialFit(batches[1], model)
    for options, message in (
        ({"optimizer": "lbfgs"}, "compares objectives from step to step"),
        ({"miniBatchFraction": 0.5}, "miniBatchFraction=0.5 is of fits over many rows"),
        ({"localSteps": 4}, "localSteps=4 is of fits over many rows"),
        ({"validationIndicatorCol": "label"}, "validationIndicatorCol ends a fit early"),
    ):
        own = {**options, **({"stepSize": None} if "optimizer" in options else {})}
        with pytest.raises(IncompatibleError, match=message):
            estimator(**own).partialFit(batches[0])
    with pytest.raises(ParameterError, match="this model has no state of an optimiser"):
        estimator().partialFit(batches[0], LogisticRegression(featuresCols=NAMES).fit(batches[0]))
    with pytest.raises(ParameterError, match="model must be what partialFit returned. Got a str"):
        estimator().partialFit(batches[0], "model")
    with pytest.raises(ParameterError, match="steps must be a whole number >= 1"):
        estimator().partialFit(batches[0], steps=0)
    with pytest.raises(ParameterError, match="the model has 3 features, and this batch 2"):
        estimator(featuresCols=["a", "b"]).partialFit(batches[1], model)


def test_an_altered_state_is_not_loaded(batches, tmp_path):
    import pyarrow.parquet as pq

    model = LogisticRegression(featuresCols=NAMES).partialFit(batches[0])
    model.save(str(tmp_path / "model"))
    (file,) = (tmp_path / "model" / "data").glob("*.parquet")
    table = pq.read_table(file)
    state = bytearray(table["online"][0].as_py())
    state[len(state) // 2] ^= 1
    names = table.column_names
    altered = table.set_column(names.index("online"), "online", pa.array([bytes(state)], pa.binary()))
    pq.write_table(altered, file)
    with pytest.raises(CorruptDataError):
        type(model).load(str(tmp_path / "model"))
    pq.write_table(table.drop_columns(["online"]), file)
    with pytest.raises(CorruptDataError, match="digest"):
        type(model).load(str(tmp_path / "model"))


def test_on_spark_it_is_the_same(spark, batches, tmp_path):
    estimator = LogisticRegression(featuresCols=NAMES, optimizer="adam", stepSize=0.1)
    frames = [spark.createDataFrame(batch.to_pandas()).coalesce(1) for batch in batches[:3]]
    number = iter(range(100))

    def away(model):
        path = str(tmp_path / f"model-{next(number)}")
        model.save(path)
        return type(model).load(path)

    found, expected = trained(estimator, frames, away, steps=2), trained(estimator, batches[:3], steps=2)
    np.testing.assert_allclose(found.arrays[0], expected.arrays[0], rtol=1e-12)
    assert found.onlineState.steps == 6
