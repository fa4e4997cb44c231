"""The held-out rows of a cross-validation, scored by all models of their fold in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.ml.evaluation import Evaluator, JavaEvaluator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import StructType

from sparkopt.blocks.backend import cached, uncached
from sparkopt.blocks.names import quoted
from sparkopt.blocks.row_functions import row_wise
from sparkopt.blocks.validity import valid_rows
from sparkopt.ml.model import INPUTS, LinearModel
from sparkopt.ml.row_scorer import score_in_task

__all__ = ["HeldOut"]

SCORES = "__sparkopt_held_out"


class HeldOut:
    """Every row with the predictions of the models that were not trained on it; a context manager that caches them.

    For pyspark.ml's own evaluators only the columns that their parameters name are kept, for others all columns.

    Parameters
    ----------
    dataset : DataFrame
        All rows.
    fold : str
        Column of each row's fold, null for none.
    models : sequence of sequences of LinearModel
        By fold; each fold has as many.
    evaluator : Evaluator
        Computes the metric.
    """

    def __init__(
        self, dataset: DataFrame, fold: str, models: Sequence[Sequence[LinearModel[Any]]], evaluator: Evaluator
    ) -> None:
        self._fold, self._models, self._evaluator = fold, models, evaluator
        if models[0][0].getHandleInvalid() != "error":
            columns = models[0][0]._columns()
            dataset = valid_rows(
                dataset, columns.features, [columns.label, *columns.more_labels, columns.weight, columns.offset]
            )
        named = _columns_of(evaluator) if isinstance(evaluator, JavaEvaluator) else None
        self._kept = [name for name in dataset.columns if named is None or name in named]
        # an evaluator that reads none of the outputs raises its own error
        self._outputs = [
            model._wanted(dataset.columns, named) or model._wanted(dataset.columns) for model in models[0]
        ]
        others = [name for name in self._kept if name != fold]
        rows = row_wise(dataset, {INPUTS: models[0][0]._inputs(dataset.schema)})
        scores = self._scorer(dataset)(F.col(INPUTS), F.col(quoted(fold)))
        self._scored = rows.select(*map(quoted, [fold, *others]), scores.alias(SCORES))

    def __enter__(self) -> HeldOut:
        self._scored = cached(self._scored)
        return self

    def __exit__(self, *error: object) -> None:
        uncached(self._scored)

    def metric(self, fold: int, model: int) -> float:
        """Return the evaluator's metric of one model on the rows of its held-out fold."""
        rows = self._scored.where(F.col(quoted(self._fold)) == fold)
        own = self._models[fold][model]
        outputs = own._named(self._outputs[model], f"{SCORES}.m{model}")
        return self._evaluator.evaluate(rows.select(*map(quoted, self._kept), *outputs))

    def _scorer(self, dataset: DataFrame) -> Any:
        """Return an Arrow UDF from features and fold to a struct with one entry for each model of the fold."""
        kind = StructType()
        for number, (model, columns) in enumerate(zip(self._models[0], self._outputs, strict=True)):
            kind = kind.add(f"m{number}", model._scores_type(columns))
        score = [
            [score_in_task(model._row_scorer(columns)) for model, columns in zip(models, self._outputs, strict=True)]
            for models in self._models
        ]

        def score_rows(rows: pa.Array, folds: pa.Array) -> pa.Array:
            numbers = folds.fill_null(-1).to_numpy()
            order = np.argsort(numbers, kind="stable")
            pieces = []
            for fold in range(len(score)):
                own = rows.take(pa.array(np.flatnonzero(numbers == fold)))
                scored = [one(own) for one in score[fold]]
                pieces.append(pa.StructArray.from_arrays(scored, [f"m{number}" for number in range(len(scored))]))
            outside = int(np.count_nonzero(numbers < 0))
            joined = pa.concat_arrays([pa.nulls(outside, pieces[0].type), *pieces])
            return joined.take(pa.array(np.argsort(order)))

        score_rows.__annotations__ = {"rows": pa.Array, "folds": pa.Array, "return": pa.Array}
        return arrow_udf(score_rows, kind)  # type: ignore[call-overload]  # its stubs lack struct results


def _columns_of(evaluator: Evaluator) -> set[str]:
    """Return the columns that a pyspark.ml evaluator reads."""
    columns = [param for param in evaluator.params if param.name.endswith("Col") and evaluator.isDefined(param)]
    return {evaluator.getOrDefault(param) for param in columns}
