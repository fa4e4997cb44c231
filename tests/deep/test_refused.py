"""What cannot work is refused before the first step, in one line."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from sparkopt.deep import TorchEstimator
from sparkopt.errors import DataError, ParameterError
from tests.deep.labelled import (
    COUNTS,
    LABEL,
    REAL,
    ROWS,
    SEVERAL,
    SHARES,
    Chance,
    column,
    estimator,
    linear,
    one,
    rng,
    some,
    table,
)

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
