"""Losses of rows, optimisers and schedules by name: each against PyTorch's own."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparkopt.deep.losses import LOSSES, RowLoss, task_of
from sparkopt.deep.recipe import OPTIMIZERS, Recipe, check_recipe
from sparkopt.errors import DataError, ParameterError
from sparkopt.optim import schedules

GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(12, 4, generator=GENERATOR)
REAL = torch.rand(12, 4, generator=GENERATOR)
CLASSES = torch.arange(12) % 4


def rows_of_huber(output, target):
    return F.huber_loss(output, target, reduction="none")


# loss, output, target; the mean of the rows' losses must be what PyTorch's own averaging gives
CASES = {
    **{name: (name, SCORES, CLASSES if name == "multinomial" else REAL) for name in LOSSES},
    "module": (nn.SmoothL1Loss(), SCORES, REAL),
    "module that averages": (nn.CrossEntropyLoss(reduction="mean", label_smoothing=0.1), SCORES, CLASSES),
    "function": (F.mse_loss, SCORES, REAL),
    "function of classes": (F.cross_entropy, SCORES, CLASSES),
    "own function of rows": (rows_of_huber, SCORES, REAL),
}


@pytest.mark.parametrize(("loss", "output", "target"), CASES.values(), ids=CASES)
def test_rows_average_to_what_pytorch_gives(loss, output, target):
    rows = Recipe(nn.Identity(), loss).build_loss()(output, target)
    own = LOSSES[loss]() if isinstance(loss, str) else loss
    assert rows.shape == (12,)
    torch.testing.assert_close(rows.mean(), own(output, target).mean())


def test_the_users_loss_is_left_alone():
    loss = nn.CrossEntropyLoss()
    Recipe(nn.Identity(), loss).build_loss()
    assert loss.reduction == "mean"


def test_labels_get_the_type_and_shape_that_the_loss_wants():
    classes = Recipe(nn.Identity(), "multinomial").build_loss()
    torch.testing.assert_close(classes(SCORES, CLASSES.float()), classes(SCORES, CLASSES))
    squared = Recipe(nn.Identity(), "squared_error").build_loss()
    torch.testing.assert_close(squared(SCORES[:, :1], REAL[:, 0].double()), (SCORES[:, 0] - REAL[:, 0]) ** 2)
    with pytest.raises(DataError, match=r"the module gives \(4,\) a row where the label has \(3,\)"):
        squared(SCORES, REAL[:, :3])
    with pytest.raises(ParameterError, match="must give one value a row"):
        RowLoss(lambda output, target: (output - target).mean(), "values")(SCORES, REAL)
    with pytest.raises(ParameterError, match="must return one tensor. It returns a tuple"):
        squared((SCORES, SCORES), REAL)


def test_the_task_follows_from_the_loss():
    found = [task_of(loss) for loss in (nn.NLLLoss(), F.cross_entropy, nn.BCEWithLogitsLoss(), nn.MSELoss(), print)]
    assert found == ["classes", "classes", "binary", "values", "values"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_by_name(name):
    layer = nn.Linear(2, 1)
    built = Recipe(layer, "huber", name, step_size=0.25).build_optimizer(layer.named_parameters())
    assert built.param_groups[0]["lr"] == 0.25
    assert built.param_groups[0].get("nesterov", False) == (name == "nesterov")
    default = Recipe(layer, "huber", name).build_optimizer(layer.named_parameters())
    assert default.param_groups[0]["lr"] == OPTIMIZERS[name][1]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("kind", [torch.float32, torch.complex64])
def test_optimisers_by_name_step_as_pytorch_has_them(name, kind):
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 12).to(kind).reshape(3, 4)) for _ in range(2))
    built = Recipe(nn.Identity(), "huber", name, step_size=0.1).build_optimizer(iter([("ours", ours)]))
    plain = OPTIMIZERS[name][0]([theirs], lr=0.1)
    for _ in range(5):
        for parameter, optimizer in ((ours, built), (theirs, plain)):
            optimizer.zero_grad()
            ((parameter.abs() - 0.3) ** 2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", schedules.NAMES)
def test_schedules_by_name_set_the_rate_of_each_step(name):
    layer = nn.Linear(2, 1)
    recipe = Recipe(layer, "huber", "sgd", name, step_size=0.5)
    optimizer = recipe.build_optimizer(layer.named_parameters())
    scheduler, when = recipe.build_scheduler(optimizer, 20, 2)
    expected = schedules.by_name(name, 0.5, 20)
    assert when == "step"
    for step in range(20):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected(step))
        optimizer.step()
        scheduler.step()


def test_a_network_that_is_built_depends_on_the_seed_only():
    recipe = Recipe(functools.partial(nn.Linear, 3, 2), "huber")
    torch.manual_seed(5)
    one, two, other = (recipe.build_module(seed).weight for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    given = nn.Linear(3, 2)
    assert Recipe(given, "huber").build_module(1) is not given


WRONG = {
    "module": (dict(module=3), "module must be an nn.Module, or build one. Got 3"),
    "loss": (dict(loss="crossentropy"), "loss must be one of 'squared_error', .*. Got 'crossentropy'"),
    "optimizer": (dict(optimizer="lbfgs"), "optimizer must be one of 'sgd', .*. Got 'lbfgs'"),
    "built": (
        dict(optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.2)),
        r"optimizer has parameters already; .* functools.partial\(torch.optim.SGD, lr=0.2\)\.$",
    ),
    "rate": (dict(optimizer=torch.optim.SGD, step_size=0.1), "stepSize is for optimisers with a name"),
    "scheduler": (dict(scheduler=3), "scheduler must be callable. Got 3"),
    "interval": (dict(scheduler_interval="batch"), "schedulerInterval must be one of 'epoch', 'step'. Got 'batch'"),
    "task": (
        dict(task="ranking"),
        "task must be one of 'classes', 'binary', 'probability', .*. Got 'ranking'",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_parts_are_named(change, message):
    with pytest.raises(ParameterError, match=message):
        check_recipe(Recipe(**{"module": nn.Identity(), "loss": "huber", **change}))
