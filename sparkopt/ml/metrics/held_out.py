"""Metrics of a search's models on the rows of their held-out folds, from the blocks that they were trained on.

All models of all folds are scored in the same pass. Scores have the bits of ``transform``, so equal rows tie. Areas
under curves of many scores take two passes: a few rows say at which scores to count, all rows are counted there.
"""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.ml.evaluation import Evaluator

from sparkopt.blocks.backend import Shared
from sparkopt.blocks.block import Block, Blocks, Part, every
from sparkopt.blocks.store import BlockStore
from sparkopt.errors import IncompatibleError
from sparkopt.matrices import PartlyDense
from sparkopt.ml.arithmetic import products
from sparkopt.ml.metrics.evaluators import Measure, measure_of
from sparkopt.ml.metrics.tallies import OF_TWO, ScoreTally, Tally, merged
from sparkopt.ml.scores import LinearScores, Scores
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["held_out_metrics"]

SAMPLE = 2
"""Rows of a fold in the sample, in units of the distinct scores that are counted one by one."""

Tallies = list[list[Tally]]
"""By fold and model."""


def held_out_metrics(
    store: BlockStore, models: Sequence[Sequence[Any]], evaluator: Evaluator, first: int = 0
) -> list[list[float]] | None:
    """Return the metric of each fold's models on the fold's rows, or None where only the evaluator can compute it.

    Parameters
    ----------
    store : BlockStore
        The rows, with folds.
    models : sequence of sequences of LinearModel
        By fold; each fold has as many, of one kind.
    evaluator : Evaluator
        Computes the metric that is wanted.
    first : int, default 0
        The first of these folds.
    """
    if store.columns.combine is not None:  # a target that is made of several columns is no label
        return None
    measure = measure_of(evaluator, store.columns)
    if measure is None or not all(store.fold_rows(first + fold) for fold in range(len(models))):
        return None
    if isinstance(measure.tally(), ScoreTally):
        classes = max((getattr(model, "numClasses", 2) for fold in models for model in fold), default=2)
        if classes > 2:
            raise IncompatibleError(f"the models are of {classes} classes: {OF_TWO}")
    outputs = [_output_of(model, measure) for model in models[0]]
    if not all(outputs):
        return None
    names = [str(output) for output in outputs]
    plan = _Plan([_Fold.of(fold, names) for fold in models], names, measure.weighs, first)
    empty = [[measure.tally() for _ in fold] for fold in models]
    found = _taken(store, plan, empty)
    metrics = [[measure.value(tally) for tally in fold] for fold in found]
    known = [[metric for metric in fold if metric is not None] for fold in metrics]
    return known if all(len(fold) == len(models[0]) for fold in known) else None


def _output_of(model: Any, measure: Measure) -> str | None:
    """Return the key of the output column that is judged, None where there is none."""
    return next((key for key, (name, _) in model._output_columns().items() if name == measure.column), None)


def _taken(store: BlockStore, plan: _Plan, empty: Tallies) -> Tallies:
    """Return the tallies of all rows."""
    step, shared = _step(store, empty), store.share(pickle.dumps(plan))
    try:
        passes = _Passes(store, uuid.uuid4().hex, shared)
        found = passes.tallies(empty, step)
        if step > 1 and any(_is_complete(tally) for fold in found for tally in fold):
            found = passes.tallies(empty)
        if not all(_is_complete(tally) for fold in found for tally in fold):
            # all are counted again, at the scores that this pass found
            again: Tallies = [[tally.at() for tally in fold if isinstance(tally, ScoreTally)] for fold in found]
            found = passes.tallies(again)
    finally:
        shared.destroy()
    return found


def _step(store: BlockStore, empty: Tallies) -> int:
    """Return of how many rows one is enough to see that a fold has more scores than are counted one by one."""
    first = empty[0][0]
    if not isinstance(first, ScoreTally):
        return 1
    folds = store.columns.folds or len(empty)
    return max(1, int(sum(store.rows) / (SAMPLE * first.limit * folds)))


def _is_complete(tally: Tally) -> bool:
    return not isinstance(tally, ScoreTally) or tally.complete


@dataclass(frozen=True)
class _Passes:
    """Passes over the rows of a store, with one plan."""

    store: BlockStore
    key: str
    plan: Shared

    def tallies(self, empty: Tallies, step: int = 1) -> Tallies:
        """Return the tallies of all partitions, of all rows or one of ``step``, merged in their order."""
        shared = self.store.share(pickle.dumps(empty))
        try:
            results = self.store.collect(_Count(self.key, self.plan, shared, step), self.store.slots)
        finally:
            shared.destroy()
        parts = [result.value for result in results if result.value is not None]
        return [
            [merged([part[fold][model] for part in parts]) for model in range(len(empty[0]))]
            for fold in range(len(empty))
        ]


@dataclass(frozen=True)
class _Fold:
    """All models of a fold, as one matrix."""

    scores: list[Scores]
    matrix: Floats
    intercept: Floats
    starts: list[int]
    is_linear: bool
    is_margin: bool
    """Whether the output that is judged is the raw prediction itself, the only one of each model."""

    @classmethod
    def of(cls, models: Sequence[Any], outputs: Sequence[str]) -> _Fold:
        """Stack the models."""
        arrays = [model.arrays for model in models]
        matrix, intercept = (np.concatenate(column) for column in zip(*arrays, strict=True))
        starts = np.cumsum([0, *(len(values) for _, values in arrays)]).tolist()
        scores = [model._scores for model in models]
        is_linear = all(isinstance(one, LinearScores) for one in scores)
        is_margin = is_linear and len(matrix) == len(models) and set(outputs) == {"rawPrediction"}
        return cls(scores, matrix, intercept, starts, is_linear, is_margin)

    def count_near(self, block: Block, weight: Floats, tallies: Sequence[ScoreTally]) -> None:
        """Count a block's dense rows at given scores by fast products; those near one of them by exact ones.

        The sums of both are within γ ‖x‖ ‖w‖ of the true one (Higham, 2002, *Accuracy and stability of numerical
        algorithms*, §3.1), and what is added to them rounds once more each.
        """
        X = np.asarray(block.X, np.float64)
        raw = self.matrix @ X.T + self.intercept[:, None]
        offset = np.zeros(block.rows) if block.offset is None else block.offset
        raw += offset
        lengths = np.sqrt(np.einsum("ij,ij->i", X, X))
        rounding = 4 * (X.shape[1] + 8) * float(np.finfo(np.float64).eps)
        for number, (tally, near) in enumerate(zip(tallies, raw, strict=True)):
            coefficients, intercept = self.matrix[number : number + 1], float(self.intercept[number])
            most = lengths * float(np.linalg.norm(coefficients)) + abs(intercept) + np.abs(offset)

            def exact(
                rows: NDArray[np.intp], coefficients: Floats = coefficients, intercept: float = intercept
            ) -> Floats:
                found = products(X[rows], coefficients)[:, 0] + intercept
                return found if block.offset is None else found + block.offset[rows]

            tally.add_near(block.y, weight, near, rounding * most, exact)

    def raw(self, block: Block) -> list[Array]:
        """Return the raw predictions of each model, with the sums that scoring a table makes."""
        X = block.X.tocsr() if isinstance(block.X, PartlyDense) else block.X
        if not self.is_linear:
            return [one.raw(X) for one in self.scores]
        raw = products(X, self.matrix) + self.intercept
        if block.offset is not None:
            raw = raw + block.offset[:, None]
        return np.split(raw, self.starts[1:-1], axis=1)


@dataclass(frozen=True)
class _Plan:
    """What is tallied: an output of each fold's models."""

    folds: list[_Fold]
    outputs: list[str]
    weighs: bool
    first: int

    def count(self, blocks: Iterator[Block], tallies: Tallies) -> None:
        """Add rows to the tallies of their fold."""
        for block in blocks:
            place = block.fold - self.first
            if not 0 <= place < len(self.folds):
                continue
            weight = block.weight if self.weighs and block.weight is not None else np.ones(block.rows)
            fold = self.folds[place]
            fixed = [tally for tally in tallies[place] if isinstance(tally, ScoreTally) and tally.fixed]
            if fold.is_margin and isinstance(block.X, np.ndarray) and len(fixed) == len(tallies[place]):
                fold.count_near(block, weight, fixed)
                continue
            judged = zip(fold.scores, self.outputs, fold.raw(block), tallies[place], strict=True)
            for scores, key, raw, tally in judged:
                found = scores.output(key, raw)
                if isinstance(tally, ScoreTally) and found.ndim > 1:
                    found = found[:, 1]
                tally.add(block.y, weight, found)


@dataclass(frozen=True)
class _Count:
    """The task: one partition's tallies."""

    key: str
    plan: Shared
    empty: Shared
    step: int

    def __call__(self, part: Part, blocks: Blocks) -> Tallies:
        plan = _plan_of(self.key, self.plan)
        tallies: Tallies = pickle.loads(self.empty.value)  # noqa: S301  # written by this session's own driver
        rows: Iterator[Block] = chain(
            every(blocks), blocks.validation()
        )  # those for validation are held out like others
        if self.step > 1:
            rows = (block.take(np.arange(0, block.rows, self.step)) for block in rows)
        plan.count(rows, tallies)
        return [[_settled(tally) for tally in fold] for fold in tallies]


_known: dict[str, _Plan] = {}
"""The last plan of this process: its models take longer to load than a partition to count."""


def _plan_of(key: str, shared: Shared) -> _Plan:
    plan = _known.get(key)
    if plan is None:
        plan = pickle.loads(shared.value)  # noqa: S301  # written by this session's own driver
        _known.clear()
        _known[key] = plan
    return plan


def _settled(tally: Tally) -> Tally:
    return tally.settle() if isinstance(tally, ScoreTally) else tally
