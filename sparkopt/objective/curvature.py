"""Which rows' curvature a pass adds to the Hessians of its points: all rows, or a sample of each block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sparkopt.blocks.block import Block
from sparkopt.matrices import Features
from sparkopt.objective.hessians import HessianSum, centred
from sparkopt.objective.linear import LinearObjective
from sparkopt.objective.row_sample import RowSample, RowSpacing
from sparkopt.typing import Array

__all__ = ["BlockCurvature", "Curvature"]


class BlockCurvature(Protocol):
    """Adds a block's rows to Hessians, one point after the other."""

    def add(self, targets: Array, raw: Array) -> None:
        """Take the next point's targets and raw predictions."""
        ...

    def end(self) -> None:
        """Add what is left to add, after the last point."""
        ...


class Curvature:
    """What of consecutive blocks of one fold is added to the points' Hessians.

    Parameters
    ----------
    hessians : sequence of HessianSum
        One for each point.
    spacing : RowSpacing
        How many rows one is taken of.
    """

    def __init__(self, hessians: Sequence[HessianSum], spacing: RowSpacing) -> None:
        self._hessians, self._spacing = hessians, spacing
        self._sample: RowSample | None = None

    def of_block(self, block: Block) -> BlockCurvature:
        """Return what takes the next block's raw predictions."""
        if self._spacing.spacing <= 1:
            return _EveryRow(self._hessians, block)
        is_dense = isinstance(block.X, np.ndarray)
        if self._sample is None:  # in sparse rows some features are rare
            by_length = self._spacing.by_length or not is_dense
            self._sample = RowSample(replace(self._spacing, by_length=by_length), block.fold)
        candidates = self._sample.candidates(block.rows)
        loss = self._hessians[0].objective.loss
        if is_dense and loss.outputs == 1 and not loss.auxiliary and not self._sample.by_length:
            return _SampleOfAll(self._hessians, block, self._sample, candidates)
        return _SampleOfEach(self._hessians, block, self._sample, candidates)


class _EveryRow:
    """All rows."""

    def __init__(self, hessians: Sequence[HessianSum], block: Block) -> None:
        self._hessians, self._block = iter(hessians), block

    def add(self, targets: Array, raw: Array) -> None:
        next(self._hessians).add(self._block, targets, raw)

    def end(self) -> None:
        pass


class _SampleOfEach:
    """A sample for each point."""

    def __init__(
        self, hessians: Sequence[HessianSum], block: Block, sample: RowSample, candidates: NDArray[np.intp]
    ) -> None:
        self._hessians, self._block = iter(hessians), block
        self._sample, self._candidates = sample, candidates

    def add(self, targets: Array, raw: Array) -> None:
        next(self._hessians).add_sample(self._sample, self._candidates, self._block, targets, raw)

    def end(self) -> None:
        pass


class _SampleOfAll:
    """The same for dense rows and losses of one raw prediction, of all points together: there may be many.

    A row is taken in proportion to its second derivative and divided by it, so all that are taken weigh the same.
    """

    def __init__(
        self, hessians: Sequence[HessianSum], block: Block, sample: RowSample, candidates: NDArray[np.intp]
    ) -> None:
        self._hessians, self._block = hessians, block
        self._sample, self._candidates = sample, candidates
        self._targets: list[Array] = []
        self._raws: list[Array] = []

    def add(self, targets: Array, raw: Array) -> None:
        self._targets.append(targets[self._candidates])
        self._raws.append(raw[self._candidates])

    def end(self) -> None:
        loss, rows = self._hessians[0].objective.loss, len(self._candidates)
        raw = np.concatenate(self._raws)
        second = loss.hessian_product(np.concatenate(self._targets), raw, np.ones_like(raw))
        second = second.reshape(len(self._hessians), rows).astype(np.float64)
        if self._block.weight is not None:
            second *= self._block.weight[self._candidates]
        chosen = list(self._sample.choose_each(np.abs(second)))
        designs = self._designs([taken for taken, _ in chosen])
        for hessian, signed, (taken, factor), design in zip(self._hessians, second, chosen, designs, strict=True):
            if len(taken):
                hessian.add_design(design, factor, np.sign(signed[taken]))

    def _designs(self, taken: Sequence[NDArray[np.intp]]) -> Iterator[Array]:
        """Yield each model's centred rows; of all candidates where that is less than each one's own."""
        if sum(map(len, taken)) <= len(self._candidates):
            for hessian, rows in zip(self._hessians, taken, strict=True):
                yield centred(hessian.objective, self._block.X[self._candidates[rows]])
            return
        features = self._block.X[self._candidates]
        known: dict[int, Array] = {}  # models of a fold are in the same coordinates
        for hessian, rows in zip(self._hessians, taken, strict=True):
            yield _design(known, hessian.objective, features)[rows]


def _design(known: dict[int, Array], objective: LinearObjective, features: Features) -> Array:
    if id(objective) not in known:
        known[id(objective)] = centred(objective, features)
    return known[id(objective)]
