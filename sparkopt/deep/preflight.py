"""What a rank tries before the first step: a forward pass, the loss, the metrics, and saving and loading the network.

What cannot work would otherwise be found after an epoch, or after the whole training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from sparkopt.deep.batch import Batch
from sparkopt.deep.labels import check_labels
from sparkopt.deep.losses import RowLoss
from sparkopt.deep.metrics import build_metrics
from sparkopt.deep.outputs import Outputs, on_scale
from sparkopt.deep.partial_weights import load_weights
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.row_step import LossOfStep, chosen_output
from sparkopt.errors import ParameterError, SparkoptError
from sparkopt.launch.checkpoints import module_bytes, module_state
from sparkopt.shards.index import LabelFacts

__all__ = ["check_saving", "left_out", "loaded", "materialise", "try_out"]


def materialise(module: nn.Module, sample: Batch) -> None:
    """Give lazy parameters their shapes, by a forward pass."""
    if any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters()):
        module.eval()
        with torch.no_grad(), _named("module", sample):
            module(*sample.inputs)


def try_out(
    module: nn.Module,
    loss: RowLoss,
    recipe: Recipe,
    sample: Batch,
    labels: LabelFacts | None,
    step: LossOfStep | None = None,
) -> tuple[int, ...]:
    """Evaluate a few rows, on the module's device; return the shape of an output.

    Raises
    ------
    ParameterError, DataError
        Naming what does not work, module, loss or metric, and the shapes of the rows.
    """
    module.eval()
    with torch.no_grad():
        with _named("module", sample):
            output = chosen_output(module(*sample.inputs), recipe.output)
        if output.shape[:1] != sample.weight.shape:
            raise ParameterError(
                f"the module gives {tuple(output.shape)} for {len(sample.weight)} rows; its first dimension must be "
                "the rows."
            )
        if step is not None:
            with _named("step", sample):
                step(sample.inputs, sample.targets)
            output = output.float()
        else:
            output, target = loss.aligned(output, sample.target)
            if labels is not None:
                check_labels(loss, labels, tuple(output.shape[1:]), tuple(target.shape[1:]))
            with _named("loss", sample, output):
                loss(output, target)
        shape = tuple(output.shape[1:])
        Outputs(loss.task, shape)
        _try_metrics(loss, recipe.metrics, output, sample)
    return shape


def _try_metrics(loss: RowLoss, metrics: Mapping[str, Any], output: torch.Tensor, sample: Batch) -> None:
    if not metrics:
        return
    if len(sample.targets) != 1:
        raise ParameterError(
            f"metrics ({', '.join(metrics)}) compare the prediction with one label, and there are "
            f"{len(sample.targets)}. Leave metrics out."
        )
    output, target = loss.aligned(output, sample.targets[0])
    for name, metric in build_metrics(metrics, output.device).items():
        with _named(f"metric {name!r}", sample, output):
            metric.update(on_scale(loss.task, output), target, sample.weight)


def loaded(module: nn.Module, weights: bytes) -> None:
    """Load the initial weights into a module.

    Raises
    ------
    ParameterError
        Where they are another network's.
    """
    try:
        load_weights(module, module_state(weights))
    except RuntimeError as error:
        reasons = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise ParameterError(f"initialModel does not fit the module: {reasons}") from error


def check_saving(weights: dict[str, torch.Tensor], recipe: Recipe, seed: int) -> None:
    """Save a module's weights, and load them into another one that is built, from another seed as a model's is."""
    state = module_bytes(weights)
    with _named("saving and loading the module's state"):
        load_weights(recipe.build_module(seed + 1), module_state(state))


def left_out(module: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of parameters that require gradients, and that no group of the optimiser has."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    named = [*module.named_parameters(), *loss.named_parameters("loss")]
    return [name for name, parameter in named if parameter.requires_grad and id(parameter) not in held]


@contextmanager
def _named(part: str, sample: Batch | None = None, output: torch.Tensor | None = None) -> Iterator[None]:
    """Name what failed, and on what, in one line."""
    try:
        yield
    except SparkoptError:
        raise
    except Exception as error:
        given = "" if sample is None else f" on rows of {', '.join(map(_shown, sample.inputs))}"
        if output is not None and sample is not None:
            labels = ", ".join(map(_shown, sample.targets))
            given = f" on outputs {_shown(output)} and labels {labels}"
        why = str(error).strip().splitlines() or [""]
        raise ParameterError(f"{part} fails{given}: {type(error).__name__}: {why[0]}") from error


def _shown(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape[1:])} {str(tensor.dtype).removeprefix('torch.')}"
