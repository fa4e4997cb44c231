"""``explain`` predicts what ``fit`` then does."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from pyspark.ml.linalg import Vectors
from pyspark.sql import functions as F

from sparkopt.codecs.gradient import Sparse
from sparkopt.engines import DataProfile, FitPlan
from sparkopt.engines.base import FitSize
from sparkopt.engines.driver import DriverEngine
from sparkopt.engines.resident import ResidentEngine
from sparkopt.engines.selection import choose
from sparkopt.errors import DataError, SchemaError
from sparkopt.ml import LinearRegression, LogisticRegression


@pytest.fixture(scope="module")
def dense(spark):
    rows = spark.range(0, 3000, 1, 3).select(
        "id", F.array(*[F.randn(i).cast("float") for i in range(5)]).alias("features")
    )
    return rows.withColumn("label", (F.col("features")[0] > 0).cast("double")).cache()


def test_what_is_explained_is_what_happens(dense):
    plan = LogisticRegression(maxIter=3, tol=0.0).explain(dense)
    receipt = LogisticRegression(maxIter=3, tol=0.0).fit(dense).summary.receipt
    assert sum(plan.data.rows) == receipt.rows == 3000
    assert plan.data.partitions == receipt.partitions == 3
    assert plan.coefficients == receipt.features + 1 == 6
    assert plan.engine.name == receipt.engine == "local"
    assert plan.choice.size.stored == pytest.approx(receipt.bytes["stored"], rel=0.1)
    assert "3,000 x 5 features, dense" in str(plan)
    assert plan.advice == []


def test_sparse_rows_and_many_classes(spark):
    rows = [(Vectors.sparse(1000, [i % 1000, 999 - i % 400], [1.0, 2.0]), i % 4) for i in range(600)]
    df = spark.createDataFrame(rows, ["features", "label"]).repartition(2)
    plan = LogisticRegression().explain(df)
    assert plan.data.is_sparse
    assert plan.coefficients == 4 * 1001
    assert plan.data.row_entries == 2
    stored = LogisticRegression(maxIter=0).fit(df).summary.receipt.bytes["stored"]
    assert plan.data.row_bytes * 600 == pytest.approx(stored, rel=0.01)


def test_what_compression_would_save_is_explained(dense):
    """Predicted bytes against those of the receipt, on the engine where every sum travels once."""
    told = {}
    for compression in ("none", "fp16", "int8"):
        estimator = LogisticRegression(
            maxIter=3, tol=0.0, optimizer="sgd", stepSize=0.1, engine="resident", compression=compression
        )
        plan, sent = estimator.explain(dense), estimator.fit(dense).summary.receipt
        told[compression] = str(plan)
        one = plan.encoded_bytes(compression)
        assert plan.senders == plan.data.partitions == 3
        assert one * 3 * sent.passes == pytest.approx(sent.bytes["encoded"], rel=0.4), compression
    assert re.search(r"sums           .* a pass, as float64", told["none"])
    assert re.search(r"sums           .* a pass by int8 instead of .*x less", told["int8"])


def test_codecs_that_auto_tries_are_explained():
    data = DataProfile([10**6] * 4, 4, 100_000, 4e5, False, 1.0)
    auto = FitPlan(data, 100_001, choose(FitSize(10**9, 800_008, 4, 4), [ResidentEngine()]), compression="auto")
    told = r"sums +3.2 MB a pass; if the first steps wait for them, auto times fp16 800.. KB, int8 400.. KB, top-k"
    assert re.search(told, str(auto)), str(auto)
    small = replace(auto, choice=choose(FitSize(10**9, 808, 4, 4), [ResidentEngine()]))
    assert "auto tries nothing below" in str(small)
    rows = replace(data, is_sparse=True, row_entries=5.0, rows=[1000] * 4)
    sparse = replace(auto, data=rows, compression="none")
    at_most = Sparse().packed_bytes(100_001, 5001)
    assert sparse.sparse_bytes() == at_most
    assert f"3.2 MB a pass as float64, at most {4 * at_most / 1e3:.1f} KB of them without zeros" in str(sparse)


def test_skew_is_explained(dense):
    lopsided = dense.where("id < 1000 or id % 500 = 1")
    (advice,) = LinearRegression().explain(lopsided).advice
    assert "the largest partition holds 1,000 rows, 3.0 times the mean" in advice
    assert "repartition(3)" in advice


def test_idle_slots_slow_engines_and_shallow_trees_are_explained():
    data = DataProfile([10**6] * 4, 4, 100, 408.0, False, 1.0)
    idle = FitPlan(data, 101, choose(FitSize(10**9, 808, 4, 16), [ResidentEngine()]))
    assert idle.advice == ["4 partitions leave 12 of 16 task slots idle: df.repartition(32)."]
    data = DataProfile([10**4] * 5000, 5000, 100, 408.0, False, 1.0)
    slow = FitPlan(data, 101, choose(FitSize(10**9, 808, 5000, 16), [DriverEngine()]))
    assert "engine resident would be about" in slow.advice[0]
    assert slow.advice[1] == "5000 partitions ask for a deeper tree: aggregationDepth=3."


def test_what_cannot_be_trained_cannot_be_explained(dense):
    with pytest.raises(SchemaError, match="label column 'y' does not exist"):
        LinearRegression(labelCol="y").explain(dense)
    with pytest.raises(DataError, match="no rows"):
        LinearRegression().explain(dense.where("label > 7"))
    for broken in ("NULL", "double('NaN')"):
        rows = dense.withColumn("label", F.expr(f"if(label = 1, {broken}, label)"))
        with pytest.raises(DataError, match=r"label column 'label', partition \d+, row \d+ is (null|nan)"):
            LogisticRegression().explain(rows)
