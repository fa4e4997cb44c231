"""Tensors as vectors of real numbers: complex ones have two each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparkopt.typing import Array

__all__ = ["as_flat", "flattened", "load_flat", "real_numbers", "shaped", "width_of"]


def real_numbers(parameter: torch.Tensor) -> int:
    """Return how many real numbers a parameter has."""
    return parameter.numel() * (2 if parameter.is_complex() else 1)


def width_of(parameter: torch.Tensor) -> int:
    """Return the bytes of each of these numbers."""
    return parameter.element_size() // (2 if parameter.is_complex() else 1)


def as_flat(gradient: torch.Tensor) -> torch.Tensor:
    """Return the real numbers of a tensor in one dimension."""
    return (torch.view_as_real(gradient) if gradient.is_complex() else gradient).reshape(-1)


def shaped(flat: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return such numbers in the shape of a parameter."""
    if parameter.is_complex():
        return torch.view_as_complex(flat.reshape(*parameter.shape, 2))
    return flat.view_as(parameter)


def flattened(tensors: Sequence[torch.Tensor]) -> Array:
    """Return a copy of the real numbers of tensors as one vector, float32, on the CPU."""
    found: Array = torch.cat([as_flat(one.detach()).float().cpu() for one in tensors]).numpy()
    return found


def load_flat(tensors: Sequence[torch.Tensor], values: Array) -> None:
    """Set tensors to the numbers of such a vector."""
    parts = torch.split(torch.from_numpy(values), [real_numbers(one) for one in tensors])
    with torch.no_grad():
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(shaped(part, tensor))
