"""How the driver engine adds up its tasks' sums: all on the driver, in a tree, or in slices.

All three add in a fixed order, so equal data and partitions give bit-identical sums. With p partitions and a sum of
s bytes, the driver receives p·s bytes from ``collect``, about √p·s from a tree of depth 2, and s from slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparkopt.blocks.store import BlockStore, Result
from sparkopt.blocks.tasks import PartFunction
from sparkopt.communication.encoding import CommunicatedSum
from sparkopt.communication.sums import TaskSum, fold
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark import RDD  # clients of Spark Connect alone have none

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


def sliced(store: BlockStore, task: PartFunction[TaskSum], slices: int) -> Sums:
    """Cut each sum into slices, add up slice by slice on the executors, and join the slices here.

    No process handles more than one whole sum and ``partitions`` slices.
    """
    found = sorted(store.grouped(task, _Cut(slices), _fold_group, slices), key=lambda piece: piece.partition)
    whole = [piece.value for piece in found if piece.value is not None]
    return [Result(0, merge(whole) if len(whole) == slices else None)]


def merge(slices: Sequence[TaskSum]) -> TaskSum:
    """Join the slices of one sum: costs are those of the first, and the bytes that the others were sent in last."""
    first, others = slices[0], [piece.sums for piece in slices[1:]]
    return replace(
        first,
        sums=CommunicatedSum.joined([piece.sums for piece in slices]),
        raw=first.raw + sum(one.raw_bytes for one in others),
        encoded=first.encoded + sum(one.sent_bytes for one in others),
    )


@dataclass(frozen=True)
class _ByGroup:
    """Group number to result."""

    groups: int

    def __call__(self, result: Result[TaskSum]) -> tuple[int, Result[TaskSum]]:
        return result.partition % self.groups, result


@dataclass(frozen=True)
class _Cut:
    """One sum to its slices, each with its number."""

    slices: int

    def __call__(self, result: Result[TaskSum]) -> Iterator[tuple[int, Result[TaskSum]]]:
        whole = result.value
        if whole is None:
            yield from ((index, result) for index in range(self.slices))
            return
        for index, piece in enumerate(whole.sums.cut(self.slices)):
            yield index, Result(result.partition, replace(whole, sums=piece))


def _fold_group(pair: tuple[int, Iterable[Result[TaskSum]]]) -> Result[TaskSum]:
    """Add up one group of the tree; a missing member makes the group missing."""
    index, members = pair[0], list(pair[1])
    return Result(index, None if any(member.value is None for member in members) else fold(members).leaving())


def _identity(key: int) -> int:
    return key
