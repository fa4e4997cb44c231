"""Folds without Spark: some are missing in partitions and batches, and rows may be sorted by them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkopt import ml
from tests.ml.tables import ROWS, N


def searched(rows, evaluator, folds):
    search = ml.CrossValidator(
        estimator=ml.LogisticRegression(regParam=0.01, tol=1e-12),
        estimatorParamMaps=[{}],
        evaluator=evaluator,
        numFolds=folds,
        foldCol="part",
    )
    return search.fit(rows).avgMetrics[0]


@pytest.mark.parametrize("evaluator", [ml.BinaryClassificationEvaluator(), ml.MulticlassClassificationEvaluator()])
@pytest.mark.parametrize("groups", [7, 31, N])
def test_sorted_and_scattered_rows_have_the_same_metrics(evaluator, groups, tmp_path):
    """In row groups of a few rows, most folds are missing, and sorted rows have one."""
    rows = ROWS.append_column("part", pa.array(np.arange(N) * 7 % 10, pa.int32()))
    found = []
    for name, table in {"scattered": rows, "sorted": rows.sort_by("part")}.items():
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=groups)
        found.append(searched(str(tmp_path / f"{name}.parquet"), evaluator, 10))
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert found[0] == pytest.approx(searched(rows, evaluator, 10), rel=1e-9)


def test_drawn_folds_may_be_missing_in_row_groups(tmp_path):
    pq.write_table(ROWS, tmp_path / "rows.parquet", row_group_size=3)
    search = ml.CrossValidator(
        estimator=ml.LinearRegression(labelCol="amount", regParam=0.1),
        estimatorParamMaps=[{}],
        evaluator=ml.RegressionEvaluator(labelCol="amount"),
        numFolds=10,
        seed=3,
    )
    again = [search.fit(str(tmp_path / "rows.parquet")) for _ in range(2)]
    assert again[0].avgMetrics == again[1].avgMetrics
    assert np.isfinite(again[0].avgMetrics[0])
