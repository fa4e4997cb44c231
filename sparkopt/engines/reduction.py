"""How the driver engine brings its tasks' sums together: all to the driver, as a tree, or cut into slices.

All three add in a fixed order, so equal data and partitions give bit-identical sums. With p partitions and a sum of
s bytes, the driver receives p·s bytes from ``collect``, about √p·s from a tree of depth 2, and s from slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from pyspark import RDD

from sparkopt.blocks.store import Result
from sparkopt.communication.encoding import EncodedGradient, unpacked
from sparkopt.communication.sums import TaskSum, fold
from sparkopt.typing import Floats

__all__ = ["levels", "merge", "sliced", "tree"]

Sums = Sequence[Result[TaskSum]]


def levels(partitions: int, depth: int) -> list[int]:
    """Return the number of sums after each level of a tree, as ``RDD.treeAggregate`` chooses them."""
    scale = max(2, int(-(-(partitions ** (1.0 / depth)) // 1)))
    counts = []
    while partitions > scale + -(-partitions // scale):
        partitions //= scale
        counts.append(partitions)
    return counts


def tree(results: RDD[Result[TaskSum]], depth: int) -> Sums:
    """Add up in groups on the executors, level by level."""
    for count in levels(results.getNumPartitions(), depth):
        keyed: RDD[Any] = results.map(_ByGroup(count)).groupByKey(count, _identity)
        results = keyed.map(_fold_group)
    return results.collect()


def sliced(results: RDD[Result[TaskSum]], slices: int) -> Sums:
    """Cut each sum into slices, add up slice by slice on the executors, and join the slices here.

    No process handles more than one whole sum and ``partitions`` slices.
    """
    pieces: RDD[Any] = results.flatMap(_Cut(slices)).groupByKey(slices, _identity)
    found = sorted(pieces.map(_fold_group).collect(), key=lambda piece: piece.partition)
    whole = [piece.value for piece in found if piece.value is not None]
    return [Result(0, merge(whole) if len(whole) == slices else None)]


def merge(pieces: Sequence[TaskSum]) -> TaskSum:
    """Join the slices of one sum; all but the gradient is in the first, and the bytes of the others' last way."""
    first, others = pieces[0], [piece.partial.gradient for piece in pieces[1:]]
    gradient = np.concatenate([unpacked(piece.partial).gradient for piece in pieces], axis=1)
    raw, encoded = sum(8 * prod(one.shape) for one in others), sum(one.nbytes for one in others)
    return _with_gradient(replace(first, raw=first.raw + raw, encoded=first.encoded + encoded), gradient)


def _with_gradient(whole: TaskSum, gradient: Floats) -> TaskSum:
    return replace(whole, partial=replace(whole.partial, gradient=gradient))


def _pieces(gradient: Floats | EncodedGradient, slices: int) -> list[Any]:
    """Cut a gradient; one that is encoded was encoded in slices."""
    if isinstance(gradient, EncodedGradient):
        return list(gradient.cut())
    return [np.ascontiguousarray(piece) for piece in np.array_split(gradient, slices, axis=1)]


@dataclass(frozen=True)
class _ByGroup:
    """Group number to result."""

    groups: int

    def __call__(self, result: Result[TaskSum]) -> tuple[int, Result[TaskSum]]:
        return result.partition % self.groups, result


@dataclass(frozen=True)
class _Cut:
    """One sum to its slices, each with its number; what is not the gradient travels with each, and is small."""

    slices: int

    def __call__(self, result: Result[TaskSum]) -> Iterator[tuple[int, Result[TaskSum]]]:
        whole = result.value
        if whole is None:
            yield from ((index, result) for index in range(self.slices))
            return
        for index, gradient in enumerate(_pieces(whole.partial.gradient, self.slices)):
            yield index, Result(result.partition, _with_gradient(whole, gradient))


def _fold_group(pair: tuple[int, Iterable[Result[TaskSum]]]) -> Result[TaskSum]:
    """Add up one group of the tree; a missing member makes the group missing."""
    index, members = pair[0], list(pair[1])
    return Result(index, None if any(member.value is None for member in members) else fold(members).leaving())


def _identity(key: int) -> int:
    return key
