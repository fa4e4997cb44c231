"""What the driver needs to know of a store's partitions once they are written: handles, and moments added up.

Moments are as wide as gradients. Narrow ones come with the handles. Wide ones are cut into pieces of some features
each, which are added up piece by piece, so that no process holds those of all partitions at once. Every way adds in
the order of partitions, so that not a bit differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from sparkopt.blocks.backend import Backend
from sparkopt.blocks.handles import Handle, MemoryHandle
from sparkopt.blocks.moments import Moments, features, joined, load
from sparkopt.blocks.tasks import moments_paths
from sparkopt.io.worker import spare_modules
from sparkopt.values import dataclass

__all__ = ["PartitionSummary", "moments_of_all"]

INLINE_BYTES = 1 << 16
"""Most bytes of moments that come with a partition's handle."""
SLICE_BYTES = 1 << 20
"""Least bytes of a piece that executors add up."""
COLLECTED_BYTES = 64 << 20
"""Most bytes of pieces that the driver receives at a time where it adds them up itself."""

ByFold: TypeAlias = Mapping[int, Moments]
Pair: TypeAlias = tuple[ByFold, ByFold]
"""Moments of training rows and of validation rows."""


@dataclass(frozen=True)
class PartitionSummary:
    """What the driver needs to know of a written partition.

    Attributes
    ----------
    handle : Handle
        Where its blocks are.
    moments, validation : mapping of int to Moments
        Of training and validation rows, by fold; none without rows.
    features : int or None
        Number of features; None without rows.
    is_whole : bool
        Whether these moments have means and squares: wide ones are left where they are.
    """

    handle: Handle
    moments: Mapping[int, Moments]
    validation: Mapping[int, Moments]
    features: int | None = None
    is_whole: bool = True

    @classmethod
    def read(cls, handle: Handle) -> PartitionSummary:
        """Read the moments next to the blocks: they are needed once, so handles do not contain them."""
        spare_modules()
        if isinstance(handle, MemoryHandle):
            pair = handle.moments[False], handle.moments[True]
            return cls(handle, *pair, next(m.features for by_fold in pair for m in by_fold.values()))
        if not handle.path:
            return cls(handle, {}, {})
        paths = moments_paths(handle.path)
        is_whole = sum(path.stat().st_size for path in paths) <= INLINE_BYTES
        columns = slice(None) if is_whole else slice(-1, None)
        train, validation = (load(path, columns) for path in paths)
        return cls(handle, train, validation, max(map(features, paths)), is_whole)


def moments_of_all(backend: Backend, summaries: Sequence[PartitionSummary]) -> Pair:
    """Return the moments of all training rows and of all validation rows, by fold.

    Parameters
    ----------
    backend : Backend
        What keeps the partitions.
    summaries : sequence of PartitionSummary
        What each has, in the order of partitions, with equal numbers of features.
    """
    if all(summary.is_whole for summary in summaries):
        return _added([(summary.moments, summary.validation) for summary in summaries])
    width = 1 + max(summary.features or 0 for summary in summaries)
    folds = {
        (kind, fold) for s in summaries for kind, found in enumerate((s.moments, s.validation)) for fold in found
    }
    size = 16 * width * len(folds)
    if backend.has_rdds:
        pieces = min(2 * backend.slots, size // SLICE_BYTES)
    else:
        pieces = -(-size * len(summaries) // COLLECTED_BYTES)
    pieces = max(1, min(pieces, width))
    found = backend.added(_Piece(pieces), _added, pieces)
    train, validation = (
        {fold: joined([piece[kind][fold] for piece in found]) for fold in found[0][kind]} for kind in range(2)
    )
    return train, validation


@dataclass(frozen=True)
class _Piece:
    """Reads a piece of a partition's moments: those of some features; the target comes after the last."""

    pieces: int

    def __call__(self, handle: Handle, index: int) -> Pair | None:
        """Return them, or None where their file is missing."""
        spare_modules()
        if not handle.path:
            return {}, {}
        try:
            paths = moments_paths(handle.path)
            columns = self._columns(index, max(map(features, paths)))
            train, validation = (load(path, columns) for path in paths)
        except FileNotFoundError:
            return None
        return train, validation

    def _columns(self, index: int, width: int) -> slice:
        first, last = ((width + 1) * i // self.pieces for i in (index, index + 1))
        return slice(first, last)


def _added(parts: Sequence[Pair]) -> Pair:
    """Add up in the order given: floating-point sums depend on it."""
    train, validation = (_by_fold(pair[kind] for pair in parts) for kind in range(2))
    return train, validation


def _by_fold(parts: Iterable[ByFold]) -> dict[int, Moments]:
    """Sum each fold's moments, in the order of partitions."""
    found: dict[int, Moments] = {}
    for part in parts:
        for fold, moments in part.items():
            found[fold] = found[fold] + moments if fold in found else moments
    return dict(sorted(found.items()))
