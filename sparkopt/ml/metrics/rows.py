"""Tallies of a DataFrame's rows: one Spark job without a shuffle, however many tallies are taken."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import Column, DataFrame

from sparkopt.blocks.failures import data_errors
from sparkopt.errors import DataError
from sparkopt.io.worker import spare_modules
from sparkopt.ml.metrics.tallies import ScoreTally, Tally, merged
from sparkopt.typing import Floats
from sparkopt.values import dataclass

__all__ = ["missing", "refuse_nan", "tallies_of", "tally_scores"]

LABEL, WEIGHT = "label", "weight"


def tallies_of(
    df: DataFrame, label: Column, weight: Column, judged: Mapping[str, tuple[Column, Tally]]
) -> dict[str, Tally]:
    """Return a tally of each judged column, taken in one pass.

    Parameters
    ----------
    df : DataFrame
        Scored rows.
    label, weight : Column
        Targets and row weights.
    judged : mapping of str to (Column, Tally)
        What a model says, and the empty tally of it, by a name.

    Raises
    ------
    DataError
        Where there are no rows, or one of these columns is null in a row.
    """
    columns = [column.cast("double").alias(name) for name, (column, _) in judged.items()]
    rows = df.select(label.alias(LABEL), weight.alias(WEIGHT), *columns)
    task = _TallyRows({name: tally for name, (_, tally) in judged.items()})
    with data_errors():
        parts = sorted(rows.mapInArrow(task, "part int, found binary").collect())
    if not parts:
        raise DataError("there are no rows to evaluate: the DataFrame is empty.")
    found = [pickle.loads(part["found"]) for part in parts]  # noqa: S301  # written by this session's own tasks
    return {name: merged([part[name] for part in found]) for name in judged}


def tally_scores(df: DataFrame, label: Column, weight: Column, score: Column, first: ScoreTally) -> ScoreTally:
    """Return the complete tally of scores, from that of a first pass."""
    if first.complete:
        return first
    found: Any = tallies_of(df, label, weight, {"score": (score, first.at())})
    counted: ScoreTally = found["score"]
    return counted


@dataclass(frozen=True)
class _TallyRows:
    """The task: one partition's tallies as a row; none where it has no rows."""

    empty: Mapping[str, Tally]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        spare_modules()
        tallies, any_rows = deepcopy(dict(self.empty)), False
        for batch in batches:
            if not batch.num_rows:
                continue
            any_rows = True
            y, weight = (_numbers(batch, name) for name in (LABEL, WEIGHT))
            refuse_nan(y)
            for name, tally in tallies.items():
                tally.add(y, weight, _numbers(batch, name))
        if any_rows:
            for tally in tallies.values():
                if isinstance(tally, ScoreTally):
                    tally.settle()
            context = TaskContext.get()
            part = context.partitionId() if context else 0
            yield pa.RecordBatch.from_pydict(
                {"part": pa.array([part], pa.int32()), "found": pa.array([pickle.dumps(tallies)], pa.binary())}
            )


def refuse_nan(labels: Floats) -> None:
    """Refuse labels that are no number, as null is refused.

    Raises
    ------
    DataError
        With their number.
    """
    if count := int(np.isnan(labels).sum()):
        raise DataError(f"label is NaN in {count} rows: they cannot be evaluated. Leave them out.")


def missing(name: str, count: int) -> str:
    """Return the error of rows without a value that is evaluated."""
    if name in ("share", "shares"):  # the probability of the row's class
        return f"label is none of the model's classes in {count} rows: they cannot be evaluated. Leave them out."
    return f"{name} is null in {count} rows: they cannot be evaluated. Leave them out."


def _numbers(batch: pa.RecordBatch, name: str) -> Floats:
    column = batch.column(name)
    if column.null_count:
        raise DataError(missing(name, column.null_count))
    found: Floats = column.to_numpy(zero_copy_only=False)
    return found
