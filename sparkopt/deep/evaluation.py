"""How good a network's predictions are: metrics over the rows of a DataFrame, or of a table without Spark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame
from torch import nn

from sparkopt.blocks.tables import named_table
from sparkopt.deep.losses import RowLoss
from sparkopt.deep.metrics import METRICS, Metric, build_metrics, by_name, check_metrics, mean_of
from sparkopt.deep.outputs import on_scale
from sparkopt.deep.scorer import NetworkScorer, placed
from sparkopt.errors import DataError, IncompatibleError
from sparkopt.launch import LocalCommunicator
from sparkopt.machine import Table
from sparkopt.shards.dense import dense
from sparkopt.shards.fields import Field, Fields, MissingValueError
from sparkopt.shards.missing import RowCheck
from sparkopt.values import dataclass

__all__ = ["default_metrics", "evaluated"]


def default_metrics(task: str) -> dict[str, str]:
    """Return the metrics of a task that have a name: accuracy of classes and labels, errors of values and counts."""
    names = ("mse", "rmse", "mae") if task in ("values", "counts") else ("accuracy",)
    return {name: name for name in names}


def evaluated(
    rows: DataFrame | Table, scorer: NetworkScorer, fields: Fields, metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """Return metrics by name.

    Parameters
    ----------
    rows : DataFrame or Table
        What to evaluate on.
    scorer : NetworkScorer
        The network, and the columns of its inputs.
    fields : Fields
        Label and weight.
    metrics : dict
        Names of metrics, and the metrics.

    Raises
    ------
    IncompatibleError
        For a metric of torchmetrics over a DataFrame.
    """
    metrics = by_name(metrics)
    check_metrics(metrics)
    if not metrics:
        return {}
    run = _Evaluation(scorer, Fields(scorer.fields.inputs, fields.label, fields.weight), metrics)
    if isinstance(rows, Table):
        names = list(dict.fromkeys(name for entry in run.fields.all for name in entry.columns))
        parts = named_table(rows, names).partitions
        batches = (_selected(batch, run.fields) for part in parts for batch in part.batches(names))
        return {name: metric.compute(LocalCommunicator()) for name, metric in run.over(batches).items()}
    others = [name for name, metric in metrics.items() if not isinstance(metric, str)]
    if others:
        raise IncompatibleError(
            f"metric {others[0]!r} is one of torchmetrics, which is computed on one machine: evaluate a table, such "
            f"as df.toArrow(), or take {', '.join(METRICS)}."
        )
    found = run.fields.select(rows).mapInArrow(run, "name string, total double, weight double").collect()
    return {
        name: mean_of(metric, *(sum(row[key] for row in found if row["name"] == name) for key in ("total", "weight")))
        for name, metric in metrics.items()
    }


def _selected(batch: pa.RecordBatch, fields: Fields) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({entry.name: entry.taken(batch) for entry in fields.all})


@dataclass(frozen=True)
class _Evaluation:
    """Evaluates batches of Arrow; in a task of Spark, it gives the sums of each metric."""

    scorer: NetworkScorer
    fields: Fields
    metrics: dict[str, Any]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = [(name, *metric.sums) for name, metric in self.over(batches).items()]
        names, totals, weights = zip(*found, strict=True)
        yield pa.RecordBatch.from_pydict({"name": list(names), "total": list(totals), "weight": list(weights)})

    def over(self, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
        """Return the metrics after these batches."""
        aligned = RowLoss(nn.Identity(), self.scorer.outputs.task).aligned
        with self.scorer.network() as (network, device):
            metrics, first = build_metrics(self.metrics, device), 0
            for batch in self._slices(batches):
                columns = [batch.column(entry.name) for entry in self.fields.all]
                if self.scorer.keeps:
                    valid = RowCheck(self.fields.all, self.scorer.pipeline).valid(columns)
                    columns = columns if valid is None else [column.filter(pa.array(valid)) for column in columns]
                if len(columns[0]):
                    self._update(metrics, network, columns, aligned, first)
                first += batch.num_rows
        return metrics

    def _slices(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for start in range(0, batch.num_rows, self.scorer.batch_size):
                yield batch.slice(start, self.scorer.batch_size)

    def _update(
        self, metrics: Mapping[str, Metric], network: Any, columns: list[pa.Array], aligned: Any, first: int
    ) -> None:
        inputs = columns[: len(self.fields.inputs)]
        output = network(inputs, first)
        truth = [
            _values(entry, column, first) for entry, column in zip(self._truth, columns[len(inputs) :], strict=True)
        ]
        weight = truth[1].float() if len(truth) > 1 else torch.ones(len(truth[0]))
        output, target = aligned(output, truth[0].to(output.device))
        for metric in metrics.values():
            metric.update(on_scale(self.scorer.outputs.task, output), target, weight.to(output.device))

    @property
    def _truth(self) -> tuple[Field, ...]:
        return self.fields.all[len(self.fields.inputs) :]


def _values(entry: Field, column: pa.Array, first: int) -> torch.Tensor:
    """Return labels or weights of rows, of which the first has this number in its partition."""
    try:
        return torch.from_numpy(np.array(dense(entry, column)))
    except DataError as error:
        hint = " Filter such rows, or set handleInvalid='skip'." if isinstance(error, MissingValueError) else ""
        raise DataError(f"{entry.role} column {entry.title!r}, {placed(error, first)}.{hint}") from None
