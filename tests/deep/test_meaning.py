"""PyTorch's objects mean what they mean in PyTorch, and predictions and metrics are on the scale of the labels."""

from __future__ import annotations

import functools
import logging

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn import metrics as sk
from torch import nn
from torch.nn import functional as F

from sparkopt.blocks.tables import spark_schema
from sparkopt.deep import TorchEstimator
from sparkopt.deep.checkpoint import module_state
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.deep.fields import Fields
from sparkopt.deep.losses import RowLoss
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.store import write_store
from sparkopt.deep.worker import train
from sparkopt.errors import DataError, IncompatibleError, ParameterError
from sparkopt.launch import LocalCommunicator, LocalLauncher, ProcessLauncher
from tests.deep.rows import parted

ROWS, CLASSES = 150, 3
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.5)
WEIGHTS = torch.tensor([0.2, 1.0, 3.0])


def rng():
    return np.random.default_rng(3)


X = rng().normal(size=(ROWS, 4)).astype(np.float32)
LABEL = rng().integers(0, CLASSES, ROWS)
POSITIONS = rng().integers(0, CLASSES, (ROWS, 5))
SHARES = rng().dirichlet(np.ones(CLASSES), ROWS).astype(np.float32)
REAL = rng().normal(size=ROWS).astype(np.float32)
COUNTS = rng().poisson(2.0, ROWS)
SEVERAL = rng().integers(0, 2, (ROWS, CLASSES)).astype(np.float32)


def some(labels, value):
    """Labels of which every fourth is another one."""
    found = np.array(labels)
    found[::4] = value
    return found


class Positions(nn.Module):
    """Scores (rows, classes, positions)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, CLASSES * 5)

    def forward(self, x):
        return self.layer(x).reshape(-1, CLASSES, 5)


class LogShares(nn.Module):
    """Logarithms of shares."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.layer(x).log_softmax(1)


class Chance(nn.Module):
    """A probability."""

    def __init__(self, outputs=1):
        super().__init__()
        self.layer = nn.Linear(4, outputs)

    def forward(self, x):
        return self.layer(x).sigmoid()


class Scaled(nn.Module):
    """A loss that learns its own scale."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, output, target):
        return (output - target) ** 2 * torch.exp(-self.log_scale) + self.log_scale


linear = functools.partial(nn.Linear, 4, CLASSES)
one = functools.partial(nn.Linear, 4, 1)
LOSSES = {
    "class weights": (linear, nn.CrossEntropyLoss(weight=WEIGHTS), LABEL),
    "class weights of a function": (linear, functools.partial(F.cross_entropy, weight=WEIGHTS), LABEL),
    "class weights and smoothing": (linear, nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.2), LABEL),
    "class weights of shares": (linear, nn.CrossEntropyLoss(weight=WEIGHTS), SHARES),
    "shares": (linear, nn.CrossEntropyLoss(), SHARES),
    "the ignored label": (linear, nn.CrossEntropyLoss(), some(LABEL, -100)),
    "another ignored label": (linear, nn.CrossEntropyLoss(WEIGHTS, ignore_index=255), some(LABEL, 255)),
    "log-probabilities": (LogShares, nn.NLLLoss(WEIGHTS, ignore_index=1), LABEL),
    "positions": (Positions, nn.CrossEntropyLoss(WEIGHTS, ignore_index=-1), some(POSITIONS, [0, -1, 2, -1, 1])),
    "positions as reals": (
        Positions,
        nn.CrossEntropyLoss(WEIGHTS, ignore_index=-1),
        some(POSITIONS, [0, -1, 2, -1, 1]).astype(np.float32),
    ),
    "lists of one class as reals": (
        linear,
        nn.CrossEntropyLoss(WEIGHTS, ignore_index=255),
        some(LABEL, 255)[:, None].astype(np.float32),
    ),
    "sum": (one, nn.MSELoss(reduction="sum"), REAL),
    "sum of class weights": (linear, nn.CrossEntropyLoss(WEIGHTS, reduction="sum"), LABEL),
    "batchmean": (LogShares, nn.KLDivLoss(reduction="batchmean"), SHARES),
    "mean over all entries": (linear, nn.L1Loss(), SHARES),
    "margins": (linear, nn.MultiMarginLoss(weight=WEIGHTS), LABEL),
    "positive weight": (one, nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)), SEVERAL[:, 0]),
    "labels": (linear, nn.BCEWithLogitsLoss(), SEVERAL),
    "a loss with parameters": (one, Scaled(), REAL),
}


def column(values):
    return pa.array(list(values)) if np.ndim(values) > 1 else pa.array(values)


def stored(folder, label, loss=None):
    """Rows in two partitions."""
    rows = parted({"features": list(X), "label": column(label)}, [90])
    fields = Fields.of(spark_schema(rows.schema), "features", "label")
    return write_store(rows, fields, str(folder), ignored=None if loss is None else RowLoss(loss, "classes").ignored)


def plain_loop(config, recipe):
    """PyTorch's own loss of all of a step's rows, and an optimiser over module and loss."""
    module, loss = recipe.build_module(config.seed), recipe.loss
    loss = type(loss)() if isinstance(loss, Scaled) else loss
    own = list(loss.parameters()) if isinstance(loss, nn.Module) else []
    optimizer = SGD([*module.parameters(), *own])
    rows = RankDataLoader(config, LocalCommunicator(), torch.device("cpu"))
    losses = []
    for epoch in range(config.epochs):
        with rows.training(epoch, 0) as batches:
            for batch in batches:
                rows_loss = RowLoss(recipe.loss, recipe.task_name)
                output, target = rows_loss.aligned(module(batch.inputs[0]), batch.target)
                value = loss(output, target).mean()
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                is_sum = getattr(loss, "reduction", "") == "sum"
                counts = rows_loss.counts(target, output.shape[1:])
                losses.append(value.item() / (counts.sum().item() if is_sum else 1))
    return losses, module.state_dict()


@pytest.mark.parametrize(("build", "loss", "label"), LOSSES.values(), ids=LOSSES)
def test_a_loss_is_reduced_as_pytorch_reduces_it(tmp_path, build, loss, label):
    """Also where streams end unevenly."""
    index = stored(tmp_path / "rows", label, loss)
    config, recipe = TrainConfig(index.uri, 3, 8, 2, seed=1), Recipe(build, loss, SGD)
    found = LocalLauncher().run(train, config, recipe)[0]
    check(found, *plain_loop(config, recipe))


@pytest.mark.parametrize("name", ["another ignored label", "a loss with parameters"])
def test_so_it_is_over_two_processes(tmp_path, name):
    build, loss, label = LOSSES[name]
    index = stored(tmp_path / "rows", label, loss)
    config, recipe = TrainConfig(index.uri, 2, 8, 2, seed=1), Recipe(build, loss, SGD)
    found = ProcessLauncher(2).run(train, config, recipe)
    check(found[0], *plain_loop(config, recipe))


def check(found, losses, state):
    np.testing.assert_allclose(found.losses, losses, rtol=2e-5, atol=1e-6)
    for name, tensor in module_state(found.weights).items():
        np.testing.assert_allclose(tensor, state[name], rtol=2e-4, atol=2e-6)


def test_parameters_of_a_loss_come_back_from_a_checkpoint(tmp_path):
    index = stored(tmp_path / "rows", REAL)
    whole = TrainConfig(index.uri, 4, 16, 1, seed=1)
    recipe = Recipe(one, Scaled(), SGD)
    expected = LocalLauncher().run(train, whole, recipe)[0]
    for epochs in (2, 4):
        config = TrainConfig(index.uri, epochs, 16, 1, seed=1, checkpoints=str(tmp_path / "checkpoints"))
        found = LocalLauncher().run(train, config, recipe)[0]
    assert (found.losses, found.weights) == (expected.losses, expected.weights)


def estimator(module, loss, **options):
    given = dict(optimizer=SGD, epochs=2, batchSize=16, launcher="local", validationIndicatorCol="aside", seed=1)
    return TorchEstimator(module=module, loss=loss, **{**given, **options})


def table(label, **more):
    aside = np.arange(ROWS) % 3 == 0
    return pa.table({"features": list(X), "label": column(label), "aside": aside, **more})


# loss, labels, a metric of predictions, and what scikit-learn makes of the columns; predictions by hand
SCALES = {
    "counts": ("poisson", one, COUNTS, lambda raw: np.exp(raw[:, 0]), "rmse", sk.root_mean_squared_error),
    "rates": (
        nn.PoissonNLLLoss(log_input=False), Chance, COUNTS, lambda raw: raw[:, 0], "mae",
        sk.mean_absolute_error,
    ),
    "values": ("huber", one, REAL, lambda raw: raw[:, 0], "mse", sk.mean_squared_error),
    "a logit": ("logistic", one, SEVERAL[:, 0], lambda raw: (raw[:, 0] > 0) * 1.0, "accuracy", sk.accuracy_score),
    "a probability": (
        nn.BCELoss(), Chance, SEVERAL[:, 0], lambda raw: (raw[:, 0] > 0.5) * 1.0, "accuracy", sk.accuracy_score,
    ),
    "labels": (
        nn.BCEWithLogitsLoss(), linear, SEVERAL, lambda raw: (raw > 0) * 1.0, "accuracy",
        lambda y, p: (y == p).mean(),
    ),
    "probabilities of labels": (
        nn.BCELoss(), functools.partial(Chance, CLASSES), SEVERAL, lambda raw: (raw > 0.5) * 1.0, "accuracy",
        lambda y, p: (y == p).mean(),
    ),
    "classes": ("multinomial", linear, LABEL, lambda raw: raw.argmax(1), "accuracy", sk.accuracy_score),
    "positions": (
        nn.CrossEntropyLoss(), Positions, POSITIONS, lambda raw: raw.argmax(1), "accuracy",
        lambda y, p: (y == p).mean(),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("loss", "module", "label", "by_hand", "metric", "score"), SCALES.values(), ids=SCALES)
def test_predictions_and_metrics_are_on_the_labels_scale(loss, module, label, by_hand, metric, score):
    rows = table(label)
    model = estimator(module, loss, metrics={"metric": metric}).fit(rows)
    with torch.inference_mode():
        raw = model.module(torch.from_numpy(X)).numpy()
    found = model.transform(rows)
    predicted = np.array(found["prediction"].to_pylist())
    np.testing.assert_allclose(predicted, by_hand(raw), rtol=1e-5, atol=1e-6)
    aside = rows["aside"].to_numpy()
    expected = score(np.asarray(label)[aside], predicted[aside])
    assert model.summary.history[-1]["metric"] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(rows.filter(rows["aside"]), {"m": metric}) == {"m": pytest.approx(expected, rel=1e-5)}
    if "probability" in found.column_names:
        shown = np.array(found["probability"].to_pylist())
        assert shown.shape[1] == max(2, raw.shape[1])
        assert shown.min() >= 0
        assert shown.max() <= 1


def test_metrics_of_torchmetrics_see_probabilities_and_give_matrices_and_collections():
    from torchmetrics import MetricCollection
    from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryConfusionMatrix

    label = SEVERAL[:, 0]
    metrics = {
        "matrix": BinaryConfusionMatrix(),
        "both": MetricCollection({"auc": BinaryAUROC(), "accuracy": BinaryAccuracy()}),
    }
    rows = table(label)
    model = estimator(one, "logistic", metrics=metrics).fit(rows)
    scored = model.transform(rows).filter(rows["aside"])
    truth, predicted = scored["label"].to_numpy(), scored["prediction"].to_numpy()
    last = model.summary.history[-1]
    assert last["matrix"] == sk.confusion_matrix(truth, predicted).tolist()
    assert last["both.accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    chance = np.array(scored["probability"].to_pylist())[:, 1]
    assert last["both.auc"] == pytest.approx(sk.roc_auc_score(truth, chance))
    again = model.evaluate(rows.filter(rows["aside"]), metrics)
    assert again["matrix"] == last["matrix"]
    assert again["both"]["auc"] == last["both.auc"]


def weighted():
    """Rows with weights, of which one has no label and another no features."""
    label, weight, features = list(map(float, REAL)), RNG.random(ROWS), list(X)
    label[7], features[20] = None, [0.0, np.nan, 0.0, 0.0]
    return pa.table({"features": features, "label": label, "w": weight, "aside": np.arange(ROWS) % 3 == 0})


RNG = np.random.default_rng(9)


def evaluations(rows, model):
    """By default, and with weights; and the error of invalid rows."""
    model = model.copy().setHandleInvalid("error")
    with pytest.raises(Exception, match="features column|label column"):
        model.evaluate(rows)
    model.setHandleInvalid("skip")
    plain = model.evaluate(rows)
    return plain, model.setWeightCol("w").evaluate(rows, {"error": "mse"})


def test_an_evaluation_weighs_rows_and_leaves_invalid_ones_out():
    rows = weighted()
    model = estimator(one, "huber", handleInvalid="skip").fit(rows)
    kept = [row for row in range(ROWS) if row not in (7, 20)]
    valid = rows.take(kept)
    predicted = model.transform(valid)["prediction"].to_numpy()
    truth, weight = valid["label"].to_numpy(), valid["w"].to_numpy()
    plain, by_weight = evaluations(rows, model)
    assert plain == {
        "mse": pytest.approx(sk.mean_squared_error(truth, predicted), rel=1e-5),
        "rmse": pytest.approx(sk.root_mean_squared_error(truth, predicted), rel=1e-5),
        "mae": pytest.approx(sk.mean_absolute_error(truth, predicted), rel=1e-5),
    }
    expected = sk.mean_squared_error(truth, predicted, sample_weight=weight)
    assert by_weight == {"error": pytest.approx(expected, rel=1e-5)}
    assert np.isnan(model.evaluate(rows.slice(0, 0))["mse"])


@pytest.mark.usefixtures("minutes")
def test_so_it_does_on_spark(spark):
    from torchmetrics import MeanSquaredError

    rows = weighted()
    model = estimator(one, "huber", handleInvalid="skip").fit(rows)
    frame = spark.createDataFrame(rows).repartition(3)
    for found, expected in zip(evaluations(frame, model), evaluations(rows, model), strict=True):
        assert found == pytest.approx(expected, rel=1e-6)
    with pytest.raises(IncompatibleError, match=r"'m' is one of torchmetrics, .* evaluate a table"):
        model.evaluate(frame, {"m": MeanSquaredError()})


TAKES = r"; the loss takes the whole numbers 0 to 2, one for each of the module's 3 outputs"
LABELS = {
    "a fraction": ("multinomial", linear, some(LABEL, 0) + 0.9 * (np.arange(ROWS) == 100), rf"row 100 is 0.9{TAKES}"),
    "from 1": ("multinomial", linear, LABEL + 1, rf"row \d+ is 3{TAKES}. The labels begin at 1: subtract 1."),
    "signs of classes": ("multinomial", linear, SEVERAL[:, 0] * 2 - 1, rf"is -1{TAKES}. Give labels -1 and 1 as 0"),
    "too many": ("multinomial", linear, some(LABEL, 7), rf"is 7{TAKES}. Give the module more outputs"),
    "signs": ("logistic", one, SEVERAL[:, 0] * 2 - 1, "is -1; the loss takes labels from 0 to 1. Give labels -1 and"),
    "1 and 2": (nn.BCELoss(), Chance, SEVERAL[:, 0] + 1, "is 2; the loss takes labels from 0 to 1. The labels begin"),
    "several": (nn.BCEWithLogitsLoss(), linear, SEVERAL * 3, "is 3; the loss takes labels from 0 to 1"),
    "negative counts": ("poisson", one, some(COUNTS, -2), "is -2; the loss takes counts >= 0"),
    "no signs": (nn.SoftMarginLoss(), one, SEVERAL[:, 0], r"row \d+ is 0; the loss takes -1 and 1"),
    "shares above 1": (nn.CrossEntropyLoss(), linear, SHARES * 2, "the loss takes probabilities of the classes"),
    "another ignored": (nn.CrossEntropyLoss(ignore_index=255), linear, some(LABEL, -100), "is -100; the loss takes"),
    "null": (
        "multinomial",
        linear,
        pa.array([0, None] * (ROWS // 2)),
        "partition 0, row 1 is null",
    ),
    "text": ("multinomial", linear, pa.array(["cat", "dog"] * (ROWS // 2)), "label column 'label' holds text"),
}


@pytest.mark.parametrize(("loss", "module", "label", "message"), LABELS.values(), ids=LABELS)
def test_labels_that_the_loss_does_not_take_are_named(loss, module, label, message):
    rows = table([0] * ROWS)
    at = rows.column_names.index("label")
    rows = rows.set_column(at, "label", label if isinstance(label, pa.Array) else column(label))
    with pytest.raises(ValueError, match=message) as error:
        estimator(module, loss).fit(rows)
    assert "label column 'label'" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


class Returning(nn.Module):
    """Gives what it is told to."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(4, 1)

    def forward(self, x):
        value = self.layer(x)
        return {"tuple": (value, value), "dict": {"out": value}, "mean": value.mean(), "turned": value.T}[self.kind]


class Remembering(nn.Module):
    """With a state that is no tensor."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def get_extra_state(self):
        return {"vocabulary": ["a", "b"]}

    def set_extra_state(self, state):
        pass

    def forward(self, x):
        return self.layer(x)


class Growing(nn.Module):
    """Another state with each that is built."""

    built = 0

    def __init__(self):
        super().__init__()
        Growing.built += 1
        self.layer = nn.Linear(4, 1)
        self.register_buffer("seen", torch.zeros(Growing.built))

    def forward(self, x):
        return self.layer(x)


def frozen():
    layer = nn.Linear(4, 1)
    layer.requires_grad_(False)
    return layer


def failing(output, target):
    raise KeyError("weights of the classes")


LBFGS = functools.partial(torch.optim.LBFGS, lr=1.0)
REFUSED = {
    "a tuple": (dict(module=functools.partial(Returning, "tuple")), "must return one tensor. It returns a tuple"),
    "a dict": (dict(module=functools.partial(Returning, "dict")), "module must return one tensor. It returns a dict"),
    "no rows": (dict(module=functools.partial(Returning, "mean")), r"module gives \(\) for 2 rows"),
    "rows last": (dict(module=functools.partial(Returning, "turned")), r"module gives \(1, 2\) for 2 rows"),
    "another width": (dict(module=functools.partial(nn.Linear, 7, 1)), r"module fails on rows of \(4,\) float32: R"),
    "extra state": (dict(module=Remembering), "state '_extra_state' is a dict; only tensors can be saved"),
    "a state that differs": (dict(module=Growing), "saving and loading the module's state fails: RuntimeError"),
    "nothing to train": (dict(module=frozen), "there is nothing to train"),
    "a loss that fails": (dict(loss=failing), r"loss fails on outputs \(\d*,?\) float32 and labels .* KeyError"),
    "a loss of the batch": (dict(loss=lambda output, target: (output - target).mean()), "must give one value a row"),
    "outputs unlike labels": (dict(module=linear), r"the module gives \(3,\) a row where the label has \(\)"),
    "a metric of classes": (
        dict(module=linear, loss="multinomial", labelCol="whole", metrics={"m": "mse"}),
        "mse, rmse and mae compare values",
    ),
    "closures": (dict(optimizer=LBFGS), "optimizer LBFGS evaluates the loss several times in a step, by a closure"),
    "no optimiser": (dict(optimizer=lambda parameters: 3), "must give a torch.optim.Optimizer. It gives a int"),
    "no scheduler": (dict(scheduler=lambda optimizer: 3), "must give a scheduler of PyTorch. It gives a int"),
    "another's weights": (
        dict(initialModel=nn.Linear(9, 1).state_dict()),
        "initialModel does not fit the module: size mismatch for weight",
    ),
    "a class": (dict(loss=nn.MSELoss), r"loss is the class MSELoss; give an instance of it, such as MSELoss\(\)"),
    "metrics of nothing": (
        dict(metrics={"error": "mse"}, validationIndicatorCol=None),
        r"metrics \(error\) are computed over rows held out",
    ),
    "no weights": (dict(initialModel=nn.Linear(4, 1)), "initialModel must be a TorchModel, a state_dict, or bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_before_the_first_step(options, message):
    steps = []
    rows = table(REAL, whole=LABEL)
    options = {"module": one, "loss": "huber", **options}
    with pytest.raises((ParameterError, DataError), match=message) as error:
        estimator(**options, callbacks=[steps.append]).fit(rows)
    assert len(str(error.value).splitlines()) == 1
    assert not steps


HURRIED = {
    "a list of metrics": (
        dict(metrics=["accuracy"]),
        r"must be a dict .* such as \{'accuracy': 'accuracy'\}",
    ),
    "a metric": (dict(metrics="accuracy"), "metrics must be a dict of names and metrics"),
    "one callback": (dict(callbacks=print), "callbacks must be a list. Got <built-in function print> instead"),
    "a class of callbacks": (dict(callbacks=[dict]), r"callbacks has the class dict; give an instance of it"),
    "one logger": (dict(loggers=3), "loggers must be a list. Got 3 instead"),
}


@pytest.mark.parametrize(("options", "message"), HURRIED.values(), ids=HURRIED)
def test_hurried_arguments_get_one_line(options, message):
    with pytest.raises(ParameterError, match=message):
        TorchEstimator(module=one, **options)


def test_which_of_many_columns_is_missing_is_said():
    rows = {f"x{number}": rng().normal(size=ROWS) for number in range(12)}
    for value, message in ((None, "row 40 is null in column 'x7'"), (np.nan, "row 40 is nan at column 'x7'")):
        broken = list(rows["x7"])
        broken[40] = value
        with pytest.raises(DataError, match=message):
            estimator(functools.partial(nn.Linear, 12, 1), "huber", featuresCols=list(rows)).fit(
                table(REAL, **{**rows, "x7": pa.array(broken)})
            )


def halves(named_parameters):
    """Weights and biases in groups of their own, and no third."""
    named = dict(named_parameters)
    groups = [{"params": [p for name, p in named.items() if name.endswith("weight")], "lr": 0.3}]
    return torch.optim.SGD([*groups, {"params": [p for name, p in named.items() if name.endswith("bias")]}], lr=0.1)


def twice(parameters):
    """Reads its argument more than once, as the constructor of an optimiser of one's own may."""
    count = sum(parameter.numel() for parameter in parameters)
    return torch.optim.SGD(parameters, lr=0.1 / count)


def only_first(parameters):
    return torch.optim.SGD(parameters[:1], lr=0.1)


OPTIMIZERS = {"named": (halves, []), "twice": (twice, []), "first": (only_first, ["bias"])}


@pytest.mark.parametrize(("optimizer", "absent"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimiser_gets_a_list_and_who_is_left_out_is_said(optimizer, absent, caplog):
    with caplog.at_level(logging.WARNING):
        model = estimator(one, "huber", optimizer=optimizer).fit(table(REAL))
    torch.manual_seed(1)
    start, found = nn.Linear(4, 1), model.module
    assert not torch.equal(start.weight, found.weight)
    assert torch.equal(start.bias, found.bias) == bool(absent)
    said = [record.getMessage() for record in caplog.records if "no group of the optimiser" in record.getMessage()]
    assert said == [f"no group of the optimiser has {name}: they are not trained." for name in absent]


@pytest.mark.parametrize(("interval", "expected"), [("step", 14), ("epoch", 2)])
def test_a_scheduler_may_ask_how_many_steps_it_takes(interval, expected):
    asked = []

    def one_cycle(optimizer, steps):
        asked.append(steps)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=steps)

    model = estimator(one, "huber", scheduler=one_cycle, schedulerInterval=interval).fit(table(REAL))
    assert asked == [expected]
    assert model.summary.totalIterations == 14


@pytest.mark.parametrize("count", [33, 34, 48])
def test_repeated_rows_never_reach_running_statistics(tmp_path, count):
    """33 rows leave a last batch of one, which has no variance: PyTorch would refuse it."""
    rows = parted({"features": list(X[:count]), "label": column(REAL[:count])})
    index = write_store(rows, Fields.of(spark_schema(rows.schema), "features", "label"), str(tmp_path / "rows"))
    config = TrainConfig(index.uri, 1, 16, 1, seed=1)

    def build():
        return nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1))

    found = module_state(LocalLauncher().run(train, config, Recipe(build, "huber", SGD))[0].weights)
    norm = nn.BatchNorm1d(4)
    with RankDataLoader(config, LocalCommunicator(), torch.device("cpu")).training(0, 0) as batches:
        for batch in batches:
            assert len(batch.weight) == batch.counted
            if batch.counted > 1:
                norm(batch.inputs[0])
    np.testing.assert_allclose(found["0.running_mean"], norm.running_mean, rtol=1e-6)
    np.testing.assert_allclose(found["0.running_var"], norm.running_var, rtol=1e-6)
    assert found["0.num_batches_tracked"] == norm.num_batches_tracked


def test_weights_of_a_state_dict_are_started_from():
    given = nn.Linear(4, 1)
    model = estimator(one, "huber", epochs=0, initialModel=given.state_dict()).fit(table(REAL))
    assert torch.equal(model.module.weight, given.weight)
