"""PowerSGD: gradients are communicated as products of two thin matrices, with error feedback.

A rank adds its error-feedback residual to its gradient M (n, m). All ranks compute P = mean(M) Q, make its r columns
orthonormal, and compute Q = mean(M)ᵀ P: r · (n + m) numbers are communicated instead of n · m. Every rank uses P Qᵀ
as the gradient, keeps M − P Qᵀ as its residual, and starts the next step with this Q, which approaches the leading
singular vectors.

Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization",
NeurIPS 2019, algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

__all__ = ["PowerSgd"]

Mean = Callable[[torch.Tensor], torch.Tensor]


class PowerSgd:
    """Averages gradients over ranks, compressed.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        What is trained, in the same order on all ranks.
    mean : callable
        From a flat tensor to its mean over all ranks; a collective.
    rank : int, default 2
        Columns of P and Q.

    Notes
    -----
    Vectors, and matrices that would not shrink to less than half, are communicated uncompressed. Only the mean of the
    ranks' residuals affects later steps: that mean is the state, so a run can resume with another number of ranks.

    Examples
    --------
    One rank, and a gradient of rank 1: the residual is zero.

    >>> weight = torch.nn.Parameter(torch.zeros(8, 20))
    >>> weight.grad = torch.outer(torch.arange(8.0), torch.ones(20))
    >>> expected = weight.grad.clone()
    >>> PowerSgd({"weight": weight}, lambda values: values).average()
    >>> torch.allclose(weight.grad, expected, atol=1e-5)
    True
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor], mean: Mean, rank: int = 2) -> None:
        self._mean = mean
        self._compressed, self._plain = {}, []
        generator = torch.Generator().manual_seed(0)  # the same first Q everywhere
        self._q: dict[str, torch.Tensor] = {}
        self._residuals: dict[str, torch.Tensor] = {}
        for name, parameter in parameters.items():
            rows = len(parameter) if parameter.ndim else 1
            columns = parameter.numel() // max(1, rows)
            if 2 * rank * (rows + columns) >= rows * columns:
                self._plain.append(parameter)
                continue
            self._compressed[name] = parameter
            first = torch.randn(columns, rank, generator=generator)
            self._q[name] = first.to(parameter.device, parameter.dtype)
            self._residuals[name] = torch.zeros(rows, columns, dtype=parameter.dtype, device=parameter.device)

    def average(self) -> None:
        """Replace every gradient by the compressed mean of the ranks'; a collective."""
        for parameter in (*self._plain, *self._compressed.values()):
            if parameter.grad is None:  # not part of this step's graph on this rank, but maybe on another
                parameter.grad = torch.zeros_like(parameter)
        for parameter, found in zip(self._plain, self._means(_grad(p) for p in self._plain), strict=True):
            parameter.grad = found
        wanted = {
            name: _grad(parameter).reshape(len(parameter), -1) + self._residuals[name]
            for name, parameter in self._compressed.items()
        }
        ps = self._means(matrix @ self._q[name] for name, matrix in wanted.items())
        ps = [torch.linalg.qr(p).Q for p in ps]
        qs = self._means(matrix.T @ p for matrix, p in zip(wanted.values(), ps, strict=True))
        for (name, matrix), p, q in zip(wanted.items(), ps, qs, strict=True):
            sent = p @ q.T
            self._residuals[name], self._q[name] = matrix - sent, q
            self._compressed[name].grad = sent.reshape(self._compressed[name].shape)

    def state(self) -> dict[str, Any]:
        """Return what the next steps depend on, as tensors by name; a collective."""
        names = list(self._residuals)
        residuals = self._means(self._residuals[name] for name in names)
        return {"left_out": dict(zip(names, residuals, strict=True)), "q": dict(self._q)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        for own, saved in ((self._residuals, state["left_out"]), (self._q, state["q"])):
            for name, tensor in own.items():
                own[name] = saved[name].to(tensor.device, tensor.dtype)

    def _means(self, tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """Return the means over all ranks of some tensors, communicated as one."""
        found = list(tensors)
        if not found:
            return []
        flat = self._mean(torch.cat([tensor.reshape(-1) for tensor in found]))
        parts = torch.split(flat, [tensor.numel() for tensor in found])
        return [part.reshape(tensor.shape) for part, tensor in zip(parts, found, strict=True)]


def _grad(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None  # noqa: S101  # average() saw to it
    return parameter.grad
