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

__all__ = ["METRICS", "Metric", "build_metrics", "check_metrics"]

RowScore = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Metric(Protocol):
    """Accumulates over batches; all ranks compute the same value."""

    def update(self, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> None:
        """Add rows."""
        ...

    def compute(self, communicator: Communicator) -> float:
        """Return the value over all ranks; a collective."""
        ...


def _hit(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Whether the class with the highest score (or the sign of the only score) is the label."""
    if output.ndim == target.ndim + 1:
        return output.argmax(1) == target
    return (output > 0) == (target > 0.5)


def _squared(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target) ** 2


def _absolute(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).abs()


METRICS: Mapping[str, tuple[RowScore, Callable[[float], float]]] = MappingProxyType(
    {"accuracy": (_hit, float), "mse": (_squared, float), "rmse": (_squared, np.sqrt), "mae": (_absolute, float)}
)
"""Name to (score of a row, function of the weighted mean score)."""


class _Mean:
    """The weighted mean of a score."""

    def __init__(self, name: str) -> None:
        self._score, self._finish = METRICS[name]
        self._sums = np.zeros(2)

    def update(self, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> None:
        scores = self._score(output, target).double()
        rows = scores if scores.ndim == 1 else scores.flatten(1).mean(1)
        weight = weight.double()
        self._sums += [float((rows * weight).sum()), float(weight.sum())]

    def compute(self, communicator: Communicator) -> float:
        total, weight = communicator.all_reduce(self._sums)
        return float(self._finish(total / weight)) if weight > 0 else float("nan")


class _TorchMetric:
    """A metric of torchmetrics, on the rows that count; it knows no row weights."""

    def __init__(self, metric: Any, device: torch.device) -> None:
        self._metric = copy.deepcopy(metric).to(device)

    def update(self, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> None:
        counts = weight > 0
        if counts.any():
            self._metric.update(output[counts], target[counts])

    def compute(self, communicator: Communicator) -> float:
        def gather(tensor: torch.Tensor, group: Any = None) -> list[torch.Tensor]:
            payload = save_tensors({"state": tensor.detach().cpu().contiguous()})
            found = communicator.all_gather(payload)
            return [load_tensors(content)["state"].to(tensor.device) for content in found]

        self._metric.dist_sync_fn = gather  # torchmetrics' own supports only torch.distributed
        self._metric.distributed_available_fn = lambda: communicator.size > 1
        return float(self._metric.compute())


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """Refuse what is no metric.

    Raises
    ------
    ParameterError
        Naming it, and the metrics that have a name.
    """
    for name, metric in metrics.items():
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
