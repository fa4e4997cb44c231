"""Isotonic regression: the ascending function of a score that is nearest to the labels in least squares."""

from __future__ import annotations

import numpy as np

from sparkopt.blocks.block import Blocks, Part, every
from sparkopt.blocks.store import BlockStore
from sparkopt.matrices import as_csr
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["ascending", "isotonic_points"]


def isotonic_points(store: BlockStore) -> tuple[Floats, Floats]:
    """Return the points between which the ascending function is linear: scores, and their values.

    Parameters
    ----------
    store : BlockStore
        Rows whose last feature is the score. Their distinct scores are sorted on the driver.
    """
    results = store.collect(_Scores(), store.slots)
    parts = [result.value for result in results if result.value is not None]
    scores, weights, sums = _by_score(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    values = ascending(sums / weights, weights)
    inside = np.ones(len(values), bool)  # of equal values in a row, the first and the last are enough
    inside[1:-1] = (values[1:-1] != values[:-2]) | (values[1:-1] != values[2:])
    return scores[inside], values[inside]


@dataclass(frozen=True)
class _Scores:
    """The task: a partition's distinct scores, with their weights and their weighted sums of labels."""

    def __call__(self, part: Part, blocks: Blocks) -> tuple[Floats, Floats, Floats]:
        found = [np.zeros((3, 0))]
        for block in every(blocks):
            X = block.X if isinstance(block.X, np.ndarray) else as_csr(block.X)[:, [-1]].toarray()
            score = np.asarray(X[:, -1], np.float64)
            weight = np.ones(block.rows) if block.weight is None else block.weight
            found.append(np.stack([score, weight, weight * block.y]))
        scores, weights, sums = np.concatenate(found, axis=1)
        return _by_score(scores, weights, sums)


def _by_score(scores: Floats, weights: Floats, sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Return distinct scores of positive weight, ascending, with the sums of the others."""
    distinct, place = np.unique(scores, return_inverse=True)
    weight, total = (np.bincount(place, values, len(distinct)).astype(np.float64) for values in (weights, sums))
    kept = weight > 0
    return distinct[kept], weight[kept], total[kept]


def ascending(values: Array, weights: Array) -> Floats:
    """Return the nearest ascending numbers in weighted least squares, by pooling adjacent violators.

    Barlow et al., 1972, *Statistical inference under order restrictions*, §1.2: neighbours in the wrong order are
    replaced by their mean, until there are none.

    Examples
    --------
    >>> import numpy as np
    >>> ascending(np.array([1.0, 3.0, 2.0, 4.0]), np.ones(4)).tolist()
    [1.0, 2.5, 2.5, 4.0]
    """
    means: list[float] = []
    totals: list[float] = []
    counts: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, count = value, weight, 1
        while means and means[-1] >= mean:
            before, other = means.pop(), totals.pop()
            mean = (mean * total + before * other) / (total + other)
            total, count = total + other, count + counts.pop()
        means.append(mean)
        totals.append(total)
        counts.append(count)
    return np.repeat(np.array(means, dtype=np.float64), np.array(counts, dtype=np.intp))
