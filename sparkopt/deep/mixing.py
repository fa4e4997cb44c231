"""MixUp and CutMix in training: rows of a batch are mixed, and the loss is taken of both labels, by their shares."""

from __future__ import annotations

import numpy as np
import torch

from sparkopt.deep.batch import Batch
from sparkopt.errors import ParameterError
from sparkopt.images import BatchMixing, CutMix
from sparkopt.shards.fields import Fields
from sparkopt.typing import Array, Seed
from sparkopt.values import dataclass

__all__ = ["BatchMixer", "check_mixing", "paired"]

_TAG = 0x6D6978
"""Keeps these draws apart from those of the rows' order."""


@dataclass(frozen=True)
class BatchMixer:
    """Mixes the batches of an epoch.

    A stream's batch depends on (seed, epoch, stream, step) and its rows, so that it is mixed alike whatever process
    has the stream, in whatever thread, and after a restart.

    Parameters
    ----------
    steps : tuple of BatchMixing
        One of them is drawn for each batch.
    seed, epoch : int
        What the draws depend on.
    """

    steps: tuple[BatchMixing, ...]
    seed: Seed = 0
    epoch: int = 0

    def __call__(self, batch: Batch, stream: int, step: int) -> Batch:
        """Return the batch with two labels and two weights for each row, next to each other: its own first.

        The weights of a row's labels are its own and its partner's, each by its share. They sum up to what the rows
        counted before, since every row is the partner of one.
        """
        rng = np.random.default_rng([self.seed, self.epoch, stream, step, _TAG])
        chosen = self.steps[int(rng.integers(len(self.steps)))]
        if isinstance(chosen, CutMix) and batch.target.ndim > 2:
            raise ParameterError(
                f"CutMix mixes labels by area, and a row's label has {tuple(batch.target.shape[1:])} numbers, for "
                "places of its own. Take MixUp."
            )
        inputs, partners, share = chosen.mixed([tensor.numpy() for tensor in batch.inputs], rng)
        label = _beside(batch.target, batch.target[partners])
        weight = _beside(batch.weight * share, batch.weight[partners] * (1 - share))
        return Batch(tuple(map(_tensor, inputs)), label, weight, batch.counted)


def paired(output: torch.Tensor) -> torch.Tensor:
    """Return an output with each row twice, for the two labels of a mixed row."""
    return output.repeat_interleave(2, 0)


def check_mixing(fields: Fields, steps: tuple[BatchMixing, ...], batch_size: int) -> None:
    """Refuse what cannot be mixed, before any job.

    Raises
    ------
    ParameterError
        Naming the column and the way out.
    """
    if batch_size < 2:
        raise ParameterError("batchMixing mixes the rows of a batch, and batchSize is 1. Set it to 2 or more.")
    if fields.label is not None and fields.label.kind == "points":
        raise ParameterError(f"batchMixing mixes labels by their loss, and {fields.label.target} have no such mean.")
    for one in fields.inputs:
        if one.padded:
            raise ParameterError(
                f"batchMixing mixes arrays of one shape, and features column {one.title!r} holds lists that are "
                "padded. Leave batchMixing out."
            )
        if one.whole and one.kind in ("number", "array"):
            raise ParameterError(
                f"batchMixing mixes fractional numbers and images, and features column {one.title!r} holds whole "
                "numbers. Cast it to float, or leave batchMixing out."
            )
    if any(isinstance(step, CutMix) for step in steps):
        odd = [one.title for one in fields.inputs if one.kind in ("number", "vector")]
        if fields.label is not None and fields.label.target is not None:
            raise ParameterError(
                f"CutMix mixes labels by area, and label column {fields.label.title!r} holds masks, of places of "
                "their own. Take MixUp."
            )
        if odd or len(fields.inputs) > 1:
            raise ParameterError(
                "CutMix takes one input of images, (n, channels, height, width), and the features are "
                f"{', '.join(one.title for one in fields.inputs)}. Take MixUp."
            )


def _beside(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.stack([own, other], 1).flatten(0, 1)


def _tensor(values: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
