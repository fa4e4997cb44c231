"""PyTorch's generator of a process, which trainings in several threads share: each has it for a step at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["isolated", "seeded"]

_LOCK = threading.RLock()
_trainings = 0


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators; nobody else draws from them, or seeds them, within."""
    with _LOCK:
        if device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # looking for accelerators takes 0.1 ms
        else:
            torch.manual_seed(seed)
        yield


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Leave the generators as they were before the first of the trainings that run at the same time."""
    global _trainings, _before  # of the process, as the generators are
    with _LOCK:
        if not _trainings:
            _before = torch.get_rng_state()
        on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        _trainings += 1
    try:
        yield
    finally:
        with _LOCK:
            _trainings -= 1
            if not _trainings:
                torch.set_rng_state(_before)
            if on_device is not None:
                torch.cuda.set_rng_state(on_device, device)


_before: torch.Tensor
