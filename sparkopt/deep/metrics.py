"""Metrics of a validation: by name, weighted and exact, or torchmetrics' own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from sparkopt.errors import ParameterError
from sparkopt.launch import Communicator

__all__ = ["METRICS", "Metric", "build_metrics", "by_name", "check_metrics", "mean_of"]

RowScore = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Metric(Protocol):
    """Accumulates over batches; all ranks compute the same value."""

    def update(self, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> None:
        """Add rows."""
        ...

    def compute(self, communicator: Communicator) -> Any:
        """Return the value over all ranks; a collective."""
        ...


def _hit(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Whether the class of the highest probability is the label; of a single probability, whether it is above 1/2."""
    if output.ndim == target.ndim + 1:
        return output.argmax(1) == target
    return (output > 0.5) == (target > 0.5)


def _squared(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return _difference(output, target) ** 2


def _absolute(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return _difference(output, target).abs()


def _difference(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if output.shape != target.shape:
        raise ParameterError(
            f"mse, rmse and mae compare values: the module gives {tuple(output.shape[1:])} a row where the label has "
            f"{tuple(target.shape[1:])}."
        )
    return output - target


METRICS: Mapping[str, tuple[RowScore, Callable[[float], float]]] = MappingProxyType(
    {"accuracy": (_hit, float), "mse": (_squared, float), "rmse": (_squared, np.sqrt), "mae": (_absolute, float)}
)
"""Name to (score of a row, function of the weighted mean score)."""


class _Mean:
    """The weighted mean of a score."""

    def __init__(self, name: str) -> None:
        self._name, self._score = name, METRICS[name][0]
        self._sums = np.zeros(2)

    def update(self, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> None:
        scores = self._score(output, target).double()
        rows = scores if scores.ndim == 1 else scores.flatten(1).mean(1)
        weight = weight.double()
        self._sums += [float((rows * weight).sum()), float(weight.sum())]

    def compute(self, communicator: Communicator) -> float:
        return mean_of(self._name, *communicator.all_reduce(self._sums))

    @property
    def sums(self) -> tuple[float, float]:
        """The weighted sum of the scores, and that of the weights."""
        return float(self._sums[0]), float(self._sums[1])


def mean_of(name: str, total: float, weight: float) -> float:
    """Return a metric with a name, from the sums of its rows."""
    return float(METRICS[name][1](total / weight)) if weight > 0 else float("nan")


class _TorchMetric:
    """A metric of torchmetrics, on the rows that count; it knows no row weights."""

    def __init__(self, metric: Any, device: torch.device) -> None:
        self._metric = copy.deepcopy(metric).to(device)
        self._takes_classes = ".classification." in f"{_first(metric).__module__}."

    def update(self, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> None:
        counts = weight > 0
        if counts.any():
            output, target = output[counts], target[counts]
            if self._takes_classes and target.is_floating_point() and bool((target == target.round()).all()):
                target = target.long()
            self._metric.update(output, target)

    def compute(self, communicator: Communicator) -> Any:
        def gather(tensor: torch.Tensor, group: Any = None) -> list[torch.Tensor]:
            payload = save_tensors({"state": tensor.detach().cpu().contiguous()})
            found = communicator.all_gather(payload)
            return [load_tensors(content)["state"].to(tensor.device) for content in found]

        for one in _members(self._metric):
            one.dist_sync_fn = gather  # torchmetrics' own supports only torch.distributed
            one.distributed_available_fn = lambda: communicator.size > 1
        return _plain(self._metric.compute())


def _members(metric: Any) -> list[Any]:
    """Return the metrics of a collection, or the metric itself."""
    values = getattr(metric, "values", None)
    return [one for member in values() for one in _members(member)] if callable(values) else [metric]


def _first(metric: Any) -> Any:
    return next(iter(_members(metric)), metric)


def _plain(value: Any) -> Any:
    """Return what a metric computes as plain values: a number, lists of a matrix, a dict of a collection."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    found = value.tolist() if isinstance(value, torch.Tensor) else value
    return float(found) if isinstance(found, (int, float)) else found


def by_name(metrics: Any) -> dict[str, Any]:
    """Return metrics by name.

    Raises
    ------
    ParameterError
        For what is no dict.
    """
    if metrics is None or isinstance(metrics, Mapping):
        return dict(metrics or {})
    names = [metrics] if isinstance(metrics, str) else list(metrics) if isinstance(metrics, (list, tuple)) else []
    shown = {name: name for name in names if isinstance(name, str)} or {"name": "..."}
    raise ParameterError(f"metrics must be a dict of names and metrics, such as {shown}. Got {metrics!r} instead.")


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """Refuse what is no metric.

    Raises
    ------
    ParameterError
        Naming it, and the metrics that have a name.
    """
    for name, metric in metrics.items():
        if isinstance(metric, type):
            raise ParameterError(
                f"metric {name!r} is the class {metric.__name__}; give an instance of it, such as "
                f"{metric.__name__}()."
            )
        is_torch = all(callable(getattr(metric, method, None)) for method in ("update", "compute", "reset"))
        if not is_torch and not (isinstance(metric, str) and metric in METRICS):
            raise ParameterError(
                f"metric {name!r} must be a torchmetrics.Metric or one of {', '.join(METRICS)}. Got {metric!r}."
            )


def build_metrics(metrics: Mapping[str, Any], device: torch.device) -> dict[str, Metric]:
    """Return fresh metrics for one validation."""
    return {
        name: _Mean(metric) if isinstance(metric, str) else _TorchMetric(metric, device)
        for name, metric in metrics.items()
    }
